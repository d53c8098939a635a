"""Answers as a table for people, and as CSV, JSON and Parquet for programs."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Collection, Iterator, Sequence
from datetime import date, datetime, time
from io import StringIO
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from arro3.core import ChunkedArray, DataType, Table

SHOWN_ROWS = 1000
_LONGEST = 200  # signs of a cell
_READABLE = 12  # a column is not shrunk further

log = logging.getLogger("wherewhen")


def render(rows: Table, form: str, *, width: int | None = None) -> str:
    """The rows as text.

    `table` is cut to `width` signs (None: as wide as it needs) and to its first 1,000 rows, and
    says so on the log; `csv` and `json` are exact: null is an empty field (an empty string is `""`), nested
    values are JSON, times are ISO 8601, bytes are hex, and a JSON number that is not finite is null.

    Raises:
        ValueError: columns of one name in JSON.
    """
    if form == "csv":
        return _csv(rows)
    if form == "json":
        return _json(rows)
    assert form == "table", form
    return _table(rows, width)


def as_parquet(rows: Table) -> bytes:
    """The rows as one Parquet file, strings and times in types that every reader knows.

    Raises:
        ValueError: columns of one name.
    """
    import pyarrow as pa
    from pyarrow import parquet

    _refuse_double_names(rows)
    sink = pa.BufferOutputStream()
    parquet.write_table(as_arrow(rows), sink)
    return sink.getvalue().to_pybytes()


def as_arrow(rows: Table) -> pa.Table:
    """The rows as pyarrow has them."""
    import pyarrow as pa
    from arro3.core import Schema

    schema = pa.schema(
        Schema([field.with_type(_widely_known(field.type)) for field in map(rows.field, range(rows.num_columns))])
    )
    columns = [pa.chunked_array(column.cast(_widely_known(column.type))) for column in rows.columns if rows.num_rows]
    return pa.table(columns, schema=schema) if columns else schema.empty_table()


def _widely_known(kind: DataType) -> DataType:
    """Without the view types that pyarrow 14 and others cannot read; intervals as text."""
    from arro3.core import DataType as Kind

    if Kind.is_string_view(kind) or Kind.is_interval(kind):
        return Kind.string()
    if Kind.is_binary_view(kind):
        return Kind.binary()
    if Kind.is_list(kind) or Kind.is_list_view(kind) or Kind.is_large_list(kind):
        element = kind.value_field
        assert element is not None
        return Kind.list(element.with_type(_widely_known(element.type)))
    if Kind.is_struct(kind):
        return Kind.struct([field.with_type(_widely_known(field.type)) for field in kind.fields])
    return kind


def _values(column: ChunkedArray) -> list[Any]:
    from arro3.core import DataType as Kind

    if "Interval" in str(column.type):
        column = column.cast(_widely_known(column.type))
    found = column.to_pylist()
    return [_mapped(value, column.type) for value in found] if Kind.is_nested(column.type) else found


def _mapped(value: Any, kind: DataType) -> Any:
    """Maps come as lists of pairs."""
    from arro3.core import DataType as Kind

    if value is None:
        return None
    if Kind.is_map(kind):
        return dict(value)
    if Kind.is_list(kind) or Kind.is_list_view(kind) or Kind.is_large_list(kind):
        assert kind.value_type is not None
        return [_mapped(inner, kind.value_type) for inner in value]
    if Kind.is_struct(kind):
        return {field.name: _mapped(value[field.name], field.type) for field in kind.fields}
    return value


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case list():
            return [_plain(inner) for inner in value]
        case dict():
            return {_text(key): _plain(inner) for key, inner in value.items()}
        case None | bool() | int() | str():
            return value
    return _text(value)


def _text(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case datetime() | date() | time():
            return value.isoformat().replace("+00:00", "Z")
        case bytes():
            return value.hex()
        case list() | dict():
            return json.dumps(_plain(value), ensure_ascii=False)
    return str(value)


def _rows(rows: Table) -> Iterator[tuple[Any, ...]]:
    return zip(*[_values(column) for column in rows.columns], strict=True)


def _csv(rows: Table) -> str:
    lines = StringIO()
    lines.write(",".join(_field(name) for name in rows.column_names) + "\n")
    for row in _rows(rows):
        lines.write(",".join("" if value is None else _field(_text(value)) for value in row) + "\n")
    return lines.getvalue()


def _field(text: str) -> str:
    if text == "" or any(sign in text for sign in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _json(rows: Table) -> str:
    lines = [json.dumps(row, ensure_ascii=False) for row in plain_rows(rows)]
    return "[" + ",\n ".join(lines) + "]\n"


def plain_rows(rows: Table) -> list[dict[str, Any]]:
    """The rows by column name, values as JSON has them.

    Raises:
        ValueError: columns of one name.
    """
    _refuse_double_names(rows)
    return [dict(zip(rows.column_names, map(_plain, row), strict=True)) for row in _rows(rows)]


def _refuse_double_names(rows: Table) -> None:
    names = rows.column_names
    if double := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two columns are called {double[0]}: name them apart with AS")


def _table(rows: Table, width: int | None) -> str:
    shown = rows.slice(0, min(SHOWN_ROWS, rows.num_rows))
    cells = [["NULL" if value is None else short(value) for value in _values(column)] for column in shown.columns]
    right = {name for name, column in zip(rows.column_names, rows.columns, strict=True) if _is_number(column.type)}
    text = aligned(rows.column_names, cells, right=right, width=width)
    if rows.num_rows > SHOWN_ROWS:
        log.info("the first %d of %d rows; --format csv gives all", SHOWN_ROWS, rows.num_rows)
    return text


def aligned(names: Sequence[str], columns: Sequence[list[str]], *, right: Collection[str] = (), width: int | None) -> str:
    """Columns of text side by side, those in `right` flush right; what does not fit in `width` is cut, and said."""
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    widths = [max(map(len, [name, *column])) for name, column in zip(names, columns, strict=True)]
    kept = _fitting(widths, width)
    grid = Grid(box=None, pad_edge=False, header_style="")
    for name in names[:kept]:
        grid.add_column(Text(name), justify="right" if name in right else "left", no_wrap=True, overflow="ellipsis")
    for row in zip(*columns[:kept], strict=True):
        grid.add_row(*map(Text, row))
    sink = StringIO()
    # A terminal may be twice as wide as `len` says where signs are wide.
    Console(file=sink, width=width or sum(2 * wide + 2 for wide in widths) + 2, color_system=None).print(grid)
    if kept < len(widths):
        log.info("%d columns are left out: %s", len(widths) - kept, ", ".join(names[kept:]))
    return "\n".join(line.rstrip() for line in sink.getvalue().splitlines()) + "\n"


def _fitting(widths: list[int], width: int | None) -> int:
    """How many columns fit when none is shrunk below what can be read."""
    if width is None:
        return len(widths)
    taken = list(accumulate(min(wide, _READABLE) + 2 for wide in widths))
    return max(1, sum(total - 2 <= width for total in taken))


def _is_number(kind: DataType) -> bool:
    from arro3.core import DataType as Kind

    return bool(Kind.is_numeric(kind) or Kind.is_decimal(kind))


def short(value: Any) -> str:
    """For the eye: floats to seven digits, no control characters, at most 200 signs."""
    text = f"{value:.7g}" if isinstance(value, float) else _text(value)
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return "".join(sign if sign.isprintable() else "·" for sign in text)
