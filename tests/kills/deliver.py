"""A process that delivers one day's lists to one sink, to be killed: `python deliver.py SETTINGS SINK`, then a day on stdin.

It says `ready` when its JVM is up, `begun` before it delivers, and `done`.
"""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

from conf.settings import Settings
from jobs import export
from jobs.lake import session
from jobs.lake.context import Context
from jobs.lake.runs import pins
from jobs.lake.store import Days, Lake


def say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def main() -> None:
    settings = Settings.model_validate_json(Path(sys.argv[1]).read_text())
    spark = session.start(settings)
    spark.range(1).count()
    say("ready")
    first, day = (date.fromisoformat(word) for word in sys.stdin.readline().split())
    context = Context(
        settings=settings, lake=Lake(spark, settings.lake), days=Days(first=day, last=day), first_day=first, run_id="killed",
        bootstrap=False, pins=pins(settings.lake),
    )  # fmt: skip
    say("begun")
    [outcome] = export.deliver(context, {sys.argv[2]: settings.sinks[sys.argv[2]]})
    say("done" if outcome.error is None else outcome.error)


if __name__ == "__main__":
    main()
