"""Contenders judged by Spark workers: ranks per moment, or bounded sums over all of them.

A worker streams its partition user by user, so that its memory holds a batch of rows, not a partition;
what comes back per contender is as long as the measures times the bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from models.judging import Contender, Sums, Terms, Verdicts, ranks, verdicts, whole_users
from models.replay import Options, read_log

_SUMS = "name string, segment string, numbers array<double>, size bigint, covered binary, classes array<double>"
_RANKS = "row bigint, rank bigint, candidates bigint"


def judge(rows: DataFrame, contenders: Sequence[Contender], terms: Terms) -> Verdicts:
    """Judge the contenders on the moments of `rows` (ordered as `moments.ordered` does)."""
    held = rows.sparkSession.sparkContext.broadcast((tuple(contenders), terms))

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        sums = Sums(*held.value)
        for table in whole_users(batches):
            sums.add(read_log(table))
        yield from sums.rows()

    found = rows.mapInArrow(work, _SUMS).collect()
    held.destroy()
    return verdicts(found, terms)


def rank(rows: DataFrame, contender: Contender, options: Options) -> DataFrame:
    """`row, rank, candidates` of every moment; rank 0 where the item is not in the catalogue."""
    held = rows.sparkSession.sparkContext.broadcast((contender, options, threads_of_a_task(rows.sparkSession)))

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from ranks(whole_users(batches), *held.value)

    return rows.mapInArrow(work, _RANKS)


def threads_of_a_task(spark: SparkSession) -> int:
    """The cores that Spark counts for a task: its neighbours compute as well."""
    return int(spark.conf.get("spark.task.cpus", "1") or 1)
