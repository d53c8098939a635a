"""Increments of many series: 91 days, levels from a few events a quarter to some a day, each active on the last day."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DAYS, HOURS, LAST = 91, 24, 19_900
_AT_ONCE = 100_000


def counts(first: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Events per day, (91, size), and the local hour at which those of a day happen, (91, size), of series `first` on."""
    rng = np.random.default_rng([7, first])
    level = np.exp(rng.normal(-2.0, 1.0, size))
    events = rng.poisson(level, (DAYS, size))
    events[-1] = np.maximum(events[-1], 1)
    return events, rng.integers(0, HOURS, (DAYS, size))


def names(first: int, size: int) -> list[str]:
    return [f"user:{number:012x}" for number in range(first, first + size)]


def write(folder: Path, size: int) -> int:
    """Parquet files as the table holds them; gives back how many rows."""
    folder.mkdir()
    written = 0
    for first in range(0, size, _AT_ONCE):
        number = min(_AT_ONCE, size - first)
        events, hour = counts(first, number)
        day, series = np.nonzero(events)
        date = pa.array((LAST - DAYS + 1 + day).astype(np.int32)).cast(pa.date32())
        rows = pa.table(
            {
                "entity": pa.array(names(first, number)).take(pa.array(series)),
                "event_type": pa.array(["check_in"] * len(day)),
                "event_date": date,
                "local_hour": pa.array(hour[day, series].astype(np.int32)),
                "events": pa.array(events[day, series]),
                "day": date,
            }
        )
        pq.write_table(rows, folder / f"part-{first:09}.parquet")
        written += len(day)
    return written
