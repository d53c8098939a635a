"""A profile as text: what was read, a line per column, a line per rule. Whose ids they are is not shown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from jobs.profiling.firing import Firing
from jobs.profiling.kinds import Column
from jobs.profiling.sample import Sample
from jobs.profiling.vocabulary import PERSONAL, words_of
from jobs.query.rendering import aligned

_PERSONAL_ROLES = ("user_id", "session_id", "ip")
_MAIL = re.compile(r"\S+@\S+")
_LONGEST = 28


def heading(sample: Sample) -> str:
    """What the file is and how much of it was read."""
    header = "a header" if sample.options.get("header") == "true" else "no header"
    kinds = {"csv": f"CSV, delimiter {sample.options.get('sep', ',')!r}, {header}", "json": "JSON", "parquet": "Parquet"}
    more = "all there are" if sample.whole else "there are more"
    read = f"{len(sample.rows):,} rows and {len(sample.rows.columns):,} columns read, {more}"
    lines = [f"{sample.path}: {kinds[sample.format]}", read]
    lines += [f"lines that are no row: {sample.unreadable:,}"] if sample.unreadable else []
    return "".join(f"{line}\n" for line in [*lines, *sample.notes])


def table(columns: Sequence[Column], uses: Mapping[str, str], width: int | None) -> str:
    """One line per column."""
    personal = {column.name: _is_personal(column, uses) for column in columns}
    cells = {
        "column": [_plain(column.name) or "(no name)" for column in columns],
        "is": [uses.get(column.name, "-") for column in columns],
        "type": [_type(column) for column in columns],
        "nulls": [_share(column.nulls, column.rows) for column in columns],
        "odd": [f"{column.odd:,}" if column.odd else "-" for column in columns],
        "distinct": [f"{column.distinct:,}" for column in columns],
        "least": ["hidden" if personal[column.name] else _plain(column.least) for column in columns],
        "greatest": ["hidden" if personal[column.name] else _plain(column.greatest) for column in columns],
        "examples": [_examples(column, hidden=personal[column.name]) for column in columns],
    }
    return aligned(list(cells), list(cells.values()), right=("nulls", "odd", "distinct"), width=width)


def rules_table(found: Firing) -> str:
    """One line per rule that would fire; the others are named behind them."""
    shown = {"exact duplicate": found.duplicates, **{name: count for name, count in found.rules.items() if count}}
    lines = {
        "rule": list(shown),
        "rows": [f"{n:,}" for n in shown.values()],
        "share": [_share(n, found.rows) for n in shown.values()],
    }
    refused = found.rows - found.good - found.duplicates
    quiet = [name for name, count in found.rules.items() if not count]
    return (
        f"{found.rows:,} rows: {found.good:,} would become events, {refused:,} be quarantined\n"
        + aligned(list(lines), list(lines.values()), right=("rows", "share"), width=None)
        + (f"would not fire: {', '.join(quiet)}\n" if quiet else "")
    )


def _is_personal(column: Column, uses: Mapping[str, str]) -> bool:
    if uses.get(column.name) in _PERSONAL_ROLES or column.kind == "ip":
        return True
    # An id that is not known to be of an item may be of a person.
    strange_id = column.kind == "id" and uses.get(column.name) in (None, "text")
    return strange_id or bool(PERSONAL & set(words_of(column.name))) or any(map(_MAIL.search, column.examples))


def _type(column: Column) -> str:
    if column.moments is not None and column.kind not in ("time", "date"):
        return f"{column.kind} ({column.moments.format})"
    return f"{column.kind} ({column.moments.format})" if column.moments is not None else column.kind


def _examples(column: Column, *, hidden: bool) -> str:
    return ", ".join(masked(value) if hidden else _plain(value) for value in column.examples)


def masked(value: str) -> str:
    """Enough of an id to see its form: its first sign, and how many there are.

    >>> masked("u000123"), masked("7")
    ('u… (7)', '… (1)')
    """
    return f"{_plain(value[:1]) if len(value) > 3 else ''}… ({len(value)})"


def _plain(value: str) -> str:
    text = value if len(value) <= _LONGEST else value[: _LONGEST - 1] + "…"
    return "".join(sign if sign.isprintable() else "·" for sign in text)


def _share(count: int, of: int) -> str:
    """A share that is not nothing is not shown as nothing."""
    if not count:
        return "0%"
    share = 100 * count / max(1, of)
    return f"{share:.2g}%" if share < 1 else f"{share:.0f}%"
