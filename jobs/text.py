"""text: turns each distinct text into a sentence vector, once, and says which text describes which item."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.settings import Text
from jobs.lake.context import Context
from models import encoder

KEPT_CHARACTERS = 2000
TEXTS_WORTH_A_WORKER = 256
_ENCODED = "text_hash string, text string, day date, vector array<float>"


def run(context: Context) -> None:
    settings = context.settings.text
    # Found before any work, so that a wrong folder does not fail in the middle of a night.
    version = f"{encoder.find(settings.encoder).version}/{settings.max_tokens}"
    items = describe_items(context.changed("items"))
    context.write("item_texts", item_texts(items))
    seen = distinct_texts(items.unionByName(written_texts(context.arrivals("events"))))
    new = unknown_texts(seen, context.before("text_semantics"), version, context.days.first).persist()
    count = new.count()
    context.note(texts_encoded=count)
    # Loading the model takes a worker seconds, as long as some hundred texts do: few texts stay together.
    parts = min(max(1, count // TEXTS_WORTH_A_WORKER), context.spark.sparkContext.defaultParallelism)
    vectors = new.repartition(parts, "text_hash").mapInArrow(encoding(settings), _ENCODED)
    # Kept, since on keyframe days it is read twice, and encoding is what costs here.
    context.write("text_semantics", text_semantics(vectors, version).persist())


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


def unknown_texts(seen: DataFrame, known: DataFrame, version: str, first_day: date) -> DataFrame:
    """The texts to encode: those seen and not yet known, and those known from another encoder.

    Vectors of two encoders cannot be compared; so a new one encodes all known texts again on its
    first day, and from then on only new ones.
    """
    is_current = F.col("encoder") == F.lit(version)
    outdated = known.where(~is_current).select("text_hash", "text", F.lit(first_day).alias("day"))
    return (
        seen.join(known.where(is_current).select("text_hash"), on="text_hash", how="left_anti")
        .unionByName(outdated)
        .groupBy("text_hash", "text")
        .agg(F.min("day").alias("day"))
    )


def encoding(settings: Text) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For mapInArrow: adds `vector`; the model is loaded once per worker, by the first row that needs it."""

    def encode(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows == 0:
                continue
            model = encoder.load(settings.encoder, max_tokens=settings.max_tokens, batch_size=settings.batch_size, threads=1)
            vectors = model.encode(batch.column("text").to_pylist())
            yield pa.RecordBatch.from_arrays([*batch.columns, _lists(vectors)], names=[*batch.schema.names, "vector"])

    return encode


def _lists(vectors: np.ndarray) -> pa.Array:
    """Rows of a matrix as lists; rows of NaN as null."""
    worded = ~np.isnan(vectors).any(axis=1)
    ends = np.concatenate([[0], np.cumsum(worded) * vectors.shape[1]]).astype(np.int32)
    offsets = pa.array(ends, mask=np.append(~worded, False))
    return pa.ListArray.from_arrays(offsets, pa.array(vectors[worded].ravel()))


def text_semantics(vectors: DataFrame, version: str) -> DataFrame:
    return vectors.select(
        "text_hash",
        "text",
        "vector",
        F.lit(version).alias("encoder"),
        F.lit(False).alias("gone"),
        F.col("day").alias("changed_on"),
        "day",
    )
