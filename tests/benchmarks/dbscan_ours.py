"""DBSCAN on Spark, from a file to a file; one JSON line. Called by dbscan.py."""

from __future__ import annotations

import json
import sys
import time

import dbscan as bench
from pyspark.sql import functions as F

from conf.settings import load_settings
from jobs.lake import session
from jobs.spatial.dbscan import dbscan


def main(points: str, to: str) -> dict[str, object]:
    began = time.monotonic()
    spark = session.start(load_settings(overrides=["spark.master=local[2]", "spark.driver_memory=2g"]))
    # A few rows, so that workers are there and modules are read.
    dbscan(spark.read.parquet(points).limit(1000), bench.RADIUS_M, F.lit(bench.MIN_WEIGHT)).count()
    started = time.monotonic()
    dbscan(spark.read.parquet(points), bench.RADIUS_M, F.lit(bench.MIN_WEIGHT)).write.mode("overwrite").parquet(to)
    return {"seconds": time.monotonic() - started, "startup_s": started - began}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*sys.argv[1:])) + "\n")
