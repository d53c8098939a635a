"""Seconds of each step against the rows that landed: a bootstrap and a night of worlds that differ in their users alone.

Every size is a world of its own with the same items and days, so its users grow with its events. A step's growth is the
slope between the two largest sizes on log-log axes: 1 is linear, 0 does not depend on users. Training and the weekly
selection of forecasts stop by the clock (their settings), whatever the size.

Example: .venv/bin/python tests/benchmarks/scale.py --events 100000 1000000 --plot /tmp/scale.svg
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from math import log
from pathlib import Path

import harness

sys.path.insert(0, str(harness.ROOT))

from jobs.lake import logs
from jobs.simulate import World

LAST_DAY = date(2024, 6, 20)  # mid-month, a Thursday: the night meets no keyframe
ITEMS, DAYS = 2_000, 30
KINDS = ("bootstrap", "night")
Seconds = dict[str, dict[str, float]]  # by kind of run and step


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--events", type=int, nargs="+", default=[100_000, 1_000_000], help="about so many in all days")
    given.add_argument("--set", action="append", default=[], dest="overrides", help="a setting of every run, KEY=VALUE")
    given.add_argument("--plot", type=Path, help="SVG to draw the steps' seconds into")
    given = given.parse_args()
    os.environ.setdefault("WHEREWHEN_KEY", "0f" * 32)
    found: dict[int, Seconds] = {}
    for events in sorted(given.events):
        with tempfile.TemporaryDirectory(prefix="wherewhen-scale-") as scratch:
            rows, seconds = _of_world(Path(scratch), events, given.overrides)
        found[rows] = seconds
        harness.say({"name": "scale", "rows": rows, **seconds})
    harness.say({"name": "scale_growth", "rows": list(found), **{kind: growth(found, kind) for kind in KINDS}})
    if given.plot:
        _draw(found, given.plot)


def _of_world(scratch: Path, events: int, overrides: Sequence[str]) -> tuple[int, Seconds]:
    """Rows that landed, and the seconds of each step in the bootstrap of all days but the last, and in the last's night."""
    per_user = World.events_per_user_day * DAYS
    users = str(max(20, round(events / per_user)))
    _wherewhen("simulate", "--output", str(scratch), "--users", users, "--items", str(ITEMS), "--days", str(DAYS),
               "--end-day", str(LAST_DAY))  # fmt: skip
    lake = scratch / "lake"
    words = [f"lake={lake}", f"sources.events.path={scratch / 'landing'}", f"report.path={scratch / 'report.html'}", *overrides]
    options = [word for setting in words for word in ("--set", setting)]
    seconds, rows = {}, 0
    for kind, day, more in (("bootstrap", LAST_DAY - timedelta(days=1), ["--bootstrap"]), ("night", LAST_DAY, [])):
        _wherewhen(*options, "run", "--day", str(day), *more)
        records = logs.read(str(lake), "runs", f"day = date '{day}' AND status = 'done' AND step != 'night'")
        seconds[kind] = {row["step"]: round(row["seconds"], 1) for row in records}
        rows += sum(row["rows_in"] or 0 for row in records if row["step"] == "ingest")
        harness.progress(f"{events} events, {kind}: {sum(seconds[kind].values()):.0f} s")
    return rows, seconds


def _wherewhen(*words: str) -> None:
    done = subprocess.run(
        [harness.OURS, "-m", "jobs.cli", *words], check=False, cwd=harness.ROOT, capture_output=True, text=True
    )
    # 3: lists are out, and the candidate was refused.
    if done.returncode not in (0, 3):
        raise ValueError(f"wherewhen {' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")


def growth(found: Mapping[int, Seconds], kind: str) -> dict[str, float]:
    """Exponent of each step's seconds in the rows, from the two largest sizes; the steepest first."""
    if len(found) < 2:
        return {}
    (few, before), (many, after) = sorted(found.items())[-2:]
    slopes = {
        step: round(log(max(seconds, 0.1) / max(before[kind][step], 0.1)) / log(many / few), 2)
        for step, seconds in after[kind].items()
        if step in before[kind]
    }
    return dict(sorted(slopes.items(), key=lambda pair: -pair[1]))


def _draw(found: Mapping[int, Seconds], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(KINDS), figsize=(15, 8), sharey=True)
    sizes = sorted(found)
    for axis, kind in zip(axes, KINDS, strict=True):
        by_end = sorted(found[sizes[-1]][kind].items(), key=lambda pair: -pair[1])
        for step, last in by_end:
            axis.loglog(sizes, [max(found[size][kind].get(step, float("nan")), 0.1) for size in sizes], marker="o")
            axis.annotate(f" {step}", (sizes[-1], max(last, 0.1)), fontsize=8, va="center")
        linear = [by_end[0][1] * size / sizes[-1] for size in sizes]
        axis.loglog(sizes, linear, "k:")  # as steep as linear
        axis.set(title=kind, xlabel="rows that landed", ylabel="seconds of a step")
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    main()
