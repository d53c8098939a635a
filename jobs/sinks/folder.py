"""A folder of Parquet, CSV or JSON files that readers always find whole; of JSON an object a line, as brokers take it.

PATH is a symbolic link. Each delivery is a new folder beside it, `.NAME.DAY-RUN`, complete before
the link is turned to it in one rename; the one before is kept for readers that are still in it,
older ones are removed. A killed delivery leaves the link, and so the old contents. A folder is written
whole, or not at all where it holds the very rows.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.sql import Observation

from conf.settings import Folder
from jobs.lake import commits, parquet, records
from jobs.lake.person import Person, owned, owns
from jobs.sinks import checksum
from jobs.sinks.delivery import EVERYTHING, NOTHING, Delivery, Manifest, Sent
from jobs.sinks.formats import FORMS, READING, WRITING, formed, measured

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_UNFINISHED = ".writing"
_ABANDONED_SECONDS = 86_400.0
_MANIFEST = "_MANIFEST"  # readers of folders pass over what begins with a line


def manifest(sink: Folder) -> Manifest | None:
    """What the folder holds; None: nothing, or nobody knows."""
    told = Path(sink.path) / _MANIFEST
    said = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else {}
    return Manifest.read(said.get("manifest")) if said.get("kind") == sink.kind else None


def deliver(delivery: Delivery, sink: Folder) -> Sent:
    """Make PATH hold exactly what is delivered, unless it does.

    On a cluster PATH must be a file system that all machines share.

    Raises:
        ValueError: PATH is something else than a link made by an earlier delivery, or the files do not read back as written.
    """
    path, before = _checked(sink), manifest(sink)
    if delivery.is_there(before):
        return Sent(rows=0, how=NOTHING)
    delivery.check_announced(before)
    path.parent.mkdir(parents=True, exist_ok=True)
    final = path.parent / f".{path.name}.{delivery.manifest.day}-{delivery.run_id}-{uuid.uuid4().hex[:6]}"
    scratch = final.with_name(final.name + _UNFINISHED)
    rows = formed(delivery, sink.kind)
    seen, csv = Observation(), sink.kind == "csv"
    writer = rows.observe(seen, *checksum.in_spark(rows.schema, empty_is_null=csv)).write
    writer.options(**WRITING[sink.kind]).format(sink.kind).save(scratch.absolute().as_uri())
    wanted = int(seen.get.get("rows", 0)), str(seen.get.get("checksum", "0"))
    held = measured(_written(rows, sink, scratch), sink.kind)
    if held != wanted:
        raise ValueError(
            f"{path}: of {wanted[0]} rows written, with checksum {wanted[1]}, {held[0]} with {held[1]} can be read"
        )
    for extra in [*scratch.glob(".*.crc"), *scratch.glob("._SUCCESS*"), scratch / "_SUCCESS"]:
        extra.unlink(missing_ok=True)
    said = {"kind": sink.kind, "manifest": delivery.manifest.text()}
    (scratch / _MANIFEST).write_text(json.dumps(said), encoding="utf-8")
    scratch.rename(final)
    former = path.resolve() if path.is_symlink() else None
    with commits.delivery("the folder sink"):
        _turn(path, final)
    _clear(path, keep={final.name, former.name if former is not None else ""})
    return Sent(rows=wanted[0], how=EVERYTHING, checksum=wanted[1])


def check(delivery: Delivery, sink: Folder) -> str | None:
    """How the folder differs from what is to be delivered; None: not at all.

    Raises:
        ValueError: as `deliver`.
    """
    path, before = _checked(sink), manifest(sink)
    if before is None:
        return "nothing was delivered"
    delivery.check_announced(before)
    rows = formed(delivery, sink.kind)
    held, wanted = measured(_written(rows, sink, path), sink.kind), measured(rows, sink.kind)
    return None if held == wanted else f"it holds {held[0]:,} rows with checksum {held[1]}, {wanted[0]:,} with {wanted[1]} here"


def _written(rows: DataFrame, sink: Folder, path: Path) -> DataFrame:
    """The files there, as `rows` were."""
    reader = rows.sparkSession.read.schema(rows.schema).options(mode="FAILFAST", **READING[sink.kind])
    return reader.format(sink.kind).load(path.absolute().as_uri())


def _checked(sink: Folder) -> Path:
    path = Path(sink.path)
    if "://" in sink.path:
        raise ValueError(f"{sink.path}: a folder sink writes into a mounted folder, not to a URL")
    if path.is_symlink() or not path.exists():
        return path
    if path.is_dir() and not any(path.iterdir()):
        return path
    raise ValueError(f"{path} is there already and was not made by an export: move it away, or give the sink another path")


def _turn(path: Path, final: Path) -> None:
    """Let the link point to the new folder, in one rename."""
    link = path.parent / f".{path.name}.link-{uuid.uuid4().hex[:6]}"
    link.symlink_to(final.name, target_is_directory=True)
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    os.replace(link, path)


def erase(sink: Folder, person: Person, text_hashes: frozenset[str] = frozenset()) -> int:
    """Take the person out of every delivery that is still there; gives the rows that went from the current one.

    A reader who has a file open goes on reading the old one; whoever opens it then gets the new.

    Raises:
        ValueError: PATH is a URL.
    """
    path, current = Path(sink.path), 0
    if "://" in sink.path:
        raise ValueError(f"{sink.path}: a folder sink writes into a mounted folder, not to a URL")
    for delivery in deliveries(path):
        if delivery.is_symlink():
            continue
        if delivery.name.endswith(_UNFINISHED):
            shutil.rmtree(delivery)
            continue
        for file in sorted(delivery.glob(f"*.{sink.kind}")):
            removed = _without(file, sink, person, text_hashes)
            current += removed if delivery == path.resolve() else 0
    return current


def rows_of(sink: Folder, person: Person) -> Iterator[dict[str, Any]]:
    """What the current delivery holds of the person."""
    path = Path(sink.path)
    if not path.is_symlink():
        return
    for file in sorted(path.glob(f"*.{sink.kind}")):
        if (form := FORMS.get(sink.kind)) is not None:
            yield from records.read(file, form, person, partial(owns, person))
        else:
            for rows in parquet.groups(file):
                yield from rows.filter(owned(person, rows, outside=True)).to_pylist()


def _without(file: Path, sink: Folder, person: Person, text_hashes: frozenset[str]) -> int:
    if (form := FORMS.get(sink.kind)) is not None:
        return records.take_out(file, form, person, partial(owns, person, text_hashes=text_hashes))
    return parquet.take_out(file, lambda rows: owned(person, rows, text_hashes, outside=True))


def deliveries(path: Path) -> list[Path]:
    """The folders beside PATH that deliveries made, unfinished ones and links included."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.(\d{{4}}-\d\d-\d\d-|link-)")
    return [left for left in path.parent.iterdir() if ours.match(left.name)] if path.parent.is_dir() else []


def _clear(path: Path, keep: set[str]) -> None:
    """Remove older deliveries, and what killed ones left a day ago."""
    for left in deliveries(path):
        if left.name in keep:
            continue
        finished = not left.is_symlink() and not left.name.endswith(_UNFINISHED)
        if not finished and time.time() - left.lstat().st_mtime < _ABANDONED_SECONDS:
            continue  # perhaps of an export that is under way
        if left.is_symlink():
            left.unlink(missing_ok=True)
        else:
            shutil.rmtree(left, ignore_errors=True)
