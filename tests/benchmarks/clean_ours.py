"""The two steps on landing folders, as a bootstrap; one JSON line. Called by clean.py in a process of its own."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import harness

from conf.settings import load_settings
from jobs.lake import logs
from jobs.lake.session import start
from jobs.pipeline import choose
from jobs.runner import run


def main(folder: Path, lake: Path, last_day: str) -> None:
    from datetime import date

    overrides = [
        f"lake={lake}",
        f"sources.events.path={folder / 'landing'}",
        f"sources.events.mapping={folder / 'mapping.yaml'}",
    ]
    settings = load_settings(overrides=[*overrides, "spark.master=local[2]"])
    began = time.monotonic()
    spark = start(settings)
    spark.range(1).count()
    ready = time.monotonic()
    outcome = run(spark, settings, date.fromisoformat(last_day), steps=choose(only=("ingest", "clean")), bootstrap=True)
    seconds = time.monotonic() - ready
    import json

    [cleaned] = logs.read(str(lake), "runs", "step = 'clean'")
    days = json.loads(cleaned["details"])["conservation"].values()
    counts = {name: sum(day[name] for day in days) for name in ("rows", "events", "quarantined", "duplicates")}
    steps = {report.step: round(report.seconds, 2) for report in outcome.reports}
    harness.say({"startup_s": ready - began, "seconds": seconds, "counts": counts, "steps": steps})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
