"""Which values are usual for an event type: a median and a spread, made monthly from what had arrived."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

# asinh is linear around 0 and a logarithm far from it, so that amounts and signed values have one scale.
_BINS_PER_UNIT = 100
_LEAST_SPREAD = 0.25
# A median absolute deviation of a normal distribution times this is its standard deviation.
_NORMAL = 1.4826


def value_ranges(rows: DataFrame, fits: Sequence[date], window_days: int) -> DataFrame:
    """Per fit day and event type: the median and the scaled MAD of asinh(value) over the `window_days` that end with the day.

    rows: event_type, `value_`, day. Counted in bins of 0.01, so that any order and partitioning gives the same.
    Source: Leys et al. (2013), Detecting outliers: do not use standard deviation around the mean.
    """
    within = F.filter(
        F.array(*[F.lit(fit) for fit in fits]),
        lambda fit: (fit >= F.col("day")) & (F.date_diff(fit, F.col("day")) < window_days),
    )
    place = F.round(_scaled(F.col("value_")) * _BINS_PER_UNIT).cast("int")
    bins = (
        rows.where(F.col("value_").isNotNull())
        .groupBy(F.coalesce("event_type", F.lit("")).alias("event_type"), "day", place.alias("bin"))
        .agg(F.count("*").alias("rows"))
        .select("event_type", "bin", "rows", F.explode(within).alias("day"))
        .groupBy("day", "event_type", "bin")
        .agg(F.sum("rows").alias("rows"))
    )
    centers = (
        bins.groupBy("day", "event_type")
        .agg(F.sum("rows").alias("total"))
        .join(_medians(bins, "bin").withColumnRenamed("median", "center"), on=["day", "event_type"], how="inner")
    )
    off = bins.join(centers, on=["day", "event_type"], how="inner").withColumn("off", F.abs(F.col("bin") - F.col("center")))
    spreads = _medians(off.groupBy("day", "event_type", "off").agg(F.sum("rows").alias("rows")), "off")
    return centers.join(spreads, on=["day", "event_type"], how="inner").select(
        "event_type",
        (F.col("center") / _BINS_PER_UNIT).alias("center"),
        F.greatest(F.col("median") * _NORMAL / _BINS_PER_UNIT, F.lit(_LEAST_SPREAD)).alias("spread"),
        F.col("total").alias("rows"),
        "day",
    )


def _scaled(value: Column) -> Column:
    """asinh, made of its positive half: of large negative values Spark's is -Infinity (a logarithm of 0)."""
    return F.signum(value) * F.asinh(F.abs(value))


def _medians(bins: DataFrame, place: str) -> DataFrame:
    """The lower median of `place`, each with its count `rows`, per day and event type."""
    group = Window.partitionBy("day", "event_type")
    so_far = F.sum("rows").over(group.orderBy(place).rowsBetween(Window.unboundedPreceding, Window.currentRow))
    ranked = bins.withColumns({"_upto": so_far, "_all": F.sum("rows").over(group)})
    return ranked.where(F.col("_upto") * 2 >= F.col("_all")).groupBy("day", "event_type").agg(F.min(place).alias("median"))


def with_range(rows: DataFrame, ranges: DataFrame) -> DataFrame:
    """`rows` with `center`, `spread` and `range_rows` of the newest fit before their day."""
    fits = Window.partitionBy("event_type").orderBy("day")
    known = ranges.select(
        F.col("event_type").alias("_type"),
        F.col("day").alias("_since"),
        F.lead("day").over(fits).alias("_until"),
        "center",
        "spread",
        F.col("rows").alias("range_rows"),
    )
    holds = (
        (F.coalesce(F.col("event_type"), F.lit("")) == F.col("_type"))
        & (F.col("day") > F.col("_since"))
        & (F.col("_until").isNull() | (F.col("day") <= F.col("_until")))
    )
    return rows.join(F.broadcast(known), on=holds, how="left").drop("_type", "_since", "_until")


def is_extreme(deviations: float, min_rows: int) -> Column:
    """So many robust deviations away from the median of its event type, where enough values are known."""
    away = F.abs(_scaled(F.col("value_")) - F.col("center"))
    return F.coalesce((away > deviations * F.col("spread")) & (F.col("range_rows") >= min_rows), F.lit(False))
