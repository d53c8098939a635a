"""An HTTP POST to a URL that is a secret, again where that may help; what is said of a failure names neither URL nor header."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

_LONGEST_WAIT_S = 60.0


def posted(
    request: urllib.request.Request, timeout_s: float, attempts: int, wait: Callable[[float], None] = time.sleep
) -> str | None:
    """Post, again after 1, 2, 4 ... seconds (at most 60) where that may help; gives what went wrong in the end, if anything."""
    problem = None
    for attempt in range(attempts):
        if attempt:
            wait(min(_LONGEST_WAIT_S, 2.0 ** (attempt - 1)))
        problem, may_help = _once(request, timeout_s)
        if problem is None or not may_help:
            break
    return problem


def _once(request: urllib.request.Request, timeout_s: float) -> tuple[str | None, bool]:
    """What went wrong, if anything, and whether another attempt may help."""
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout_s):
            return None, False
    except urllib.error.HTTPError as error:
        error.close()
        return f"the receiver answered {error.code}", error.code in (408, 425, 429) or error.code >= 500
    except (http.client.InvalidURL, UnicodeError):
        return "the URL is not valid", False
    except urllib.error.URLError as error:
        reason = error.reason
        said = (reason.strerror if isinstance(reason, OSError) else None) or type(reason).__name__
        return f"the receiver cannot be reached ({said})", True
    except (OSError, ValueError, http.client.HTTPException) as error:  # of its words none: they may repeat a header
        return f"the receiver did not answer ({type(error).__name__})", True


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A POST that is sent elsewhere would become a GET, and look delivered."""

    def redirect_request(self, *args: Any, **more: Any) -> None:
        return None
