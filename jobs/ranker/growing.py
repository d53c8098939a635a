"""The trees of a hybrid, grown on the newest moments as they would have been asked then."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import lightgbm
import numpy as np
import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.evaluate import contest, exams, moments
from jobs.lake.context import Context
from jobs.lake.store import Days
from jobs.ranker import answers
from models.candidates import FEATURES
from models.facts import Facts
from models.hybrid import Examples, grow, lessons, lessons_of_lists
from models.judging import whole_users
from models.replay import read_log

# Of all events before the day the newest share, by whole days.
_NEWEST = 0.3
_PARTS = 1 << 20
_MOMENTS_A_PARTITION = 1000
_LESSONS = "moments binary, sizes binary, worth binary, taken binary, features binary"
Taught = Callable[..., Iterator[Examples]]  # of a log, facts, kernels and options
_KINDS = {"moments": np.int64, "sizes": np.int64, "worth": np.float64, "taken": np.bool_, "features": np.float32}


@dataclass(frozen=True, kw_only=True)
class Grown:
    """Trees, and the day whose run grew them."""

    trees: lightgbm.Booster
    on: date


def cut(context: Context, until: date) -> date | None:
    """The day from which on moments are learnt from; None where nothing came before it."""
    return newest(_by_day(context, until), _NEWEST)


def newest(rows: Mapping[date, int], share: float) -> date | None:
    """The first of the newest days that hold the share of all rows together; None where there would be none before it.

    >>> newest({date(2024, 1, n): 10 for n in range(1, 11)}, 0.15)
    datetime.date(2024, 1, 9)
    >>> newest({date(2024, 1, 1): 10}, 0.15)
    """
    wanted, held = share * sum(rows.values()), 0
    for day in sorted(rows, reverse=True)[:-1]:
        held += rows[day]
        if held >= wanted:
            return day
    return min(sorted(rows)[1:], default=None)


def grown(context: Context, known: Facts, since: date, until: date) -> Grown | None:
    """Of target events that arrived from `since` on and before `until`; None where there is nothing to learn from."""
    asked = sum(count for day, count in _by_day(context, until).items() if day >= since)
    every = context.history("events").where(F.col("day") < F.lit(until))
    exam = exams.later_exam(context, _sampled(context, every, asked), since, F.xxhash64("event_id")).rows
    given = _lessons(context, exam, min(asked, context.settings.ranker.max_moments), lessons, known)
    if (shown := answers.rows(context, every, since, until)) is not None:
        of_lists = _lessons(context, shown, 1, lessons_of_lists, known)
        context.note(answers=sum(len(one.size_G) for one in of_lists))
        given += of_lists
    context.note(moments=sum(len(one.size_G) for one in given))
    if not any(len(one.size_G) for one in given):
        return None
    return Grown(trees=grow(given), on=context.days.last)


def _lessons(context: Context, rows: DataFrame, many: int, taught: Taught, known: Facts) -> list[Examples]:
    """Of about so many moments."""
    held = context.spark.sparkContext.broadcast((known, context.settings.baselines.kernels, contest.options(context)))

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for users in whole_users(batches):
            for learnt in taught(read_log(users), *held.value):
                yield _told(learnt)

    # Made by all tasks at once, and brought here a partition at a time, each of some megabytes: that is what the JVM holds.
    few = math.ceil(many / _MOMENTS_A_PARTITION)
    ordered = moments.ordered(rows, max(few, context.settings.spark.shuffle_partitions))
    made = ordered.mapInArrow(work, _LESSONS).persist(StorageLevel.DISK_ONLY)
    try:
        made.count()
        return [_read(row.asDict()) for row in made.toLocalIterator()]
    finally:
        made.unpersist()
        held.destroy()


def _by_day(context: Context, until: date) -> dict[date, int]:
    before = until - timedelta(days=1)
    return context.rows_by_day("events", Days(first=context.first_day, last=before)) if before >= context.first_day else {}


def _sampled(context: Context, events: DataFrame, asked: int) -> DataFrame:
    """Whole users, as many as have about `ranker.max_moments` of the events asked about."""
    share = context.settings.ranker.max_moments / max(asked, 1)
    if share >= 1:
        return events
    return events.where(F.pmod(F.xxhash64("user_id"), F.lit(_PARTS)) < F.lit(int(share * _PARTS)))


def _told(learnt: Examples) -> pa.RecordBatch:
    values = {
        "moments": learnt.moment_G,
        "sizes": learnt.size_G,
        "worth": learnt.worth_G,
        "taken": learnt.is_taken_C,
        "features": np.ascontiguousarray(learnt.features_CF),
    }
    columns = [pa.array([values[name].astype(kind).tobytes()], pa.binary()) for name, kind in _KINDS.items()]
    return pa.RecordBatch.from_arrays(columns, names=list(_KINDS))


def _read(row: Mapping[str, bytes]) -> Examples:
    moment_G, size_G, worth_G, is_taken_C, features = (np.frombuffer(row[name], kind) for name, kind in _KINDS.items())
    features_CF = features.reshape(-1, len(FEATURES))
    return Examples(features_CF=features_CF, is_taken_C=is_taken_C, size_G=size_G, moment_G=moment_G, worth_G=worth_G)
