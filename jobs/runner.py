"""Runs steps for a day (or a whole history) in the order of the graph, and records each."""

from __future__ import annotations

import errno
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import date, timedelta
from importlib import import_module
from typing import Any

import psutil
from pyspark.sql import SparkSession

from conf.settings import Settings
from jobs import provenance
from jobs.lake import lock, logs, runs
from jobs.lake.context import NO_TIMES_DAY, Context, Refused, Skipped
from jobs.lake.failures import one_line
from jobs.lake.plans import suit
from jobs.lake.runs import NIGHT, pins
from jobs.lake.store import Days, Lake
from jobs.pipeline import STEPS, Step, dependencies, order

log = logging.getLogger("wherewhen")


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What a step did, for the terminal."""

    step: str
    status: str
    seconds: float
    rows_out: dict[str, int]
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a run; `drift` are the measures past their bounds, as `jobs.bounds.Finding` has them."""

    run_id: str
    days: Days
    reports: tuple[StepReport, ...]
    refusals: tuple[str, ...] = ()
    drift: tuple[dict[str, Any], ...] = ()


Watcher = Callable[[str, StepReport | None], None]


def run(
    spark: SparkSession,
    settings: Settings,
    day: date,
    *,
    steps: Sequence[Step] = (),
    bootstrap: bool = False,
    backfill: bool = False,
    watch: Watcher = lambda step, report: None,
) -> Outcome:
    """Run `steps` (all, if none are given) for one day; each step's `done` row commits it.

    `watch` is called with a step's name when it begins (report None) and when it ended.

    Raises:
        Refused: a day would be skipped or gone back to, an upstream step is not done, or another process writes the lake.
        Exception: what a step raised; its row in `runs` says `failed`, earlier steps stay done.
    """
    chosen = tuple(steps) or order()
    if not settings.mapping.has_times and (day != NO_TIMES_DAY or not bootstrap):
        if not bootstrap:
            raise Refused(f"the log has no times, so it has no days: run --day {NO_TIMES_DAY} --bootstrap")
        day = NO_TIMES_DAY
    if backfill:
        settings = settings.accepting()
    _check_rules(spark, settings, chosen, day)
    with _held(settings, chosen, day, bootstrap):
        records = _records(settings.lake)
        if not backfill:
            _check_order(records, chosen, day, bootstrap)
        days, first_day = _days(spark, settings, records, day, bootstrap=bootstrap, chosen=chosen)
        run_id = f"{day:%Y%m%d}-{uuid.uuid4().hex[:12]}"
        reports: list[StepReport] = []
        refusals: list[str] = []
        drift: list[dict[str, Any]] = []
        for step in chosen:
            watch(step.name, None)
            context = Context(
                settings=settings,
                lake=Lake(spark, settings.lake),
                days=days,
                first_day=first_day,
                run_id=run_id,
                bootstrap=bootstrap,
                pins=pins(settings.lake),
            ).seen_by(step)
            suit(spark, 0)
            report = run_step(step, context)
            watch(step.name, report)
            reports.append(report)
            refusals += context.details.get("refusals", [])
            drift += context.details.get("drift", [])
        _close_night(settings, run_id, days, first_day)
    return Outcome(run_id=run_id, days=days, reports=tuple(reports), refusals=tuple(refusals), drift=tuple(drift))


def _check_rules(spark: SparkSession, settings: Settings, chosen: Sequence[Step], day: date) -> None:
    """What is wrong in the lists' conditions is said before hours of work, not after."""
    if any(step.name == "score" for step in chosen) and (settings.score.block or settings.score.boost):
        from jobs.score.items import ruled  # with what else the step needs, which other runs do without

        ruled(Lake(spark, settings.lake).read("items", None), settings.score, day)


def _held(settings: Settings, chosen: Sequence[Step], day: date, bootstrap: bool) -> AbstractContextManager[None]:
    """A scheduler runs steps of one day side by side, each in a process of its own; a bootstrap writes all days."""
    names = [step.name for step in chosen]
    if bootstrap:
        return lock.held(settings.lake, f"bootstrap up to {day}")
    doing = f"run of {day}" if len(names) == len(STEPS) else f"run of {day}: {', '.join(names)}"
    return lock.held(settings.lake, doing, day=day, steps=names)


