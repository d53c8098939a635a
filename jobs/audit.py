"""The leakage audit: what arrived from a day on is changed, all features are made again, those of earlier days must stay equal.

The lake's own rows are the truth: nights made them, when nothing later was there to be read. The changed
history is taken as a bootstrap in a scratch lake, where all of it is there at once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from conf.contracts import Table
from conf.settings import Settings
from conf.tables import TABLES
from jobs import train
from jobs.lake import logs, runs
from jobs.lake.compare import compare
from jobs.lake.context import Context
from jobs.lake.maintenance import refuse_dropped
from jobs.lake.runs import Night, newest_night
from jobs.lake.scratch import copy_tables, scratch
from jobs.lake.store import Days, Lake
from jobs.pipeline import STEPS, Step, choose
from jobs.runner import run
from jobs.staleness import stale

log = logging.getLogger("wherewhen")

FEATURES = choose("clean", "interaction")
WINDOWS = "training_windows"
# What of a raw row is dealt out anew, apart from each other, among the rows of its day.
_DEALT = (
    ("item_id", "category"),
    ("event_time",),
    ("latitude", "longitude", "place"),
    ("event_type", "flags", "value", "text", "device", "scene", "session_id"),
)
_MOVED_DEGREES = 0.02
_ONE_IN = 5  # a fifth of the rows is dropped, another doubled


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What became of a table's rows of the days before the cut, and whether those after it moved."""

    table: str
    said: str
    equal: bool
    moved: bool = True

    def line(self) -> str:
        after = "" if self.moved else "; nothing of it moved after the cut either"
        return f"{self.table:<22} {self.said}{after}"


def audit(spark: SparkSession, settings: Settings, cut: date, *, steps: Sequence[Step] = FEATURES) -> Iterator[Finding]:
    """A finding per table that `steps` write, as they are found; then one for what a training as of the cut reads.

    Raises:
        ValueError: no night is finished, the cut is outside its days, the log has no times, or the changes changed nothing.
        Refused: retention or an erasure has removed what is needed to make the features again.
    """
    night = _checked(settings, cut)
    made = [name for step in steps for name in step.writes if TABLES[name].kind != "log"]
    if reasons := {name: why for name, why in stale(settings).items() if name in made}:
        log.warning("made by other code or settings, so a difference may come from that: %s", ", ".join(reasons))
    with scratch(settings.lake) as folder:
        changed = settings.model_copy(update={"lake": str(folder / "changed"), "sinks": {}})
        _copy_changed(spark, settings, Lake(spark, changed.lake), night, cut, steps)
        log.info("audit: %s to %s again, changed from %s on", night.first_day, night.day, cut)
        run(spark, changed, night.day, steps=steps, bootstrap=True, watch=_watch)
        lakes = Lake(spark, settings.lake), Lake(spark, changed.lake)
        seen = [
            _context(settings, lakes[0], night, night.versions),
            _context(changed, lakes[1], night, _versions(lakes[1], made)),
        ]
        for name in made:
            yield _compare(TABLES[name], seen, cut)
        if "events" in made:
            yield _compare_training(seen, cut)


def _checked(settings: Settings, cut: date) -> Night:
    night = newest_night(settings.lake)
    if night is None:
        raise ValueError(f"no night is finished in {settings.lake}: run one first (wherewhen run --day D)")
    if not settings.mapping.has_times:
        raise ValueError("the log has no times, so there is no day to cut it at")
    if not night.first_day < cut <= night.day:
        raise ValueError(
            f"--day {cut}: the lake holds {night.first_day} to {night.day}; cut after the first and up to the newest of them"
        )
    refuse_dropped(settings.lake, {name for step in FEATURES for name in step.tables_read}, night.first_day)
    return night


def _watch(step: str, report: object) -> None:
    if report is not None:
        log.info("  %s", step)


def _copy_changed(spark: SparkSession, settings: Settings, lake: Lake, night: Night, cut: date, steps: Sequence[Step]) -> None:
    """What the steps read and do not make, changed from the cut on; and the record that it was ingested."""
    made = {name for step in steps for name in step.writes}
    given = {name for step in steps for name in step.tables_read} - made
    versions = copy_tables(settings.lake, {name: night.versions[name] for name in given & set(night.versions)}, Path(lake.root))
    for name in [name for name in versions if TABLES[name].partitioned]:
        rows, where = lake.read(name, versions[name]), f"day >= '{cut}'"
        versions[name] = lake.replace(name, scrambled(rows.where(where), TABLES[name]), where).version
    for step in [step for step in STEPS if set(step.writes) & set(versions)]:
        outputs = {name: versions[name] for name in step.writes if name in versions}
        row = runs.row("audit", step.name, night.day, first_day=night.first_day, outputs=outputs)
        logs.append(lake.root, "runs", [row])


