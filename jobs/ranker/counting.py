"""`models.facts` of all users: each task counts its own, Spark adds the numbers up. What comes back the catalogue bounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from models.facts import KINDS, MOST, Tallies, tallied
from models.histories import event_columns, first_of_owner
from models.judging import whole_users
from models.queries import Vocabulary

_READ = ("item_id", "category", "event_type", "event_timestamp", "local_timestamp", "latitude", "longitude")
_TALLY = "asked int, kind int, one bigint, other bigint, number bigint"
_NAMES = ["asked", "kind", "one", "other", "number"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Over the items of `vocabulary`, of events that arrived before the day `until`."""

    vocabulary: Vocabulary
    until: date


def tallies(targets: DataFrame, asked: Sequence[Asked]) -> list[Tallies]:
    """Of each what `models.facts.facts` is made of, its most frequent alone where it keeps no more.

    `targets`: target events with their arrival `day`.
    """
    held = targets.sparkSession.sparkContext.broadcast(tuple(asked))

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for users in whole_users(batches):
            yield from _tallies(users, held.value)

    by_user = targets.select("user_id", *_READ, "event_id", "day").repartition("user_id")
    ordered = by_user.sortWithinPartitions("user_id", "event_timestamp", "event_id").drop("event_id")
    counted = (
        ordered.mapInArrow(work, _TALLY)
        .repartition("asked", "kind", "one")
        .groupBy("asked", "kind", "one", "other")
        .agg(F.sum("number").alias("number"))
    )
    by_item = Window.partitionBy("asked", "kind", "one").orderBy(F.desc("number"), "other")
    most = F.coalesce(*[F.when(F.col("kind") == KINDS.index(kind), F.lit(count)) for kind, count in MOST.items()])
    place = F.row_number().over(by_item)
    kept = counted.withColumn("place", place).where(most.isNull() | (F.col("place") <= most)).drop("place")
    rows = kept.toArrow().sort_by([(name, "ascending") for name in _NAMES[:4]])
    held.destroy()
    return [_read(rows.filter(pc.equal(rows["asked"], number))) for number in range(len(asked))]


def _tallies(users: pa.Table, asked: Sequence[Asked]) -> Iterator[pa.RecordBatch]:
    day = users["day"].combine_chunks()
    for number, one in enumerate(asked):
        known = users.filter(pc.less(day, pa.scalar(one.until, pa.date32())))
        if not len(known):
            continue
        events = event_columns(one.vocabulary, {name: known[name] for name in _READ})
        first_E = first_of_owner(known["user_id"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False))
        until = int(datetime.combine(one.until, time(), UTC).timestamp())
        found = tallied(one.vocabulary, events, first_E, until)
        sizes = [len(found[kind][0]) for kind in KINDS]
        columns = [
            np.full(sum(sizes), number, np.int32),
            np.repeat(np.arange(len(KINDS), dtype=np.int32), sizes),
            *[np.concatenate([found[kind][part] for kind in KINDS]) for part in range(3)],
        ]
        yield pa.RecordBatch.from_arrays([pa.array(column) for column in columns], names=_NAMES)


def _read(rows: pa.Table) -> Tallies:
    kind_N = rows["kind"].to_numpy()
    columns = [rows[name].to_numpy().astype(np.int64) for name in _NAMES[2:]]
    ends = np.searchsorted(kind_N, np.arange(len(KINDS) + 1))
    parts = {kind: [column[ends[at] : ends[at + 1]] for column in columns] for at, kind in enumerate(KINDS)}
    return {kind: (part[0], part[1], part[2]) for kind, part in parts.items()}
