"""Baselines fitted by Spark: what is brought to the driver is bounded by the catalogue."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from models.baselines import SUCCESSORS, Counts, count
from models.queries import Vocabulary


def successors(targets: DataFrame) -> DataFrame:
    """Of each item its target events, how many were followed by another of the user, and the most frequent next items.

    `targets`: `user_id, item_id, event_timestamp, event_id`. Gives `item_id, next_item_id` (null where
    the event was the user's last), `times, events, moves`: at most `SUCCESSORS` + 1 rows an item.
    """
    by_user = Window.partitionBy("user_id").orderBy("event_timestamp", "event_id")
    by_item = Window.partitionBy("item_id")
    followed = F.col("next_item_id").isNotNull()
    pairs = (
        targets.where(F.col("item_id").isNotNull())
        .select("item_id", F.lead("item_id").over(by_user).alias("next_item_id"))
        .groupBy("item_id", "next_item_id")
        .agg(F.count("*").alias("times"))
    )
    return (
        pairs.withColumn("events", F.sum("times").over(by_item))
        .withColumn("moves", F.sum(F.when(followed, F.col("times")).otherwise(0)).over(by_item))
        .withColumn("place", F.row_number().over(by_item.orderBy(followed, F.desc("times"), "next_item_id")))
        .where(F.col("place") <= SUCCESSORS + 1)
        .select("item_id", "next_item_id", "times", "events", "moves")
    )


def fit(targets: DataFrame, target_types: tuple[str, ...], vocabulary: Vocabulary | None = None) -> Counts:
    """Counts for the baselines, over the given catalogue or over every item among the targets, by name."""
    rows = successors(targets).toArrow()
    once = rows.group_by("item_id").aggregate([("events", "max"), ("moves", "max")])
    if vocabulary is None:
        items = tuple(sorted(once["item_id"].to_pylist()))
        vocabulary = Vocabulary(items=items, item_categories=("",) * len(items), categories=(), event_types=target_types)
    moves = rows.filter(pc.is_valid(rows["next_item_id"]))
    return count(
        vocabulary,
        target_types,
        (once["item_id"], _numbers(once["events_max"]), _numbers(once["moves_max"])),
        (moves["item_id"], moves["next_item_id"], _numbers(moves["times"])),
    )


def _numbers(column: pa.ChunkedArray) -> object:
    return column.to_numpy().astype("float64")
