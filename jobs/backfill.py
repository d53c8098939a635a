"""Days run one after the other, resumable."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import date, timedelta

from pyspark.sql import SparkSession

from conf.settings import Settings
from jobs.lake import lock, logs, runs
from jobs.lake.context import Refused
from jobs.lake.runs import code_version
from jobs.pipeline import Step
from jobs.runner import Watcher, run

log = logging.getLogger("wherewhen")

STEP = "backfill"


def run_days(spark: SparkSession, settings: Settings, start: date, end: date, *, steps: Sequence[Step], watch: Watcher) -> None:
    """Run `steps` for every day from `start` to `end`.

    A backfill that was stopped goes on after its last finished day when it is given again with the
    same days, steps, settings and code; a finished one starts anew.

    Raises:
        ValueError: the days are in the wrong order.
        Refused: days after `end` are finished already; they would rest on states that changed. Or another
            process writes the lake.
    """
    if end < start:
        raise ValueError(f"--end {end} is before --start {start}")
    with lock.held(settings.lake, f"backfill from {start} to {end}"):
        finished = [row["day"] for row in logs.read(settings.lake, "runs", "status = 'done'")]
        if finished and max(finished) > end:
            raise Refused(
                f"days up to {max(finished)} are finished and rest on these: backfill --start {start} --end {max(finished)}"
            )
        ident = f"{start}/{end}/{','.join(step.name for step in steps)}/{settings.hash()}/{code_version()}"
        resume = _resume_from(settings.lake, ident, start, end)
        if resume > start:
            log.info("going on from %s: the days before it are done", resume)
        day = resume
        while day <= end:
            log.info("backfill of %s", day)
            outcome = run(spark, settings, day, steps=steps, backfill=True, watch=watch)
            _record(settings, ident, day)
            for refusal in outcome.refusals:
                log.info("refused: %s", refusal)
            day += timedelta(days=1)


def _resume_from(root: str, ident: str, start: date, end: date) -> date:
    """The day after the newest finished one of the same backfill; `start` when it was finished whole."""
    rows = sorted(logs.read(root, "runs", f"step = '{STEP}'"), key=lambda row: row["finished_at"])
    if not rows or rows[-1]["run_id"] != ident or rows[-1]["day"] >= end:
        return start
    return max(start, rows[-1]["day"] + timedelta(days=1))


def _record(settings: Settings, ident: str, day: date) -> None:
    logs.append(settings.lake, "runs", [runs.row(ident, STEP, day, settings_hash=settings.hash())])
