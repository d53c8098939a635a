"""The features as of each moment, joined on Spark; one JSON line. Called by asof.py."""

from __future__ import annotations

import json
import sys
import time

from asof_rows import FEATURES
from pyspark.sql import functions as F

from conf.contracts import column, state
from conf.settings import load_settings
from jobs.features.asof import Known, as_of
from jobs.lake import session


def main(folder: str) -> dict[str, object]:
    began = time.monotonic()
    spark = session.start(load_settings(overrides=["spark.master=local[2]"]))
    values = [column(f"f{number}", "double", "a feature") for number in range(FEATURES)]
    contract = state("made", "made", column("user_id", "string", "owner"), *values, owner="user_id", key=("user_id",))
    asked, states = (spark.read.parquet(f"{folder}/{name}.parquet") for name in ("asked", "states"))
    spark.range(10**6).selectExpr("sum(id)").first()
    started = time.monotonic()
    found = as_of(asked, [Known(prefix="made", contract=contract, rows=states, key="user_id", owner=("user_id",))])
    sums = found.agg(F.count(F.lit(1)), *[F.sum(f"made__f{number}") for number in range(FEATURES)]).first()
    return {"seconds": time.monotonic() - started, "startup_s": started - began, "sums": list(sums)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1])) + "\n")
