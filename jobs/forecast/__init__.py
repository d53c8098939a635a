"""forecast: what is to be expected of categories, regions and the busiest items in the next days.

Of every series several methods are tried at moments of the past, once a week; nights use the one that was
chosen then. A step of its own beside time_series: what it imports, and what may fail in it, is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.contracts import FORECAST_DAYS
from conf.tables import TABLES
from jobs.forecast.judging import Origins, origins
from jobs.forecast.methods import METHODS, NAIVE
from jobs.forecast.selecting import with_chosen
from jobs.forecast.series import NAMES, Span, histories, series
from jobs.forecast.trying import COMBINATION, Quality, Ways
from jobs.lake.context import Context, Skipped
from jobs.spatial.windows import snapshot_days

Maker = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]
_TYPES = {"string": pa.string(), "int": pa.int32(), "double": pa.float64()}
_LATER = ("day", "chosen", "forecast_date")
_FORECASTS = [column for column in TABLES["forecasts"].columns if column.name not in _LATER]
_QUALITY = [column for column in TABLES["forecast_quality"].columns if column.name not in _LATER]


def run(context: Context) -> None:
    """Write forecasts, and forecast_quality when a week begins."""
    if not context.mapping.has_times:
        raise Skipped("the log has no times, so there is nothing to forecast")
    settings, day = context.settings.forecast, context.days.last
    span = Span.of(day, context.first_day, settings.history_days)
    activity = context.history("activity_daily", lookback_days=settings.history_days)
    rows = series(activity, span, context.mapping.target_events, settings.items)
    # Fits take long, of a busy series above all: these are spread evenly over the tasks.
    parts = context.settings.spark.shuffle_partitions
    rows = rows.repartition(parts, "place").persist()
    ways = Ways(methods={name: METHODS[name] for name in METHODS if name in (NAIVE, *settings.methods)}, level=settings.level)
    chosen = _chosen(context, rows, span, ways)
    by_series = rows.join(F.broadcast(chosen), on=list(NAMES), how="left").withColumn(
        "method", F.coalesce("method", F.lit(NAIVE))
    )
    made = by_series.mapInArrow(forecasting(ways, span), _schema(_FORECASTS))
    dated = {"forecast_date": F.date_add(F.lit(day), F.col("horizon_days")), "day": F.lit(day)}
    context.write("forecasts", made.withColumns(dated))


def _chosen(context: Context, rows: DataFrame, span: Span, ways: Ways) -> DataFrame:
    """`NAMES, method`: this day's selection where one is due, else the newest before it."""
    settings, day = context.settings.forecast, context.days.last
    at = origins(span.days, settings.origins)
    begins = context.bootstrap or day in snapshot_days(context.days, context.first_day)
    known = (*ways.methods, COMBINATION)
    if any(at.values()):
        before = context.before("forecast_quality").where("chosen").withColumn("selected_on", F.col("day"))
        # The log may have been too short for it when the week began.
        if not begins and not before.isEmpty():
            newest = before.agg(F.max("selected_on").alias("selected_on"))
            return _methods(before.join(newest, on="selected_on", how="left_semi"), known)
        tried = rows.withColumn("is_busy", F.col("place") <= settings.slow_series)
        found = tried.mapInArrow(trying(ways, span, at), _schema(_QUALITY))
        context.write("forecast_quality", with_chosen(found, known).withColumn("day", F.lit(day)))
        return _methods(context.snapshot("forecast_quality").where("chosen"), known)
    nothing = context.lake.read("forecast_quality", None)
    context.note(selection=f"none: {span.days} days of history hold no moment to select at")
    if begins:
        context.write("forecast_quality", nothing)
    return _methods(nothing, known)


def _methods(chosen: DataFrame, known: Sequence[str]) -> DataFrame:
    """One row per series; a method that the settings know no more is none."""
    return chosen.where(F.col("method").isin(*known)).select(*NAMES, "method").distinct()


def forecasting(ways: Ways, span: Span) -> Maker:
    """For mapInArrow over series with `method`: a row per series and day ahead."""

    def make(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows == 0:
                continue
            made, by = ways.made(histories(batch, span), batch["method"].to_pylist())
            at = np.repeat(np.arange(batch.num_rows), FORECAST_DAYS)
            values = {name: made_PH.ravel() for name, made_PH in made.named().items()}
            values |= {
                "horizon_days": np.tile(np.arange(1, FORECAST_DAYS + 1), batch.num_rows),
                "method": np.array(by, object)[at],
            }
            yield _batch(batch, at, values, _FORECASTS)

    return make


def trying(ways: Ways, span: Span, at: Origins) -> Maker:
    """For mapInArrow over series with `is_busy`: a row per series, method and stage."""

    def judge(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows == 0:
                continue
            is_busy = batch["is_busy"].to_numpy(zero_copy_only=False)
            for quality in ways.tried(histories(batch, span), at, is_busy):
                yield _batch(batch, quality.rows, _values(quality), _QUALITY)

    return judge


def _values(quality: Quality) -> dict[str, np.ndarray]:
    said = np.full((2, len(quality.rows)), [[quality.method], [quality.stage]], dtype=object)
    measures = {"mase": quality.mase, "smape": quality.smape, "coverage": quality.coverage, "origins": quality.origins}
    return {"method": said[0], "stage": said[1], **measures}


def _batch(names: pa.RecordBatch, at: np.ndarray, values: dict[str, np.ndarray], columns: list) -> pa.RecordBatch:
    """The names of the series `at`, and these values beside them; NaN is null."""
    rows = pa.array(at)
    arrays = [
        names[column.name].take(rows)
        if column.name in NAMES
        else pa.array(values[column.name], from_pandas=True).cast(_TYPES[column.type])
        for column in columns
    ]
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])


def _schema(columns: list) -> str:
    return ", ".join(f"{column.name} {column.type}" for column in columns)
