"""Is a person still in any byte on disk? Looks into what is compressed: bytes of a packed file prove nothing."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc

from conf.tables import TABLES
from jobs.lake import parquet
from jobs.lake.person import Person, owned

_CHUNK = 1 << 22
_MODELS = "models"
_PACKED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}

EXPLAINED = (
    "every file under the folders given, links not followed: the values of all columns of Parquet files (checkpoints of the "
    "log too), the contents of gzip, bzip2, xz and zip (npz, model weights) files, and the plain bytes of every file. "
    "The pseudonym is sought anywhere in them, the id as a whole in columns that hold users and as words of its own in "
    "unreadable lines; where it is distinct (6 or more characters with digits and others, or 16 or more) also as words of its "
    "own in all other values and bytes: a shorter id, such as 12, stands there by chance. Where others' words, an item or a "
    "model's list of items say the same as the id, that is a mention: it stays, and the file is named here"
)


@dataclass(kw_only=True)
class Findings:
    """`hits`: files that hold the person. `mentions`: files in which others, or an item, are called as the person is."""

    files: int = 0
    bytes: int = 0
    hits: list[str] = field(default_factory=list)
    mentions: list[str] = field(default_factory=list)

    def as_dict(self, person: Person) -> dict[str, Any]:
        return {
            "files": self.files,
            "bytes": self.bytes,
            "hits": len(self.hits),
            "id_is_distinct": person.is_distinct,
            "mentions": self.mentions,
            "scanned": EXPLAINED,
        }


def scan(places: list[Path], lake: Path, person: Person, outside: list[Path]) -> Findings:
    """Look through every file below `places`. Under `outside` (sinks) columns hold the caller's ids."""
    found = Findings()
    for place in places:
        for path in sorted(_files(place)):
            found.files += 1
            found.bytes += path.stat().st_size
            is_outside = any(path.is_relative_to(one) for one in outside)
            hit, mention = _in_file(path, person, _place_of(path, lake), is_outside)
            if hit:
                found.hits.append(str(path))
            elif mention:
                found.mentions.append(str(path))
    return found


def holds(path: Path, person: Person) -> bool:
    """Whether a file that is no table's holds the person."""
    return _in_file(path, person, None, False)[0]


def _files(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
    elif place.is_dir():
        yield from (path for path in place.rglob("*") if path.is_file() and not path.is_symlink())


def _place_of(path: Path, lake: Path) -> str | None:
    """The table or other folder of the lake that a file is a part of; None for logs of tables, and outside the lake."""
    inside = path.relative_to(lake).parts if path.is_relative_to(lake) else ()
    return inside[0] if inside and inside[1:2] != ("_delta_log",) else None


def _in_file(path: Path, person: Person, place: str | None, is_outside: bool) -> tuple[bool, bool]:
    """(holds the person, mentions the id)."""
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"PAR1"):
        try:
            hit, mention = _in_columns(path, person, place in TABLES, is_outside)
        except (pa.ArrowInvalid, OSError):
            return True, False  # cut short, so nobody can tell
        # Beside the values a file holds its footer, with the least and greatest of them.
        hit = hit or _in_stream(path.open("rb"), _pseudonym(person))
    else:
        hit = any(_in_stream(stream, _pseudonym(person)) for stream in _streams(path, head))
        mention = not hit and person.is_distinct and any(_in_stream(stream, _id(person)) for stream in _streams(path, head))
    # Data is about items as well; what the person wrote in it is gone with the rows.
    is_data = place == _MODELS or (place in TABLES and TABLES[place].kind != "log")
    return (hit, mention) if is_data or is_outside else (hit or mention, False)


def _streams(path: Path, head: bytes) -> Iterator[IO[bytes]]:
    """What a file holds, unpacked."""
    for magic, opened in _PACKED.items():
        if head.startswith(magic):
            yield opened(path, "rb")
            return
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            yield from (packed.open(name) for name in packed.namelist())
    yield path.open("rb")


def _pseudonym(person: Person) -> list[tuple[bytes, bool]]:
    """What is sought in bytes, each with whether only as words of its own."""
    return [(person.pseudonym.encode(), False)]


def _id(person: Person) -> list[tuple[bytes, bool]]:
    """The id as text, JSON and CSV would have it."""
    one = person.raw_id
    forms = {one, json.dumps(one)[1:-1], json.dumps(one, ensure_ascii=False)[1:-1], one.replace('"', '""')}
    return [(form.encode(), True) for form in sorted(forms)]


def _in_stream(stream: IO[bytes], needles: list[tuple[bytes, bool]]) -> bool:
    overlap = max(len(needle) for needle, _ in needles) + 1
    with stream:
        held, chunk = b"", stream.read(_CHUNK)
        while chunk:
            held, chunk = held[-overlap:] + chunk, stream.read(_CHUNK)
            if any(_stands_in(held, needle, whole, is_last=not chunk) for needle, whole in needles):
                return True
    return False


def _stands_in(held: bytes, needle: bytes, whole: bool, *, is_last: bool) -> bool:
    place = held.find(needle)
    while place >= 0:
        before, after = held[place - 1 : place] if place else b"", held[place + len(needle) : place + len(needle) + 1]
        if whole and not after and not is_last:
            return False  # what follows is in the next chunk, which begins with this
        if not whole or not (_is_word(before, needle[:1]) or _is_word(after, needle[-1:])):
            return True
        place = held.find(needle, place + 1)
    return False


def _is_word(neighbour: bytes, edge: bytes) -> bool:
    """Whether the neighbouring byte makes the needle a part of a longer word."""
    return (neighbour.isalnum() or neighbour == b"_") and (edge.isalnum() or edge == b"_")


def _in_columns(path: Path, person: Person, is_table: bool, is_outside: bool) -> tuple[bool, bool]:
    mention = False
    for rows in parquet.groups(path):
        if (is_table or is_outside) and pc.any(owned(person, rows, outside=is_outside)).as_py():
            return True, mention
        for name in rows.schema.names:
            for values in _texts(rows.column(name)):
                if pc.any(pc.match_substring(values, person.pseudonym)).as_py():
                    return True, mention
                mention = mention or (person.is_distinct and _names(values, person))
    return False, mention


def _names(values: Any, person: Person) -> bool:
    near = values.filter(pc.fill_null(pc.match_substring(values, person.raw_id), False)).to_pylist()
    return any(person.is_named_in(text if isinstance(text, str) else text.decode(errors="replace")) for text in near)


def _texts(column: Any) -> Iterator[Any]:
    """All text in a column, however deep it is nested."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        yield from _texts(pc.cast(column, kind.value_type))
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        yield pc.cast(column, pa.binary())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield column
    elif pa.types.is_map(kind):
        for chunk in _chunks(column):
            yield from _texts(chunk.keys)
            yield from _texts(chunk.items)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        for chunk in _chunks(column):
            yield from _texts(chunk.flatten())
    elif pa.types.is_struct(kind):
        for chunk in _chunks(column):
            for child in chunk.flatten():
                yield from _texts(child)


def _chunks(column: Any) -> list[Any]:
    return column.chunks if isinstance(column, pa.ChunkedArray) else [column]
