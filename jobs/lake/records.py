"""Files of text without a person's records; all other records keep their bytes."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

from jobs.lake.person import Person, readings

Record = dict[str, str | None]
# Whether a record, column by column, is the person's.
Judge = Callable[[Mapping[str, str | None]], bool]
# A record's bytes, and what it says if it is the person's.
Judged = tuple[bytes, Record | None]
_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open}
_UNREADABLE = (".zst", ".snappy", ".lz4", ".deflate", ".xz", ".zip")


class Form(Protocol):
    """How a file of text holds records."""

    def judged(self, lines: Iterable[bytes], person: Person, is_mine: Judge) -> Iterator[Judged]:
        """Every record, and what it says where it is the person's. One that cannot be read is where it names the person."""


@dataclass(frozen=True, kw_only=True)
class Csv:
    """Without a header the columns are _c0, _c1 and so on. `multiline`: a quoted field may hold line ends."""

    separator: str = ","
    quote: str = '"'
    escape: str = '"'
    header: bool = True
    multiline: bool = False
    comment: str | None = None
    encoding: str = "utf-8"

    def judged(self, lines: Iterable[bytes], person: Person, is_mine: Judge) -> Iterator[Judged]:
        names: list[str] = []
        for record in self.records(lines):
            text = record.decode(self.encoding, "surrogateescape").rstrip("\r\n")
            if not text.strip() or (self.comment and text.startswith(self.comment)):
                yield record, None
            elif not names:
                first = [name.strip() for name in self._fields(text.removeprefix("\ufeff"))]
                names = first if self.header else [f"_c{number}" for number in range(len(first))]
                yield record, None if self.header else self._of(text, names, person, is_mine)
            else:
                yield record, self._of(text, names, person, is_mine)

    def _of(self, text: str, names: list[str], person: Person, is_mine: Judge) -> Record | None:
        # Most records are somebody else's, which a look at the text tells; one with escapes is read in any case.
        if not any(person.raw_id in reading for reading in readings(text)) and self.quote not in person.raw_id:
            return None
        fields = self._fields(text)
        record: Record = dict(zip(names, fields, strict=False))
        if is_mine(record):
            return record
        return {"broken": text} if len(fields) != len(names) and person.is_named_in(text) else None

    def records(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Lines, joined while a quoted field is open."""
        if not self.multiline:
            yield from lines
            return
        held, quote, escape = b"", self.quote.encode(), self.escape.encode()
        for line in lines:
            held += line
            plain = held if escape == quote else held.replace(escape + escape, b"").replace(escape + quote, b"")
            if plain.count(quote) % 2 == 0:
                yield held
                held = b""
        if held:
            yield held

    def _fields(self, text: str) -> list[str]:
        """The fields of a record; none where it cannot be read."""
        doubled = self.escape == self.quote
        how = {"doublequote": doubled, "escapechar": None if doubled else self.escape}
        try:
            return next(csv.reader([text], delimiter=self.separator, quotechar=self.quote, strict=True, **how), [])  # type: ignore[arg-type]
        except csv.Error:
            return []


@dataclass(frozen=True, kw_only=True)
class JsonLines:
    """One object a line."""

    encoding: str = "utf-8"

    def judged(self, lines: Iterable[bytes], person: Person, is_mine: Judge) -> Iterator[Judged]:
        for line in lines:
            text = line.decode(self.encoding, "replace").rstrip("\r\n")
            may_be = any(person.raw_id in reading for reading in readings(text))
            yield line, _of(text, person, is_mine) if may_be else None


def _of(text: str, person: Person, is_mine: Judge) -> Record | None:
    try:
        # Numbers as they are written: 12 is not 12.0, and none is rounded.
        read = json.loads(text, parse_int=str, parse_float=str)
    except ValueError:
        return {"broken": text} if person.is_named_in(text) else None
    if not isinstance(read, dict):
        return None
    record = {name: value if value is None or isinstance(value, str) else json.dumps(value) for name, value in read.items()}
    return record if is_mine(record) else None


def read(path: Path, form: Form, person: Person, is_mine: Judge) -> Iterator[Record]:
    """The person's records in a file.

    Raises:
        ValueError: it is compressed in a way that is not known here.
    """
    with _opened(path, "rb") as file:
        yield from (record for _, record in form.judged(file, person, is_mine) if record is not None)


def take_out(path: Path, form: Form, person: Person, is_mine: Judge) -> int:
    """Write the file anew without the person's records, in one rename, its dates kept; gives how many there were.

    Raises:
        ValueError: as `read`.
    """
    removed = sum(1 for _ in read(path, form, person, is_mine))
    if removed:
        beside = path.with_name(f".{path.name}.erasing")
        with _opened(path, "rb") as old, _opened(beside, "wb", as_is=path) as new:
            new.writelines(line for line, mine in form.judged(old, person, is_mine) if mine is None)
        put_in_place(beside, path)
    return removed


def put_in_place(made: Path, path: Path) -> None:
    """Let `made` take the place, rights and dates of `path`."""
    with made.open("rb") as file:
        os.fsync(file.fileno())
    shutil.copystat(path, made)
    os.replace(made, path)
    # What Hadoop's local file system would check the new bytes against.
    path.with_name(f".{path.name}.crc").unlink(missing_ok=True)


def _opened(path: Path, mode: str, as_is: Path | None = None) -> IO[bytes]:
    suffix = (as_is or path).suffix
    if suffix in _UNREADABLE:
        raise ValueError(f"{path}: records in a {suffix} file cannot be taken out here: unpack it, or remove them yourself")
    return cast(IO[bytes], _OPENERS.get(suffix, open)(path, mode))
