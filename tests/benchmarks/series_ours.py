"""The features of a night's series by the step's own function on Spark; one JSON line. Called by series.py."""

from __future__ import annotations

import json
import sys
import time
from datetime import date, timedelta

from pyspark.sql import functions as F
from series_events import LAST

from conf.settings import load_settings
from jobs.lake import session
from jobs.time_series import time_series_features


def main(folder: str) -> dict[str, object]:
    began = time.monotonic()
    spark = session.start(load_settings(overrides=["spark.master=local[2]"]))
    # One row, so that workers are there and modules are read.
    day = date(1970, 1, 1) + timedelta(days=LAST)
    rows = spark.read.parquet(folder)
    time_series_features(rows.limit(1), day, date(2000, 1, 1)).count()
    started = time.monotonic()
    described = time_series_features(rows, day, date(2000, 1, 1))
    # All columns are made; of each a sum is kept, so that Spark leaves none out.
    sums = described.agg(
        F.count(F.lit(1)), F.sum("events_90d"), F.sum(F.element_at("recent", 50)), F.round(F.sum("trend"), 3),
        F.round(F.sum(F.element_at("season", 1)), 3), F.round(F.sum("change_p"), 3), F.round(F.sum("anomaly_p"), 3),
    ).first()  # fmt: skip
    return {"seconds": time.monotonic() - started, "startup_s": started - began, "sums": list(sums)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1])) + "\n")
