"""The same features in one pass over a matrix in memory, one process, no Spark; one JSON line. Called by series.py."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from series_events import DAYS, HOURS, LAST, counts

from jobs.time_series.features import features_of

_AT_ONCE = 100_000


def main(size: int) -> dict[str, object]:
    began = time.monotonic()
    counts_NP, hours_HP = np.zeros((DAYS, size)), np.zeros((HOURS, size))
    for first in range(0, size, _AT_ONCE):
        number = min(_AT_ONCE, size - first)
        events, hour = counts(first, number)
        counts_NP[:, first : first + number] = events
        np.add.at(hours_HP, (hour, first + np.arange(number)[None, :]), events)
    day = np.full(size, LAST)
    features_of(counts_NP[:, :10], hours_HP[:, :10], day[:10], 0)
    started = time.monotonic()
    found = features_of(counts_NP, hours_HP, day, 0)
    seconds = time.monotonic() - started
    sums = [
        size, int(found["events_90d"].sum()), int(found["recent"][:, 49].sum()),
        *(round(float(np.nansum(values)), 3) for values in (
            found["trend"], found["season"][:, 0], found["change_p"], found["anomaly_p"],
        )),
    ]  # fmt: skip
    return {"seconds": seconds, "startup_s": started - began, "sums": sums}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(int(sys.argv[2]))) + "\n")
