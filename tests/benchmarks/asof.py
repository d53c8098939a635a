"""Features as of a million moments by `jobs.features.asof`, against DuckDB's ASOF JOIN on the same files and cores.

Example: .venv/bin/python tests/benchmarks/asof.py --size 100000
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import asof_rows
import harness

LIMIT = 2.0  # times the peer's time


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--size", type=int, default=1_000_000, help="rows that ask")
    given.add_argument("--runs", type=int, default=3, help="of each, by turns")
    given = given.parse_args()
    here = {**os.environ, "PYTHONPATH": f"{harness.ROOT}"}
    with tempfile.TemporaryDirectory(prefix="wherewhen-bench-") as scratch:
        states = asof_rows.write(Path(scratch), given.size)
        harness.progress(f"wrote {given.size:,} moments and {states:,} states")
        runs: dict[str, list[harness.Measured]] = {"ours": [], "duckdb": []}
        for number in range(given.runs):
            for said, done in runs.items():
                done.append(harness.measured([harness.OURS, f"tests/benchmarks/asof_{said}.py", scratch], here))
                harness.progress(f"run {number + 1}, {said}: {done[-1].said}, peak {done[-1].peak_mb:.0f} MB")
        line = harness.line(name="asof", size=given.size, ours=runs["ours"], peer="duckdb", peers=runs["duckdb"], limit=LIMIT)
        same = runs["ours"][0].said["sums"] == runs["duckdb"][0].said["sums"]
        harness.say({**line, "states": states, "features": asof_rows.FEATURES, "sums_equal": same})


if __name__ == "__main__":
    main()
