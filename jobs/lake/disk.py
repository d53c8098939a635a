"""Files written whole, and a full disk by name: neither Spark nor delta-rs say which one it is."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def named_when_full(*folders: str) -> Iterator[None]:
    """Whatever fails for want of room fails as an OSError that names the folder with the least."""
    try:
        yield
    except Exception as error:
        if os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), fullest(*folders)) from error


def fullest(*folders: str) -> str:
    """The folder on whose disk the least is free; what is no folder of this machine does not count."""
    here = [folder for folder in folders if Path(folder).is_dir()]
    return min(here or folders, key=lambda folder: shutil.disk_usage(folder).free if here else 0)


def write_whole(path: Path, text: str) -> None:
    """Readers find the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}"
    try:
        scratch.write_text(text, encoding="utf-8")
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
