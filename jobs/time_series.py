"""time_series: counts activity per user, item, category and region, and describes its shape over time.

Shape suffixes: R increments (what arrived of one entity for one date), P series (an entity as of
one of its active days), W days of the window, H hours of the day.

Every sum over the window goes day by day over all series at once, never along a series: so a
series gives the same bits whatever others stand beside it, and a night what a bootstrap gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.tables import TABLES
from jobs.lake.context import Context, Skipped

ENTITIES = {"user": "user_id", "item": "item_id", "category": "category", "region": "region"}
HOURS = 24
WEEK_DAYS = 7
# Below this a share or a strength is rounding, not rhythm.
NOTHING = 1e-9

_FEATURES = ("events", "level", "slope", "weekly_strength", "daily_strength", "daily_peak_hour", "anomaly")
_DESCRIBED = "entity string, entity_type string, entity_id string, n int, events bigint, " + ", ".join(
    f"{name} double" for name in _FEATURES[1:]
)


def run(context: Context) -> None:
    if not context.mapping.has_times:
        raise Skipped("the log has no times, so there is no activity over time to describe")
    window_days = context.settings.time_series.window_days
    activity = activity_daily(context.arrivals("events")).persist()
    context.write("activity_daily", activity)
    arrived = with_entity(activity)
    # An increment arrives on its own date or later: none of an earlier partition is in the window.
    known = with_entity(context.before("activity_daily", lookback_days=window_days - 1))
    active = arrived.select("entity").distinct()
    increments = arrived.unionByName(known.join(active, on="entity", how="left_semi"))
    context.write("time_series_features", time_series_features(increments, context.days.first, window_days))


def activity_daily(events: DataFrame) -> DataFrame:
    """Increments per entity, event type and own date, of the events that arrived."""
    entities = F.array(*[F.struct(F.lit(name).alias("type"), F.col(column).alias("id")) for name, column in ENTITIES.items()])
    return (
        events.select("event_type", "event_date", "local_hour", "day", F.explode(entities).alias("entity"))
        .where(F.col("entity.id").isNotNull())
        .groupBy(
            F.col("entity.type").alias("entity_type"),
            F.col("entity.id").alias("entity_id"),
            "event_type",
            "event_date",
            "day",
        )
        .agg(
            F.count(F.lit(1)).alias("events"),
            F.array(*[F.count_if(F.col("local_hour") == hour) for hour in range(HOURS)]).alias("hours"),
        )
        .select(*TABLES["activity_daily"].names)
    )


def with_entity(activity: DataFrame) -> DataFrame:
    return activity.withColumn("entity", F.concat_ws(":", "entity_type", "entity_id"))


def time_series_features(increments: DataFrame, first_day: date, window_days: int) -> DataFrame:
    """A row for each entity and each day from `first_day` on, on which something of it arrived.

    `increments` (activity_daily with `entity`) are all that arrived up to each day and is dated
    within its window; more does not matter.
    """
    # Sorted by entity and streamed: memory holds one batch, or one entity where that is longer.
    series = (
        increments.select(
            "entity",
            "entity_type",
            "entity_id",
            F.unix_date("day").alias("arrived"),
            F.unix_date("event_date").alias("dated"),
            "events",
            "hours",
        )
        .repartition("entity")
        .sortWithinPartitions("entity")
    )
    described = series.mapInArrow(describing(_number(first_day), window_days), _DESCRIBED)
    day = F.date_from_unix_date("n")
    return described.select(
        "entity",
        "entity_type",
        "entity_id",
        F.lit(window_days).alias("window_days"),
        *_FEATURES,
        F.lit(False).alias("gone"),
        day.alias("changed_on"),
        day.alias("day"),
    )


def describing(first: int, window: int) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For mapInArrow over increments sorted by entity: the features of each entity's active days from `first` on."""

    def describe(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        pending: list[pa.RecordBatch] = []
        for batch in batches:
            if batch.num_rows == 0:
                continue
            rows = pa.Table.from_batches([*pending, batch])
            # The last entity may go on in the next batch.
            last = pc.index(rows["entity"], rows["entity"][-1]).as_py()
            pending = rows.slice(last).to_batches()
            if last:
                yield from _describe(rows.slice(0, last), first, window)
        if pending:
            yield from _describe(pa.Table.from_batches(pending), first, window)

    return describe


def _describe(rows: pa.Table, first: int, window: int) -> Iterator[pa.RecordBatch]:
    rows = rows.combine_chunks()
    entity = rows["entity"].combine_chunks().dictionary_encode().indices.to_numpy()
    arrived, dated, events = (rows[name].to_numpy() for name in ("arrived", "dated", "events"))
    hours_RH = rows["hours"].combine_chunks().flatten().to_numpy().reshape(-1, HOURS)
    series = cut(entity, arrived, dated, first=first, window=window)
    if len(series.day) == 0:
        return
    features = shape(series.counts(events)) | rhythm(series.hours(hours_RH))
    _, row_of_entity = np.unique(entity, return_index=True)
    named = rows.select(["entity", "entity_type", "entity_id"]).take(pa.array(row_of_entity[series.entity]))
    columns = [*(column.combine_chunks() for column in named.columns), pa.array(series.day.astype(np.int32))]
    columns += [pa.array(features[name], from_pandas=True) for name in _FEATURES]
    yield pa.RecordBatch.from_arrays(columns, names=[*named.column_names, "n", *_FEATURES])


@dataclass(frozen=True, kw_only=True)
class Series:
    """The series to describe, each the last `window` days of an entity as of `day`, sorted by entity and day.

    Increment r belongs to the series `begin[r]` to `end[r] - 1`: those of its entity from the day
    of its arrival until its date leaves the window.
    """

    entity: np.ndarray  # (P,)
    day: np.ndarray  # (P,)
    window: int
    dated: np.ndarray  # (R,)
    begin: np.ndarray  # (R,)
    end: np.ndarray  # (R,)

    def counts(self, events: np.ndarray) -> np.ndarray:
        """Events per day of the window, (W, P)."""
        lengths = self.end - self.begin
        row = np.repeat(np.arange(len(lengths)), lengths)
        series = np.arange(len(row)) + np.repeat(self.begin - (np.cumsum(lengths) - lengths), lengths)
        position = self.dated[row] - self.day[series] + self.window - 1
        flat = np.bincount(position * len(self.day) + series, weights=events[row], minlength=self.window * len(self.day))
        return flat.reshape(self.window, -1)

    def hours(self, hours_RH: np.ndarray) -> np.ndarray:
        """Events per local hour over the window, (H, P): whole numbers added where increments come, taken off where they go."""
        size = len(self.day) + 1
        change = [
            np.bincount(self.begin, weights=of_hour, minlength=size) - np.bincount(self.end, weights=of_hour, minlength=size)
            for of_hour in hours_RH.T
        ]
        return np.cumsum(change, axis=1)[:, :-1]


def cut(entity: np.ndarray, arrived: np.ndarray, dated: np.ndarray, *, first: int, window: int) -> Series:
    """The series of each entity's active days (those with arrivals) from `first` on.

    Arguments are (R,): number of the entity, ascending; arrival day and own date as days since
    1970, an increment being dated no later than it arrives.
    """
    assert (dated <= arrived).all(), "an event is dated after its arrival"
    span = int(arrived.max()) + window + 2  # days of one entity never reach the next one's in these keys
    start = entity.astype(np.int64) * span
    key = np.unique((start + arrived)[arrived >= first])
    begin = np.searchsorted(key, start + np.maximum(arrived, first))
    end = np.searchsorted(key, start + dated + window)
    return Series(entity=key // span, day=key % span, window=window, dated=dated, begin=begin, end=np.maximum(begin, end))


def shape(counts_WP: np.ndarray) -> dict[str, np.ndarray]:
    """Level, slope, weekly strength and anomaly of daily counts.

    slope: least squares over the days. weekly_strength: share of the variance around that line
    explained by the Fourier component with a period of 7 days (for a window of whole weeks the
    periodogram's share at that frequency); 0 where the line explains all. anomaly: robust z of the
    last day, with 1 added to the scale, as half the days of most series are zeros.
    """
    window = len(counts_WP)
    time = np.arange(window) - (window - 1) / 2
    level = _sum_days(counts_WP) / window
    # Twice the time is a whole number: the sum is exact, and the slope of a symmetric series is 0.
    slope = _sum_days(counts_WP * (2 * time)[:, None]) / 2 / float(time @ time)
    residual_WP = counts_WP - level - slope * time[:, None]
    variation = _sum_days(residual_WP**2)
    angle = 2 * np.pi * np.arange(window) / WEEK_DAYS
    cosine, sine = _sum_days(residual_WP * np.cos(angle)[:, None]), _sum_days(residual_WP * np.sin(angle)[:, None])
    inverse = np.linalg.inv(np.stack([np.cos(angle), np.sin(angle)]) @ np.stack([np.cos(angle), np.sin(angle)]).T)
    explained = inverse[0, 0] * cosine**2 + 2 * inverse[0, 1] * cosine * sine + inverse[1, 1] * sine**2
    varies = variation > NOTHING**2 * np.maximum(_sum_days(counts_WP**2), 1)
    share = np.divide(explained, variation, out=np.zeros_like(level), where=varies)
    median = np.median(counts_WP, axis=0)
    deviation = np.median(np.abs(counts_WP - median), axis=0)
    return {
        "events": (level * window).round().astype(np.int64),
        "level": level,
        "slope": slope,
        "weekly_strength": np.where(share > NOTHING, np.minimum(share, 1), 0.0),
        "anomaly": (counts_WP[-1] - median) / (1.4826 * deviation + 1),
    }


def rhythm(hours_HP: np.ndarray) -> dict[str, np.ndarray]:
    """Strength and peak of the 24-hour rhythm: the mean resultant of the hours as angles (NaN without hours, without a peak).

    Mardia and Jupp, Directional Statistics, 2.2.
    """
    angle = 2 * np.pi * np.arange(HOURS) / HOURS
    total = _sum_days(hours_HP)
    cosine, sine = _sum_days(hours_HP * np.cos(angle)[:, None]), _sum_days(hours_HP * np.sin(angle)[:, None])
    strength = np.divide(np.hypot(cosine, sine), total, out=np.full(len(total), np.nan), where=total > 0)
    strength = np.where(strength > NOTHING, np.minimum(strength, 1), np.where(np.isnan(strength), np.nan, 0.0))
    peak = np.arctan2(sine, cosine) * HOURS / (2 * np.pi) % HOURS
    return {
        "daily_strength": strength,
        "daily_peak_hour": np.where(strength > 0, np.where(peak < HOURS, peak, 0.0), np.nan),
    }


def _sum_days(values: np.ndarray) -> np.ndarray:
    """Sum over the first axis, in order (numpy's own sum orders it by the array's size)."""
    total = np.zeros(values.shape[1])
    for of_day in values:
        total = total + of_day
    return total


def _number(day: date) -> int:
    return (day - date(1970, 1, 1)).days
