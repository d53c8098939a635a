"""Parquet, CSV or JSON lines on S3, or a server that speaks it, of which readers see one night or the next.

    URL/current.json                   which files count: {"folder": ..., "files": [{"path": ..., "rows": ...}], ...}
    URL/DAY-RUN/part-00000-7.parquet   a file of a delivery

Whoever reads takes `current.json`, then the files that it names, by paths relative to it. A delivery writes its files below a
folder of its own, and reads them back; then `current.json` is put, which S3 does at once. The delivery before is kept for
readers that are still in it, older ones are removed. A killed delivery leaves `current.json`, and so the old contents; what
it wrote is removed by a later one. Files are written whole, or not at all where S3 holds the very rows.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs
from pyspark.sql import Observation

from conf.settings import S3
from jobs.lake import commits, parquet
from jobs.lake.person import IDENTIFYING, Person, owned, owns
from jobs.sinks import checksum
from jobs.sinks.delivery import EVERYTHING, NOTHING, Delivery, Manifest, Sent
from jobs.sinks.formats import FORMS, formed, measured
from jobs.sinks.s3 import current as currents
from jobs.sinks.s3 import parts
from jobs.sinks.s3.bucket import Bucket
from jobs.sinks.s3.current import Current, Part

_ABANDONED_SECONDS = 86_400.0
_OURS = re.compile(r"\d{4}-\d\d-\d\d-.+-[0-9a-f]{6}")


def manifest(sink: S3) -> Manifest | None:
    """What the bucket holds; None: nothing, or nobody knows.

    Raises:
        ValueError: as `deliver`.
    """
    bucket = Bucket.of(sink)
    return _told(currents.read(bucket, bucket.objects()), sink)


def _told(current: Current | None, sink: S3) -> Manifest | None:
    return None if current is None or current.format != sink.format else Manifest.read(current.manifest)


def deliver(delivery: Delivery, sink: S3) -> Sent:
    """Make `current.json` name files that hold exactly what is delivered, unless it does.

    Raises:
        ValueError: the server cannot be reached, refuses or has no such bucket, another `current.json` is there, or the files
            do not read back as written; one line.
    """
    bucket, kind = Bucket.of(sink), sink.format
    objects = bucket.objects()
    former = currents.read(bucket, objects)
    before = _told(former, sink)
    if delivery.is_there(before):
        return Sent(rows=0, how=NOTHING)
    delivery.check_announced(before)
    folder = f"{delivery.manifest.day}-{delivery.run_id}-{uuid.uuid4().hex[:6]}"
    rows, seen = formed(delivery, kind), Observation()
    files = parts.write(rows.observe(seen, *checksum.in_spark(rows.schema, empty_is_null=kind == "csv")), bucket, folder, kind)
    wanted = int(seen.get.get("rows", 0)), str(seen.get.get("checksum", "0"))
    held = measured(parts.read(rows.sparkSession, bucket, files, rows.schema, kind), kind)
    if held != wanted:
        raise ValueError(
            f"{sink.url}: of {wanted[0]} rows written, with checksum {wanted[1]}, {held[0]} with {held[1]} can be read"
        )
    now = Current(
        folder=folder,
        format=kind,
        rows=wanted[0],
        checksum=wanted[1],
        before=None if former is None else former.folder,
        files=files,
        manifest=delivery.manifest.text(),
    )
    with commits.delivery("the S3 sink"):
        currents.put(bucket, now)
    _clear(bucket, objects, keep={now.folder, now.before}, older=None if former is None else former.before)
    return Sent(rows=wanted[0], how=EVERYTHING, checksum=wanted[1])


def check(delivery: Delivery, sink: S3) -> str | None:
    """How the files differ from what is to be delivered; None: not at all.

    Raises:
        ValueError: as `deliver`, or a file cannot be read any more.
    """
    bucket = Bucket.of(sink)
    objects = bucket.objects()
    current = currents.read(bucket, objects)
    if current is None or (before := _told(current, sink)) is None:
        return "nothing was delivered"
    delivery.check_announced(before)
    there = {one.path for one in objects}
    if missing := [part.path for part in current.files if bucket.path(part.path) not in there]:
        return f"{len(missing)} of its {len(current.files)} files are missing, {missing[0]} for one"
    rows = formed(delivery, sink.format)
    held = measured(parts.read(rows.sparkSession, bucket, current.files, rows.schema, sink.format), sink.format)
    wanted = measured(rows, sink.format)
    return None if held == wanted else f"it holds {held[0]:,} rows with checksum {held[1]}, {wanted[0]:,} with {wanted[1]} here"


def erase(sink: S3, person: Person, text_hashes: frozenset[str] = frozenset()) -> int:
    """Take the person out of the current delivery, and remove the others; gives the rows that went.

    Files that held the person are written anew under other names. A reader who finds one gone reads `current.json` again.

    Raises:
        ValueError: as `deliver`.
    """
    bucket = Bucket.of(sink)
    objects = bucket.objects()
    removed, folder, named = 0, "", set()
    if (current := currents.read(bucket, objects)) is not None:
        left = [_without(bucket, part, person, text_hashes) for part in current.files]
        if removed := sum(part.rows for part in current.files) - sum(part.rows for part in left):
            rows = current.rows - removed
            currents.put(bucket, replace(current, files=left, rows=rows, checksum=None, before=None))
        folder, named = current.folder, {bucket.path(part.path) for part in left}
    # What no current delivery names is not looked into: it goes.
    by_folder = _by_folder(bucket, objects)
    with bucket.asked() as files:
        for path in (one.path for one in by_folder.pop(folder, []) if one.path not in named):
            files.delete_file(path)
        for name in by_folder:
            files.delete_dir(bucket.path(name))
    return removed


def _without(bucket: Bucket, part: Part, person: Person, text_hashes: frozenset[str]) -> Part:
    """The same file, or one without the person's rows."""
    old, kind = bucket.path(part.path), part.path.rpartition(".")[2]
    folder, _, name = part.path.rpartition("/")
    new = f"{folder}/{name[:10]}-{uuid.uuid4().hex[:6]}.{kind}"
    with bucket.asked() as files:
        if (form := FORMS.get(kind)) is None:

            def mine(rows: pa.Table) -> pa.Array:
                return owned(person, rows, text_hashes, outside=True)

            with files.open_input_file(old) as file:
                if removed := parquet.count(file, mine, IDENTIFYING):
                    with files.open_output_stream(bucket.path(new)) as stream:
                        parquet.write_changed(file, stream, lambda rows: rows.filter(pc.invert(mine(rows))))
        else:
            is_mine = partial(owns, person, text_hashes=text_hashes)
            with parts.lines_of(files.open_input_stream(old)) as lines:
                removed = sum(1 for _, record in form.judged(lines, person, is_mine) if record is not None)
            if removed:
                with (
                    parts.lines_of(files.open_input_stream(old)) as lines,
                    files.open_output_stream(bucket.path(new)) as stream,
                ):
                    for line, record in form.judged(lines, person, is_mine):
                        if record is None:
                            stream.write(line)
    return Part(path=new, rows=part.rows - removed) if removed else part