def run_step(step: Step, context: Context, done: str = "done") -> StepReport:
    """Run one step and record it, with `done` as its status where it was."""
    began = time.monotonic()
    with _MemoryWatch() as memory:
        failure: Exception | None = None
        status, message = done, ""
        try:
            import_module(f"jobs.{step.name}").run(context)
        except Skipped as skipped:
            status, message = "skipped" if done == "done" else done, str(skipped)
        except Refused as refused:
            status, message, failure = "refused", str(refused), refused
        except Exception as error:
            status, message, failure = "failed", one_line(error), error
        finally:
            context.spark.catalog.clearCache()
    seconds = time.monotonic() - began
    details = {**context.details, "note": message} if message else context.details
    row = runs.row(
        context.run_id,
        step.name,
        context.days.last,
        first_day=context.days.first,
        status=status,
        settings_hash=provenance.settings_hash(step, context.settings),
        code_version=provenance.code_version(step),
        inputs=context.inputs,
        outputs=context.outputs,
        rows_in=context.rows_in,
        rows_out=context.rows_out,
        details=json.dumps(details, default=str),
        error=message if failure is not None else None,
        seconds=seconds,
        peak_memory_mb=memory.peak_mb,
    )
    if isinstance(failure, OSError) and failure.errno == errno.ENOSPC:
        raise failure  # there is no room for its row in the record either
    logs.append(context.lake.root, "runs", [row])
    if failure is not None:
        raise failure
    return StepReport(step=step.name, status=status, seconds=seconds, rows_out=context.rows_out, message=message)


def _records(root: str) -> dict[str, list[logs.Row]]:
    """Finished steps: name -> rows, oldest first."""
    finished = logs.read(root, "runs", "status IN ('done', 'skipped')")
    by_step: dict[str, list[logs.Row]] = {}
    for row in sorted(finished, key=lambda row: row["finished_at"]):
        by_step.setdefault(row["step"], []).append(row)
    return by_step


def _check_order(records: dict[str, list[logs.Row]], chosen: Sequence[Step], day: date, bootstrap: bool) -> None:
    """Every calendar day is run, in order; a step needs its upstream steps of the same day."""
    names = {step.name for step in chosen}
    for step in chosen:
        done = [row["day"] for row in records.get(step.name, [])]
        if done and day < max(done):
            raise Refused(
                f"{step.name} is finished up to {max(done)}; to go back to {day}: `backfill --start {day} --end {max(done)}`"
            )
        if done and not bootstrap and day > max(done) + timedelta(days=1):
            missed = max(done) + timedelta(days=1)
            raise Refused(
                f"{step.name} is finished up to {max(done)}, {missed} would be skipped: `backfill --start {missed} --end {day}`"
            )
        for upstream in dependencies()[step.name] - names:
            if day not in [row["day"] for row in records.get(upstream, [])]:
                raise Refused(f"{step.name} of {day} needs {upstream} of that day: run it first (--from-step {upstream})")


def _days(
    spark: SparkSession,
    settings: Settings,
    records: dict[str, list[logs.Row]],
    day: date,
    *,
    bootstrap: bool,
    chosen: Sequence[Step],
) -> tuple[Days, date]:
    """The days of the run and the lake's first day: the log's, where it is read, else the one that was."""
    ingested = [row["first_day"] for row in records.get("ingest", [])]
    if not bootstrap:
        return Days(first=day, last=day), min([*ingested, day])
    if not settings.mapping.has_times:
        return Days(first=NO_TIMES_DAY, last=NO_TIMES_DAY), NO_TIMES_DAY
    is_read = not ingested or any(step.name == "ingest" for step in chosen)
    first = import_module("jobs.ingest").first_day(spark, settings, day) if is_read else min(ingested)
    return Days(first=first, last=day), first


def _close_night(settings: Settings, run_id: str, days: Days, first_day: date) -> None:
    """Write the night's row once every step of the day is done, each after what it depends on.

    The row is what readers go by; with one task per step the last step writes it.
    """
    records = _records(settings.lake)
    newest = {name: rows[-1] for name, rows in records.items()}
    needed = dependencies()
    for step in STEPS:
        row = newest.get(step.name)
        if row is None or row["day"] != days.last:
            return
        if any(newest[upstream]["finished_at"] > row["finished_at"] for upstream in needed[step.name] if upstream in newest):
            return
    if NIGHT in newest and newest[NIGHT]["finished_at"] >= max(newest[step.name]["finished_at"] for step in STEPS):
        return
    steps = [newest[step.name] for step in STEPS]
    row = runs.row(
        run_id,
        NIGHT,
        days.last,
        first_day=first_day,
        settings_hash=settings.hash(),
        outputs=pins(settings.lake),
        rows_in=steps[0]["rows_in"],
        seconds=sum(step["seconds"] for step in steps),
        peak_memory_mb=max(step["peak_memory_mb"] or 0.0 for step in steps),
    )
    logs.append(settings.lake, "runs", [row])


@dataclass
class _MemoryWatch:
    """Peak resident memory of this process and all below it (the JVM, Python workers), sampled."""

    peak_mb: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> _MemoryWatch:
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join()

    def _sample(self) -> None:
        me = psutil.Process()
        while True:
            total, began = 0, time.monotonic()
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.peak_mb = max(self.peak_mb, total / 2**20)
            # The kernel walks every page of them for it: a twentieth of the time at most.
            if self._stop.wait(max(1.0, 20 * (time.monotonic() - began))):
                return
