"""The first rows of a file as strings, whatever its format: found out, not asked for."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterable
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.profiling.delimited import Delimited, delimited

if TYPE_CHECKING:
    import pandas as pd

MAX_BYTES = 256 << 20  # of text, decompressed
MAX_CELLS = 4_000_000
MAX_COLUMNS = 300
_LONGEST_LINE = 16 << 20
_HEAD = 1 << 16
_TEXT_CONTROLS = frozenset(b"\t\n\r\x0b\x0c\x1b\x01\x02\x1c\x1d\x1e\x1f")
_SIGNATURES = {b"PK\x03\x04": "a zip archive", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"ORC": "ORC"}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Rows of a file: `rows` has one column of strings per field, null where it is missing or blank.

    format, options: as a mapping has them. whole: whether `rows` are all there are.
    notes: what a person should know of how it was read. unreadable: lines that are no row.
    """

    path: Path
    format: str
    rows: pd.DataFrame
    options: MappingType[str, str] = field(default_factory=dict)
    whole: bool = True
    unreadable: int = 0
    notes: tuple[str, ...] = ()


def sample(path: Path, rows: int) -> Sample:
    """Read the first `rows` rows (fewer of a very wide or very long file).

    Raises:
        ValueError: missing, empty, unreadable or of no known format; one line that says what it seems to be.
    """
    try:
        if path.is_dir():
            raise ValueError(f"{path} is a folder: name one of its files")
        with path.open("rb") as file:
            head = file.read(8)
        if not head:
            raise ValueError(f"{path} is empty")
        if head[:4] == b"PAR1":
            return _narrow(_parquet(path, rows))
        return _narrow(_text(path, rows, packed=head[:2] == b"\x1f\x8b"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None


def _narrow(found: Sample) -> Sample:
    more = len(found.rows.columns) - MAX_COLUMNS
    if more <= 0:
        return found
    narrow = replace(found, rows=found.rows.iloc[:, :MAX_COLUMNS])
    return _with(narrow, [f"only the first {MAX_COLUMNS} columns are looked at; there are {more:,} more"])


def _parquet(path: Path, rows: int) -> Sample:
    import pandas as pd
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        names = file.schema_arrow.names
        wanted = max(1, min(rows, MAX_CELLS // max(1, len(names))))
        batches, taken = [], 0
        for batch in file.iter_batches(batch_size=min(wanted, 65_536)):
            batches.append(batch.slice(0, wanted - taken))
            taken += len(batches[-1])
            if taken >= wanted:
                break
        table = pa.Table.from_batches(batches, schema=file.schema_arrow)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {' '.join(str(error).split())[:200]}") from None
    if not taken:
        raise ValueError(f"{path} holds no rows")
    columns = {name: _strings(table.column(number)) for number, name in enumerate(names)}
    return Sample(path=path, format="parquet", rows=pd.DataFrame(columns, dtype=object), whole=taken == file.metadata.num_rows)


def _strings(column: Any) -> list[str | None]:
    """As Spark casts them: numbers and times plain, nested values as JSON."""
    import pyarrow as pa

    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
        return [None if value is None else _json_text(value) for value in column.to_pylist()]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return [_blank_is_null(value) for value in column.cast(pa.string()).to_pylist()]


def _json_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _blank_is_null(value: str | None) -> str | None:
    return value if value is not None and value.strip() else None


def _text(path: Path, rows: int, *, packed: bool) -> Sample:
    # A row may go over several lines, and some lines are none.
    content, whole, notes = _content(path, 3 * rows + 1000, packed=packed)
    _refuse_binary(path, content[:_HEAD])
    content = content.removeprefix(b"\xef\xbb\xbf")
    lines = _lines(path, content, whole=whole)
    options: dict[str, str] = {}
    first = next((line.lstrip()[:1] for line in lines if line.strip()), b"")
    if first == b"":
        raise ValueError(f"{path} is empty: it holds blank lines only")
    if packed != (path.suffix == ".gz"):
        notes.append(f"it is {'' if packed else 'not '}gzip: name it {'so that it ends in .gz' if packed else 'without .gz'}")
    wrong = 0 if _is_utf8(content) else sum(not _is_utf8(line) for line in lines)
    if first in (b"{", b"["):
        found = _json(path, lines, rows, is_list=first == b"[", whole=whole)
        notes += [f"{wrong:,} lines are not UTF-8; what cannot be read of them is replaced"] if wrong else []
        return _with(found, notes)
    encoding = "utf-8" if wrong <= len(lines) // 10 and _others_are_utf8(lines, wrong) else "ISO-8859-1"
    if encoding != "utf-8":
        options["encoding"] = encoding
        notes.append(f"not UTF-8; read as {encoding}")
    elif wrong:
        notes.append(f"{wrong:,} lines are not UTF-8; what cannot be read of them is replaced")
    table = delimited([line.decode(encoding, errors="replace") for line in lines], rows, MAX_CELLS)
    return _of_delimited(path, table, options, notes, whole=whole)


def _of_delimited(path: Path, table: Delimited, options: dict[str, str], notes: list[str], *, whole: bool) -> Sample:
    import pandas as pd

    if not table.rows:
        raise ValueError(f"{path} holds no rows: only a header ({', '.join(table.names)[:200]})")
    if len(table.names) == 1 and table.unreadable > len(table.rows):
        raise ValueError(f"{path}: its lines have no delimiter in common; is it a log of CSV, JSON lines or Parquet?")
    times = Counter(table.names)
    columns = {
        name: [_blank_is_null(value) for value in values]
        for name, values in zip(table.names, zip(*table.rows, strict=True), strict=True)
        if times[name] == 1
    }
    if twice := sorted(name or "without a name" for name, count in times.items() if count > 1):
        notes.append(f"left out, because the header names them twice: {', '.join(twice)[:200]}")
    return Sample(
        path=path,
        format="csv",
        options={**table.options, **options},
        rows=pd.DataFrame(columns, dtype=object),
        whole=whole and table.whole,
        unreadable=table.unreadable,
        notes=tuple(notes),
    )


def _content(path: Path, lines: int, *, packed: bool) -> tuple[bytes, bool, list[str]]:
    """The first `lines` lines and some more, up to MAX_BYTES; whether that is all; what was wrong with the compression."""
    parts: list[bytes] = []
    notes: list[str] = []
    size = 0
    with gzip.open(path) if packed else path.open("rb") as file:
        try:
            while part := file.read(1 << 20):
                if size > MAX_BYTES or lines < 0:
                    return b"".join(parts), False, notes
                parts.append(part)
                size += len(part)
                lines -= part.count(b"\n")
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            if not parts:
                raise ValueError(f"{path} is gzip, but damaged: {error}; fetch it again") from None
            notes.append(f"the gzip file is truncated or damaged ({error}): a night would stop here; fetch it again")
    return b"".join(parts), True, notes


def _refuse_binary(path: Path, head: bytes) -> None:
    for signature, kind in _SIGNATURES.items():
        if head.startswith(signature):
            raise ValueError(f"{path} seems to be {kind}: unpack it, or write it as CSV, JSON lines or Parquet")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or head[1::2].count(0) > len(head) // 3:
        raise ValueError(f"{path} seems to be UTF-16: convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)")
    controls = sum(byte < 32 and byte not in _TEXT_CONTROLS for byte in head)
    if controls > len(head) // 50:
        raise ValueError(f"{path} is binary: neither CSV, JSON lines nor Parquet")


def _lines(path: Path, content: bytes, *, whole: bool) -> list[bytes]:
    lines = content.replace(b"\r\n", b"\n").split(b"\n")
    if len(lines) == 1 and b"\r" in content:
        lines = content.split(b"\r")
    if not whole or not lines[-1]:
        lines.pop()
    if not lines or max(map(len, lines[:1000])) > _LONGEST_LINE:
        raise ValueError(f"{path}: a line is longer than {_LONGEST_LINE >> 20} MiB: this is no log of one row a line")
    return lines


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _others_are_utf8(lines: list[bytes], wrong: int) -> bool:
    """Whether the signs beyond ASCII are UTF-8 in more lines than they are not."""
    return wrong == 0 or sum(not line.isascii() and _is_utf8(line) for line in lines) >= wrong


def _json(path: Path, lines: list[bytes], rows: int, *, is_list: bool, whole: bool) -> Sample:
    import pandas as pd

    found: list[dict[str, str | None]] = []
    unreadable = 0
    names: dict[str, None] = {}
    values: Iterable[object]
    if is_list:
        values, options = _json_list(path, lines, whole=whole), {"multiLine": "true"}
    else:
        values, options = (_object(line) for line in lines if line.strip()), {}
    for value in values:
        if not isinstance(value, dict):
            unreadable += 1
            continue
        found.append({str(name): _blank_is_null(_scalar(inner)) for name, inner in value.items()})
        names |= dict.fromkeys(found[-1])
        if len(found) >= rows or len(found) * len(names) >= MAX_CELLS:
            whole = False
            break
    if not found or unreadable > len(found) * 9:
        raise ValueError(f"{path} begins like JSON, but {'no' if not found else 'hardly a'} line is an object")
    columns = {name: [row.get(name) for row in found] for name in names}
    return Sample(
        path=path, format="json", options=options, rows=pd.DataFrame(columns, dtype=object), whole=whole, unreadable=unreadable
    )


def _object(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return None


def _json_list(path: Path, lines: list[bytes], *, whole: bool) -> list[Any]:
    try:
        values = json.loads(b"\n".join(lines).decode("utf-8", errors="replace"))
    except (ValueError, RecursionError) as error:
        said = "too large to read in one piece" if not whole else str(error)
        raise ValueError(f"{path} begins like a JSON list, but cannot be read: {said}; write JSON lines") from None
    return values if isinstance(values, list) else [values]


def _scalar(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _with(found: Sample, notes: list[str]) -> Sample:
    return replace(found, notes=(*found.notes, *notes))
