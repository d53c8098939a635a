"""What moments are told apart by beside what happened: attributes of who asks, and the region.

Of each the most frequent names are kept and all others are one, so that what comes to the driver is bounded.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.lake.context import Context
from models.replay import NEW

MOST = 20
OTHER = "other"


def told_apart(context: Context, rows: DataFrame) -> DataFrame:
    """Rows of moments (see `moments`) with few regions, and in `groups` the users' `evaluate.attributes`."""
    if context.settings.network.places:
        asked = rows.where(F.col("origin") == F.lit(NEW)).select("region")
        rows = rows.withColumn("region", _few(F.col("region"), _most_frequent(asked)["region"]))
    names = context.settings.evaluate.attributes
    if not names:
        return rows
    users = context.state("users").select("user_id", *[F.col("attributes")[name].alias(name) for name in names])
    frequent = _most_frequent(users.select(*names))
    entries = F.array(*[F.struct(F.lit(name), _few(F.col(name), frequent[name]).alias("value")) for name in names])
    groups = F.map_from_entries(F.filter(entries, lambda entry: entry["value"].isNotNull())).alias("groups")
    return rows.drop("groups").join(users.select("user_id", groups), on="user_id", how="left")


def _few(column: Column, names: Sequence[str]) -> Column:
    return F.when(column.isin(*names), column).when(column.isNotNull(), F.lit(OTHER))


def _most_frequent(rows: DataFrame) -> dict[str, list[str]]:
    """The `MOST` most frequent values of each column."""
    pairs = [F.struct(F.lit(name).alias("name"), F.col(name).alias("value")) for name in rows.columns]
    counts = rows.select(F.explode(F.array(*pairs)).alias("at")).where("at.value IS NOT NULL").groupBy("at.name", "at.value")
    by_name = Window.partitionBy("name").orderBy(F.desc("count"), "value")
    top = counts.count().withColumn("place", F.row_number().over(by_name)).where(F.col("place") <= MOST)
    found: dict[str, list[str]] = {name: [] for name in rows.columns}
    for row in top.collect():
        found[row["name"]].append(row["value"])
    return found
