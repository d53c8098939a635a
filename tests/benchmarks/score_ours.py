"""Tiles of users times items and the best of each, in Spark's workers; one JSON line. Called by score.py."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from score_vectors import COMPARED, SIZE, K

from conf.settings import load_settings
from jobs.lake import session

AT_ONCE = 128


def lists(items: Any) -> Any:
    """`mapInArrow` function: users and vectors to users, positions, scores."""

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import torch

        from models.top_k import top_k

        torch.set_num_threads(1)
        item_SV = torch.from_numpy(items.value).T.contiguous()
        for batch in batches:
            user_US = torch.from_numpy(batch.column("vector").flatten().to_numpy().reshape(-1, SIZE))
            best = [top_k(user_US[start : start + AT_ONCE] @ item_SV, K) for start in range(0, len(user_US), AT_ONCE)]
            ends = np.arange(len(user_US) + 1, dtype=np.int32) * K
            kinds = (np.int32, np.float32)
            columns = [pa.array(np.concatenate([one[part] for one in best]).astype(kinds[part]).ravel()) for part in (0, 1)]
            made = [pa.ListArray.from_arrays(pa.array(ends), values) for values in columns]
            yield pa.RecordBatch.from_arrays([batch.column("user"), *made], names=["user", "items", "scores"])

    return work


def main(folder: str) -> dict[str, object]:
    began = time.monotonic()
    spark = session.start(load_settings(overrides=["spark.master=local[2]"]), torch=True)
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "2048")
    spark.conf.set("spark.sql.files.maxPartitionBytes", "4m")
    users = spark.read.parquet(f"{folder}/users.parquet")
    items = spark.sparkContext.broadcast(np.load(f"{folder}/items.npy"))
    found = users.mapInArrow(lists(items), "user bigint, items array<int>, scores array<float>")
    sample = found.where(f"user < {COMPARED}").orderBy("user").collect()  # warms the workers as well
    started = time.monotonic()
    found.write.format("noop").mode("overwrite").save()
    seconds = time.monotonic() - started
    said = {"seconds": seconds, "startup_s": started - began, "users": users.count()}
    return {**said, "sample": [row["items"] for row in sample]}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1])) + "\n")
