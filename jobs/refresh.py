"""Between two nights: takes what landed since the last one, ranks those in it again, and delivers their lists.

It works on the day after the newest night, whose folder is still being filled, and finishes nothing: its steps are recorded as
refreshed, so that the night starts from what stood before, and leaves what it would have left. Readers see the
states that it made (lists, sequences, items, what users declared and allow, surroundings); all else stays the night's.
"""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from pyspark.sql import SparkSession

from conf.settings import Settings
from conf.tables import TABLES
from jobs.lake import lock, logs, runs
from jobs.lake.context import NO_TIMES_DAY, Context, Refused
from jobs.lake.plans import suit
from jobs.lake.state import newest_state
from jobs.lake.store import Days
from jobs.pipeline import STEPS, choose, order
from jobs.runner import StepReport, Watcher, run_step

log = logging.getLogger("wherewhen")

_FIRST, _THEN, EXPORT = "ingest", ("clean", "sequences", "score"), "export"
_ALSO = ("served_items", "vault")


@dataclass(frozen=True, kw_only=True)
class Refreshed:
    """What a refresh did; no `run_id` where nothing had landed."""

    run_id: str | None
    days: Days
    reports: tuple[StepReport, ...] = ()


def refresh(spark: SparkSession, settings: Settings, watch: Watcher = lambda step, report: None) -> Refreshed:
    """Take what landed since the last night or refresh.

    Raises:
        Refused: another process writes the lake, a finished day's rows changed, or a night has begun.
        ValueError: no night is finished, the log has no times, or a sink failed: what was ranked is there all the same, and the
            next refresh delivers it.
    """
    night = newest_state(spark, settings)
    if night.first_day == NO_TIMES_DAY:
        raise ValueError("the log has no times, so it has no day after the last: run --bootstrap takes all that there is")
    day = night.days.last + timedelta(days=1)
    accepting = settings.accepting()
    with lock.held(settings.lake, f"refresh of {day}"):
        if begun := _begun(settings, night):
            raise Refused(f"the night of {day} has begun ({begun} is done): finish it with run --day {day} --from-step {begun}")
        refreshing, before = _Refreshing(spark, accepting, night, watch), _newest_refresh(settings, night)
        reports = [refreshing.run(_FIRST)]
        is_new = refreshing.landed != (before[1] if before else refreshing.NOTHING)
        if is_new:
            reports += [refreshing.run(name) for name in _THEN]
            refreshing.close(sum(report.seconds for report in reports))
        else:
            log.info("nothing landed for %s since the last refresh", day)
            refreshing.made = before[0].versions if before else {}
        # Where nothing is new a sink may still lack what the last refresh made.
        if settings.sinks and refreshing.made:
            reports.append(refreshing.deliver())
    return Refreshed(run_id=refreshing.run_id if is_new else None, days=refreshing.days, reports=tuple(reports))


def _begun(settings: Settings, night: Context) -> str | None:
    """A step that is done of a later day than the newest night."""
    done = logs.read(settings.lake, "runs", f"status = 'done' AND day > DATE '{night.days.last}'")
    found = {row["step"] for row in done}
    return next((step.name for step in order() if step.name in found), None)


def _newest_refresh(settings: Settings, night: Context) -> tuple[runs.Night, Any] | None:
    """The newest refresh of the day after the night, and what it had read."""
    seen = runs.newest_refresh(settings.lake)
    if seen is None or seen.day != night.days.last + timedelta(days=1):
        return None
    [row] = logs.read(settings.lake, "runs", f"step = '{runs.REFRESH}' AND run_id = '{seen.run_id}'")
    return seen, json.loads(row["details"])["landed"]


class _Refreshing:
    """The steps of one refresh, each on what the night left and the steps before it made."""

    NOTHING: Final[dict[str, Any]] = {"rows": 0, "fingerprint": None, "listings": {}}

    def __init__(self, spark: SparkSession, settings: Settings, night: Context, watch: Watcher) -> None:
        self.spark, self.settings, self.night, self.watch = spark, settings, night, watch
        day = night.days.last + timedelta(days=1)
        self.days = Days(first=day, last=day)
        self.run_id = f"{day:%Y%m%d}-refresh-{uuid.uuid4().hex[:8]}"
        self.made: dict[str, int] = {}
        self.landed: Any = None

    def context(self, step: str) -> Context:
        context = Context(
            settings=self.settings,
            lake=self.night.lake,
            days=self.days,
            first_day=self.night.first_day,
            run_id=self.run_id,
            bootstrap=False,
            pins={**self.night.pins, **self.made},
        )
        # A step writes as of the day what it makes; the others are those of the night.
        [chosen] = choose(only=(step,))
        return context.seen_by(chosen).left_as_of(self.night.days.last, but={*self.made, *chosen.writes})

    def run(self, name: str) -> StepReport:
        self.watch(name, None)
        [step] = [step for step in STEPS if step.name == name]
        context = self.context(name)
        suit(self.spark, 0)
        report = run_step(step, context, runs.REFRESHED)
        self.made |= context.outputs
        if name == _FIRST:
            of_day = context.details["fingerprints"].get(str(self.days.last))
            read = {"rows": context.rows_in, "fingerprint": of_day, "listings": context.details["listings"]}
            self.landed = json.loads(json.dumps(read, default=str))
        self.watch(name, report)
        return report

    def close(self, seconds: float) -> None:
        """From here on readers see it: states, the items of the lists, and who is who; facts of a day end with it."""
        shown = {name: version for name, version in self.made.items() if TABLES[name].kind == "state" or name in _ALSO}
        row = runs.row(
            self.run_id,
            runs.REFRESH,
            self.days.last,
            first_day=self.night.first_day,
            settings_hash=self.settings.hash(),
            status=runs.REFRESHED,
            outputs=shown,
            details=json.dumps({"landed": self.landed, "made": self.made}),
            seconds=seconds,
        )
        logs.append(self.settings.lake, "runs", [row])

    def deliver(self) -> StepReport:
        """To the sinks of what was made; others have what the night delivered."""
        kinds = {name for name in self.made if TABLES[name].kind == "state"}
        sinks = {name: sink for name, sink in self.settings.sinks.items() if sink.source in kinds}
        self.watch(EXPORT, None)
        context = self.context(EXPORT)
        context.settings = self.settings.model_copy(update={"sinks": sinks})
        [step] = choose(only=(EXPORT,))
        report = run_step(step, context, runs.REFRESHED)
        self.watch(EXPORT, report)
        return report
