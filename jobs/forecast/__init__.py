"""forecast: what is to be expected of categories, regions and the busiest items in the next days.

Of every series several methods are tried at moments of the past, once a week; nights use the one that was
chosen then. A step of its own beside time_series: what it imports, and what may fail in it, is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.contracts import FORECAST_DAYS
from conf.tables import TABLES
from jobs.forecast import learning
from jobs.forecast.judging import Origins, Quality, mean_known, origins
from jobs.forecast.methods import ARIMA, ETS, LSTM, NAIVE, PROPHET, WEEK
from jobs.forecast.selecting import selected
from jobs.forecast.series import NAMES, Span, histories, series
from jobs.forecast.trying import NOW, Ways
from jobs.lake.context import Context, Skipped
from jobs.spatial.windows import snapshot_days

Maker = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]
_TYPES = {"string": pa.string(), "int": pa.int32(), "double": pa.float64(), "boolean": pa.bool_()}
_QUALITY_TABLE, _NETWORKS_TABLE = "forecast_quality", "forecast_networks"
_LATER = ("day", "forecast_date")
_FORECASTS = [column for column in TABLES["forecasts"].columns if column.name not in _LATER]
_QUALITY = [column for column in TABLES["forecast_quality"].columns if column.name not in _LATER]

FORECASTED = ", ".join(f"{column.name} {column.type}" for column in _FORECASTS)
_TRIED = ", ".join(f"{column.name} {column.type}" for column in _QUALITY)


def run(context: Context) -> None:
    """Write forecasts; and, when a week begins, forecast_quality and forecast_networks."""
    if not context.mapping.has_times:
        raise Skipped("the log has no times, so there is nothing to forecast")
    settings, day = context.settings.forecast, context.days.last
    span = Span.of(day, context.first_day, settings.history_days)
    activity = context.history("activity_daily", lookback_days=settings.history_days)
    rows = series(activity, span, context.mapping.target_events, settings.items)
    # Fits take long, of a busy series above all: these are spread evenly over the tasks.
    rows = rows.repartition(context.settings.spark.shuffle_partitions, "place").persist()
    names = tuple(name for name in (NAIVE, ETS, LSTM, ARIMA, PROPHET) if name in (NAIVE, *settings.methods))
    chosen, ways = _selection(context, rows, span, Ways(names=names, level=settings.level))
    by_series = rows.join(F.broadcast(chosen), on=list(NAMES), how="left").withColumn(
        "method", F.coalesce("method", F.lit(NAIVE))
    )
    made = by_series.mapInArrow(forecasting(ways, span), FORECASTED)
    dated = {"forecast_date": F.date_add(F.lit(day), F.col("horizon_days")), "day": F.lit(day)}
    context.write("forecasts", made.withColumns(dated))


def _selection(context: Context, rows: DataFrame, span: Span, ways: Ways) -> tuple[DataFrame, Ways]:
    """`NAMES, method`, and `ways` with what the LSTM has learnt: of this day where a week begins, else of the newest before."""
    at = origins(span.days, context.settings.forecast.origins)
    begins = context.bootstrap or context.days.last in snapshot_days(context.days, context.first_day)
    if not any(at.values()):
        context.note(selection=f"none: {span.days} days of history hold no moment to select at")
        if begins:
            for name in (_QUALITY_TABLE, _NETWORKS_TABLE):
                context.clear(name)
        return _methods(context.lake.read(_QUALITY_TABLE, None), ways), ways
    before = context.before(_QUALITY_TABLE, lookback_days=WEEK)
    # None: the log was too short for it when the week began.
    if not begins and not before.isEmpty():
        network = _newest(context.before(_NETWORKS_TABLE, lookback_days=WEEK)).select("weights").first()
        told = replace(ways, networks={NOW: learning.read(network.weights)} if network is not None else {})
        return _methods(_newest(before), told), told
    return _selected(context, rows, span, ways, at)


def _selected(context: Context, rows: DataFrame, span: Span, ways: Ways, at: Origins) -> tuple[DataFrame, Ways]:
    day = context.days.last
    networks = learning.trained(rows, span, at, context.settings.train.seed) if LSTM in ways.names else {}
    weights = [(learning.stored(networks[NOW]), span.days, day)] if NOW in networks else []
    schema = "weights string, history_days int, day date"
    context.write(_NETWORKS_TABLE, context.spark.createDataFrame(weights, schema))
    ways = replace(ways, networks=networks)
    tried = rows.withColumn("is_busy", F.col("place") <= context.settings.forecast.slow_series)
    quality = tried.mapInArrow(trying(ways, span, at), _TRIED).withColumn("day", F.lit(day))
    context.write(_QUALITY_TABLE, quality)
    return _methods(context.snapshot(_QUALITY_TABLE), ways), ways


def _newest(rows: DataFrame) -> DataFrame:
    return rows.join(rows.agg(F.max("day").alias("day")), on="day", how="left_semi")


def _methods(quality: DataFrame, ways: Ways) -> DataFrame:
    """The chosen ones, `NAMES, method`; one that the settings know no more is none."""
    return quality.where(F.col("chosen") & F.col("method").isin(*ways.known)).select(*NAMES, "method").distinct()


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
            found = ways.tried(histories(batch, span), at, is_busy)
            chosen = selected(found, ways.default, batch.num_rows)
            for quality in found:
                yield _batch(batch, quality.rows, _values(quality, chosen), _QUALITY)

    return judge


def _values(quality: Quality, chosen: np.ndarray) -> dict[str, np.ndarray]:
    said = np.full((2, len(quality.rows)), [[quality.method], [quality.stage]], dtype=object)
    return {
        "method": said[0],
        "stage": said[1],
        "mase": mean_known(list(quality.mase_OP)),
        "smape": quality.smape,
        "coverage": quality.coverage,
        "origins": quality.origins,
        "chosen": chosen[quality.rows] == quality.method,
    }


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
