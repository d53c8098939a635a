"""What a table's plain name means, as SQL over its stored rows."""

from __future__ import annotations

from collections.abc import Collection

from conf.contracts import Column, Table
from jobs.query.statement import HISTORY
from jobs.query.versions import Seen

_NUMBERS = ("int", "bigint", "double", "float")


def view(contract: Table, seen: Seen, gained: Collection[str] = ()) -> str:
    """The SELECT behind `name`, over `name_history`. Columns that the stored table has yet to gain are null.

    A state is each owner's newest rows since the keyframe, aged to the end of the day, without the
    gone; a snapshot its newest partition; a fact or a log all rows.
    """
    history = f'"{contract.name}{HISTORY}"'
    if contract.kind == "state":
        return _state(contract, seen, history, gained)
    columns = ", ".join(f'NULL AS "{name}"' if name in gained else f'"{name}"' for name in contract.names)
    if contract.kind == "snapshot":
        upto = f"day <= DATE '{seen.day}'"
        return f"SELECT {columns} FROM {history} WHERE day = (SELECT max(day) FROM {history} WHERE {upto})"
    # A later day may stand there already, half of it: a refresh's.
    upto = f" WHERE day <= DATE '{seen.day}'" if contract.kind == "fact" else ""
    return f"SELECT {columns} FROM {history}{upto}"


def _state(contract: Table, seen: Seen, history: str, gained: Collection[str]) -> str:
    keyframe = max(seen.day.replace(day=1), seen.first_day)
    owner = ", ".join(f'"{name}"' for name in contract.owner)
    columns = [column for column in contract.columns if column.name != "gone"]
    shown = ", ".join(f'NULL AS "{column.name}"' if column.name in gained else aged(column) for column in columns)
    reach = f"day >= DATE '{keyframe}' AND day <= DATE '{seen.day}'"
    # A semi join takes half the time of a window over all rows, and one owner's rows are found as fast.
    return (
        f"SELECT {shown} FROM (SELECT *, DATE '{seen.day}' - changed_on AS age_days FROM {history} WHERE {reach}) AS state "
        f"LEFT SEMI JOIN (SELECT {owner}, max(day) AS day FROM {history} WHERE {reach} GROUP BY {owner}) AS newest "
        f"USING ({owner}, day) WHERE NOT gone"
    )


def aged(column: Column) -> str:
    """A column of a state as DataFusion ages it, by `age_days`."""
    return f'{aged_value(column, "array_element")} AS "{column.name}"'


def aged_value(column: Column, element_at: str) -> str:
    """The same for another engine, without a name; `element_at` is what it calls the one function that engines name apart."""
    if column.aged is None:
        return f'"{column.name}"'
    expression = column.aged.replace("element_at(", f"{element_at}(")
    # A sum with `age_days` is wider than the column.
    return f"CAST({expression} AS {column.type})" if column.type in _NUMBERS else f"({expression})"
