"""The form of a table contract; `conf.tables` holds the contracts themselves. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["fact", "state", "snapshot", "log"]

SLOTS = (
    "weekday_night",
    "weekday_morning",
    "weekday_afternoon",
    "weekday_evening",
    "weekend_night",
    "weekend_morning",
    "weekend_afternoon",
    "weekend_evening",
)
ANY_SLOT = "any"
# Time series are described over thirteen whole weeks, and counted over these trailing windows, in days.
SERIES_DAYS = 91
SERIES_WINDOWS = (1, 7, 28, 90)
# What has series of its own, and the columns that name one.
ENTITIES = {
    "user": ("user_id",),
    "item": ("item_id",),
    "category": ("category",),
    "region": ("region",),
    "region_category": ("region", "category"),
    "region_slot": ("region", "slot"),
}
# So many days ahead is forecast.
FORECAST_DAYS = 14
# That an entry of a list was shown; what else is done to one has a reward in the settings.
IMPRESSION = "impression"
# What is done to an item that its user is not to be shown again.
AGAINST = ("dislike", "dismiss")
# What a user may allow, each by itself.
PURPOSES = ("labels", "location", "training", "export")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column.

    `type` is a Spark SQL type. `aged`, where given, is the SQL expression (run by Spark, DataFusion
    and DuckDB alike) that brings the stored value, true at the end of `changed_on`, to the end of
    a later day; it may name any column of the row and `age_days`, the days between the two.
    `tolerance` is how far equal floats may lie apart: relative, of the elements of an array absolute;
    `margin` is how far equal floats may besides, absolute: of a value that comes of vectors as near to 0 as it may be.
    """

    name: str
    type: str
    comment: str
    unit: str | None = None
    nullable: bool = True
    personal: bool = False
    aged: str | None = None
    tolerance: float = 1e-9
    margin: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Table:
    """One Delta table.

    `key` identifies a row within a partition (of a log: in the whole table), unless `repeats` says
    that equal rows may stand there more than once; `owner` names the columns whose rows change
    together. `newest_only` marks what bootstrap writes for the last day alone. `unequal` lists
    columns left out when two lakes are compared (run ids, clock times).
    `keep_keyframes`, where given, is how many keyframes back the partitions of a state reach.
    `purpose`, of a state of users, is what a user must have allowed to have rows in it; `nothing`
    says in SQL what a gone row holds in columns where neither null nor '' nor 0 will do.
    `files_by`, where given, is a column by which rows are sorted into files of some thousand rows, so
    that a reader of a range of it opens few of them. By `sorted_by` rows of a fact are sorted within files, so
    that a reader of one of its values skips most of the rest.
    `retention_days`, where given, is how many days `maintain` leaves of a table; None: all.
    """

    name: str
    kind: Kind
    comment: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    owner: tuple[str, ...] = ()
    repeats: bool = False
    checks: Mapping[str, str] = field(default_factory=dict)
    newest_only: bool = False
    unequal: tuple[str, ...] = ()
    keep_keyframes: int | None = None
    files_by: str | None = None
    sorted_by: tuple[str, ...] = ()
    retention_days: int | None = None
    personal: bool = False
    purpose: str | None = None
    nothing: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        assert len(set(names)) == len(names), f"{self.name}: a column is named twice"
        assert set(self.key) <= set(names), f"{self.name}: key outside the columns"
        assert set(self.owner) <= set(self.key), f"{self.name}: owner outside the key"
        assert (self.kind == "state") == bool(self.owner), f"{self.name}: states have owners"
        assert self.purpose is None or (self.purpose in PURPOSES and self.owner == ("user_id",)), f"{self.name}: purpose"

    @property
    def partitioned(self) -> bool:
        return self.kind != "log"

    @property
    def primary_key(self) -> tuple[str, ...]:
        """The key, as a database asks for it: one row each and never null; () where the table has none such."""
        is_one = not self.repeats and not any(self.column(name).nullable for name in self.key)
        return self.key if is_one else ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)


def column(name: str, type: str, comment: str, **more: object) -> Column:
    """A column, shorter to write."""
    return Column(name=name, type=type, comment=comment, **more)  # type: ignore[arg-type]


def _day(comment: str) -> Column:
    return Column(name="day", type="date", comment=comment, nullable=False)


def fact(name: str, comment: str, *columns: Column, key: tuple[str, ...], **more: object) -> Table:
    """What arrived on `day`."""
    day = _day("arrival day: the day on which the row reached us")
    return Table(name=name, kind="fact", comment=comment, columns=(*columns, day), key=key, **more)  # type: ignore[arg-type]


def state(name: str, comment: str, *columns: Column, owner: str, key: tuple[str, ...], **more: object) -> Table:
    """What is known per owner after all that arrived up to the end of `day`."""
    tail = (
        column("gone", "boolean", "true when the owner was left with nothing", nullable=False),
        column("changed_on", "date", "the day whose end the values describe", nullable=False),
        _day("partition: `changed_on`, or a later keyframe day on which every owner is copied"),
    )
    return Table(
        name=name,
        kind="state",
        comment=comment,
        columns=(*columns, *tail),
        owner=(owner,),
        key=key,
        **more,  # type: ignore[arg-type]
    )


def snapshot(name: str, comment: str, *columns: Column, key: tuple[str, ...], **more: object) -> Table:
    """The whole result as of `day`."""
    day = _day("the result describes the end of this day")
    return Table(name=name, kind="snapshot", comment=comment, columns=(*columns, day), key=key, **more)  # type: ignore[arg-type]


def log(name: str, comment: str, *columns: Column, key: tuple[str, ...], **more: object) -> Table:
    """Append-only, not by day, outside equality."""
    return Table(name=name, kind="log", comment=comment, columns=columns, key=key, **more)  # type: ignore[arg-type]
