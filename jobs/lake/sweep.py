"""Deletes what no version that is still needed holds: files, orphans of killed runs, old commits. Needs no JVM."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import deltalake

from jobs.lake import files, logs, tombstones
from jobs.lake.runs import newest_night, pins

LOG = "_delta_log"
# So many commits since the last checkpoint make a table slow to load.
_COMMITS = 10
_VERSION = re.compile(r"(\d{20})\.(json|checkpoint)")


@dataclass(frozen=True, kw_only=True)
class Freed:
    """Files deleted (or, in a dry run, to be deleted) and their size."""

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Freed) -> Freed:
        return Freed(files=self.files + other.files, bytes=self.bytes + other.bytes)


def named(root: str, since: datetime) -> dict[str, set[int]]:
    """Table -> versions that runs since then read or wrote, that the newest night shows, or that the next step will read."""
    recent = logs.read(root, "runs", f"finished_at >= TIMESTAMP '{since:%Y-%m-%d %H:%M:%S}'")
    night = newest_night(root)
    maps = [row[what] for row in recent for what in ("inputs", "outputs")]
    found: dict[str, set[int]] = {}
    for versions in [*maps, pins(root), night.versions if night is not None else {}]:
        for name, version in versions.items():
            found.setdefault(name, set()).add(version)
    return found


def newest_erasure(root: str) -> datetime | None:
    """When the last erasure was finished: what was stored before it must not be kept."""
    return max((row["recorded_at"] for row in logs.read(root, tombstones.TABLE)), default=None)


def needed(path: Path, named: Iterable[int], held_since: datetime, erased: datetime | None) -> set[int]:
    """The versions of a table to keep: those named, and all that were the newest at `held_since` or later.

    None that an erasure made out of date, whoever names it.
    """
    replaced = {version: _changed(path / LOG / f"{version + 1:020}.json") for version in _versions(path)}
    held = {version for version, at in replaced.items() if at is None or at >= held_since}
    known = (held | set(named)) & set(replaced)
    return {version for version in known if erased is None or (at := replaced[version]) is None or at > erased}


def _versions(path: Path) -> list[int]:
    """The versions that can be read: from the oldest checkpoint (else the first commit) on."""
    dated = _dated(path)
    begins = [version for version, file in dated if version == 0 or ".checkpoint" in file.name]
    return list(range(min(begins), max(version for version, _ in dated) + 1)) if begins else []


def _dated(path: Path) -> list[tuple[int, Path]]:
    """Commits and checkpoints of a table's log, with their versions."""
    return [(int(found[1]), file) for file in (path / LOG).iterdir() if (found := _VERSION.match(file.name))]


def _changed(file: Path) -> datetime | None:
    with suppress(FileNotFoundError):
        return datetime.fromtimestamp(file.stat().st_mtime, tz=UTC)
    return None


def sweep(path: Path, versions: Collection[int], older_than: datetime, *, dry_run: bool) -> Freed:
    """Delete the files of a table that none of `versions` holds and that are older; the commits before the first of them."""
    kept = {one for version in versions for one in files.paths(deltalake.DeltaTable(str(path), version=version))}
    data = [file for file in path.rglob("*") if file.is_file() and file.relative_to(path).parts[0] != LOG]
    unused = [file for file in data if _of(file).relative_to(path).as_posix() not in kept]
    freed = delete((file for file in unused if _is_older(file, older_than)), path, dry_run=dry_run)
    return freed + _trim_log(path, min(versions), older_than, dry_run=dry_run)


def _of(file: Path) -> Path:
    """The file itself, or the one whose checksum it holds (Hadoop's `.NAME.crc`)."""
    return file.with_name(file.name[1:-4]) if file.name.startswith(".") and file.suffix == ".crc" else file


def _is_older(file: Path, moment: datetime) -> bool:
    at = _changed(file)
    return at is not None and at < moment


def _trim_log(path: Path, first: int, older_than: datetime, *, dry_run: bool) -> Freed:
    """Checkpoints at the first version kept and the newest; the log before the first goes."""
    dated = _dated(path)
    before = [file for version, file in dated if version < first and _is_older(file, older_than)]
    checkpoints = {version for version, file in dated if ".checkpoint" in file.name}
    table = deltalake.DeltaTable(str(path))
    if not dry_run:
        if before and first not in checkpoints:
            deltalake.DeltaTable(str(path), version=first).create_checkpoint()
        # The newest last: the log remembers one as the place to begin with.
        if before or table.version() - max(checkpoints, default=0) >= _COMMITS:
            table.create_checkpoint()
    return delete(before, path, dry_run=dry_run)


def delete(unused: Iterable[Path], root: Path, *, dry_run: bool) -> Freed:
    """Delete files, and the folders below `root` that are left empty."""
    freed = Freed()
    for file in unused:
        freed += Freed(files=1, bytes=file.stat().st_size)
        if dry_run:
            continue
        file.unlink()
        for folder in file.relative_to(root).parents:
            with suppress(OSError):  # not empty yet
                if folder != Path("."):
                    (root / folder).rmdir()
    return freed
