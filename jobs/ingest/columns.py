"""The columns of a source: those that its mapping names must be there, as what they were; new ones are told once."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence

import sqlglot
from sqlglot import expressions as sql

from conf.mapping import Events, Expression, Feed
from jobs.ingest.landing import HEAD_BYTES, File

log = logging.getLogger("wherewhen")

# Below this a file may well hold nothing but bad lines; from here on it is another format.
SAMPLE_LINES = 10
# What a JSON log has as names may be data; a run record is bounded.
_SHOWN_NAMES, _SHOWN_LETTERS, _MOST_LETTERS = 30, 60, 200
_MOST_COLUMNS = 500
_INTEGERS = frozenset(("int32", "int64", "tinyint", "smallint", "int", "bigint"))
_EITHER = "|"

Types = dict[str, str]  # column -> type as the source has it; "text" where it has none


def fields_of(feed: Feed) -> dict[str, set[str]]:
    """Our name -> the source's columns it is made of, for everything that the feed maps."""
    wanted: dict[str, str | Expression] = {
        **feed.columns,
        **{f"attributes.{name}": theirs for name, theirs in feed.attributes.items()},
    }
    if isinstance(feed, Events):
        wanted |= {f"wide.{name}": theirs for name, theirs in feed.wide.items()}
    return {name: _referenced(theirs) for name, theirs in wanted.items()}


def named_by(feed: Feed) -> set[str]:
    """The source's columns that the feed maps."""
    return set().union(*fields_of(feed).values())


def _referenced(theirs: str | Expression) -> set[str]:
    if isinstance(theirs, str):
        return {theirs}
    try:
        tree = sqlglot.parse_one(theirs.sql, dialect="spark")
    except sqlglot.errors.ParseError as error:
        raise ValueError(f"the mapping's SQL cannot be parsed: {theirs.sql}: {' '.join(str(error).split())}") from None
    return {column.parts[0].name for column in tree.find_all(sql.Column)}


def check_names(names: Sequence[str], feed: Feed, where: str, separator: str | None = None) -> None:
    """Every mapped column is there, once.

    Raises:
        ValueError: names what is missing or there twice, `where`, and what there is.
    """
    wanted = named_by(feed)
    if missing := sorted(wanted - set(names)):
        hint = ""
        if separator is not None and len(names) == 1:
            other = next((mark for mark in (";", "\t", "|", ",") if mark in names[0]), None)
            if other is not None:
                hint = f"; the delimiter seems to be {other!r}: set options.sep in the mapping"
        raise ValueError(_missing(missing, fields_of(feed), where, names) + hint)
    if twice := sorted(name for name in wanted if list(names).count(name) > 1):
        raise ValueError(f"{where}: column {', '.join(twice)} is there twice")


def _missing(missing: Iterable[str], fields: Mapping[str, set[str]], where: str, names: Iterable[str]) -> str:
    needed_by = ", ".join(
        f"{name} (for {', '.join(sorted(ours for ours in fields if name in fields[ours]))})" for name in missing
    )
    return f"{where}: no column {needed_by}; it has {shown(names)}"


def shown(names: Iterable[str]) -> str:
    """Column names for a message: a damaged or hostile file's may be endless, many, or steer a terminal."""
    every = list(names)
    short = [name if len(name) <= _SHOWN_LETTERS else name[: _SHOWN_LETTERS - 1] + "…" for name in every[:_SHOWN_NAMES]]
    more = [f"and {len(every) - _SHOWN_NAMES} more"] if len(every) > _SHOWN_NAMES else []
    return ", ".join(["".join(c if c.isprintable() else "?" for c in name) for name in short] + more)


def json_columns(head: bytes, feed: Feed, file: File, *, is_first: bool) -> Types:
    """The fields of the lines in a file's first bytes, each with the kinds of value it has there.

    A field of fewer values than `SAMPLE_LINES` has no kind: it may be the neighbour that is wrong.

    Raises:
        ValueError: it is another format throughout (of the first file: in others such lines are broken rows), or
            no line has a field that every event needs.
    """
    lines = [line for line in head.decode(errors="replace").splitlines() if line.strip()]
    lines = lines[:-1] if len(head) == HEAD_BYTES else lines
    read = [value for line in lines if isinstance(value := _parsed(line), dict)]
    if is_first and len(lines) >= SAMPLE_LINES and not read:
        raise ValueError(
            f"{file.path}: no line is a JSON object, it begins with {lines[0][:60]!r}; is the mapping's format right?"
        )
    values: dict[str, list[object]] = {}
    for line in read:
        for name, value in line.items():
            values.setdefault(name, []).append(value)
    needed = {
        name: theirs for name, theirs in fields_of(feed).items() if name in ("user_id", "item_id", "event_time", "event_type")
    }
    missing = sorted(name for name in set().union(*needed.values()) if name not in values)
    if len(read) >= SAMPLE_LINES and missing:
        raise ValueError(_missing(missing, needed, file.path, sorted(values)))
    return {name: _kinds(some) for name, some in values.items()}


def _parsed(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _kinds(values: Sequence[object]) -> str:
    known = [value for value in values if value is not None]
    return _EITHER.join(sorted({_kind(value) for value in known})) if len(known) >= SAMPLE_LINES else ""


def _kind(value: object) -> str:
    kinds = {bool: "boolean", int: "number", float: "number", str: "string", list: "list", dict: "object"}
    return kinds[type(value)]


def add_types(found: Types, types: Mapping[str, str]) -> None:
    """Add what one file has to what the others of the source have."""
    for name, kind in types.items():
        found[name] = _either(found.get(name, ""), kind)


def check_types(before: Mapping[str, str], types: Mapping[str, str], feed: Feed, where: str, *, accept: bool) -> None:
    """Mapped columns are of the type they were before; what has no type, or is a wider integer, is.

    Raises:
        ValueError: names the first column that is not, both types, and what to do; logged where `accept`.
    """
    for name in sorted(named_by(feed)):
        was, now = before.get(name, ""), types.get(name, "")
        if not was or not now or set(was.split(_EITHER)) & set(now.split(_EITHER)) or {was, now} <= _INTEGERS:
            continue
        if accept:
            log.info("%s: column %s is %s, was %s: accepted", where, name, now, was)
            continue
        raise ValueError(
            f"{where}: column {name} is {now}, it was {was} before: deliver it as it was, "
            "or cast it in the mapping and run the day with --accept"
        )


def _either(one: str, other: str) -> str:
    return _EITHER.join(sorted({*one.split(_EITHER), *other.split(_EITHER)} - {""}))


def tell_new(before: Mapping[str, str], types: Mapping[str, str], feed: Feed, where: str) -> list[str]:
    """The columns that neither the mapping nor an earlier run knows; one log line."""
    new = sorted(set(_storable(types)) - set(before) - named_by(feed))[:_MOST_COLUMNS]
    if new:
        log.info("%s: new columns, ignored until the mapping names them: %s", where, shown(new))
    return new


def remembered(before: Mapping[str, str], types: Mapping[str, str]) -> Types:
    """For the run record: what was ever found, each as it was found last."""
    known = {**before, **{name: kind or before.get(name, "") for name, kind in _storable(types).items()}}
    return dict(sorted(known.items())[:_MOST_COLUMNS])


def _storable(types: Mapping[str, str]) -> Types:
    """Without the names that no column has, but a line of noise."""
    return {name: kind for name, kind in types.items() if len(name) <= _MOST_LETTERS}


def untyped(names: Collection[str]) -> Types:
    return dict.fromkeys(names, "text")
