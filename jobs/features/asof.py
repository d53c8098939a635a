"""Joins what was known before a moment to rows of that moment, in one sort per kind of owner.

Rows that ask and states are put together, sorted by owner and day, and each asking row takes the newest
state above it. So no row is ever paired with more than the one state that it gets: a join on
"owner and day before" would first build every pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import groupby

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf.contracts import Table

# The day in which a moment lies; the moment itself, as the user gives it.
MOMENT = "event_timestamp"
_CARRIED = "_carried_"


@dataclass(frozen=True, kw_only=True)
class Known:
    """A state table to ask.

    rows: its stored rows (`changed_on`, `gone` and `day` included), `key` naming the owner in them.
    owner: the columns of the asking rows that name it (of several, the values with ' | ' between them).
    rest: what else, in both by the same name, it takes to single out a row; () where an owner has one.
    """

    prefix: str
    contract: Table
    rows: DataFrame
    key: str
    owner: tuple[str, ...]
    rest: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """What is joined: all but what names the row."""
        names = {*self.contract.key, "entity_type", "entity_id", "gone", "day"}
        return tuple(name for name in self.contract.names if name not in names)


def as_of(asking: DataFrame, known: Sequence[Known]) -> DataFrame:
    """`asking` with `PREFIX__COLUMN` for each column of each table: the newest row of a `day` before that of `event_timestamp`.

    Columns that move with time are aged to the end of the day before. What was not known is null.
    """
    # Under names of their own, that a table's columns may have any.
    rows = asking.select(*[F.col(f"`{name}`").alias(f"{_CARRIED}{name}") for name in asking.columns])
    rows = rows.withColumn("_day", F.to_date(f"{_CARRIED}{MOMENT}"))
    for owner, tables in groupby(sorted(known, key=lambda one: one.owner), key=lambda one: one.owner):
        rows = _answered(rows, owner, list(tables))
    carried = _carried(rows)
    return rows.select(*[F.col(f"`{name}`").alias(name.removeprefix(_CARRIED)) for name in carried])


def named(columns: tuple[str, ...], prefix: str = "") -> Column:
    """An owner's name: the values, all of which must be known, with ' | ' between them."""
    parts = [part for name in columns for part in (F.lit(" | "), F.col(f"{prefix}{name}").cast("string"))]
    return F.concat(*parts[1:])


def _carried(rows: DataFrame) -> list[str]:
    return [name for name in rows.columns if name.startswith(_CARRIED)]


def _answered(rows: DataFrame, owner: tuple[str, ...], tables: Sequence[Known]) -> DataFrame:
    carried = _carried(rows)
    # Who names nobody is alone: all of them together would be one owner of any size.
    nobody = F.concat(F.lit("\0"), F.xxhash64(*[f"`{name}`" for name in carried]).cast("string"))
    asking = rows.withColumn("_owner", F.coalesce(named(owner, _CARRIED), nobody)).withColumn("_asks", F.lit(True))
    found = [f"_found_{number}" for number in range(len(tables))]
    states = [_states(one).withColumnRenamed("_found", name) for one, name in zip(tables, found, strict=True)]
    together = reduce(lambda one, other: one.unionByName(other, allowMissingColumns=True), states, asking)
    # Of one day those that ask come first: they know what was known before the day.
    before = (
        Window.partitionBy("_owner").orderBy("_day", F.desc("_asks")).rowsBetween(Window.unboundedPreceding, Window.currentRow)
    )
    newest = [F.last(name, ignorenulls=True).over(before).alias(name) for name in found]
    kept = [F.col(f"`{name}`") for name in carried]
    rows = together.select(*kept, "_day", "_asks", *newest).where("_asks").drop("_asks")
    for one, name in zip(tables, found, strict=True):
        rows = _opened(rows, one, name)
    return rows


def _states(one: Known) -> DataFrame:
    """`_owner, _day, _found`: a struct per owner and day, or a list of them where an owner has several rows."""
    values = F.struct(*one.rest, *one.columns, "gone")
    rows = one.rows.select(F.col(one.key).alias("_owner"), F.col("day").alias("_day"), values.alias("_found"))
    if one.rest:
        rows = rows.groupBy("_owner", "_day").agg(F.collect_list("_found").alias("_found"))
    return rows.withColumn("_asks", F.lit(False))


def _opened(rows: DataFrame, one: Known, name: str) -> DataFrame:
    """What was found, aged, beside what is carried already."""
    found = F.col(name)
    if one.rest:
        found = F.get(F.filter(found, lambda row: reduce(Column.__and__, [_is_same(row, key) for key in one.rest])), F.lit(0))
    kept = [F.col(f"`{column}`") for column in rows.columns if column != name]
    opened = rows.withColumn(name, found).select(*kept, f"{name}.*")
    aged = opened.withColumn("age_days", F.date_diff(F.date_sub("_day", 1), "changed_on"))
    is_known = ~F.coalesce(F.col("gone"), F.lit(True))
    values = [
        F.when(is_known, F.expr(column.aged).cast(column.type) if column.aged else F.col(column.name)).alias(
            f"{_CARRIED}{one.prefix}__{column.name}"
        )
        for column in map(one.contract.column, one.columns)
    ]
    return aged.select(*kept, *values)


def _is_same(row: Column, key: str) -> Column:
    return row[key].cast("string") == F.col(f"{_CARRIED}{key}").cast("string")


def from_snapshots(asking: DataFrame, prefix: str, contract: Table, rows: DataFrame, days: Sequence[object]) -> DataFrame:
    """`asking` with the columns of the newest of a snapshot's `days` before that of `event_timestamp`."""
    keys = [name for name in contract.key if name != "day"]
    values = {name: f"{prefix}__{name}" for name in contract.names if name not in contract.key}
    snapshot = rows.select(
        *[F.col(name).alias(f"_{name}") for name in keys], F.col("day").alias("_day"),
        *[F.col(name).alias(alias) for name, alias in values.items()],
    )  # fmt: skip
    made = F.array(*[F.lit(day) for day in days]).cast("array<date>")
    newest = F.array_max(F.filter(made, lambda day: day < F.to_date(MOMENT)))
    rows = asking.withColumn("_snapshot", newest)
    same = [rows[name].cast("string") == snapshot[f"_{name}"].cast("string") for name in keys]
    joined = rows.join(snapshot, on=reduce(Column.__and__, [*same, rows["_snapshot"] == snapshot["_day"]]), how="left")
    return joined.select(*asking.columns, *values.values())
