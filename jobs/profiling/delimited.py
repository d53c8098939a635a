"""Delimited text: which delimiter, whether there is a header, whether rows go over several lines."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

# In the order in which they win where two split the lines equally well.
_SEPARATORS = (",", "\t", ";", "|", "::", "\x01", "^", "~")
_TRIED_LINES = 200
_NUMBER = re.compile(r"\s*[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?\s*")
_STARTS_LIKE_A_TIME = re.compile(r"\s*\d{1,4}[-/.:]\d{1,2}")
_NAME = re.compile(r"[^\W\d][\w .:/()-]{0,60}")


@dataclass(frozen=True, kw_only=True)
class Delimited:
    """`rows` that have as many fields as `names`; the other lines are only counted (`unreadable`)."""

    names: list[str]
    rows: list[list[str]]
    options: dict[str, str] = field(default_factory=dict)
    unreadable: int = 0
    whole: bool = True


def delimited(lines: Sequence[str], rows: int, cells: int) -> Delimited:
    """Split lines as Spark would; at most `rows` rows and about `cells` fields."""
    full = [line for line in lines if line.strip()]
    head = full[:_TRIED_LINES]
    separator = _separator(head)
    options = {} if separator == "," else {"sep": separator}
    records = _split(head, separator)
    if _over_lines(lines[:_TRIED_LINES], separator, records):
        options["multiLine"] = "true"
        records = _whole(lines[:_TRIED_LINES], separator)
    first = records[0]
    has_header = _is_header(first, [record for record in records[1:] if len(record) == len(first)])
    width = len(first) if has_header else _usual(records)
    options["header"] = "true" if has_header else "false"
    names = [name.strip() for name in first] if has_header else [f"_c{number}" for number in range(width)]
    wanted = max(1, min(rows, cells // width))
    # A few more than wanted: some of them may be unreadable.
    every = _whole(lines, separator) if "multiLine" in options else _each(full, separator)
    kept: list[list[str]] = []
    unreadable = 0
    for number, record in enumerate(every):
        if number == 0 and has_header:
            continue
        if len(record) != width:
            unreadable += 1
        elif len(kept) == wanted:
            return Delimited(names=names, rows=kept, options=options, unreadable=unreadable, whole=False)
        else:
            kept.append(record)
    return Delimited(names=names, rows=kept, options=options, unreadable=unreadable)


def _separator(head: Sequence[str]) -> str:
    """What splits most lines into equally many fields, more than one; a comma where nothing does."""

    def judged(separator: str) -> tuple[float, int]:
        records = _split(head, separator)
        width = _usual(records)
        agreeing = sum(len(record) == width for record in records) / len(records)
        return (round(agreeing, 1) if width > 1 else 0.0, width)

    return max(_SEPARATORS, key=judged)


def _usual(records: Sequence[Sequence[str]]) -> int:
    return Counter(map(len, records)).most_common(1)[0][0]


def _split(lines: Sequence[str], separator: str) -> list[list[str]]:
    return list(_each(lines, separator))


def _each(lines: Sequence[str], separator: str) -> Iterator[list[str]]:
    """Each line by itself: an open quote spoils no other."""
    csv.field_size_limit(1 << 30)
    for line in lines:
        if len(separator) > 1 or '"' not in line:
            yield line.split(separator)
        else:
            yield next(csv.reader([line], delimiter=separator), [line])


def _whole(lines: Sequence[str], separator: str) -> list[list[str]]:
    return [record for record in csv.reader((line + "\n" for line in lines), delimiter=separator) if record]


def _over_lines(lines: Sequence[str], separator: str, alone: list[list[str]]) -> bool:
    """Whether quoted fields hold line feeds: then reading record by record mends most ragged lines."""
    if len(separator) > 1 or not any(line.count('"') % 2 for line in lines):
        return False
    together = _whole(lines, separator)
    return _ragged(together) < _ragged(alone) / 2


def _ragged(records: Sequence[Sequence[str]]) -> float:
    width = len(records[0])
    return sum(len(record) != width for record in records) / len(records)


def _is_header(first: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Names, none twice, none a number or a time; and not what stands in the rows below."""
    names = [name.strip() for name in first]
    # A table that was written with its row numbers has no name over them.
    given = [name for name in names if name]
    if not given or any(_NUMBER.fullmatch(name) or _STARTS_LIKE_A_TIME.match(name) for name in given):
        return False
    if not others:
        return all(_NAME.fullmatch(name) for name in given)
    below = list(zip(*others, strict=True))
    if any(_mostly_numbers(column) for column in below):
        return True
    return all(_NAME.fullmatch(name) for name in given) and not any(
        name in column for name, column in zip(names, below, strict=True) if name
    )


def _mostly_numbers(column: Sequence[str]) -> bool:
    given = [value for value in column if value.strip()]
    like = sum(bool(_NUMBER.fullmatch(value) or _STARTS_LIKE_A_TIME.match(value)) for value in given)
    return bool(given) and like * 2 > len(given)
