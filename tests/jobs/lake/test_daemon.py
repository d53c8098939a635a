"""Workers that Spark's daemon starts."""

from __future__ import annotations

import gc
import sys

import pyarrow as pa


def test_a_worker_looks_into_no_archive_of_spark_and_goes_through_no_object_that_it_was_born_with(spark):
    def told(batches):
        list(batches)
        archives = sum(path.endswith(".zip") and "pyspark" in path for path in sys.path_importer_cache)
        yield pa.RecordBatch.from_pydict({"archives": [archives], "frozen": [gc.get_freeze_count()]})

    [row] = spark.range(0, 1, numPartitions=1).mapInArrow(told, "archives bigint, frozen bigint").collect()
    assert row.archives == 0 and row.frozen > 100_000
