"""What follows on what: from category to category, region to region and place to place, counted by part of the week.

A transition is two consecutive target events of a user. It is counted once, on the day on which the second
one arrived, as the user's path then stood: the first one is the last target event before it in time, of all
that had arrived by the end of that day. An event that arrives late may so follow on one that was counted as
followed by another already; what stood between two events only later changes no count. Both must be among
the last N events that `user_sequences` keeps, so that a night knows what a bootstrap knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from jobs.lake.store import Days
from jobs.spatial.clusters import Flags, Ints

# Kinds of ends, and the event's column that names one.
CATEGORY, REGION, ITEM = "category", "region", "item"
_COLUMNS = {CATEGORY: "category", REGION: "region", ITEM: "item_id"}
_MICROS_AN_HOUR = 3_600_000_000
_FOLLOWED = "user_id string, day date, slot string, micros bigint, " + ", ".join(
    f"origin_{kind} string, {kind} string" for kind in _COLUMNS
)


def followed(recent: DataFrame, days: Days, *, length: int, longest_gap_hours: float) -> DataFrame:
    """Every transition of the run: user_id, day, slot of the second event, micros between them, and what both are.

    `recent` is what `events_by_user` gives, with `is_target`.
    """
    in_time = Window.partitionBy("user_id").orderBy("event_timestamp", "event_id")
    ordered = recent.select(
        "user_id",
        F.row_number().over(in_time).alias("number"),
        "arrived_on",
        F.unix_micros("event_timestamp").alias("at"),
        "is_target",
        "slot",
        *_COLUMNS.values(),
    )
    return ordered.groupBy("user_id").applyInArrow(_followed_by_user(days, length, longest_gap_hours), _FOLLOWED)


def transitions(pairs: DataFrame, kinds: Sequence[str]) -> DataFrame:
    """Rows of `transitions`, of `followed`; where an end is not known there is none."""
    ends = [
        F.struct(F.lit(kind).alias("kind"), F.col(f"origin_{kind}").alias("origin"), F.col(kind).alias("destination"))
        for kind in kinds
    ]
    known = F.col("slot").isNotNull() & F.col("origin").isNotNull() & F.col("destination").isNotNull()
    return (
        pairs.select("user_id", "day", "slot", "micros", F.inline(F.array(*ends)))
        .where(known)
        .groupBy("day", "kind", "origin", "destination", "slot")
        .agg(
            F.count(F.lit(1)).alias("transitions"),
            F.count_distinct("user_id").alias("users"),
            # Summed as integers, so that the order of the rows does not matter.
            (F.sum("micros") / F.lit(1e6)).alias("seconds"),
        )
        .select("kind", "origin", "destination", "slot", "transitions", "users", "seconds", "day")
    )


def consecutive(arrived_on: Ints, is_target: Flags, first_day: int, length: int) -> tuple[Ints, Ints]:
    """Which event follows on which: positions of the first and of the second ones, (T,) each.

    Args:
        arrived_on: day on which each event of a user arrived, (E,), the events in order of time.
        is_target: which of them count, (E,).
        first_day: second events that arrived before it are left out.
        length: so many events are known of a user at the end of a day.
    """
    firsts, seconds = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for day in np.unique(arrived_on[arrived_on >= first_day]):
        known = np.flatnonzero(arrived_on <= day)[-length:]
        targets = known[is_target[known]]
        is_new = arrived_on[targets[1:]] == day
        firsts.append(targets[:-1][is_new])
        seconds.append(targets[1:][is_new])
    return np.concatenate(firsts), np.concatenate(seconds)


def _followed_by_user(days: Days, length: int, longest_gap_hours: float) -> Callable[[pa.Table], pa.Table]:
    first_day = int(np.datetime64(days.first, "D").astype(np.int64))

    def of_user(events: pa.Table) -> pa.Table:
        events = events.take(np.argsort(events["number"].to_numpy()))
        arrived_on = events["arrived_on"].cast(pa.int32()).to_numpy().astype(np.int64)
        is_target = events["is_target"].to_numpy()
        first, second = consecutive(arrived_on, is_target, first_day, length)
        micros: npt.NDArray[np.int64] = np.diff(events["at"].to_numpy()[np.stack([first, second])], axis=0)[0]
        is_near = micros <= longest_gap_hours * _MICROS_AN_HOUR
        origin, destination = events.take(first[is_near]), events.take(second[is_near])
        return pa.table(
            {
                "user_id": destination["user_id"],
                "day": destination["arrived_on"],
                "slot": destination["slot"],
                "micros": micros[is_near],
                **{f"origin_{kind}": origin[column] for kind, column in _COLUMNS.items()},
                **{kind: destination[column] for kind, column in _COLUMNS.items()},
            }
        )

    return of_user
