"""Ingest and clean, against the same rules in DuckDB on the same files and cores.

Example: .venv/bin/python tests/benchmarks/clean.py --size 1000000
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import events
import harness

LIMIT = 2.0  # times the peer's time


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--size", type=int, default=10_000_000, help="rows of the log")
    given.add_argument("--days", type=int, default=10, help="landing folders")
    given.add_argument("--runs", type=int, default=3, help="of each, by turns")
    given = given.parse_args()
    here = {**os.environ, "PYTHONPATH": str(harness.ROOT), "WHEREWHEN_KEY": "0f" * 32}
    with tempfile.TemporaryDirectory(prefix="wherewhen-bench-") as scratch:
        folder = Path(scratch) / "log"
        events.write(folder, given.size, given.days)
        harness.progress(f"wrote {given.size:,} rows")
        ours, peers = [], []
        for number in range(given.runs):
            for said, runs, command in (
                (
                    "ours",
                    ours,
                    [harness.OURS, "tests/benchmarks/clean_ours.py", f"{folder}", f"{scratch}/lake", f"{events.LAST_DAY}"],
                ),
                ("duckdb", peers, [harness.PEER, "tests/benchmarks/clean_duckdb.py", f"{folder}", f"{scratch}/duckdb"]),
            ):
                runs.append(harness.measured(command, here))
                shutil.rmtree(command[3])
                harness.progress(f"run {number + 1}, {said}: {runs[-1].said}, peak {runs[-1].peak_mb:.0f} MB")
        line = harness.line(name="clean", size=given.size, ours=ours, peer="duckdb", peers=peers, limit=LIMIT)
        same = ours[0].said["counts"] == peers[0].said["counts"]
        harness.say({**line, "steps_s": ours[-1].said["steps"], "counts": ours[0].said["counts"], "counts_equal": same})


if __name__ == "__main__":
    main()
