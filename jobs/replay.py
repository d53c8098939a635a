"""Runs the steps of a recorded run again, on the recorded versions of what they read, and compares what comes out.

Each step is repeated by itself: it reads what it read then, not what the step before it makes now, so
a difference is its own. All happens in scratch lakes; nothing is written to the lake, the sinks or the
report. Ingest reads the landing files again, which must hold the rows that they held.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from conf.settings import Settings
from conf.tables import TABLES
from jobs.lake import logs
from jobs.lake.compare import Comparison, compare
from jobs.lake.context import Context, Refused, Skipped
from jobs.lake.scratch import copy_folder, copy_tables, scratch
from jobs.lake.store import Days, Lake
from jobs.pipeline import STEPS
from jobs.provenance import code_version, settings_hash

log = logging.getLogger("wherewhen")

MODELS = "model_versions"
_STEPS = {step.name: step for step in STEPS}
SIDE_EFFECTS = {"export": "it would deliver again", "report": "it would write the page again"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What became of one table of one step; `equal` is None where nothing was compared."""

    step: str
    what: str
    said: str
    equal: bool | None = None

    def line(self) -> str:
        return f"{self.step:<12} {self.what:<22} {self.said}"


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A step as `runs` has it, and the lake's first day as it was known then."""

    row: logs.Row
    lake_first_day: date

    @property
    def step(self) -> str:
        return str(self.row["step"])

    @property
    def details(self) -> dict[str, Any]:
        return dict(json.loads(self.row["details"]))

    @property
    def is_bootstrap(self) -> bool:
        """On the lake's first day there is nothing before, so a night and a bootstrap are the same there."""
        covers_days = self.row["first_day"] != self.row["day"]
        return bool(covers_days or self.row["day"] == self.lake_first_day)


def replay(spark: SparkSession, settings: Settings, run_id: str) -> Iterator[Finding]:
    """A finding per table that the run wrote, as they are found.

    Raises:
        ValueError: there is no such run, or none of its steps is finished.
        Refused: what a step read or wrote is no longer there; names table and version, or the source's day.
    """
    recorded = steps_of(settings.lake, run_id)
    yield from _differences_to_expect(recorded, settings)
    repeated = [one for one in recorded if one.row["status"] == "done" and one.step not in SIDE_EFFECTS]
    with scratch(settings.lake) as folder:
        # All at once and first: what is gone is said before hours are spent.
        contexts = {one.step: _prepare(spark, settings, one, folder / one.step) for one in repeated}
        for one in recorded:
            if one.step in contexts:
                log.info("replay of %s of %s", one.step, one.row["day"])
                yield from _repeat(one, contexts[one.step], Lake(spark, str(folder / one.step / "then")))
            else:
                said = SIDE_EFFECTS.get(one.step, "it was skipped then")
                yield Finding(step=one.step, what="-", said=f"skipped: {said}")


def steps_of(root: str, run_id: str) -> list[Recorded]:
    """The finished steps of a run, in the order in which they ran.

    Raises:
        ValueError: there are none; names near runs.
    """
    rows = sorted(logs.read(root, "runs", "status IN ('done', 'skipped')"), key=lambda row: row["finished_at"])
    of_run = [row for row in rows if row["run_id"] == run_id and row["step"] in _STEPS]
    if not of_run:
        newest = list(dict.fromkeys(row["run_id"] for row in reversed(rows) if row["step"] in _STEPS))[:3]
        raise ValueError(
            f"no run {run_id} finished a step in {root}; the newest are {', '.join(newest) or 'none'} (wherewhen runs)"
        )
    return [Recorded(row=row, lake_first_day=_first_day(rows, row)) for row in of_run]


def _first_day(rows: Sequence[logs.Row], of: logs.Row) -> date:
    if of["first_day"] != of["day"]:
        known = [of["first_day"]]  # a whole history begins the lake anew
    else:
        ingested = [row for row in rows if row["step"] == "ingest" and row["finished_at"] <= of["finished_at"]]
        known = [row["first_day"] for row in ingested]
    return min([*known, of["day"]])


def _differences_to_expect(recorded: Sequence[Recorded], settings: Settings) -> Iterator[Finding]:
    for one in recorded:
        now = {"settings_hash": settings_hash(_STEPS[one.step], settings), "code_version": code_version(_STEPS[one.step])}
        for name, what in (("settings_hash", "settings"), ("code_version", "code")):
            if one.row[name] != now[name]:
                said = f"not those of the run ({one.row[name]} then, {now[name]} now): differences are to be expected"
                yield Finding(step=one.step, what=what, said=said)


