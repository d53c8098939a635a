"""What a search learns from and is judged on: the windows that the newest training of a day read. Needs no JVM."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from conf.learning import ENCODERS
from conf.settings import Settings, digest
from jobs.lake import logs
from jobs.lake.publications import INTEREST
from jobs.lake.runs import pins
from jobs.train.catalogue import log_share
from jobs.train.cutting import TABLE, midnight, window_files
from models import registry
from models.batches import Source
from models.interest import KNOWLEDGE
from models.queries import FIRST, Vocabulary


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Windows of a whole training with both folds; `targets` per fold; `log_share_V` as `jobs.train.catalogue` has it."""

    version: str
    vocabulary: Path
    knowledge: Path | None
    source: Source
    targets: dict[str, int]
    log_share_V: np.ndarray

    @property
    def fingerprint(self) -> str:
        """Changes with the training, and where an erasure took windows away."""
        shares = self.log_share_V.tobytes().hex()
        return digest([self.version, dict(self.source.counts), self.targets, shares])


def ground(settings: Settings, day: date) -> Ground:
    """The windows of the day's newest training on all that came before it.

    Raises:
        ValueError: there is no such training, or no validation fold, or the windows are of another length; with the remedy.
    """
    root = settings.lake
    row = _training(settings, day)
    size = settings.model.window + 1
    cut_for = json.loads(row["settings"])["model"]["window"]
    if cut_for != settings.model.window:
        raise ValueError(
            f"the windows of {day} were cut for model.window={cut_for}, and model.window is {settings.model.window}: set it to "
            f"{cut_for}, or train anew with another: wherewhen run --day {day} --bootstrap --only train"
        )
    folder = registry.version_folder(root, row["model_version"])
    if not registry.is_whole(folder):
        raise ValueError(f"{folder} is gone, and with it the names in the windows of {day}: tune on a newer day")
    uris = window_files(root, pins(root)[TABLE], day)
    source = Source(uris=uris, until=row["trained_until"], size=size)
    read = _read(source, len(Vocabulary.load(folder / registry.VOCABULARY).items))
    if not read.windows.get("validation") or not read.windows.get("train"):
        raise ValueError(
            f"the training of {day} has no validation fold, since it went on from an earlier version with what arrived since "
            f"(or its log is too short): tune on the day of a whole training; {_whole_trainings(root)}"
        )
    return Ground(
        version=row["model_version"],
        vocabulary=folder / registry.VOCABULARY,
        knowledge=folder / KNOWLEDGE if (folder / KNOWLEDGE).is_file() else None,
        source=Source(uris=uris, until=source.until, size=size, counts=read.windows),
        targets=read.targets,
        log_share_V=log_share(read.count_V),
    )


def _training(settings: Settings, day: date) -> logs.Row:
    """The newest version of the day that saw all before it; a bootstrap's hold-out saw less."""
    until = midnight(day if settings.mapping.has_times else day + timedelta(days=1))
    rows = logs.read(settings.lake, "model_versions", f"kind = '{INTEREST}' AND day = DATE '{day}'")
    found = [row for row in rows if row["trained_until"] == until and row["method"] in ENCODERS]
    if not found:
        raise ValueError(f"no model was trained for {day} in {settings.lake}: {_whole_trainings(settings.lake)}")
    return max(found, key=lambda row: row["created_at"])


def _whole_trainings(root: str) -> str:
    """The days with windows that have a validation fold, for who asked for another."""
    known = pins(root).get(TABLE)
    if known is None:
        return "nothing was trained in it yet; see wherewhen run --help"
    table = deltalake.DeltaTable(logs.table_path(root, TABLE), version=known)
    stored = deltalake.QueryBuilder().register(TABLE, table)
    rows = stored.execute(f"SELECT DISTINCT day FROM {TABLE} WHERE fold = 'validation' ORDER BY day").read_all()
    days = [str(day) for day in rows.column("day").to_pylist()]
    return f"such days are {', '.join(days)}" if days else "there is none yet, see wherewhen run --bootstrap"


@dataclass(kw_only=True)
class _Read:
    windows: dict[str, int]
    targets: dict[str, int]
    count_V: np.ndarray


def _read(source: Source, items: int) -> _Read:
    """Windows and targets per fold, and how often each item is a target of the training fold."""
    read = _Read(windows={}, targets={}, count_V=np.zeros(items, np.int64))
    files = ds.dataset([uri.removeprefix("file://") for uri in source.uris], format="parquet")
    own = ds.field("until") == pa.scalar(source.until, pa.timestamp("us", tz="UTC"))
    for batch in files.scanner(columns=["fold", "item", "is_target"], filter=own).to_batches():
        fold_N = batch.column("fold").to_numpy(zero_copy_only=False)
        is_target_NW, item_NW = (_matrix(batch.column(name), len(batch)) for name in ("is_target", "item"))
        for fold in np.unique(fold_N):
            rows = fold_N == fold
            read.windows[fold] = read.windows.get(fold, 0) + int(rows.sum())
            items_of = item_NW[rows][is_target_NW[rows] == 1]
            read.targets[fold] = read.targets.get(fold, 0) + len(items_of)
            if fold == "train":
                read.count_V += np.bincount(items_of[items_of >= FIRST] - FIRST, minlength=items)
    return read


def _matrix(lists: pa.ListArray, rows: int) -> np.ndarray:
    values: np.ndarray = lists.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(rows, -1) if rows else values.reshape(0, 1)
