"""A night's time series features on Spark, against one in-process numpy pass over the same series as a matrix.

Example: .venv/bin/python tests/benchmarks/series.py --size 200000
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import harness
import series_events

LIMIT = 1 / 0.7  # times the peer's time


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--size", type=int, default=1_000_000, help="series, each of 91 days")
    given.add_argument("--runs", type=int, default=3, help="of each, by turns")
    given = given.parse_args()
    here = {**os.environ, "PYTHONPATH": f"{harness.ROOT}", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="wherewhen-bench-") as scratch:
        rows = series_events.write(Path(scratch) / "increments", given.size)
        harness.progress(f"wrote {rows:,} increments of {given.size:,} series")
        runs: dict[str, list[harness.Measured]] = {"ours": [], "numpy": []}
        for number in range(given.runs):
            for said, done in runs.items():
                command = [harness.OURS, f"tests/benchmarks/series_{said}.py", f"{scratch}/increments", str(given.size)]
                done.append(harness.measured(command, here))
                harness.progress(f"run {number + 1}, {said}: {done[-1].said}, peak {done[-1].peak_mb:.0f} MB")
        line = harness.line(name="series", size=given.size, ours=runs["ours"], peer="numpy", peers=runs["numpy"], limit=LIMIT)
        same = runs["ours"][0].said["sums"] == runs["numpy"][0].said["sums"]
        harness.say({**line, "increments": rows, "sums_equal": same})


if __name__ == "__main__":
    main()
