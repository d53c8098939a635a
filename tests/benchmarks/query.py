"""One user's features by `wherewhen query`, in process and from the shell, against delta-rs's QueryBuilder by itself.

Example: .venv/bin/python tests/benchmarks/query.py --size 10000
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from statistics import median

import harness
import query_rows

LIMIT_S, SHELL_LIMIT_S = 0.05, 1.0


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--size", type=int, default=100_000, help="users")
    given.add_argument("--times", type=int, default=30, help="questions a run")
    given.add_argument("--runs", type=int, default=3, help="of each, by turns")
    given = given.parse_args()
    here = {**os.environ, "PYTHONPATH": f"{harness.ROOT}"}
    with tempfile.TemporaryDirectory(prefix="wherewhen-bench-") as root:
        user = query_rows.write(root, given.size)
        harness.progress(f"wrote the states of {given.size:,} users")
        runs: dict[str, list[harness.Measured]] = {"ours": [], "bare": []}
        shell = []
        for number in range(given.runs):
            for said, done in runs.items():
                command = [harness.OURS, f"tests/benchmarks/query_{said}.py", root, user, str(given.times)]
                done.append(harness.measured(command, here))
                harness.progress(f"run {number + 1}, {said}: {done[-1].said}")
            shell.append(_from_the_shell(root, user, here))
            harness.progress(f"run {number + 1}, from the shell: {shell[-1]:.2f} s")
        line = harness.line(
            name="query", size=given.size, ours=runs["ours"], peer="querybuilder", peers=runs["bare"], limit=1.0
        )
        exact = {
            f"{said}_{name}": round(median(float(run.said[key]) for run in done), 4)
            for said, done in (("ours", runs["ours"]), ("peer", runs["bare"]))
            for name, key in (("s", "seconds"), ("cpu_s", "cpu_s"))
        }
        same = runs["ours"][0].said["rows"] == runs["bare"][0].said["rows"] == query_rows.INTERESTS
        harness.say(
            {
                **line,
                **exact,
                "ratio": round(exact["peer_s"] / exact["ours_s"], 3),
                "limit_s": LIMIT_S,
                "shell_s": round(median(shell), 2),
                "shell_limit_s": SHELL_LIMIT_S,
                "rows_equal": same,
            }
        )


def _from_the_shell(root: str, user: str, environment: dict[str, str]) -> float:
    joined = query_rows.JOINED.format(mobility="user_mobility", user=user)
    sql = f"SELECT {query_rows.COLUMNS} FROM user_interests {joined}"
    command = [harness.OURS, "-m", "jobs.cli", "--set", f"lake={root}", "query", sql, "--format", "csv"]
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True, env=environment, cwd=harness.ROOT)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
