"""Who may write a lake: one holder, or several runs of one day whose steps are disjoint (a scheduler's tasks).

Holders stand in `_lock.json` at the lake's root: who (host, process), doing what, since when, until when. Each
renews its hold while it lives. A holder on this machine whose process is gone is taken over at once, one on another
machine, or one that was paused, when its hold has run out; the clocks of machines that share a lake must agree
within a minute. Whoever lost the lake so cannot commit any more: every commit (`jobs.lake.commits`) looks first, and
nobody takes over while it goes on. Readers need no lock. An object store has none yet: one process at a time is then
up to whoever starts them.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path

from jobs.lake.refused import Refused

log = logging.getLogger("wherewhen")

FILE = "_lock.json"
# Locked by the system while the file is read and written, and while somebody commits; let go whenever a process ends.
GUARD = "_lock.guard"
_SCRATCH = f"{FILE}.new"
FILES = (FILE, _SCRATCH, GUARD)
HOLD_SECONDS = 120.0
RENEWAL_SECONDS = 20.0
_GUARD_WAIT_SECONDS = 60.0
_SAME_START_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Holder:
    """An entry of the file. `started`: seconds from the machine's boot to the process's begin, as pids are used again."""

    id: str
    host: str
    machine: str
    pid: int
    started: float
    doing: str
    day: str | None
    steps: tuple[str, ...]
    since: str
    expires: float

    def goes_with(self, other: Holder) -> bool:
        """Whether both may write at once: two runs of one day that share no step."""
        return self.day is not None and self.day == other.day and not set(self.steps) & set(other.steps)

    def is_gone(self) -> bool:
        """Whether its hold has run out, or its process is no more."""
        return self.expires < time.time() or (self.machine == _machine() and not _runs(self.pid, self.started))

    def __str__(self) -> str:
        return f"{self.doing} (pid {self.pid} on {self.host}, since {self.since})"


# What this thread of execution holds: a backfill's runs are its own.
_held: ContextVar[tuple[tuple[Path, Holder], ...]] = ContextVar("held", default=())


@contextmanager
def held(root: str, doing: str, *, day: date | None = None, steps: Collection[str] = ()) -> Iterator[None]:
    """Hold the lake at `root` while the body writes it; alone, unless `day` and `steps` say what of which day it writes.

    `doing` is what others are told. Within another `held` of the same lake it is part of that one.

    Raises:
        Refused: somebody else holds the lake; says who, since when, and what to do.
    """
    assert (day is None) == (not steps), "a run of a day names its steps"
    if "://" in root:
        log.info("%s: an object store has no lock yet; let nothing else write it meanwhile", root)
        yield
        return
    place = Path(root).resolve()
    mine = _holder(doing, day, steps)
    if (outer := _mine(place)) is not None:
        assert outer.day is None or (outer.day == mine.day and set(mine.steps) <= set(outer.steps)), f"{outer} holds {place}"
        yield
        return
    _enter(place, mine)
    stop = threading.Event()
    renewal = threading.Thread(target=_renew, args=(place, mine.id, stop), daemon=True)
    renewal.start()
    token = _held.set((*_held.get(), (place, mine)))
    try:
        yield
    finally:
        _held.reset(token)
        stop.set()
        renewal.join()
        _leave(place, mine)


@contextmanager
def guarded(root: str) -> Iterator[None]:
    """Commit in the body: nobody takes the lake over meanwhile.

    Raises:
        Refused: the lake is no longer ours.
    """
    if "://" in root:
        yield
        return
    place = Path(root).resolve()
    mine = _mine(place)
    with _guard(place):
        # A step that is run alone, without a runner, holds nothing.
        if mine is not None and mine.id not in {one.id for one in _stored(place)}:
            raise Refused(
                f"{place} was taken over while {mine} stood still for more than {HOLD_SECONDS:.0f} s; "
                "nothing was written since: run it again"
            )
        yield


def _holder(doing: str, day: date | None, steps: Collection[str]) -> Holder:
    pid, now = os.getpid(), time.time()
    started = _started(pid)
    assert started is not None
    return Holder(
        id=uuid.uuid4().hex,
        host=socket.gethostname(),
        machine=_machine(),
        pid=pid,
        started=started,
        doing=doing,
        day=None if day is None else str(day),
        steps=tuple(sorted(steps)),
        since=_clock(now),
        expires=now + HOLD_SECONDS,
    )


def _clock(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _mine(place: Path) -> Holder | None:
    return next((holder for held_place, holder in _held.get() if held_place == place), None)


def _enter(place: Path, mine: Holder) -> None:
    with _guard(place):
        stored = _stored(place)
        others = [one for one in stored if not one.is_gone()]
        for other in others:
            if not mine.goes_with(other):
                raise Refused(_refusal(place, other))
        for gone in stored:
            if gone not in others:
                log.info("%s was held by %s, which is gone: taken over", place, gone)
        _store(place, [*others, mine])


def _refusal(place: Path, other: Holder) -> str:
    what = "end that process"
    if other.machine != _machine():
        what = f"if its process is no more, until {_clock(other.expires)}"
    return f"{place} is held by {other}: wait until it has ended, or {what}; then run this again"


def _renew(place: Path, mine: str, stop: threading.Event) -> None:
    while not stop.wait(RENEWAL_SECONDS):
        try:
            with _guard(place):
                stored = _stored(place)
                if mine not in {one.id for one in stored}:
                    return  # lost: the next commit says so
                expires = time.time() + HOLD_SECONDS
                _store(place, [replace(one, expires=expires) if one.id == mine else one for one in stored])
        except (OSError, ValueError, Refused) as error:
            log.warning("the hold of %s could not be renewed: %s", place, error)


def _leave(place: Path, mine: Holder) -> None:
    try:
        with _guard(place):
            _store(place, [one for one in _stored(place) if one.id != mine.id])
    except (OSError, ValueError, Refused) as error:
        # What ended the body matters more. The hold runs out by itself.
        log.warning("the hold of %s could not be given back: %s", place, error)


def _stored(place: Path) -> list[Holder]:
    path = place / FILE
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    try:
        return [Holder(**{**entry, "steps": tuple(entry["steps"])}) for entry in json.loads(text)["holders"]]
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{path} is not what a lock looks like: remove it, if nothing writes {place}") from None


def _store(place: Path, holders: list[Holder]) -> None:
    """Whole or not at all. The last to leave needs no room for it on a full disk."""
    if not holders:
        (place / FILE).unlink(missing_ok=True)
        return
    scratch = place / _SCRATCH
    try:
        with scratch.open("w") as file:
            json.dump({"holders": [asdict(one) for one in holders]}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(place / FILE)
    except OSError as error:
        # Of a full disk the system does not say where it is.
        raise OSError(error.errno, error.strerror, str(scratch)) from error


@contextmanager
def _guard(place: Path) -> Iterator[None]:
    place.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(place / GUARD, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        deadline = time.monotonic() + _GUARD_WAIT_SECONDS
        while not _locked(descriptor):
            if time.monotonic() > deadline:
                raise Refused(
                    f"{place / GUARD} stays locked: a process that was committing stands still; end it or let it go on"
                )
            time.sleep(0.01)
        yield
    finally:
        # Not by closing alone: a process forked meanwhile has the descriptor too.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@cache
def _machine() -> str:
    """The same for two processes that can judge by a pid whether the other runs: one boot, one process namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux
        return socket.gethostname()


def _runs(pid: int, started: float) -> bool:
    now = _started(pid)
    return now is not None and abs(now - started) < _SAME_START_SECONDS


def _started(pid: int) -> float | None:
    """Seconds from the machine's boot to the process's begin, whatever the clock was set to since; None if it ended."""
    # Here only: `query` reads logs, which import this, and has no time for it.
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process.create_time() - psutil.boot_time()
    except psutil.NoSuchProcess:
        return None
