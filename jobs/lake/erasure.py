"""A person taken out of the lake's tables: only the files with that person's rows are written anew, without them.

Rows are found by comparing columns, never by a predicate: Delta would write that into its log. Each
table goes on from its last complete state, so that what a killed run left is not made valid.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import deltalake
import pyarrow as pa
import pyarrow.compute as pc
from deltalake.exceptions import TableNotFoundError

from conf.contracts import Table
from conf.tables import TABLES
from jobs.lake import files, parquet, runs
from jobs.lake.files import File
from jobs.lake.logs import table_path
from jobs.lake.person import Person, identifying, owned

# Whose rows are found by the texts that the person alone wrote.
OF_TEXTS = ("text_semantics", "text_mentions")


class Removal(Protocol):
    """What is done to a table's rows. `columns`: what `touched` reads."""

    @property
    def columns(self) -> tuple[str, ...]: ...

    def touched(self, rows: pa.Table) -> pa.Array:
        """For each row whether anything is to be done."""

    def without(self, rows: pa.Table) -> pa.Table:
        """The rows as they are to be stored."""


@dataclass(frozen=True, kw_only=True)
class RowsGo:
    """The person's rows are left out."""

    person: Person
    columns: tuple[str, ...]
    text_hashes: frozenset[str] = frozenset()

    def touched(self, rows: pa.Table) -> pa.Array:
        return owned(self.person, rows, self.text_hashes)

    def without(self, rows: pa.Table) -> pa.Table:
        return rows.filter(pc.invert(self.touched(rows)))


@dataclass(frozen=True, kw_only=True)
class NamesBlotted:
    """Rows of a log stay, but what they quote of the person does not: an error may name a row."""

    person: Person
    columns: tuple[str, ...]

    def touched(self, rows: pa.Table) -> pa.Array:
        found = [self._blot(rows.column(name)) != rows.column(name).to_pylist() for name in self.columns]
        if not any(found):
            return pa.array([False] * rows.num_rows, pa.bool_())
        pairs = [zip(self._blot(rows.column(name)), rows.column(name).to_pylist(), strict=True) for name in self.columns]
        return pa.array([any(one != other for one, other in row) for row in zip(*pairs, strict=True)], pa.bool_())

    def without(self, rows: pa.Table) -> pa.Table:
        for name in self.columns:
            place = rows.schema.get_field_index(name)
            rows = rows.set_column(place, rows.schema.field(place), pa.array(self._blot(rows.column(name)), pa.string()))
        return rows

    def _blot(self, column: pa.ChunkedArray) -> list[str | None]:
        return [None if text is None else self.person.blotted(text) for text in column.to_pylist()]


@dataclass(frozen=True, kw_only=True)
class Visible:
    """The versions that must go on being readable: the newest night's, and what the next step reads.

    `refreshed`: those that a refresh made since, which an erasure ends.
    """

    night: runs.Night | None
    pins: Mapping[str, int]
    refreshed: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def of(root: str) -> Visible:
        return Visible(night=runs.newest_night(root), pins=runs.pins(root))

    def versions(self, name: str) -> list[int]:
        """Oldest first; none where no step finished the table."""
        seen = {self.pins.get(name), None if self.night is None else self.night.versions.get(name), self.refreshed.get(name)}
        return sorted(version for version in seen if version is not None)


@dataclass(frozen=True, kw_only=True)
class Change:
    """What became of a table. `versions`: old -> new. `doomed`: files, relative to it, that hold the person still."""

    rows: int = 0
    versions: Mapping[int, int] = field(default_factory=dict)
    doomed: tuple[str, ...] = ()


def erase_rows(root: str, visible: Visible, person: Person, hashes: frozenset[str]) -> dict[str, Change]:
    """Commit every table without the person, one commit for each version that must stay readable.

    The files with the person's rows are still there: `doomed`, to be deleted once the new versions are recorded.
    `hashes`: of `own_texts`.

    Raises:
        ValueError: another process wrote a table meanwhile.
    """
    changes = {}
    # Texts first: which of them are the person's own is known from the events.
    for name in sorted(TABLES, key=lambda name: name not in OF_TEXTS):
        removal = removal_of(TABLES[name], person, hashes)
        table = stored(root, name)
        if removal is not None and table is not None:
            versions = visible.versions(name) or [table.version()]
            # A log holds only ever more: its newest version stands for all.
            is_log = isinstance(removal, NamesBlotted)
            change = _erase(table, removal, [table.version()] if is_log else versions)
            if is_log and change.versions:
                change = replace(change, versions=dict.fromkeys(versions, *change.versions.values()))
            changes[name] = change
    return changes


def removal_of(contract: Table, person: Person, text_hashes: frozenset[str] = frozenset()) -> Removal | None:
    """What is done to a table's rows; None where none of them can be anybody's."""
    if columns := identifying(contract):
        return RowsGo(person=person, columns=columns, text_hashes=text_hashes)
    if contract.kind == "log":
        return NamesBlotted(person=person, columns=tuple(column.name for column in contract.columns if column.type == "string"))
    return None


def stored(root: str, name: str, version: int | None = None) -> deltalake.DeltaTable | None:
    try:
        return deltalake.DeltaTable(table_path(root, name), version=version)
    except TableNotFoundError:
        return None


