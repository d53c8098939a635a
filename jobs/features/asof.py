"""SELECTs of what was known before a moment, each of DuckDB's ASOF JOIN: no row is ever paired with more than it gets.

What asks is the table `asked`: `_row` (a number), `_at` (the moment), `_day` (its date), and under their names, as strings, the
columns that name owners. A SELECT has a row for each `_row` of which something was known, and nothing for others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from conf.contracts import Table
from jobs.features.stored import quoted
from jobs.query.views import aged_value

ROW = "_row"
# What contracts call element_at.
_ELEMENT_AT = "list_extract"


@dataclass(frozen=True, kw_only=True)
class Known:
    """A state table to ask.

    rows: the relation of its stored rows (`changed_on`, `gone` and `day` included), `key` naming the owner in them.
    owner: the columns of `asked` that name it (of several, the values with ' | ' between them).
    rest: what else, in both by the same name, it takes to single out a row; () where an owner has one.
    """

    prefix: str
    contract: Table
    rows: str
    key: str
    owner: tuple[str, ...]
    rest: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """What is joined: all but what names the row."""
        names = {*self.contract.key, "entity_type", "entity_id", "gone", "day"}
        return tuple(name for name in self.contract.names if name not in names)

    @property
    def joined(self) -> tuple[str, ...]:
        """The same as the SELECT calls it."""
        return tuple(f"{self.prefix}__{name}" for name in self.columns)


def as_of(known: Known) -> str:
    """The newest row of a `day` before `_day`, aged to the end of the day before; none where its owner had nothing left.

    What an owner has changes together: of several rows only those of its newest day are there.
    """
    named = joined_names(known.owner)
    rest = "".join(f", asked.{quoted(name)} AS {quoted(f'_rest_{name}')}" for name in known.rest)
    asking = f"(SELECT {ROW}, _day, {named} AS _owner{rest} FROM asked)"
    key = quoted(known.key)
    if known.rest:
        newest = f"(SELECT DISTINCT {key} AS _owner, day FROM {known.rows})"
        meet = "a._owner = n._owner AND a._day > n.day"
        asking = f"(SELECT a.*, n.day AS _known FROM {asking} AS a ASOF JOIN {newest} AS n ON {meet})"
        same = [f"CAST(s.{quoted(name)} AS VARCHAR) = a.{quoted(f'_rest_{name}')}" for name in known.rest]
        join = f"JOIN {known.rows} AS s ON a._owner = s.{key} AND a._known = s.day AND {' AND '.join(same)}"
    else:
        join = f"ASOF JOIN {known.rows} AS s ON a._owner = s.{key} AND a._day > s.day"
    columns = [known.contract.column(name) for name in known.columns]
    values = ", ".join(
        f"{aged_value(column, _ELEMENT_AT)} AS {quoted(name)}" for column, name in zip(columns, known.joined, strict=True)
    )
    found = f"SELECT a.{ROW}, a._day - 1 - s.changed_on AS age_days, s.* FROM {asking} AS a {join}"
    return f"SELECT {ROW}, {values} FROM ({found}) WHERE NOT gone"


def joined_names(owner: Sequence[str]) -> str:
    """Of a row of `asked` the owner that columns name."""
    return " || ' | ' || ".join(f"asked.{quoted(name)}" for name in owner)


def from_snapshots(contract: Table, made: Sequence[date]) -> str:
    """The row of the newest of a snapshot's days (`made`, one at least) before `_day`."""
    keys = [name for name in contract.key if name != "day"]
    days = ", ".join(f"(DATE '{day}')" for day in made)
    newest = (
        f"(SELECT d._day, max(m.day) AS _made FROM (SELECT DISTINCT _day FROM asked) AS d "
        f"JOIN (VALUES {days}) AS m(day) ON m.day < d._day GROUP BY d._day)"
    )
    same = " AND ".join(f"CAST(s.{quoted(name)} AS VARCHAR) = asked.{quoted(name)}" for name in keys)
    values = ", ".join(f"s.{quoted(name)} AS {quoted(f'{contract.name}__{name}')}" for name in snapshot_columns(contract))
    return (
        f"SELECT asked.{ROW}, {values} FROM asked JOIN {newest} AS n ON asked._day = n._day "
        f"JOIN {quoted(contract.name)} AS s ON s.day = n._made AND {same}"
    )


def snapshot_columns(contract: Table) -> tuple[str, ...]:
    """What is joined of a snapshot."""
    return tuple(name for name in contract.names if name not in contract.key)
