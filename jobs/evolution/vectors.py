"""user_vectors: what the network that is asked has made of each user, for whoever seeks neighbours, or items, by vectors.

Asked as lists of slot `any` are: where the user was last seen, the hour hidden, so that a vector holds until the user does
something or another version is asked. Written are the users of the day; after another version all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.score.lists import keep_to_own_cores
from jobs.score.moments import EVENT_FIELDS, end_of

if TYPE_CHECKING:
    from models.interest import InterestModel

TABLE = "user_vectors"
_MADE = "user_id string, short array<float>, long array<float>, gated array<float>"


def due(sequences: DataFrame, before: DataFrame, model_version: str, day: date) -> DataFrame:
    """Whose vectors are to be written: user_id, the fields of the user's events as arrays, and whether none are left."""
    told = before.select("user_id", F.col("model_version").alias("_told_by"))
    joined = sequences.join(told, on="user_id", how="full_outer")
    is_over = F.coalesce(F.size("events"), F.lit(0)) <= 0
    is_of_day = F.coalesce(F.array_max(F.col("events.arrived_on")) >= F.lit(day), F.lit(False))
    is_due = F.when(is_over, F.col("_told_by").isNotNull()).otherwise(
        F.col("_told_by").isNull() | (F.col("_told_by") != model_version) | is_of_day
    )
    fields = [F.col(f"events.{field}").alias(field) for field in EVENT_FIELDS]
    return joined.where(is_due).select("user_id", *fields, is_over.alias("is_over"))


def vectors(users: DataFrame, folder: str, day: date) -> DataFrame:
    """`user_id, short, long, gated` of users with their events."""
    return users.mapInArrow(_Vectors(folder=folder, day=day), _MADE)


@dataclass(frozen=True, kw_only=True)
class _Vectors:
    """`mapInArrow` function."""

    folder: str
    day: date

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                yield self.rows(batch, _model(self.folder))

    def rows(self, batch: pa.RecordBatch, model: InterestModel) -> pa.RecordBatch:
        from models.histories import Moments, event_columns, histories_from_events, queries_before

        events = event_columns(model.vocabulary, {name: batch.column(name).flatten() for name in EVENT_FIELDS})
        stop_U = np.cumsum(pc.list_value_length(batch.column("item_id")).to_numpy(zero_copy_only=False), dtype=np.int64)
        first_U = np.concatenate([[0], stop_U[:-1]])
        users = len(first_U)
        hidden = Moments(
            first_B=first_U,
            stop_B=stop_U,
            timestamp_B=np.full(users, end_of(self.day)),
            hour_of_week_B=np.full(users, -1.0, np.float32),
        )
        length = int(min(model.window, (stop_U - first_U).max()))
        found = model.readings(histories_from_events(events, first_U, stop_U, length), queries_before(events, hidden))
        columns = [pa.nulls(users, pa.list_(pa.float32())) if one is None else _lists(one) for one in found]
        return pa.RecordBatch.from_arrays([batch.column("user_id"), *columns], names=["user_id", "short", "long", "gated"])


def _lists(vector_UD: np.ndarray) -> pa.Array:
    ends = np.arange(len(vector_UD) + 1, dtype=np.int32) * vector_UD.shape[1]
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(vector_UD.ravel()))


@lru_cache(maxsize=1)
def _model(folder: str) -> InterestModel:
    """Loaded once per worker process and version."""
    from models.interest import InterestModel

    keep_to_own_cores()
    return InterestModel.load(Path(folder))
