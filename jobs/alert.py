"""Tells somebody of a refusal or of drift: one JSON POST. Whatever goes wrong with it is a warning, no failure of the run.

The URL is a secret (whoever has it may post): it comes from the environment, and no message names it.
"""

from __future__ import annotations

import json
import logging
import os
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any
from urllib.parse import urlsplit

from conf.settings import Alert, Settings
from jobs.posting import posted

log = logging.getLogger("wherewhen")


def tell(
    settings: Settings,
    day: date,
    *,
    refusals: Sequence[str] = (),
    drift: Sequence[Mapping[str, Any]] = (),
    run_id: str | None = None,
) -> None:
    """Post what a run of `day` refused and which measures are past their bounds; nothing if there are none.

    `drift` holds `subject, measure, value, bound` each.
    """
    if settings.alert.url_env is None or not (refusals or drift):
        return
    said = [f"refused: {refusal}" for refusal in refusals]
    said += [f"drift: {one['subject']} {one['measure']} {one['value']:.4g}, bound {one['bound']:.4g}" for one in drift]
    message = {
        "what": "refused" if refusals else "drift",
        "day": str(day),
        "lake": settings.lake,
        "run_id": run_id,
        "refusals": list(refusals),
        "drift": [dict(one) for one in drift],
        # What chat systems show of a posted message.
        "text": f"wherewhen, {settings.lake}, {day}: {'; '.join(said)}",
    }
    problem = post(settings.alert, message)
    if problem is None:
        log.info("the alert was delivered")
    else:
        log.warning("the alert was not delivered: %s", problem)


def post(settings: Alert, message: Mapping[str, Any], wait: Callable[[float], None] = time.sleep) -> str | None:
    """Post the message, again after 1, 2, 4 ... seconds where that may help; gives what went wrong in the end, if anything."""
    url = os.environ.get(settings.url_env or "", "")
    if not url:
        return f"alert.url_env names {settings.url_env}, which is not set: export it with the URL"
    try:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            return f"{settings.url_env} holds no URL that begins with https:// or http://"
        body = json.dumps(message, default=str).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json", "User-Agent": "wherewhen"})
    except ValueError:  # its message would repeat the URL
        return f"{settings.url_env} holds no valid URL"
    return posted(request, settings.timeout_s, settings.attempts, wait)