def _prepare(spark: SparkSession, settings: Settings, one: Recorded, folder: Path) -> Context:
    """A context over a scratch lake with what the step read; beside it, in `then`, what it wrote."""
    now = folder / "now"
    copy_tables(settings.lake, one.row["outputs"], folder / "then")
    pins = copy_tables(settings.lake, one.row["inputs"], now)
    if MODELS in one.row["inputs"]:
        _copy_models(settings.lake, now, one)
    return Context(
        settings=_apart(settings, now),
        lake=Lake(spark, str(now)),
        days=Days(first=one.row["first_day"], last=one.row["day"]),
        first_day=one.lake_first_day,
        run_id=one.row["run_id"],
        bootstrap=one.is_bootstrap,
        pins=pins,
    ).seen_by(_STEPS[one.step])


def _apart(settings: Settings, lake: Path) -> Settings:
    """The settings over another lake, from which nothing goes out: to no sink, and no training is told to anybody."""
    train = settings.train.model_copy(update={"tracking": None})
    return settings.model_copy(update={"lake": str(lake), "sinks": {}, "train": train})


def _copy_models(lake: str, root: Path, one: Recorded) -> None:
    """The folders of the versions that the registry had.

    Raises:
        Refused: one that the step worked with is gone.
    """
    for row in logs.read(str(root), MODELS):
        source = Path(lake) / row["folder"]
        if source.is_dir():
            copy_folder(source, root / row["folder"])
        elif row["model_version"] in one.row["details"]:
            raise Refused(f"model version {row['model_version']}, which {one.step} read, is no longer stored in {source}")


def _repeat(one: Recorded, context: Context, then: Lake) -> Iterator[Finding]:
    before = dict(context.pins)
    try:
        import_module(f"jobs.{one.step}").run(context)
    except Skipped as skipped:
        log.info("%s: %s", one.step, skipped)
    except ValueError as error:
        if one.step != "ingest":
            raise
        raise Refused(f"ingest cannot be repeated: {error}") from error
    finally:
        context.spark.catalog.clearCache()
    if one.step == "ingest":
        _refuse_other_sources(one, context)
    for name in dict.fromkeys([*one.row["outputs"], *context.outputs]):
        found = _compare(context, then, name, before.get(name))
        yield Finding(step=one.step, what=name, said=str(found), equal=found.equal)
    if "versions" in one.details:
        yield _same_models(one, context)


def _refuse_other_sources(one: Recorded, context: Context) -> None:
    """The same rows must have landed, else the outputs have no reason to be equal."""
    then, now = one.details, context.details
    for day in map(str, context.days):
        rows = [of["fingerprints"].get(day, {}) for of in (then, now)]
        if [of.get("checksum", "0") for of in rows] != [rows[0].get("checksum", "0")] * 2:
            counts = " events then, ".join(str(of.get("rows", 0)) for of in rows)
            raise Refused(f"ingest cannot be repeated: the source rows of {day} changed or are gone ({counts} now)")
    for name, digest in then["listings"].items():
        if name != "events" and now["listings"].get(name) != digest:
            raise Refused(f"ingest cannot be repeated: the files of sources.{name} are not those of the run")


def _compare(context: Context, then: Lake, name: str, before: int | None) -> Comparison:
    """Over the partitions that the step replaces; of a log over the rows that it added."""
    contract, now = TABLES[name], context.lake
    version = context.outputs.get(name, before)
    if contract.partitioned:
        where = context.replaced(name)
        return compare(then.read(name, then.version(name), where), now.read(name, version, where), contract)
    earlier = now.read(name, before)
    rows = [then.read(name, then.version(name)), now.read(name, version)]
    return compare(rows[0].exceptAll(earlier), rows[1].exceptAll(earlier), contract)


def _same_models(one: Recorded, context: Context) -> Finding:
    """A version's name is made of all that it learnt from."""
    then, now = one.details["versions"], context.details.get("versions", {})
    said = f"equal, {', '.join(then.values())}" if then == now else f"differ: {then} then, {now} now"
    return Finding(step=one.step, what="model versions", said=said, equal=then == now)
