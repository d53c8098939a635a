"""`wherewhen features`: rows of a file, each with what was known of its user, item or region before its moment."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.settings import Settings
from conf.tables import TABLES
from jobs.features.asof import MOMENT, Known, as_of, from_snapshots
from jobs.features.files import check_output, read_entities, write_rows
from jobs.features.surroundings import CONTEXT, with_context
from jobs.lake.context import Context
from jobs.lake.identities import load_key, pseudonym_column
from jobs.lake.output import replaced
from jobs.lake.state import newest_state
from jobs.lake.store import Days, keyframe_before
from jobs.spatial.windows import snapshot_days
from jobs.time_series import ENTITIES

log = logging.getLogger("wherewhen")

FEATURE_TABLES = (
    "items", "users", "user_interests", "time_series_features", "user_places", "user_slot_places", "user_mobility",
    "item_positions", "user_slot_affinity", "hotspots", "region_slot_lift", "item_tags", "user_tags", "item_vectors", "context",
)  # fmt: skip
# Of feeds that few logs have: the section of the mapping that they come by.
_OF_FEEDS = {CONTEXT: "context", "item_vectors": "vectors"}
_SERIES = "time_series_features"


def features_file(
    spark: SparkSession, settings: Settings, entities: Path, output: Path, tables: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Write `output` (.csv or .parquet): the rows of `entities` in their order, with the columns of `features`.

    Gives back the tables that were joined. The lake is not written.

    Raises:
        ValueError: as `features`; `entities` cannot be read, or `output` not be written.
    """
    check_output(output)
    with replaced(output) as scratch:
        rows = read_entities(spark, entities).withColumn("_row", F.monotonically_increasing_id())
        found = features(spark, settings, rows, tables)
        write_rows(found.orderBy("_row").drop("_row"), scratch, output.suffix)
    return tuple(dict.fromkeys(name.rpartition("__")[0] for name in found.columns if "__" in name))


def features(spark: SparkSession, settings: Settings, entities: DataFrame, tables: Sequence[str] | None = None) -> DataFrame:
    """`entities` with a column `TABLE__COLUMN` for each column of the tables: what was known before the day of a row's moment.

    Args:
        entities: `event_timestamp` (UTC), and what names the owners: `user_id` (the caller's own), `item_id`,
            `category`, `tag`, `region`, `slot`, `cell`. A table with several rows per owner needs the other columns of
            its key as well (`category` for a user's interest in it). time_series_features is joined once for
            each kind of entity that is named (as `time_series_features_user__level`); of the event type in
            `event_type`, else of the first target event. Of `context` there are two maps, by name, of what holds
            at the moment, in the row's `cell` and `region` where it has them.
        tables: of `FEATURE_TABLES`; None: all whose keys are given.

    Raises:
        ValueError: no day is finished, the log has no times, a table is unknown or its key is not given, or rows
            have no `event_timestamp`.
    """
    return joined(newest_state(spark, settings), entities, tables)


