"""MLlib's recommendForAllUsers of a part of the users; one JSON line. Called by score.py."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import pandas as pd
from pyspark.ml.recommendation import ALSModel
from pyspark.sql import functions as F
from score_vectors import COMPARED, SIZE, K

from conf.settings import load_settings
from jobs.lake import session


def main(folder: str, users: int) -> dict[str, object]:
    began = time.monotonic()
    spark = session.start(load_settings(overrides=["spark.master=local[2]", "spark.driver_memory=6g"]))
    spark.conf.set("spark.sql.codegen.wholeStage", "true")
    vectors = [np.load(f"{folder}/users.npy")[:users], np.load(f"{folder}/items.npy")]
    frames = []
    for number, values in enumerate(vectors):
        path = f"{folder}/mllib-{number}.parquet"
        pd.DataFrame({"id": np.arange(len(values), dtype=np.int32), "features": list(values)}).to_parquet(path)
        frames.append(spark.read.parquet(path).withColumn("features", F.col("features").cast("array<float>")))
    jvm = spark._jvm
    java = jvm.org.apache.spark.ml.recommendation.ALSModel("drawn", SIZE, frames[0]._jdf, frames[1]._jdf)
    model = ALSModel(java.setUserCol("user").setItemCol("item").setBlockSize(4096))
    started = time.monotonic()
    found = model.recommendForAllUsers(K).persist()
    found.write.format("noop").mode("overwrite").save()
    seconds = time.monotonic() - started
    first = found.where(F.col(found.columns[0]) < COMPARED).orderBy(found.columns[0]).collect()
    sample = [[one[0] for one in row[1]] for row in first]
    return {"seconds": seconds, "startup_s": started - began, "users": users, "sample": sample}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], int(sys.argv[2]))) + "\n")
