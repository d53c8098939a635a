"""DBSCAN on Spark, from a file to a file; one JSON line. Called by dbscan.py."""

from __future__ import annotations

import json
import sys
import time

import dbscan as bench

from conf.settings import load_settings
from jobs.lake import session
from jobs.spatial.dbscan import dbscan


def main(points: str, to: str) -> dict[str, object]:
    began = time.monotonic()
    spark = session.start(load_settings(overrides=["spark.master=local[2]", "spark.driver_memory=2g"]))
    # A tenth, so that workers are there, modules are read, and Java has compiled what it has long before in a night's session.
    dbscan(spark.read.parquet(points).sample(0.1, seed=1), bench.RADIUS_M, bench.MIN_WEIGHT, rows_of_tile=15_000).count()
    started = time.monotonic()
    dbscan(spark.read.parquet(points), bench.RADIUS_M, bench.MIN_WEIGHT).write.mode("overwrite").parquet(to)
    return {"seconds": time.monotonic() - started, "startup_s": started - began}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*sys.argv[1:])) + "\n")
