"""Which method forecasts a series: by its errors at the early origins, drawn towards those of all series of its kind."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from jobs.forecast.judging import SELECTION
from jobs.forecast.methods import NAIVE
from jobs.forecast.series import NAMES

# What all series of a kind say of a method counts as much as so many origins of the series itself.
_PRIOR_ORIGINS = 4.0
# Errors this close are equal, whatever the order of a sum.
_DIGITS = 9


def with_chosen(quality: DataFrame, methods: Sequence[str]) -> DataFrame:
    """`forecast_quality` with `chosen`: of each series one method, the same in both stages.

    How much better than seasonal naive a method was on a series, in MASE, mean over its early origins, is shrunk
    towards the mean of that over all series of the entity and event type on which the method was tried: few origins
    tell little, and the least of several noisy errors is not that of the best method. Of equal ones the first of
    `methods`. A series without a MASE (the same week again and again) stays with seasonal naive.
    """
    early = quality.where((F.col("stage") == SELECTION) & F.col("mase").isNotNull())
    naive = early.where(F.col("method") == NAIVE).select(*NAMES, F.col("mase").alias("naive"))
    gained = early.join(naive, on=list(NAMES), how="inner").withColumn("gain", F.col("mase") - F.col("naive"))
    of_kind = F.avg("gain").over(Window.partitionBy("entity_type", "event_type", "method"))
    shrunk = (F.col("origins") * F.col("gain") + _PRIOR_ORIGINS * of_kind) / (F.col("origins") + _PRIOR_ORIGINS)
    place = F.array_position(F.array(*map(F.lit, methods)), F.col("method"))
    best = Window.partitionBy(*NAMES).orderBy("shrunk", "place")
    chosen = (
        gained.withColumns({"shrunk": F.round(shrunk, _DIGITS), "place": place})
        .withColumn("rank", F.row_number().over(best))
        .where(F.col("rank") == 1)
        .select(*NAMES, F.col("method").alias("best"))
    )
    is_best = F.col("method") == F.coalesce("best", F.lit(NAIVE))
    return quality.join(chosen, on=list(NAMES), how="left").withColumn("chosen", is_best).drop("best")
