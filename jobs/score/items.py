"""What lists are to know of the items: which may be listed, what the settings add to them, what reasons say of them."""

from __future__ import annotations

from datetime import date
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.settings import Score, SettingsError
from jobs.lake.failures import one_line


def ruled(items: DataFrame, rules: Score, day: date) -> DataFrame:
    """Items with `blocked` and `boost`, as the settings say; asks nothing of Spark but what the conditions mean.

    Raises:
        SettingsError: a condition is none over the columns of items; names the key.
    """
    seen = items.withColumn("day", F.lit(day))

    def condition(key: str, text: str) -> Column:
        try:
            kind = seen.withColumn("_holds", F.expr(text)).schema["_holds"].dataType.simpleString()
        except Exception as error:  # Spark's own classes, for what cannot be parsed and for what is not there
            raise SettingsError(f"{key}: no condition over the columns of items: {one_line(error)}") from None
        if kind != "boolean":
            raise SettingsError(f"{key}: a condition is true or false, {text} is of type {kind}")
        return F.coalesce(F.expr(text), F.lit(False))

    blocked = F.lit(False) if rules.block is None else condition("score.block", rules.block)
    added = [F.when(condition("score.boost", text), value).otherwise(0.0) for text, value in rules.boost.items()]
    boost = reduce(Column.__add__, added) if added else F.lit(None).cast("double")
    return seen.withColumns({"blocked": blocked, "boost": boost}).drop("day")


def collected(facts: DataFrame, rules: Score) -> pa.Table:
    """`item_facts`, brought here; `kept` is that of all.

    Raises:
        ValueError: a condition of the settings cannot be answered for some item.
    """
    try:
        found = facts.toArrow()
    except Exception as error:
        if rules.block is None and not rules.boost:
            raise
        remedy = "if a condition converts what some item has not, as to_date does, write try_cast(... AS date)"
        raise ValueError(f"score.block or score.boost: {one_line(error)}; {remedy}") from error
    kept = pc.max(found["kept"]).as_py() or 0
    found = found.filter(pc.is_valid(found["item_id"]))
    return found.set_column(found.column_names.index("kept"), "kept", pa.repeat(pa.scalar(kept, pa.int32()), len(found)))


def counted(sequences: DataFrame, targets: tuple[str, ...]) -> DataFrame:
    """`item_id, users, kept`: who holds each item, see `item_facts`; with a row for no item, so that `kept` is told of all."""
    is_cut = F.col("events_total") > F.size("events")
    held = _held(sequences, targets, F.when(is_cut, F.size("events")).otherwise(0))
    return held.groupBy("item_id").agg(F.count("*").alias("users"), F.max("kept").alias("kept"))


def recounted(before: DataFrame, then: DataFrame, now: DataFrame, targets: tuple[str, ...]) -> DataFrame:
    """`counted` of everybody, from what it was before and the sequences of those in whom it changed, before and after."""
    lost = counted(then, targets).select("item_id", (-F.col("users")).alias("users"), F.lit(0).alias("kept"))
    moved = before.select("item_id", "users", "kept").unionByName(lost).unionByName(counted(now, targets))
    sums = moved.groupBy("item_id").agg(F.sum("users").alias("users"), F.max("kept").alias("kept"))
    return sums.where(F.col("item_id").isNull() | (F.col("users") > 0))


def _held(sequences: DataFrame, targets: tuple[str, ...], kept: Column) -> DataFrame:
    """`item_id, kept`: a row per user and distinct item of the target events; of a user without any one for no item."""
    taken = F.filter("events", lambda event: event.event_type.isin(*targets))
    items = F.array_distinct(F.transform(taken, lambda event: event.item_id))
    return sequences.select(F.explode_outer(items).alias("item_id"), kept.alias("kept"))


def item_facts(counts: DataFrame, items: DataFrame, every_item: DataFrame) -> DataFrame:
    """One row per item, as `served_items` has them but for the day, and one for no item. Bounded by the catalogue.

    counts: as `counted` gives them. items: as `ruled` does. `users` counts those whose kept target events hold the item; `kept`
    is how many events are kept of each where older ones were cut off, else 0. `withdrawn` marks items that are gone or blocked:
    `every_item` are all stored rows of the items, as keyframes copy no withdrawn ones.
    """
    withdrawn = every_item.where("gone").select("item_id").distinct().join(items, on="item_id", how="left_anti")
    return (
        items.select("item_id", "title", "category", "brand", "blocked", "boost")
        .join(withdrawn.withColumn("withdrawn", F.lit(True)), on="item_id", how="full_outer")
        .join(counts, on="item_id", how="full_outer")
        .select(
            "item_id",
            "title",
            "category",
            F.coalesce("users", F.lit(0)).cast("bigint").alias("users"),
            F.coalesce("kept", F.lit(0)).cast("int").alias("kept"),
            F.coalesce("withdrawn", "blocked", F.lit(False)).alias("withdrawn"),
            "brand",
            "boost",
        )
    )