def newest_files(root: str, name: str, visible: Visible) -> dict[str, File]:
    """By path the files of a table as steps last left it (as it stands where none finished it); none without a table."""
    table = stored(root, name, next(reversed(visible.versions(name)), None))
    return {} if table is None else files.listed(table)


def _erase(table: deltalake.DeltaTable, removal: Removal, versions: list[int]) -> Change:
    root, head = Path(table.table_uri.removeprefix("file://")), table.version()
    held = {version: files.listed(deltalake.DeltaTable(str(root), version=version)) for version in {*versions, head}}
    valid = {path: file for version in held.values() for path, file in version.items()}
    counts = {path: _count(root / path, removal) for path in valid}
    doomed = [path for path in on_disk(root) if path not in valid and _may_hold(root / path, removal)]
    if not any(counts.values()):
        return Change(doomed=tuple(doomed))
    batch = f"batch={uuid.uuid4().hex}"
    kept: dict[str, File | None] = {
        path: _written_anew(root, file, batch, number, removal) if counts[path] else file
        for number, (path, file) in enumerate(valid.items())
        if any(path in held[version] for version in versions)
    }
    became = {}
    for version in versions:
        wanted = {file.path: file for path in held[version] if (file := kept[path]) is not None}
        newest = deltalake.DeltaTable(str(root))
        now = files.listed(newest)
        added = [file for path, file in wanted.items() if path not in now]
        became[version] = files.exchanged(newest, added, [path for path in now if path not in wanted])
    rows = sum(counts[path] for path in held[versions[-1]])
    return Change(rows=rows, versions=became, doomed=(*doomed, *[path for path in valid if counts[path]]))


def shorten_log(root: str, name: str, visible: Visible) -> None:
    """Let a table's log begin with a checkpoint of the oldest version in use."""
    newest = stored(root, name)
    assert newest is not None
    oldest = min([*visible.versions(name), newest.version()])
    deltalake.DeltaTable(table_path(root, name), version=oldest).create_checkpoint()
    for file in (Path(table_path(root, name)) / "_delta_log").iterdir():
        if (number := file.name.split(".")[0]).isdecimal() and int(number) < oldest:
            file.unlink()


def on_disk(root: Path) -> list[str]:
    """Parquet files in a table's folder, whether a version names them or not; relative to it."""
    every = (path.relative_to(root) for path in root.rglob("*.parquet"))
    return sorted(path.as_posix() for path in every if path.parts[0] != "_delta_log")


def _count(path: Path, removal: Removal) -> int:
    return parquet.count(path, removal.touched, removal.columns)


def _may_hold(path: Path, removal: Removal) -> bool:
    """A file that a killed run left half written counts as one that does."""
    try:
        return _count(path, removal) > 0
    except (pa.ArrowInvalid, OSError):
        return True


def _written_anew(root: Path, file: File, batch: str, number: int, removal: Removal) -> File | None:
    """The file without what is to go, in a fresh folder as a step would write it; None where nothing is left."""
    folder = batch if file.day is None else f"{batch}/day={file.day}"
    path = root / folder / f"part-{number:05}.snappy.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = parquet.write_changed(root / file.path, path, removal.without)
    if rows == 0:
        path.unlink()
        return None
    facts = path.stat()
    return File(
        path=path.relative_to(root).as_posix(),
        size=facts.st_size,
        rows=rows,
        changed_at_ms=int(facts.st_mtime * 1000),
        day=file.day,
    )


def own_texts(root: str, visible: Visible, person: Person) -> frozenset[str]:
    """Hashes of the texts that the person alone wrote: no event of another and no item has them."""
    paths = list(_valid_paths(root, "events", visible))
    mine = {name for rows in _texts(paths) for name in text_hashes(rows.filter(owned(person, rows)))}
    if not mine:
        return frozenset()
    theirs = {name for rows in _texts(paths) for name in mine & set(text_hashes(rows.filter(pc.invert(owned(person, rows)))))}
    for path in _valid_paths(root, "item_texts", visible):
        for group in parquet.groups(path, ("text_hash",)):
            theirs.update(mine & set(group.column("text_hash").to_pylist()))
    return frozenset(mine - theirs)


def _texts(paths: Sequence[Path]) -> Iterator[pa.Table]:
    """user_id and text of the events that have one."""
    for path in paths:
        for rows in parquet.groups(path, ("user_id", "text")):
            yield rows.filter(pc.is_valid(rows.column("text")))


def text_hashes(rows: pa.Table) -> list[str]:
    """The names in text_semantics of the column `text`; the same as `jobs.text.describing.text_hash` gives."""
    # White space and control characters, as jobs.text.describing.normalised has them.
    plain = pc.utf8_trim(pc.replace_substring_regex(rows.column("text"), r"[\p{Cc}\p{Z}]+", " "), " ")
    return [hashlib.sha256(text.encode()).hexdigest() for text in pc.unique(plain).to_pylist()]


def _valid_paths(root: str, name: str, visible: Visible) -> Iterator[Path]:
    """The files of every version that must stay readable; of the newest where no step finished one."""
    paths: set[str] = set()
    versions: Sequence[int | None] = visible.versions(name) or [None]
    for version in versions:
        table = stored(root, name, version)
        paths |= set() if table is None else set(files.paths(table))
    return (Path(table_path(root, name)) / path for path in sorted(paths))