def rows_of(sink: S3, person: Person) -> Iterator[dict[str, Any]]:
    """What the current delivery holds of the person.

    Raises:
        ValueError: as `deliver`.
    """
    bucket = Bucket.of(sink)
    current = currents.read(bucket, bucket.objects())
    if current is None:
        return
    for part in current.files:
        with bucket.asked() as files:
            if (form := FORMS.get(current.format)) is None:
                with files.open_input_file(bucket.path(part.path)) as file:
                    for rows in parquet.groups(file):
                        yield from rows.filter(owned(person, rows, outside=True)).to_pylist()
            else:
                with parts.lines_of(files.open_input_stream(bucket.path(part.path))) as lines:
                    found = form.judged(lines, person, partial(owns, person))
                    yield from (record for _, record in found if record is not None)


def _clear(bucket: Bucket, objects: Sequence[fs.FileInfo], keep: set[str | None], older: str | None) -> None:
    """Remove the delivery before the last, and what killed ones left a day ago, of what was there beforehand.

    The library leaves an empty object under the prefix's own name, as it does for every folder from which it takes one.
    """
    for name, found in _by_folder(bucket, objects).items():
        newest = max(one.mtime_ns or 0 for one in found) / 1e9
        # What is younger may be of an export that is under way.
        if name not in keep and (name == older or time.time() - newest > _ABANDONED_SECONDS):
            with bucket.asked() as files:
                files.delete_dir(bucket.path(name))


def _by_folder(bucket: Bucket, objects: Sequence[fs.FileInfo]) -> dict[str, list[fs.FileInfo]]:
    """The objects of each delivery, killed ones included."""
    folders: dict[str, list[fs.FileInfo]] = {}
    for one in objects:
        name = one.path.removeprefix(bucket.path("")).partition("/")[0]
        if _OURS.fullmatch(name):
            folders.setdefault(name, []).append(one)
    return folders
