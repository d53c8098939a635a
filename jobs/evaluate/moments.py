"""The rows that a replay reads: what is known of the users, and the moments asked about. See `models.replay`."""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from models.replay import ASKED, COLUMNS, LAKE, NEW, TAKEN

# What a replay reads of an event, as in table `events`.
EVENT = {
    "user_id": "string",
    "event_timestamp": "timestamp",
    "event_id": "string",
    "item_id": "string",
    "event_type": "string",
    "category": "string",
    "local_timestamp": "timestamp",
    "latitude": "double",
    "longitude": "double",
    "region": "string",
}


def lake_rows(events: DataFrame) -> DataFrame:
    """Events as known history."""
    return _rows(events, LAKE)


def new_rows(events: DataFrame, row: Column) -> DataFrame:
    """Events that are told as they happen; `row` names the moment that an event asks about, null: none."""
    return _rows(events, NEW, row)


def sequence_rows(sequences: DataFrame) -> DataFrame:
    """Users' sequences as known history, and what else they took."""
    events = sequences.select("user_id", F.explode("events").alias("event"))
    known = events.select("user_id", *[F.col(f"event.{name}").alias(name) for name in EVENT if name != "user_id"])
    return lake_rows(known).unionByName(taken_rows(sequences.select("user_id", F.explode("seen").alias("item_id"))))


def taken_rows(items: DataFrame) -> DataFrame:
    """`user_id, item_id` that users took before, at times that do not matter."""
    absent = [F.lit(None).cast(kind).alias(name) for name, kind in EVENT.items() if name not in ("user_id", "item_id")]
    return _rows(items.select("user_id", "item_id", *absent), TAKEN)


def newest_rows(events: DataFrame, length: int, target_types: tuple[str, ...], repeats: bool) -> DataFrame:
    """The last `length` of each user's events as known history; of those before what was taken, where that counts."""
    by_user = Window.partitionBy("user_id").orderBy(F.desc("event_timestamp"), F.desc("event_id"))
    numbered = events.withColumn("_place", F.row_number().over(by_user))
    recent = lake_rows(numbered.where(F.col("_place") <= length))
    if repeats:
        return recent
    older = numbered.where((F.col("_place") > length) & F.col("event_type").isin(*target_types))
    return recent.unionByName(taken_rows(older.select("user_id", "item_id").distinct()))


def asked_rows(asked: DataFrame) -> DataFrame:
    """`user_id, event_timestamp, item_id, row, groups`: moments that are asked about and are in no log."""
    kinds = EVENT | {"row": "bigint", "groups": "map<string, string>"}
    given = {"origin": F.lit(ASKED)} | {name: F.col(name) for name in asked.columns}
    absent = {name: F.lit(None).cast(kinds[name]) for name in COLUMNS if name not in given}
    return asked.select(*[(given | absent)[name].alias(name) for name in COLUMNS])


def together(*parts: DataFrame) -> DataFrame:
    return reduce(DataFrame.unionByName, parts)


def ordered(rows: DataFrame, partitions: int) -> DataFrame:
    """Users whole within a partition, each by time, of equal events the lake's first: how a replay reads them."""
    by_user = rows.repartition(partitions, "user_id")
    order = ("user_id", F.asc_nulls_first("event_timestamp"), "event_id", "origin")
    return by_user.sortWithinPartitions(*order).select(*COLUMNS)


def _rows(events: DataFrame, origin: int, row: Column | None = None) -> DataFrame:
    given = {"origin": F.lit(origin).cast("int"), "row": (F.lit(None) if row is None else row).cast("bigint")}
    given["groups"] = F.lit(None).cast("map<string, string>")
    return events.select(*[given.get(name, F.col(name)).alias(name) for name in COLUMNS])
