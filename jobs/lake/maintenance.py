"""Keeps a lake small: compacts logs, drops days past their retention, deletes what nobody needs any more. Needs no JVM.

What stays: the versions of the runs of the last `keep_days` days (so that they can be replayed), of the
newest night, and whatever a reader that is running could hold. What an erasure made out of date goes.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path

import deltalake
from deltalake import ColumnProperties, WriterProperties

from conf.contracts import Table
from conf.settings import Settings
from conf.tables import TABLES
from jobs.lake import files, logs, runs
from jobs.lake.context import Refused
from jobs.lake.lock import held
from jobs.lake.publications import in_order
from jobs.lake.runs import pins
from jobs.lake.scratch import FOLDER as SCRATCH
from jobs.lake.scratch import orphans
from jobs.lake.store import keyframe_before
from jobs.lake.sweep import Freed, delete, named, needed, newest_erasure, sweep

log = logging.getLogger("wherewhen")

STEP = "maintain"
MODELS = "models"
# A log gains a file with each append; a day of a data table is written whole, in files of a good size.
_SMALL_FILES = 10
# What the newest rows rest on: a state's keyframes.
_KEYFRAMES = 2


@dataclass(frozen=True, kw_only=True)
class Done:
    """What was done to a table, or to a folder of the lake."""

    name: str
    freed: Freed = field(default_factory=Freed)
    compacted: int = 0
    dropped: int = 0
    before: date | None = None
    kept: int = 0
    note: str = ""

    def line(self) -> str:
        said = [f"{self.freed.files:,} files deleted ({self.freed.bytes:,} bytes)"]
        said += [f"{self.compacted:,} files made one"] if self.compacted else []
        said += [f"days before {self.before} dropped ({self.dropped:,} files)"] if self.dropped else []
        said += [f"{self.kept} versions kept"] if self.kept else []
        said += [self.note] if self.note else []
        return f"{self.name:<22} {', '.join(said)}"


def maintain(settings: Settings, *, dry_run: bool = False, now: datetime | None = None) -> list[Done]:
    """All of it, table by table; nothing is changed by a dry run.

    Raises:
        ValueError: the lake is not a folder of this machine, or nothing ran in it.
        Refused: another process writes the lake.
    """
    root, moment = settings.lake, now or logs.now()
    if "://" in root:
        raise ValueError(f"lake: {root} is not a folder of this machine; maintain deletes files and works on a local disk only")
    days = [row["day"] for row in logs.read(root, "runs", "status = 'done'")]
    if not days:
        raise ValueError(f"nothing ran in {root} yet: there is nothing to maintain")
    with nullcontext() if dry_run else held(root, "maintain"):
        return _maintained(settings, max(days), moment, dry_run=dry_run)


def _maintained(settings: Settings, newest: date, now: datetime, *, dry_run: bool) -> list[Done]:
    root = settings.lake
    stored = [one for one in TABLES.values() if deltalake.DeltaTable.is_deltatable(logs.table_path(root, one.name))]
    log.info("maintain: %d tables in %s%s", len(stored), root, ", dry run" if dry_run else "")
    changed = [_changed(settings, contract, newest, dry_run=dry_run) for contract in stored]
    if not dry_run:
        _record(settings, newest, changed)
    done = list(_swept(settings, changed, now, dry_run=dry_run))
    done.append(Done(name=f"{MODELS}/", freed=_models(settings, newest, now, dry_run=dry_run)))
    left = [file for folder in orphans(root) for file in folder.rglob("*") if file.is_file()]
    done.append(Done(name=f"{SCRATCH}/", freed=delete(left, Path(root) / SCRATCH, dry_run=dry_run)))
    return done


def _changed(settings: Settings, contract: Table, newest: date, *, dry_run: bool) -> Done:
    """The commits: a log's small files as one, the days past their retention gone."""
    path = logs.table_path(settings.lake, contract.name)
    table = deltalake.DeltaTable(path)
    if not contract.partitioned:
        count = len(table.file_uris())
        if count <= _SMALL_FILES:
            return Done(name=contract.name)
        if not dry_run:
            # No least and greatest values: those of user ids would outlive the rows.
            bare = WriterProperties(default_column_properties=ColumnProperties(statistics_enabled="NONE"))
            table.optimize.compact(writer_properties=bare)
        return Done(name=contract.name, compacted=count)
    before = _kept_from(settings, contract, newest, table)
    past = [] if before is None else files.paths(table, f"day < '{before}'")
    if not past:
        return Done(name=contract.name)
    if pins(settings.lake).get(contract.name) != table.version():
        note = "its retention waits: a run that wrote it is not finished"
        return Done(name=contract.name, note=note)
    if not dry_run:
        files.committed(table, (), f"day < '{before}'")
    return Done(name=contract.name, dropped=len(past), before=before)


