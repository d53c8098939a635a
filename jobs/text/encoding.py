"""Distinct texts to sentence vectors and readings: which are to be encoded, and by whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.settings import Text
from jobs.text.reading import READ, readings
from models import encoder, ngrams

_READ_NAMES = [field.split()[0] for field in READ.split(", ")]
ENCODED = f"text_hash string, text string, day date, vector array<float>, encoder string, {READ}"


def ngrams_version(version: str) -> str:
    """The name of what reads texts that the encoder of this version does not know; another encoder may know them."""
    return f"{ngrams.VERSION}/{version}"


def unknown_texts(seen: DataFrame, known: DataFrame, version: str, first_day: date) -> DataFrame:
    """The texts to encode: those seen and not yet known, and those known from another encoder (`again`).

    Vectors of two encoders cannot be compared; so a new one encodes all known texts again on its
    first day, and from then on only new ones.
    """
    is_current = F.col("encoder").isin(version, ngrams_version(version))
    outdated = known.where(~is_current).select("text_hash", "text", F.lit(first_day).alias("day"), F.lit(True).alias("again"))
    return (
        seen.join(known.where(is_current).select("text_hash"), on="text_hash", how="left_anti")
        .withColumn("again", F.lit(False))
        .unionByName(outdated)
        .groupBy("text_hash", "text")
        .agg(F.min("day").alias("day"), F.bool_or("again").alias("again"))
    )


def encoding(settings: Text, version: str) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For mapInArrow: adds `vector`, whose it is, and what `readings` gives.

    The model is loaded once per worker, by the first row that needs it.
    """

    def encode(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows == 0:
                continue
            model = loaded(settings)
            texts = batch.column("text").to_pylist()
            vectors_ND, by = model.encode(texts), np.full(len(texts), version, dtype=object)
            strange = np.flatnonzero(np.isnan(vectors_ND[:, 0]))
            vectors_ND[strange] = ngrams.vectors([texts[row] for row in strange], model.dimensions)
            by[strange[~np.isnan(vectors_ND[strange, 0])]] = ngrams_version(version)
            columns = [*batch.columns, _lists(vectors_ND), pa.array(by, pa.string()), *readings(texts)]
            yield pa.RecordBatch.from_arrays(columns, names=[*batch.schema.names, "vector", "encoder", *_READ_NAMES])

    return encode


def loaded(settings: Text) -> encoder.Encoder:
    """The encoder of the settings in a Spark worker, which is one of many on its machine; fp32 where they name no precision."""
    return encoder.load(
        settings.encoder,
        precision=settings.precision or "fp32",
        max_tokens=settings.max_tokens,
        batch_size=settings.batch_size,
        threads=1,
    )


def _lists(vectors: np.ndarray) -> pa.Array:
    """Rows of a matrix as lists; rows of NaN as null."""
    worded = ~np.isnan(vectors).any(axis=1)
    ends = np.concatenate([[0], np.cumsum(worded) * vectors.shape[1]]).astype(np.int32)
    offsets = pa.array(ends, mask=np.append(~worded, False))
    return pa.ListArray.from_arrays(offsets, pa.array(vectors[worded].ravel()))


def text_semantics(told: DataFrame) -> DataFrame:
    return told.select(
        "text_hash",
        "text",
        "vector",
        "encoder",
        *_READ_NAMES,
        "topic",
        "topic_confidence",
        F.lit(False).alias("gone"),
        F.col("day").alias("changed_on"),
        "day",
    )
