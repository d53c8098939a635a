"""evolution: what the interest model has made of each user, and what it expects of the next seven days, by category.

Forecasts are written of the users of the day and of those whose week has run out: what was expected of the others holds on.
Who has done nothing for eight weeks has none. Vectors: see `jobs.evolution.vectors`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.learning import ENCODERS
from conf.tables import TABLES
from jobs.evolution import vectors
from jobs.lake import consent, logs
from jobs.lake.context import Context, Skipped
from jobs.lake.publications import INTEREST, in_force
from jobs.lake.store import keyframes
from jobs.score import batches_of
from jobs.score.lists import keep_to_own_cores
from jobs.score.moments import EVENT_FIELDS, end_of, places_of
from models import registry
from models.queries import Vocabulary

if TYPE_CHECKING:
    from models.bulk import BulkScorer

TABLE = "interest_forecasts"
IDLE_DAYS, HOLDS_DAYS = 56, 7
# Categories that are less likely are left out, and all but so many a day.
LEAST_SHARE, MOST = 0.01, 20
_USERS_AT_ONCE = 256
_EXPECTED = "user_id string, horizon_days int, category string, share double, day_share double"


def run(context: Context) -> None:
    version = version_asked(context)
    if version is None:
        raise Skipped("no interest model is there yet: nothing was learnt")
    context.note(model_version=version["model_version"])
    folder = context.lake.path(version["folder"])
    sequences = context.state("user_sequences")
    _write_vectors(context, sequences, version["model_version"], folder)
    if not context.mapping.has_times:
        context.note(forecasts="the log has no times, so there are no coming days to ask about")
    elif not Vocabulary.load(Path(folder) / registry.VOCABULARY).categories:
        context.note(forecasts="the log has no categories, so there is nothing to forecast of them")
    else:
        _write_forecasts(context, sequences, version["model_version"], folder)


def _write_vectors(context: Context, sequences: DataFrame, model_version: str, folder: str) -> None:
    day = context.days.last
    users = vectors.due(sequences, context.before(vectors.TABLE), model_version, day)
    asked = users.where(~F.col("is_over")).drop("is_over")
    with batches_of(context.spark, _USERS_AT_ONCE):
        _write(context, vectors.TABLE, vectors.vectors(asked, folder, day), users, model_version)


def _write_forecasts(context: Context, sequences: DataFrame, model_version: str, folder: str) -> None:
    day = context.days.last
    users = due(sequences, context.before(TABLE), day)
    ahead = Ahead(folder=folder, day=day, repeats=context.mapping.repeats)
    asked = users.where(~F.col("is_over")).drop("is_over")
    made = asked.mapInArrow(ahead, _EXPECTED).withColumn("forecast_date", F.date_add(F.lit(day), F.col("horizon_days")))
    with batches_of(context.spark, _USERS_AT_ONCE):
        _write(context, TABLE, made, users, model_version)


def _write(context: Context, table: str, made: DataFrame, users: DataFrame, model_version: str) -> None:
    """Rows of the users asked about, and a gone one of each with whom it is over."""
    day, contract = F.lit(context.days.last), TABLES[table]
    dated = {"model_version": F.lit(model_version), "gone": F.lit(False), "changed_on": day, "day": day}
    rows = made.withColumns(dated).select(*contract.names)
    if keyframes(context.days, context.first_day) or context.settings.asks_consent:
        rows = rows.persist()  # read twice: as changes, and for copies or to find who is written
    over = consent.gone(users.where("is_over").select("user_id", day.alias("day")), contract)
    context.write(table, rows.unionByName(over))


def version_asked(context: Context) -> logs.Row | None:
    """The network that serves; where something else does, the newest that was trained on all before its day."""
    rows = context.log_rows("model_versions", f"kind = '{INTEREST}'")
    until = context.days.last + timedelta(days=1)
    networks = [row for row in rows if row["method"] in ENCODERS and row["day"] < until]
    networks = [row for row in networks if registry.is_whole(Path(context.lake.path(row["folder"])))]
    served = in_force(context.log_rows("publications"), before=until)
    for row in networks:
        if served is not None and row["model_version"] == served["model_version"]:
            return row
    whole = [row for row in networks if row["trained_until"].date() == row["day"]]
    return max(whole, key=lambda row: (row["day"], row["created_at"]), default=None)


def due(sequences: DataFrame, before: DataFrame, day: date) -> DataFrame:
    """Whose forecast is to be written: user_id, the fields of the user's events as arrays, and whether it is over with it."""
    known = before.groupBy("user_id").agg(F.max("changed_on").alias("told_on"))
    joined = sequences.join(known, on="user_id", how="full_outer")
    newest = F.array_max(F.col("events.event_timestamp"))
    is_idle = newest.isNull() | (newest < F.lit(datetime.combine(day - timedelta(days=IDLE_DAYS), datetime.min.time(), UTC)))
    is_new = F.col("told_on").isNull() | (F.col("told_on") <= F.lit(day - timedelta(days=HOLDS_DAYS)))
    is_of_day = F.coalesce(F.array_max(F.col("events.arrived_on")) >= F.lit(day), F.lit(False))
    is_due = F.when(is_idle, F.col("told_on").isNotNull()).otherwise(is_new | is_of_day)
    fields = [F.col(f"events.{field}").alias(field) for field in EVENT_FIELDS]
    return joined.where(is_due).select("user_id", *fields, "seen", is_idle.alias("is_over"))


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """`mapInArrow` function: users with their events to rows of `_EXPECTED`."""

    folder: str
    day: date
    repeats: bool

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                yield self.rows(batch, _scorer(self.folder))

    def rows(self, batch: pa.RecordBatch, scorer: BulkScorer) -> pa.RecordBatch:
        from models.evolution import expected
        from models.histories import event_columns
        from models.queries import FIRST

        vocabulary = scorer.model.vocabulary
        events = event_columns(vocabulary, {name: batch.column(name).flatten() for name in EVENT_FIELDS})
        stop_U = np.cumsum(pc.list_value_length(batch.column("item_id")).to_numpy(zero_copy_only=False), dtype=np.int64)
        first_U = np.concatenate([[0], stop_U[:-1]])
        end = end_of(self.day)
        seen = [] if self.repeats else places_of(batch.column("seen"), vocabulary.items)
        share_UDC, weight_UD = expected(scorer, events, first_U, stop_U, end, seen)
        share_UDC = np.round(share_UDC, 6)
        place_UDC = (-share_UDC).argsort(axis=2, kind="stable").argsort(axis=2, kind="stable")
        user_R, day_R, category_R = np.nonzero(
            ((share_UDC >= LEAST_SHARE) & (place_UDC < MOST)) | ((place_UDC == 0) & (share_UDC > 0))
        )
        return pa.RecordBatch.from_arrays(
            [
                batch.column("user_id").take(pa.array(user_R)),
                pa.array((day_R + 1).astype(np.int32)),
                pa.array(vocabulary.categories, pa.string()).take(pa.array(category_R - FIRST)),
                pa.array(share_UDC[user_R, day_R, category_R]),
                pa.array(np.round(weight_UD, 6)[user_R, day_R]),
            ],
            names=["user_id", "horizon_days", "category", "share", "day_share"],
        )


@lru_cache(maxsize=1)
def _scorer(folder: str) -> BulkScorer:
    """Loaded once per worker process and version."""
    from models.bulk import BulkScorer
    from models.interest import InterestModel

    keep_to_own_cores()
    return BulkScorer(InterestModel.load(Path(folder)))
