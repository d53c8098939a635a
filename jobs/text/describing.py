"""Which text describes which item, and a text's name: the hash of what it says."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

KEPT_CHARACTERS = 2000


def normalised(text: Column) -> Column:
    """White space and control characters as single spaces, none at the ends; letters stay as they are."""
    return F.trim(F.regexp_replace(text, r"(?U)[\s\p{Cc}]+", " "))


def text_hash(text: Column) -> Column:
    """The name of a text in text_semantics: hash of the normalised text; null for null."""
    return F.sha2(normalised(text), 256)


def item_text(title: Column, category: Column, description: Column) -> Column:
    """`Title. Category. Description`, without what is missing; null where all is."""
    parts = [F.nullif(F.regexp_replace(normalised(part), r"[\s.]+$", ""), F.lit("")) for part in (title, category, description)]
    return F.nullif(F.concat_ws(". ", *parts), F.lit(""))


def describe_items(items: DataFrame) -> DataFrame:
    """Per changed item its text (null where nothing is said of it, or it is gone); with `gone` and `day`."""
    text = item_text(F.col("title"), F.col("category"), F.col("description"))
    return items.select("item_id", F.when(~F.col("gone"), text).alias("text"), "gone", "day")


def item_texts(described: DataFrame) -> DataFrame:
    return described.select(
        "item_id",
        text_hash(F.col("text")).alias("text_hash"),
        "gone",
        F.col("day").alias("changed_on"),
        "day",
    )


def written_texts(events: DataFrame) -> DataFrame:
    """What users wrote: reviews, searches."""
    return events.select(F.lit(None).cast("string").alias("item_id"), "text", F.lit(False).alias("gone"), "day")


def distinct_texts(texts: DataFrame) -> DataFrame:
    """Each distinct text, normalised and cut, with the first day on which it was seen."""
    return (
        texts.where(F.col("text").isNotNull())
        .select(
            text_hash(F.col("text")).alias("text_hash"),
            F.substring(normalised(F.col("text")), 1, KEPT_CHARACTERS).alias("text"),
            "day",
        )
        .groupBy("text_hash", "text")
        .agg(F.min("day").alias("day"))
    )
