"""The series that are forecast: from increments to a row per series, and from such rows to matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from jobs.forecast.methods import Histories

NAMES = ("entity_type", "entity_id", "event_type")
_EVERY, _ITEM = ("category", "region"), "item"
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, kw_only=True)
class Span:
    """The days that forecasts rest on, both included."""

    first: date
    last: date

    @staticmethod
    def of(last: date, first_day: date, history_days: int) -> Span:
        """So many days that end with `last`, of those that the lake has seen."""
        return Span(first=max(first_day, last - timedelta(days=history_days - 1)), last=last)

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1


def series(activity: DataFrame, span: Span, event_types: Sequence[str], items: int) -> DataFrame:
    """A row per series: `NAMES`, `counted` (its days with events, days since 1970, and their events), and its
    `place` by the events of the span, the busiest 1.

    All categories and regions, and the so many busiest pairs of item and event type.
    """
    counts = (
        activity.where(F.col("event_date").between(F.lit(span.first), F.lit(span.last)))
        .where(F.col("event_type").isin(*event_types))
        .groupBy(*NAMES, F.unix_date("event_date").alias("dated"))
        .agg(F.sum("events").alias("events"))
        .groupBy(*NAMES)
        .agg(F.sum("events").alias("total"), F.array_sort(F.collect_list(F.struct("dated", "events"))).alias("counted"))
    )
    busiest = (F.desc("total"), *NAMES)
    found = counts.where(F.col("entity_type").isin(*_EVERY)).unionByName(
        counts.where(F.col("entity_type") == _ITEM).orderBy(*busiest).limit(items)
    )
    # Bounded by catalogue and map, so one task can number them.
    place = F.row_number().over(Window.partitionBy(F.lit(0)).orderBy(*busiest))
    return found.select(*NAMES, "counted", place.alias("place"))


def histories(batch: pa.RecordBatch, span: Span) -> Histories:
    """The series of a batch with `counted`, as a matrix."""
    counted = batch["counted"]
    first, size = (span.first - _EPOCH).days, batch.num_rows
    of_series = np.repeat(np.arange(size), counted.value_lengths().to_numpy())
    dated, events = counted.flatten().flatten()
    counts_PD = np.zeros((size, span.days))
    counts_PD[of_series, dated.to_numpy().astype(np.int64) - first] = events.to_numpy()
    return Histories(counts_PD=counts_PD, first=np.argmax(counts_PD > 0, axis=1), last=first + span.days - 1)