def _kept_from(settings: Settings, contract: Table, newest: date, table: deltalake.DeltaTable) -> date | None:
    """The first day that stays: never later than the newest rows need. None: all stay."""
    days = settings.maintain.retention.get(contract.name, contract.retention_days)
    if days is None:
        return None
    before = newest - timedelta(days=days)
    if contract.kind == "state":
        frame = newest
        for _ in range(_KEYFRAMES):
            frame = keyframe_before(frame, date.min)
            before = min(before, frame)
            frame -= timedelta(days=1)
    if contract.kind == "snapshot":
        stored = [path.partition("day=")[2][:10] for path in files.paths(table)]
        before = min([before, *map(date.fromisoformat, sorted(stored)[-1:])])
    return before


def _record(settings: Settings, day: date, changed: Sequence[Done]) -> None:
    """Versions without the dropped days are those that later steps read; what was dropped, a rebuild has to know."""
    dropped = {one.name: str(one.before) for one in changed if one.dropped}
    outputs = {name: deltalake.DeltaTable(logs.table_path(settings.lake, name)).version() for name in dropped}
    more = {"settings_hash": settings.hash(), "outputs": outputs, "details": json.dumps({"retention": dropped})}
    row = runs.row(f"{day:%Y%m%d}-{STEP}-{uuid.uuid4().hex[:8]}", STEP, day, **more)
    logs.append(settings.lake, "runs", [row])


def dropped_before(root: str) -> dict[str, date]:
    """Table -> the first day that retention has left of it."""
    rows = sorted(logs.read(root, "runs", f"step = '{STEP}' AND status = 'done'"), key=lambda row: row["finished_at"])
    found: dict[str, date] = {}
    for row in rows:
        found |= {name: date.fromisoformat(day) for name, day in json.loads(row["details"])["retention"].items()}
    return found


def refuse_dropped(root: str, names: Collection[str], first_day: date) -> None:
    """For what needs the whole history of tables.

    Raises:
        Refused: retention has removed days of one of them; names it.
    """
    for name, first in dropped_before(root).items():
        if name in names and first > first_day:
            raise Refused(f"retention has removed the days of {name} before {first}: the history cannot be made again")


def _swept(settings: Settings, changed: Sequence[Done], now: datetime, *, dry_run: bool) -> Iterator[Done]:
    since = now - timedelta(hours=settings.maintain.grace_hours)
    by_table = named(settings.lake, now - timedelta(days=settings.maintain.keep_days))
    erased = newest_erasure(settings.lake)
    for one in changed:
        path = Path(logs.table_path(settings.lake, one.name))
        versions = needed(path, by_table.get(one.name, ()), since, erased)
        yield replace(one, freed=sweep(path, versions, since, dry_run=dry_run), kept=len(versions))


def _models(settings: Settings, newest: date, now: datetime, *, dry_run: bool) -> Freed:
    """Folders of versions that neither serve nor were made within `keep_days`, nor are gone on from or back to."""
    folder = Path(settings.lake) / MODELS
    kept = kept_models(settings.lake, newest - timedelta(days=settings.maintain.keep_days))
    since = (now - timedelta(hours=settings.maintain.grace_hours)).timestamp()
    others = [one for one in folder.glob("*") if one.name not in kept and one.stat().st_mtime < since]
    return delete([file for one in others for file in one.rglob("*") if file.is_file()], folder, dry_run=dry_run)


def kept_models(root: str, since: date) -> set[str]:
    """Of each kind versions made from `since` on and the newest before; those that served since; the two that served last."""
    made = sorted(logs.read(root, "model_versions"), key=lambda row: (row["day"], row["created_at"]))
    publications = logs.read(root, "publications")
    kept = {row["model_version"] for row in made if row["day"] >= since}
    for kind in {row["kind"] for row in made}:
        kept |= {row["model_version"] for row in [row for row in made if row["kind"] == kind and row["day"] < since][-1:]}
    for kind in {row["kind"] for row in publications}:
        served = in_order(publications, kind=kind)
        kept |= {row["model_version"] for row in served if row["day"] >= since}
        kept |= {row["model_version"] for row in [row for row in served if row["day"] < since][-1:]}
        kept |= set(list(dict.fromkeys(row["model_version"] for row in reversed(served)))[:2])
    return kept