def scrambled(rows: DataFrame, contract: Table) -> DataFrame:
    """Rows of the same days that tell another story: users did other things elsewhere, some did nothing, some did more."""
    if contract.name == "raw_events":
        return _scrambled_events(rows).select(*contract.names)
    # Copies of unchanged owners stay: they repeat what was known before.
    is_new = F.col("changed_on") == F.col("day") if contract.kind == "state" else F.lit(True)
    kept = {*contract.key, "day", "gone", "changed_on"}
    values = tuple(name for name in contract.names if name not in kept)
    dealt = _dealt(rows.where(is_new), contract.key, (values,)) if values else rows.where(is_new)
    return dealt.unionByName(rows.where(~is_new)).select(*contract.names)


def _scrambled_events(rows: DataFrame) -> DataFrame:
    part = F.pmod(F.xxhash64("row_hash", F.lit("part")), F.lit(_ONE_IN))
    kept = _dealt(rows.where(part != 0), ("row_hash",), _DEALT)
    moved = kept.withColumn("latitude", _moved("latitude")).withColumn("longitude", _moved("longitude"))
    copies = moved.withColumn("_copy", F.explode(F.when(part == 1, F.array(F.lit(0), F.lit(1))).otherwise(F.array(F.lit(0)))))
    content = F.to_json(F.struct(*[name for name in rows.columns if name not in ("row_hash", "day")], "_copy"))
    return copies.withColumn("row_hash", F.substring(F.sha2(content, 256), 1, 32))


def _moved(name: str) -> Column:
    return F.coalesce((F.expr(f"try_cast({name} AS double)") + F.lit(_MOVED_DEGREES)).cast("string"), F.col(name))


def _dealt(rows: DataFrame, key: Sequence[str], groups: Sequence[tuple[str, ...]]) -> DataFrame:
    """Each row takes the values of a group from another row of its day, of each group from another one."""
    for number, group in enumerate(groups):
        order = Window.partitionBy("day").orderBy(F.xxhash64(F.lit(number), *key), *key)
        first = F.first(F.struct(*group)).over(order.rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing))
        rows = rows.withColumn("_dealt", F.coalesce(F.lead(F.struct(*group)).over(order), first))
        rows = rows.withColumns({name: F.col(f"_dealt.{name}") for name in group}).drop("_dealt")
    return rows


def _versions(lake: Lake, made: Sequence[str]) -> dict[str, int]:
    found = {name: lake.version(name) for name in [*made, "raw_events", "items"]}
    return {name: version for name, version in found.items() if version is not None}


def _context(settings: Settings, lake: Lake, night: Night, versions: dict[str, int]) -> Context:
    days = Days(first=night.first_day, last=night.day)
    return Context(
        settings=settings, lake=lake, days=days, first_day=night.first_day, run_id="audit", bootstrap=True, pins=dict(versions)
    )


def _compare(contract: Table, seen: Sequence[Context], cut: date) -> Finding:
    """Before the cut row by row; after it only whether anything moved: what never moves proves nothing.

    Raises:
        ValueError: no event after the cut moved, so nothing can be said.
    """
    one, other = [of.lake.read(contract.name, of.pins.get(contract.name)) for of in seen]
    before = compare(one.where(f"day < '{cut}'"), other.where(f"day < '{cut}'"), contract)
    moved = _digest(one.where(f"day >= '{cut}'")) != _digest(other.where(f"day >= '{cut}'"))
    if contract.name == "events" and not moved:
        raise ValueError(f"nothing that arrived from {cut} on could be changed, so the audit would prove nothing: cut earlier")
    return Finding(table=contract.name, said=str(before), equal=before.equal, moved=moved)


def _digest(rows: DataFrame) -> tuple[object, ...]:
    """Of a multiset of rows."""
    hashed = F.xxhash64(F.to_json(F.struct(*rows.columns))).cast("decimal(20,0)")
    return tuple(rows.agg(F.count(F.lit(1)), F.sum(hashed)).first() or ())


def _compare_training(seen: Sequence[Context], cut: date) -> Finding:
    """The windows of a training as of the cut, cut from all that is stored, and the names of its items."""
    (one, names), (other, other_names) = [train.as_of(context, cut) for context in seen]
    found = compare(one, other, TABLES[WINDOWS])
    said = str(found) if names == other_names else f"{found}; the names that the training knows moved"
    return Finding(table=WINDOWS, said=said, equal=found.equal and names == other_names)
