"""The object `current.json`: which delivery counts, and the files of it. To write it is to commit a delivery."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pyarrow import fs

from jobs.sinks.delivery import Manifest
from jobs.sinks.s3.bucket import Bucket

NAME = "current.json"
_PADDED_TO = 4096


@dataclass(frozen=True, kw_only=True)
class Part:
    """A file of a delivery; `path` is relative to where `current.json` is."""

    path: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class Current:
    """The delivery that counts. `before`: the one before, which is kept. `checksum`: null after an erasure."""

    folder: str
    format: str
    rows: int
    checksum: str | None
    before: str | None
    files: Sequence[Part]
    manifest: str

    def bytes(self) -> bytes:
        """JSON, filled up with spaces: clients that ask for an object's size first and then for so many bytes get all of it,
        though another delivery was committed between the two.
        """
        told = Manifest.read(self.manifest)
        about = {} if told is None else {"table": told.source, "day": str(told.day)}
        text = json.dumps(about | asdict(self)).encode()
        return text.ljust(-(-len(text) // _PADDED_TO) * _PADDED_TO)


def read(bucket: Bucket, objects: Sequence[fs.FileInfo]) -> Current | None:
    """What `objects`, all below the prefix, have as current; None: nothing was delivered.

    Raises:
        ValueError: the object is there and was not made by an export, or as `Bucket.asked`.
    """
    path = bucket.path(NAME)
    if not any(one.path == path for one in objects):
        return None
    with bucket.asked() as files, files.open_input_stream(path) as stream:
        text = stream.read()
    try:
        known: dict[str, Any] = json.loads(text)
        parts = [Part(**part) for part in known["files"]]
        return Current(**{name: known[name] for name in Current.__dataclass_fields__ if name != "files"}, files=parts)
    except (ValueError, TypeError, KeyError):
        raise ValueError(
            f"s3://{path} is there already and was not made by an export: move it away, or give the sink another url"
        ) from None


def put(bucket: Bucket, current: Current) -> None:
    """
    Raises:
        ValueError: as `Bucket.asked`.
    """
    about = {"Content-Type": "application/json"}
    # Once it is closed the new object takes the old one's place, at once.
    with bucket.asked() as files, files.open_output_stream(bucket.path(NAME), metadata=about) as stream:
        stream.write(current.bytes())
