"""A night after 90 and after 900 days of history: one world, the same last days, the same nights.

The short history is the end of the long one (its first folder gets the items and users of the folders left out), so both
lakes take in the same files on their nights, which are run by turns in one Spark session. Steps: ingest to interaction.

Bytes read are Spark's own count (its status store); bytes read of Delta's logs are those that the driver's process reads,
which is where delta-rs works; bytes written are what the lake's folder grew by.

Example: .venv/bin/python tests/benchmarks/night.py --users 200
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import harness
import psutil
from pyspark.sql import SparkSession

sys.path.insert(0, str(harness.ROOT))

from conf.settings import Settings, load_settings
from jobs.lake.session import start
from jobs.pipeline import choose
from jobs.runner import run
from jobs.simulate import World, simulate

# Mid-month: neither history's nights meet a keyframe.
LAST_DAY = date(2024, 6, 20)
HISTORIES = (90, 900)
NIGHTS = 3
LIMIT = 1.3
STEPS = choose(to_step="interaction")


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--users", type=int, default=200, help="simulated users, each with 2.5 events a day")
    given.add_argument("--days", type=int, nargs=2, default=HISTORIES, help="the two histories, in days")
    given = given.parse_args()
    os.environ.setdefault("WHEREWHEN_KEY", "0f" * 32)
    with tempfile.TemporaryDirectory(prefix="wherewhen-bench-") as scratch:
        _measure(Path(scratch), given.users, sorted(given.days))


def _measure(scratch: Path, users: int, histories: list[int]) -> None:
    spark = start(load_settings(overrides=["spark.master=local[2]"]), torch=True)
    short, long = histories
    world = World(users=users, items=200, days=long + NIGHTS, end_day=LAST_DAY, seed=1)
    simulate(spark, scratch / "world", world)
    whole = scratch / "world" / "landing"
    shutil.copytree(whole, scratch / "short")
    _cut(scratch / "short", short + NIGHTS)
    lakes = {short: _settings(scratch, "short", scratch / "short"), long: _settings(scratch, "long", whole)}
    begun = LAST_DAY - timedelta(days=NIGHTS)
    bootstraps = {}
    for days, settings in lakes.items():
        began = time.monotonic()
        run(spark, settings, begun, steps=STEPS, bootstrap=True)
        bootstraps[days] = round(time.monotonic() - began, 1)
        harness.progress(f"bootstrap of {days} days: {bootstraps[days]} s")
    nights: dict[int, list[dict[str, Any]]] = {days: [] for days in lakes}
    for number in range(1, NIGHTS + 1):
        # Whoever comes first finds the session colder: they take turns.
        for days in histories if number % 2 else reversed(histories):
            nights[days].append(_night(spark, lakes[days], begun + timedelta(days=number)))
            harness.progress(f"night {number} after {days} days: {nights[days][-1]}")
    spark.stop()
    harness.say(_line(nights, bootstraps, short, long))


def _settings(scratch: Path, name: str, landing: Path) -> Settings:
    # The bootstrap's selection would try the slow methods for half an hour; these nights select nothing.
    quick = "forecast.slow_series=0"
    overrides = [f"lake={scratch / f'lake-{name}'}", f"sources.events.path={landing}", "spark.master=local[2]", quick]
    return load_settings(overrides=overrides)


def _cut(landing: Path, days: int) -> None:
    """Keep the last folders; the first of them gets what the others say of items and users."""
    folders = sorted(landing.iterdir())
    gone, first = folders[:-days], folders[-days]
    for name in ("items.csv", "users.csv"):
        tables = [
            (folder / name).read_text().splitlines(keepends=True) for folder in [*gone, first] if (folder / name).exists()
        ]
        rows = {line.split(",", 1)[0]: line for lines in tables for line in lines[1:]}
        (first / name).write_text("".join([tables[0][0], *rows.values()]))
    for folder in gone:
        shutil.rmtree(folder)


def _night(spark: SparkSession, settings: Settings, day: date) -> dict[str, Any]:
    before = _bytes(spark, Path(settings.lake))
    began = time.monotonic()
    outcome = run(spark, settings, day, steps=STEPS)
    seconds = time.monotonic() - began
    after = _bytes(spark, Path(settings.lake))
    grown = {name: after[name] - before[name] for name in before}
    return {"seconds": round(seconds, 2), **grown, "steps": {one.step: round(one.seconds, 2) for one in outcome.reports}}


def _bytes(spark: SparkSession, lake: Path) -> dict[str, int]:
    store: Any = spark.sparkContext._jsc.sc().statusStore()  # type: ignore[attr-defined]
    return {
        "spark_read": int(store.executorSummary("driver").totalInputBytes()),
        "driver_read": psutil.Process().io_counters().read_chars,
        "written": sum(path.stat().st_size for path in lake.rglob("*") if path.is_file()),
        "files": sum(path.is_file() for path in lake.rglob("*")),
    }


def _line(nights: dict[int, list[dict[str, Any]]], bootstraps: dict[int, float], short: int, long: int) -> dict[str, Any]:
    def middle(days: int, name: str) -> float:
        return round(median(night[name] for night in nights[days]), 2)

    ours, peer = middle(long, "seconds"), middle(short, "seconds")
    grown = {name: [middle(short, name), middle(long, name)] for name in ("spark_read", "driver_read", "written", "files")}
    return {
        "name": "night",
        "size": long,
        "ours_s": ours,
        "peer": f"the same night after {short} days",
        "peer_s": peer,
        "ratio": round(peer / ours, 3),
        "limit_s": round(LIMIT * peer, 2),
        "ours_all_s": [night["seconds"] for night in nights[long]],
        "peer_all_s": [night["seconds"] for night in nights[short]],
        "bytes": {name: {"peer": of[0], "ours": of[1], "times": round(of[1] / max(1, of[0]), 3)} for name, of in grown.items()},
        "steps_s": {"peer": nights[short][-1]["steps"], "ours": nights[long][-1]["steps"]},
        "bootstraps_s": {"peer": bootstraps[short], "ours": bootstraps[long]},
    }


if __name__ == "__main__":
    main()
