"""A scratch lake: recorded table versions as tables of their own, on which all readers and writers work unchanged.

Files of the lake never change once written, so a copy is hard links; what is written or removed in
a scratch lake touches no file of the lake. It lies inside the lake's folder (links do not cross file
systems) and goes when its process is done; what a killed process left, `maintain` finds.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import deltalake
from deltalake.exceptions import DeltaError

from conf.tables import TABLES
from jobs.lake import files
from jobs.lake.context import Refused
from jobs.lake.schema import create

FOLDER = ".scratch"
_OWNER = "owner"


@contextmanager
def scratch(lake: str) -> Iterator[Path]:
    """A folder for scratch lakes of `lake`, removed at the end.

    Raises:
        ValueError: the lake is not a folder of this machine.
    """
    if "://" in lake:
        raise ValueError(f"lake: {lake} is not a folder of this machine, so no scratch copy of it can be made")
    folder = Path(lake).absolute() / FOLDER / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        with open(folder / _OWNER, "w") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX)  # the system gives it back, however the process ends
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def orphans(lake: str) -> list[Path]:
    """Scratch folders whose process is gone."""
    return [folder for folder in sorted((Path(lake) / FOLDER).glob("*")) if not _is_owned(folder)]


def _is_owned(folder: Path) -> bool:
    try:
        with open(folder / _OWNER) as owner:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def copy_tables(lake: str, versions: Mapping[str, int], root: Path) -> dict[str, int]:
    """Each table at its version as a new table under `root`; the versions that these have there.

    Raises:
        Refused: a version, or a file of it, is gone; names the table and the version.
    """
    return {name: _copy_table(Path(lake).absolute() / name, version, root / name) for name, version in versions.items()}


def _copy_table(source: Path, version: int, target: Path) -> int:
    copied = _files(source, version)
    create(str(target), TABLES[source.name])
    for file in copied:
        try:
            link(source / file.path, target / file.path)
        except FileNotFoundError:
            raise _gone(source.name, version) from None
    return files.committed(deltalake.DeltaTable(str(target)), copied, None)


def _files(source: Path, version: int) -> list[files.File]:
    try:
        found = files.listed(deltalake.DeltaTable(str(source), version=version))
    except DeltaError:
        raise _gone(source.name, version) from None
    return list(found.values())


def _gone(name: str, version: int) -> Refused:
    return Refused(f"{name} version {version} is no longer stored: an erasure, retention or vacuum removed it")


def link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system cannot link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy2(source, target)


def copy_folder(source: Path, target: Path) -> None:
    """A folder of files that never change."""
    for file in source.rglob("*"):
        if file.is_file():
            link(file, target / file.relative_to(source))
