"""What nights cost: seconds and memory of each step, as `runs` tells, and what is usual. No Spark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from statistics import median

from jobs.lake import logs
from jobs.pipeline import STEPS

# Looked at are so many of the newest nights.
NIGHTS = 7
Nights = Mapping[date, Mapping[str, logs.Row]]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A step of a night. `seconds`: as it usually is; `most` of the nights looked at; MiB of the process tree at its peak."""

    step: str
    seconds: float
    most: float
    memory_mb: float | None


def newest_by_day(runs: Iterable[logs.Row]) -> Nights:
    """Of each day the newest of the records of each step of the graph."""
    steps = {step.name for step in STEPS}
    found: dict[date, dict[str, logs.Row]] = {}
    for row in sorted(runs, key=lambda row: row["finished_at"]):
        if row["step"] in steps:
            found.setdefault(row["day"], {})[row["step"]] = row
    return found


def nights(runs: Iterable[logs.Row]) -> Nights:
    """Of each day its steps' newest records that are done; a day of which a bootstrap made some table is no night."""
    done = newest_by_day(row for row in runs if row["status"] == "done")
    return {day: rows for day, rows in done.items() if all(row["first_day"] == day for row in rows.values())}


def usual(known: Nights, *, before: date | None = None) -> dict[str, Cost]:
    """What each step took in the newest nights (before a day); nothing of one that did not run in any."""
    days = sorted(day for day in known if before is None or day < before)[-NIGHTS:]
    found = {}
    for step in (one.name for one in STEPS):
        rows = [known[day][step] for day in days if step in known[day]]
        if rows:
            seconds = [row["seconds"] for row in rows]
            peaks = [row["peak_memory_mb"] for row in rows if row["peak_memory_mb"] is not None]
            found[step] = Cost(step=step, seconds=median(seconds), most=max(seconds), memory_mb=max(peaks, default=None))
    return found


def duration(seconds: float) -> str:
    """
    >>> [duration(one) for one in (3.21, 75, 3720, 200_000)]
    ['3.2 s', '1 min 15 s', '1 h 02 min', '55 h 33 min']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