def joined(context: Context, entities: DataFrame, tables: Sequence[str] | None = None) -> DataFrame:
    """`features` of the lake as the context sees it."""
    if not context.mapping.has_times:
        raise ValueError("the log has no times, so there is no moment as of which its features could be read")
    if MOMENT not in entities.columns:
        raise ValueError(f"the entities have no column {MOMENT}: name the moment of each row in it, in UTC")
    for name, section in _OF_FEEDS.items():
        if name not in context.pins and name in (tables or ()):
            raise ValueError(f"the lake has no {name}: its log's mapping has no section `{section}:`, or nothing of it arrived")
    there = [name for name in FEATURE_TABLES if name not in _OF_FEEDS or name in context.pins]
    chosen = _chosen(tables, entities.columns, there)
    asked = entities.withColumn(MOMENT, F.col(MOMENT).cast("timestamp"))
    if "user_id" in entities.columns:
        hidden = pseudonym_column(F.col("user_id").cast("string"), load_key())
        asked = asked.withColumn("_given", F.col("user_id")).withColumn("user_id", hidden)
    if "event_type" not in entities.columns:
        asked = asked.withColumn("event_type", F.lit(context.mapping.target_events[0]))
    asked = asked.persist()
    days = _reach(context, asked)
    states = [
        known
        for name in chosen
        if TABLES[name].kind == "state" and name != CONTEXT
        for known in _known(context, name, days, asked.columns)
    ]
    rows = as_of(asked, states)
    for name in chosen:
        if TABLES[name].kind == "snapshot":
            made = snapshot_days(Days(first=context.first_day, last=days.last), context.first_day)
            rows = from_snapshots(rows, name, TABLES[name], context.stored(name, Days(first=made[0], last=days.last)), made)
    if CONTEXT in chosen:
        rows = with_context(rows, context.stored(CONTEXT, days))
    found = [name for name in rows.columns if "__" in name and name not in entities.columns]
    given = [F.col("_given").alias("user_id") if name == "user_id" else F.col(name) for name in entities.columns]
    return rows.select(*given, *found)


def _reach(context: Context, asked: DataFrame) -> Days:
    """The days whose partitions can hold what was known: from the keyframe before the first moment to the last one.

    Raises:
        ValueError: a row has no moment.
    """
    day = F.to_date(MOMENT)
    row = asked.agg(F.min(day).alias("first"), F.max(day).alias("last"), F.count_if(day.isNull()).alias("missing")).first()
    assert row is not None
    if row["missing"]:
        raise ValueError(f"some rows of the entities have no {MOMENT} that can be read: write 2024-06-16 12:30:00, in UTC")
    first, last = (
        min(max((day or context.days.last) - timedelta(days=1), context.first_day), context.days.last)
        for day in (row["first"], row["last"])
    )
    return Days(first=keyframe_before(first, context.first_day), last=last)


def _chosen(tables: Sequence[str] | None, given: Sequence[str], there: Sequence[str]) -> list[str]:
    """The tables to join, of those that are there.

    Raises:
        ValueError: one is unknown, or lacks its key; or there is none.
    """
    for name in tables or ():
        if name not in FEATURE_TABLES:
            raise ValueError(f"{name} is no feature table; these are {', '.join(FEATURE_TABLES)}")
        if lacking := _lacking(name, given):
            raise ValueError(f"{name} needs the column {' and the column '.join(lacking)} in the entities")
    chosen = [name for name in there if (name in tables if tables else not _lacking(name, given))]
    if not chosen:
        needs = "; ".join(f"{name}: {', '.join(_lacking(name, ()))}" for name in there)
        raise ValueError(f"the entities name no owner of any table. They need: {needs}")
    for name in set(there) - set(chosen) if not tables else ():
        log.info("%s is left out: the entities have no column %s", name, " and no ".join(_lacking(name, given)))
    return chosen


def _lacking(name: str, given: Sequence[str]) -> list[str]:
    if name == _SERIES:
        named = any(set(columns) <= set(given) for columns in ENTITIES.values())
        return [] if named else ["user_id or item_id or category or region"]
    if name == CONTEXT:
        return []  # a moment is enough
    return [column for column in TABLES[name].key if column not in given]


def _known(context: Context, name: str, days: Days, given: Sequence[str]) -> list[Known]:
    rows, contract = context.stored(name, days), TABLES[name]
    if name != _SERIES:
        owner = contract.owner[0]
        rest = tuple(column for column in contract.key if column != owner)
        return [Known(prefix=name, contract=contract, rows=rows, key=owner, owner=(owner,), rest=rest)]
    return [
        Known(
            prefix=f"{name}_{kind}",
            contract=contract,
            rows=rows.where(F.col("entity_type") == kind),
            key="entity_id",
            owner=columns,
            rest=("event_type",),
        )
        for kind, columns in ENTITIES.items()
        if set(columns) <= set(given)
    ]
