"""What a labeller says of moments, by Spark's workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame

from jobs.labeller.moments import moments_of
from models.labeller import Labeller
from models.lasting import Clock

TOLD = "user_id string, category string, lasting_probability double, label string, rule_label string"


def told(moments: DataFrame, by: Labeller, clock: Clock) -> DataFrame:
    """`TOLD`, a row per moment. `by` and `clock` are small, and go to the workers with the function."""

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                yield _told(batch, by, clock)

    return moments.mapInArrow(work, TOLD)


def _told(batch: pa.RecordBatch, by: Labeller, clock: Clock) -> pa.RecordBatch:
    found, categories = moments_of(batch, user_M=np.zeros(batch.num_rows, dtype=np.int64))
    probability = pa.array(by.probability(found, categories, clock))
    # An interest that will not last is of these days, if the rule knew it at all.
    otherwise = pc.if_else(pc.equal(batch["label"], "none"), "none", "short")
    label = pc.if_else(pc.greater_equal(probability, by.cut), "long", otherwise)
    columns = [batch["user_id"], batch["category"], probability, label, batch["label"]]
    return pa.RecordBatch.from_arrays(columns, names=[column.split()[0] for column in TOLD.split(", ")])
