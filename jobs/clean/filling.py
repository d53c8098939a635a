"""Positions that a row lacks, from where its item always is."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf.settings import Clean
from jobs.lake.context import Context
from jobs.spatial.positions import item_positions

ITEM = "item"


def known_positions(context: Context, placed: DataFrame) -> DataFrame:
    """item_id, `item_latitude`, `item_longitude`, `item_spread_m`, and the arrival days (`after`, `until`] they are known for.

    placed: rows with a position of their own, as they become events; a bootstrap, which has no state of the day before,
    folds them as the spatial step will.
    """
    if not context.bootstrap:
        positions = context.before("item_positions").withColumn("after", F.lit(None).cast("date"))
        return _somewhere(positions, context.settings.clean).withColumn("until", F.lit(None).cast("date"))
    of_days = item_positions(placed, context.before("item_positions"))
    until = F.lead("day").over(Window.partitionBy("item_id").orderBy("day"))
    return _somewhere(of_days.withColumns({"until": until, "after": F.col("day")}), context.settings.clean, "until")


def _somewhere(positions: DataFrame, clean: Clean, *more: str) -> DataFrame:
    is_somewhere = (F.col("events") >= clean.item_min_events) & (F.col("spread_m") <= clean.item_max_spread_m)
    return positions.where(is_somewhere).select(
        F.col("item_id").alias("_item"),
        F.col("latitude").alias("item_latitude"),
        F.col("longitude").alias("item_longitude"),
        F.col("spread_m").alias("item_spread_m"),
        "after",
        *more,
    )


def own_positions(typed: DataFrame, is_fix: Column) -> DataFrame:
    """What `item_positions` is made of: item_id, event_id, event_timestamp, latitude, longitude, day."""
    placed = typed.where(is_fix & F.col("latitude_").isNotNull() & F.col("item_id").isNotNull())
    return placed.select(
        "item_id",
        F.col("row_hash").alias("event_id"),
        F.col("timestamp").alias("event_timestamp"),
        F.col("latitude_").alias("latitude"),
        F.col("longitude_").alias("longitude"),
        "day",
    )


def with_item_positions(typed: DataFrame, known: DataFrame) -> DataFrame:
    """`typed` with the item's position where a row has none, or none but that of its IP address."""
    holds = (
        (F.col("item_id") == F.col("_item"))
        & (F.col("after").isNull() | (F.col("day") > F.col("after")))
        & (F.col("until").isNull() | (F.col("day") <= F.col("until")))
    )
    is_missing = F.col("latitude_").isNull() | F.col("position_source").eqNullSafe("ip")
    fills = is_missing & F.col("item_latitude").isNotNull()
    filled = {
        "latitude_": F.when(fills, F.col("item_latitude")).otherwise(F.col("latitude_")),
        "longitude_": F.when(fills, F.col("item_longitude")).otherwise(F.col("longitude_")),
        "position_source": F.when(fills, ITEM).otherwise(F.col("position_source")),
        "position_precision_m": F.when(fills, F.col("item_spread_m")).otherwise(F.col("position_precision_m")),
    }
    names = ("_item", "item_latitude", "item_longitude", "item_spread_m", "after", "until")
    return typed.join(known, on=holds, how="left").withColumns(filled).drop(*names)
