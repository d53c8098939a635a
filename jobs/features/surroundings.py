"""What holds around a moment and place: holidays, weather, events in town, as they were told before its day.

A row of `context` holds in a cell, in a region and all below it, or everywhere, over some span of time. Moments
and rows meet by their hour and by the name of the place, so no moment is paired with more than may hold for it.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

CONTEXT = "context"
VALUES, NUMBERS = "context__values", "context__numbers"
_MOMENT, _EVERYWHERE = "event_timestamp", "everywhere"
_FINEST = 9
_ASKED = ("event_timestamp", "cell", "region")


def with_context(asking: DataFrame, context: DataFrame) -> DataFrame:
    """`asking` with what holds at its `event_timestamp`, in its `cell` and `region` (where it has them).

    `context__values`: name to value (null where the feed has none); `context__numbers`: name to number,
    of the values that are one. Of several rows of a name that of the smallest place counts: a finer
    cell before a coarser, any cell before a region, a longer region before a shorter, any place
    before everywhere; of one place the one that began last. Maps are empty where nothing holds.

    Args:
        asking: rows with `event_timestamp`.
        context: stored rows of the table, of days from the keyframe before the first moment's on.
    """
    given = [name for name in _ASKED if name in asking.columns]
    moments = asking.select(*given).distinct()
    for name in set(_ASKED) - set(given):
        moments = moments.withColumn(name, F.lit(None).cast("string"))
    found = _holding(moments, _told(context))
    matched = [asking[f"`{name}`"].eqNullSafe(found[f"_{name}"]) for name in given]
    joined = asking.join(found, on=matched, how="left")
    return joined.select(
        *[asking[f"`{name}`"] for name in asking.columns], _map("value").alias(VALUES), _map("number").alias(NUMBERS)
    )


def _told(context: DataFrame) -> DataFrame:
    """What was told, each with the days (`told_on`, `until_day`] on which it was the newest word, at each day it holds."""
    by_owner = Window.partitionBy("context_id").orderBy("day")
    place = F.coalesce("cell", F.concat(F.lit("/"), F.col("region")), F.lit(_EVERYWHERE))
    newest = context.withColumn("until_day", F.lead("day").over(by_owner)).where(~F.col("gone"))
    last = F.to_date(F.timestamp_micros(F.unix_micros("valid_until") - 1))
    return newest.select(
        F.explode(F.sequence(F.to_date("valid_from"), last)).alias("_date"),
        place.alias("_place"),
        F.col("day").alias("told_on"),
        "until_day",
        "name",
        "value",
        "number",
        "valid_from",
        "valid_until",
    )


def _holding(moments: DataFrame, told: DataFrame) -> DataFrame:
    """Per moment and place, under names with an underscore, a list of what holds: name, value, number."""
    day = F.to_date(_MOMENT)
    places = F.array_union(F.array_union(_cells(F.col("cell")), _regions(F.col("region"))), F.array(F.lit(_EVERYWHERE)))
    asked = moments.select(
        *[F.col(name).alias(f"_{name}") for name in _ASKED],
        day.alias("_date"),
        F.posexplode(F.array_compact(places)).alias("_rank", "_place"),
    )
    is_newest = (F.col("told_on") < F.col("_date")) & (F.col("until_day").isNull() | (F.col("until_day") >= F.col("_date")))
    moment = F.col(f"_{_MOMENT}")
    holds = (F.col("valid_from") <= moment) & (moment < F.col("valid_until"))
    keys = [f"_{name}" for name in _ASKED]
    rows = asked.join(told, on=["_date", "_place"], how="inner").where(is_newest & holds)
    # Of the smallest place first, there what began last; the rest only makes it the same every time.
    nearest = F.struct((-F.col("_rank")).alias("near"), "valid_from", "valid_until", "told_on", "value", "number")
    best = rows.groupBy(*keys, "name").agg(F.max(nearest).alias("best"))
    one = F.struct("name", F.col("best.value").alias("value"), F.col("best.number").alias("number"))
    return best.groupBy(*keys).agg(F.array_sort(F.collect_list(one)).alias("_holding"))


def _map(field: str) -> Column:
    """Name to `value`, or to `number` of those that have one."""
    there = F.coalesce("_holding", F.array().cast("array<struct<name:string,value:string,number:double>>"))
    kept = F.filter(there, lambda one: one["number"].isNotNull()) if field == "number" else there
    return F.map_from_entries(F.transform(kept, lambda one: F.struct(one["name"], one[field])))


def _cells(cell: Column) -> Column:
    """The cell and those that hold it, finest first (an H3 index ends in a one for each digit that it leaves open)."""
    index = F.conv(cell, 16, 10).cast("bigint")
    levels = []
    for resolution in range(_FINEST, -1, -1):
        cleared = index.bitwiseAND(~(15 << 52))
        coarser = cleared.bitwiseOR(F.lit(resolution << 52)).bitwiseOR(F.lit((1 << 3 * (15 - resolution)) - 1))
        own = F.shiftright(index, 52).bitwiseAND(F.lit(15))
        levels.append(F.when(own >= resolution, F.lower(F.hex(coarser))))
    return F.array(*levels)


def _regions(region: Column) -> Column:
    """`US/New York/Brooklyn`, `US/New York` and `US`, each behind a slash, that no cell is so called."""
    parts = F.split(region, "/")
    upto = F.transform(F.sequence(F.size(parts), F.lit(1), F.lit(-1)), lambda n: F.slice(parts, F.lit(1), n))
    named = F.transform(upto, lambda some: F.concat(F.lit("/"), F.array_join(some, "/")))
    return F.when(region.isNotNull(), named).otherwise(F.array().cast("array<string>"))
