"""Weekly snapshots, and the trailing windows and parts of the week that they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.contracts import ANY_SLOT
from jobs.lake.store import Days

_MONDAY = 0


def snapshot_days(days: Days, first_day: date) -> list[date]:
    """The days of the run on which snapshots are made: Mondays, and the lake's first day."""
    return [day for day in days if day.weekday() == _MONDAY or day == first_day]


def in_windows(rows: DataFrame, snapshots: Sequence[date], window_days: int) -> DataFrame:
    """Each row once per snapshot whose trailing window holds its `day`, with `snapshot_day` in its place.

    The window of a snapshot is the `window_days` days that end with it. Rows may have `allowed_until`:
    a snapshot of that day or later holds them no more.
    """
    every = F.array(*[F.lit(day) for day in snapshots]).cast("array<date>")
    until = F.col("allowed_until") if "allowed_until" in rows.columns else F.lit(None)

    def holds(end: Column) -> Column:
        return (F.col("day") <= end) & (F.col("day") > F.date_sub(end, window_days)) & (until.isNull() | (end < until))

    return rows.withColumn("snapshot_day", F.explode(F.filter(every, holds))).drop("day", "allowed_until")


def by_slot(rows: DataFrame) -> DataFrame:
    """Each row under its slot, if it has one, and under `any`."""
    return rows.withColumn("slot", F.explode(F.array_compact(F.array(F.col("slot"), F.lit(ANY_SLOT)))))
