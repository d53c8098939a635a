"""Training windows of the lake's events: which targets are learnt in which fold, and the cut itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import reduce

import deltalake
import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf.tables import TABLES
from jobs.lake.logs import table_path
from models.histories import event_columns, first_of_owner
from models.queries import Vocabulary
from models.windows import ARRAYS, CONTEXT, FOLDS, TRAIN, VALIDATION, cut, histories_as_windows

TABLE = "training_windows"
# What is read of an event; `day` is its arrival day.
EVENT = (
    "user_id", "event_timestamp", "event_id", "item_id", "event_type", "category", "local_timestamp",
    "latitude", "longitude", "day",
)  # fmt: skip
Batches = Iterable[pa.RecordBatch]
_ARROW = {"int": pa.int32(), "bigint": pa.int64(), "float": pa.float32()}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One training: events that arrived before `until`, targets that arrived from `since` on (None: all).

    `validation_from`: targets from this time on are the validation fold. None: no fold by time.
    """

    name: str
    until: datetime
    since: date | None = None
    validation_from: datetime | None = None

    @property
    def known(self) -> Column:
        """Of a row: had it arrived?"""
        return F.col("day") < F.lit(self.until.date())

    def learnt(self, target_types: Sequence[str]) -> Column:
        """Of a row: is it a target of this training?"""
        learnt = F.col("event_type").isin(*target_types) & F.col("item_id").isNotNull() & self.known
        return learnt if self.since is None else learnt & (F.col("day") >= F.lit(self.since))


def whole_plans(days: Sequence[date], bootstrap: bool, holdout_share: float) -> list[Plan]:
    """The candidate of the last day, of all that arrived before it; in a bootstrap one besides, to be judged on the newest."""
    day = days[-1]
    plans = [Plan(name="candidate", until=midnight(day))]
    cut = held_out_from(days, holdout_share) if bootstrap else None
    # Without a day between them the candidate itself has seen no more.
    if cut is not None and cut < day:
        plans.append(Plan(name="hold-out", until=midnight(cut)))
    return plans


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What was written for a plan: windows and targets per fold, and a hash of all that is in them."""

    windows: Mapping[str, int]
    targets: Mapping[str, int]
    fingerprint: str


def window_files(root: str, version: int, day: date) -> tuple[str, ...]:
    """The files that hold a day's windows in a version of the table, as `models.batches.Source` takes them."""
    files = deltalake.DeltaTable(table_path(root, TABLE), version=version).file_uris(file_pruning_predicate=f"day = '{day}'")
    return tuple(sorted(uri if "://" in uri else f"file://{uri}" for uri in files))


def with_validation(events: DataFrame, plans: Sequence[Plan], target_types: Sequence[str], share: float) -> list[Plan]:
    """The plans, each with the time from which on the newest `share` of its targets lies.

    The border is a full hour, so that an hour's count is all that comes to the driver.
    """
    counts = [F.count_if(plan.learnt(target_types)).alias(f"n{number}") for number, plan in enumerate(plans)]
    # As numbers: a collected timestamp would be in the time zone of this process.
    hour = F.unix_timestamp(F.date_trunc("hour", "event_timestamp"))
    by_hour = sorted(
        (row.asDict() for row in events.groupBy(hour.alias("hour")).agg(*counts).collect()), key=lambda row: row["hour"]
    )
    starts = [newest_from([(row["hour"], row[f"n{number}"]) for row in by_hour], share) for number in range(len(plans))]
    found = [None if start is None else datetime.fromtimestamp(start, UTC) for start in starts]
    return [replace(plan, validation_from=start) for plan, start in zip(plans, found, strict=True)]


def newest_from(counts: Sequence[tuple[int, int]], share: float) -> int | None:
    """The latest of the times (sorted) from which on at least `share` of all lies; None if nothing would be before.

    >>> newest_from([(1, 5), (2, 4), (3, 1)], 0.2)
    2
    """
    wanted, newest = math.ceil(share * sum(count for _, count in counts)), 0
    for place in range(len(counts) - 1, 0, -1):
        newest += counts[place][1]
        if newest >= max(wanted, 1):
            return counts[place][0]
    return None


def windows(events: DataFrame, plans: Sequence[Plan], vocabularies: Mapping[datetime, Vocabulary], size: int) -> DataFrame:
    """Rows of `training_windows` without `day`, for all plans.

    `events`: `EVENT` and `fold_N` per plan N (see `folded`).
    """
    parts = [
        events.where(plan.known).select(
            *[name for name in EVENT if name != "day"], F.col(f"fold_{number}").alias("fold"), F.lit(plan.until).alias("until")
        )
        for number, plan in enumerate(plans)
    ]
    rows = reduce(DataFrame.unionByName, parts)
    learners = rows.where(F.col("fold") != CONTEXT).select("user_id", "until").distinct()
    in_order = (
        rows.join(learners, on=["user_id", "until"], how="left_semi")
        .repartition("user_id")
        .sortWithinPartitions("until", "user_id", "event_timestamp", "event_id")
    )
    columns = [column for column in TABLES[TABLE].columns if column.name not in ("shuffle", "day")]
    schema = ", ".join(f"`{column.name}` {column.type}" for column in columns)
    made = in_order.mapInArrow(_cutter(dict(vocabularies), size), schema)
    # An order of its own, so that neighbours in a file are not neighbours in time or of one user.
    return made.withColumn("shuffle", F.xxhash64("user_id", "window", "fold"))


