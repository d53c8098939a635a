"""The one way by which something becomes visible: every commit to a lake, every page and delivery goes through here.

So a commit happens only while the lake is held (`jobs.lake.lock`), and tests can end a run before and after each one.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.lake import lock

# For tests only: N ends this process by SIGKILL at the Nth point that it reaches.
KILL_AT = "WHEREWHEN_TEST_KILL_AT"
_count = itertools.count(1)


@contextmanager
def commit(root: str, what: str) -> Iterator[None]:
    """Commit `what` (a table's name, mostly) to the lake at `root` in the body.

    Raises:
        Refused: the lake was taken over by another process.
    """
    reached(f"before {what}")
    with lock.guarded(root):
        yield
    reached(f"after {what}")


@contextmanager
def delivery(what: str) -> Iterator[None]:
    """Let something outside the lake be seen in the body: a page, what a sink serves."""
    reached(f"before {what}")
    yield
    reached(f"after {what}")


def reached(point: str) -> None:
    """Where tests watch, and end runs."""
    if os.environ.get(KILL_AT) == str(next(_count)):
        sys.stderr.write(f"{KILL_AT}: {point}\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)
