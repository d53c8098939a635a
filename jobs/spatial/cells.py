"""What happened in each cell on each day."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.contracts import ANY_SLOT


def cell_daily(events: DataFrame) -> DataFrame:
    """Events and users per cell, region, slot and category that arrived on each day.

    Events without a cell are left out; without a slot (a log without times) they count for `any`,
    without a category for ''.
    """
    where = ("cell", "region", "slot", "category")
    return (
        events.where(F.col("cell").isNotNull())
        .select(
            "cell",
            "region",
            F.coalesce("slot", F.lit(ANY_SLOT)).alias("slot"),
            F.coalesce("category", F.lit("")).alias("category"),
            "user_id",
            "day",
        )
        .groupBy("day", *where)
        .agg(F.count(F.lit(1)).alias("events"), F.count_distinct("user_id").alias("users"))
        .select(*where, "events", "users", "day")
    )