def folded(events: DataFrame, plans: Sequence[Plan], target_types: Sequence[str], has_times: bool) -> DataFrame:
    """`events` with `fold_N` for each plan: 0 is context only, 1 is learnt, 2 validates.

    In a log without times each user's last target is left out (evaluate judges on it) and the one
    before it validates: there is no other sense in which it is new.
    """
    if has_times:
        return events.withColumns({f"fold_{number}": _fold_by_time(plan, target_types) for number, plan in enumerate(plans)})
    learnt = plans[0].learnt(target_types)
    newest_first = Window.partitionBy("user_id", learnt).orderBy(F.desc("event_timestamp"), F.desc("event_id"))
    from_the_end = F.row_number().over(newest_first)
    fold = F.when(learnt & (from_the_end > 2), TRAIN).when(learnt & (from_the_end == 2), VALIDATION).otherwise(CONTEXT)
    return events.withColumn("fold_0", fold.cast("tinyint"))


def _fold_by_time(plan: Plan, target_types: Sequence[str]) -> Column:
    learnt = plan.learnt(target_types)
    is_newest = F.lit(False) if plan.validation_from is None else F.col("event_timestamp") >= F.lit(plan.validation_from)
    return F.when(learnt & is_newest, VALIDATION).when(learnt, TRAIN).otherwise(CONTEXT).cast("tinyint")


def _cutter(vocabularies: dict[datetime, Vocabulary], size: int) -> Callable[[Batches], Batches]:
    """Cuts batches of rows sorted by (until, user, time, id) into windows; a user's rows may span batches."""
    by_moment = {_moment(until): vocabulary for until, vocabulary in vocabularies.items()}

    def cut_batches(batches: Batches) -> Batches:
        held: list[pa.RecordBatch] = []
        for batch in batches:
            if len(batch) == 0:
                continue
            rows = pa.Table.from_batches([*held, batch]).combine_chunks()
            start = int(_owner_starts(rows)[-1])
            yield from _windows_of(rows.slice(0, start), by_moment, size)
            held = rows.slice(start).to_batches()
        if held:
            yield from _windows_of(pa.Table.from_batches(held).combine_chunks(), by_moment, size)

    return cut_batches


def _moment(until: datetime) -> int:
    return int(until.timestamp()) * 1_000_000


def _moments(rows: pa.Table) -> np.ndarray:
    return rows.column("until").cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()


def _owner_starts(rows: pa.Table) -> np.ndarray:
    """For each row the row at which its user's rows of its training begin."""
    until, user = _moments(rows), rows.column("user_id").to_numpy()
    differs = (until[1:] != until[:-1]) | (user[1:] != user[:-1])
    return np.maximum.accumulate(np.where(np.concatenate(([True], differs)), np.arange(len(rows)), 0))


def _windows_of(rows: pa.Table, vocabularies: Mapping[int, Vocabulary], size: int) -> Iterator[pa.RecordBatch]:
    """Windows of users that are there whole."""
    moments = _moments(rows)
    for moment in np.unique(moments):
        chosen = rows.filter(pa.array(moments == moment)).combine_chunks()
        events = event_columns(vocabularies[int(moment)], {name: chosen.column(name) for name in chosen.column_names})
        found = cut(first_of_owner(chosen.column("user_id").to_numpy()), chosen.column("fold").to_numpy(), size)
        if len(found.fold_N):
            arrays = histories_as_windows(events, found.row_NW, found.is_target_NW)
            names = {
                "user_id": chosen.column("user_id").combine_chunks().take(pa.array(found.owner_row_N)),
                "until": pa.array(np.full(len(arrays), moment), pa.int64()).cast(pa.timestamp("us", tz="UTC")),
                "fold": pa.array([FOLDS[fold] for fold in found.fold_N], pa.string()),
                "window": pa.array(found.number_N, pa.int32()),
            }
            names |= {name: _lists(name, getattr(arrays, f"{name}_NW")) for name in ARRAYS}
            yield pa.RecordBatch.from_arrays(list(names.values()), names=list(names))


def _lists(name: str, values_NW: np.ndarray) -> pa.Array:
    """As lists of one length, in the element type of the contract."""
    kind = _ARROW[TABLES[TABLE].column(name).type.removeprefix("array<").removesuffix(">")]
    count, size = values_NW.shape
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * size, pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(values_NW.ravel(), from_pandas=False).cast(kind))


def sizes(rows: DataFrame) -> dict[datetime, Sizes]:
    """What the windows of each training amount to; independent of their order."""
    targets = F.aggregate("is_target", F.lit(0), lambda sum_, one: sum_ + one)
    learnt = [name for name in TABLES[TABLE].names if name != "day"]
    found = rows.groupBy(F.unix_seconds("until").alias("until"), "fold").agg(
        F.count("*").alias("windows"),
        F.sum(targets).alias("targets"),
        F.sum(F.xxhash64(*learnt).cast("decimal(20,0)")).cast("string").alias("hash"),
    )
    by_until: dict[datetime, list[dict[str, object]]] = {}
    for row in sorted(found.collect(), key=lambda row: row["fold"]):
        by_until.setdefault(datetime.fromtimestamp(row["until"], UTC), []).append(row.asDict())
    return {
        until: Sizes(
            windows={str(row["fold"]): int(str(row["windows"])) for row in folds},
            targets={str(row["fold"]): int(str(row["targets"])) for row in folds},
            fingerprint="|".join(f"{row['fold']}:{row['windows']}:{row['hash']}" for row in folds),
        )
        for until, folds in by_until.items()
    }


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def held_out_from(days: Sequence[date], share: float) -> date | None:
    """The first of the newest `share` of days (at least one); None where there would be nothing before them.

    >>> held_out_from([date(2024, 1, n) for n in range(1, 11)], 0.25)
    datetime.date(2024, 1, 8)
    """
    first = len(days) - max(1, math.ceil(share * len(days)))
    return days[first] if first >= 1 else None
