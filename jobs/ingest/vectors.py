"""Vectors of items that others computed, of images or sounds, day by day, as their feed told them."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.ingest.attributes import changes_of

VECTORS, ITEM_VECTORS = "vectors", "item_vectors"
MOST_NUMBERS = 4096
_PAIRS = "array<struct<key:string,value:array<float>>>"


def vectored(rows: DataFrame) -> DataFrame:
    """The feed's rows, parsed: item_id, `pairs` (kind and vector, sorted), is_told, day; `reason` of those refused.

    A vector is numbers with spaces, commas or semicolons between them, in brackets or not. A row holds all vectors of its
    item: one without any takes back what was told (`is_told` false).
    """
    pairs = F.transform("attributes", lambda pair: F.struct(pair["key"], _numbers(pair["value"])))
    found = rows.select("item_id", pairs.cast(_PAIRS).alias("pairs"), "broken", "day")
    numbers = F.flatten(F.transform("pairs", lambda pair: pair["value"]))
    sizes = F.transform("pairs", lambda pair: F.size(pair["value"]))
    # A number too large for a float is infinite; nothing that is none is finite.
    is_number = F.forall(numbers, lambda number: F.coalesce(F.abs(number) < F.lit(float("inf")), F.lit(False)))
    reason = (
        F.when(F.col("broken").isNotNull(), F.lit("broken"))
        .when(F.col("item_id").isNull(), F.lit("no_item"))
        .when(F.exists(sizes, lambda size: size > MOST_NUMBERS), F.lit("long_vector"))
        .when(~is_number, F.lit("bad_vector"))
    )
    return found.select("item_id", "pairs", (F.size("pairs") > 0).alias("is_told"), reason.alias("reason"), "day")


def vectors_by_day(rows: DataFrame, before: DataFrame) -> DataFrame:
    """`item_vectors` at the end of each day on which something in it changed.

    Of several rows of an item and day the greatest holds; one that takes all back holds where no other does.

    Args:
        rows: `vectored`; the refused are left out.
        before: the state that this starts from.
    """
    good = rows.where(F.col("reason").isNull())
    days = good.groupBy("item_id", "day").agg(F.max(F.struct("is_told", "pairs")).alias("known"))
    stored = F.array_sort(F.map_entries("vectors")).cast(_PAIRS)
    old = before.select("item_id", F.struct(F.lit(True).alias("is_told"), stored.alias("pairs")).alias("old"))
    changes = changes_of(days.join(old, on="item_id", how="left"), "item_id", "known")
    # What was never told cannot be taken back.
    meant = changes.where(F.col("known.is_told") | F.col("_previous").isNotNull())
    is_gone = ~F.col("known.is_told")
    return meant.select(
        "item_id",
        F.when(~is_gone, F.map_from_entries("known.pairs")).alias("vectors"),
        is_gone.alias("gone"),
        F.col("day").alias("changed_on"),
        "day",
    )


def _numbers(text: Column) -> Column:
    """The numbers of a text; null for what is none."""
    bare = F.regexp_replace(text, r"^[\s\[(]+|[\s\])]+$", "")
    return F.transform(F.split(bare, r"\s*[,;]\s*|\s+"), lambda number: number.try_cast("float"))
