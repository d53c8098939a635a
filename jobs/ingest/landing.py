"""Where a source lies: landing folders, or files without days. Lists through Hadoop, so any URL that Spark reads will do."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

_DATED = re.compile(r"\d{4}-\d{2}-\d{2}")
_GLOB = re.compile(r"[*?\[{]")
_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*:/*")
HEAD_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class File:
    """One source file. `day` is its landing folder's date; None where it lies in none."""

    path: str
    size: int
    changed_at_ms: int
    day: date | None = None

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a source lies.

    With landing folders, `root` holds them and `days` are their dates, ascending. Without,
    `days` is None, `files` are all files and `root` is the folder they lie in.
    """

    root: str
    days: tuple[date, ...] | None = None
    files: tuple[File, ...] = ()

    @property
    def depth(self) -> int:
        """How many parts of a file's path come before the landing folder."""
        return len(path_parts(self.root))


def path_parts(path: str) -> list[str]:
    """The parts of a path or URL behind its scheme.

    >>> path_parts("file:/a/b"), path_parts("s3a://bucket/a/")
    (['a', 'b'], ['bucket', 'a'])
    """
    return [part for part in _SCHEME.sub("", path).split("/") if part]


def listing(files: Sequence[File]) -> str:
    """Digest of names, sizes and times of change: equal listings need not be read again."""
    lines = sorted(f"{file.path}\t{file.size}\t{file.changed_at_ms}" for file in files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] if lines else ""


def absolute(path: str) -> str:
    """Relative to the working directory of the caller, which need not be the JVM's."""
    return path.rstrip("/") if _SCHEME.match(path) else str(Path(path).absolute())


class Landing:
    """Lists and opens source files.

    Raises (all methods): ValueError, one line, where a path is missing, unreadable or of no known layout.
    """

    def __init__(self, spark: SparkSession) -> None:
        assert spark._jvm is not None
        self._jvm: Any = spark._jvm
        self._conf: Any = spark._jsc.hadoopConfiguration()  # type: ignore[attr-defined]

    def find(self, path: str, key: str) -> Place:
        """What lies at `path`: a folder of landing folders, one file, or a glob. `key` names the setting in errors."""
        place = absolute(path)
        try:
            return self._find(place, key)
        except Py4JJavaError as error:
            raise ValueError(f"{key}: {place} cannot be listed: {java_cause(error)}") from None

    def files(self, place: Place, pattern: str, days: Iterable[date] = ()) -> tuple[File, ...]:
        """The files named by `pattern` in these days' folders, or in the one folder of a place without days."""
        folders = (
            [(None, place.root)] if place.days is None else [(day, f"{place.root}/{day}") for day in days if day in place.days]
        )
        found: list[File] = []
        for day, folder in folders:
            try:
                entries = [entry for entry in self._children(folder) if fnmatchcase(entry.getPath().getName(), pattern)]
                found += [file for entry in entries for file in self._below(entry, day)]
            except Py4JJavaError as error:
                raise ValueError(f"{folder} cannot be listed: {java_cause(error)}") from None
        return tuple(found)

    def head(self, file: File) -> bytes:
        """The first bytes of a file, decompressed."""
        try:
            path = self._jvm.org.apache.hadoop.fs.Path(file.path)
            stream = path.getFileSystem(self._conf).open(path)
            try:
                codec = self._jvm.org.apache.hadoop.io.compress.CompressionCodecFactory(self._conf).getCodec(path)
                return bytes((stream if codec is None else codec.createInputStream(stream)).readNBytes(HEAD_BYTES))
            finally:
                stream.close()
        except Py4JJavaError as error:
            raise ValueError(f"{file.path} cannot be read: {java_cause(error)}; nothing stored was changed") from None

    def footer(self, file: File) -> dict[str, str]:
        """The columns of a Parquet file, each with its type."""
        try:
            path = self._jvm.org.apache.hadoop.fs.Path(file.path)
            parquet = self._jvm.org.apache.parquet.hadoop
            reader = parquet.ParquetFileReader.open(parquet.util.HadoopInputFile.fromPath(path, self._conf))
            try:
                return {field.getName(): _type(field) for field in reader.getFileMetaData().getSchema().getFields()}
            finally:
                reader.close()
        except Py4JJavaError as error:
            raise ValueError(f"{file.path}: cannot be read as parquet: {java_cause(error)}") from None

    def _find(self, place: str, key: str) -> Place:
        path = self._jvm.org.apache.hadoop.fs.Path(place)
        system = path.getFileSystem(self._conf)
        if not system.exists(path):
            if not _GLOB.search(place):
                raise ValueError(f"{key}: {place} does not exist")
            files = [file for entry in system.globStatus(path) or [] for file in self._below(entry, None)]
            if not files:
                raise ValueError(f"{key}: no file matches {place}")
            return Place(root=files[0].path.rsplit("/", 1)[0], files=tuple(files))
        status = system.getFileStatus(path)
        root = status.getPath().toString()
        if not status.isDirectory():
            return Place(root=root.rsplit("/", 1)[0], files=(self._file(status),))
        days = sorted(day for entry in self._children(root) if (day := _folder_day(entry)) is not None)
        if not days:
            raise ValueError(
                f"{key}: {place} has no landing folders YYYY-MM-DD; a log without folders is given as a file or a glob"
            )
        return Place(root=root, days=tuple(days))

    def _children(self, folder: str) -> list[Any]:
        path = self._jvm.org.apache.hadoop.fs.Path(folder)
        entries = path.getFileSystem(self._conf).listStatus(path)
        return [entry for entry in entries if not entry.getPath().getName().startswith((".", "_"))]

    def _below(self, entry: Any, day: date | None) -> list[File]:
        if not entry.isDirectory():
            return [self._file(entry, day)]
        return [file for child in self._children(entry.getPath().toString()) for file in self._below(child, day)]

    def _file(self, entry: Any, day: date | None = None) -> File:
        return File(path=entry.getPath().toString(), size=entry.getLen(), changed_at_ms=entry.getModificationTime(), day=day)


def _type(field: Any) -> str:
    """What the values mean, where that is said, else how they are stored."""
    if not field.isPrimitive():
        return "nested"
    meaning = field.getLogicalTypeAnnotation()
    return str(field.getPrimitiveTypeName() if meaning is None else meaning).lower()


def _folder_day(entry: Any) -> date | None:
    name = entry.getPath().getName()
    if not entry.isDirectory() or not _DATED.fullmatch(name):
        return None
    try:
        return date.fromisoformat(name)
    except ValueError:
        return None


def java_cause(error: Py4JJavaError) -> str:
    """The innermost cause, one line, in words for what people meet most."""
    cause = error.java_exception
    while cause.getCause() is not None:
        cause = cause.getCause()
    kind = cause.getClass().getSimpleName()
    said = " ".join((cause.getMessage() or "").split())
    if kind == "EOFException":
        return "the compressed file is truncated: fetch it again"
    if "Permission denied" in said or kind == "AccessControlException":
        return "permission denied"
    return f"{kind}: {said}" if said else kind
