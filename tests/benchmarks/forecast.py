"""Forecasts of many series by seasonal naive and ETS on Spark, against statsforecast alone on as many cores.

Example: .venv/bin/python tests/benchmarks/forecast.py --size 1000
"""

from __future__ import annotations

import argparse
import os

import harness

LIMIT = 1.2  # times the peer's time


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--size", type=int, default=10_000, help="series, each of 182 days")
    given.add_argument("--runs", type=int, default=3, help="of each, by turns")
    given = given.parse_args()
    here = {**os.environ, "PYTHONPATH": f"{harness.ROOT}", "OMP_NUM_THREADS": "1"}
    runs: dict[str, list[harness.Measured]] = {"ours": [], "statsforecast": []}
    for number in range(given.runs):
        for said, done in runs.items():
            command = [harness.OURS, f"tests/benchmarks/forecast_{said}.py", str(given.size)]
            done.append(harness.measured(command, here))
            harness.progress(f"run {number + 1}, {said}: {done[-1].said}, peak {done[-1].peak_mb:.0f} MB")
    line = harness.line(
        name="forecast", size=given.size, ours=runs["ours"], peer="statsforecast", peers=runs["statsforecast"], limit=LIMIT
    )
    same = runs["ours"][0].said["sums"] == runs["statsforecast"][0].said["sums"]
    harness.say({**line, "sums_equal": same})


if __name__ == "__main__":
    main()
