"""Forecasts by both methods with the step's own functions on Spark; one JSON line. Called by forecast.py."""

from __future__ import annotations

import json
import sys
import time
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
from forecast_series import DAYS, LAST, LEVEL, counts
from pyspark.sql import functions as F

from conf.settings import load_settings
from jobs.forecast import FORECASTED, forecasting
from jobs.forecast.methods import ETS, NAIVE
from jobs.forecast.series import Span
from jobs.forecast.trying import Ways
from jobs.lake import session


def main(size: int) -> dict[str, object]:
    began = time.monotonic()
    spark = session.start(load_settings(overrides=["spark.master=local[2]"]))
    last = date(1970, 1, 1) + timedelta(days=LAST)
    span = Span(first=last - timedelta(days=DAYS - 1), last=last)
    counts_PD = counts(size)
    day, kinds = np.arange(LAST - DAYS + 1, LAST + 1), ["category"] * size
    structs = pa.StructArray.from_arrays(
        [pa.array(np.tile(day, size).astype(np.int32)), pa.array(counts_PD.ravel().astype(np.int64))], ["dated", "events"]
    )
    counted = pa.ListArray.from_arrays(pa.array(np.arange(size + 1, dtype=np.int32) * DAYS), structs)
    names = [f"{number:06}" for number in range(size)]
    table = pa.table({"entity_type": kinds, "entity_id": names, "event_type": kinds, "counted": counted, "place": names})
    rows = spark.createDataFrame(table).repartition(2, "place").persist()
    methods = F.explode(F.array(F.lit(NAIVE), F.lit(ETS)))
    ways = Ways(names=(NAIVE, ETS), level=LEVEL)
    # So that series lie where they are read from, both workers are there and modules are read.
    rows.where(F.col("place") < names[min(16, size - 1)]).withColumn("method", methods).mapInArrow(
        forecasting(ways, span), FORECASTED
    ).count()
    rows.count()
    started = time.monotonic()
    made = rows.withColumn("method", methods).mapInArrow(forecasting(ways, span), FORECASTED)
    found = made.groupBy("method").agg(F.sum("expected"), F.sum("lower"), F.sum("upper")).orderBy("method").collect()
    seconds = time.monotonic() - started
    return {"seconds": seconds, "startup_s": started - began, "sums": [[round(x, 2) for x in row[1:]] for row in found]}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(int(sys.argv[1]))) + "\n")
