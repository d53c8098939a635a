"""What an erasure has done so far: kept beside the tables until it is certified, so that a killed one can be finished."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from conf.tables import TABLES
from jobs.lake import logs, runs
from jobs.lake.context import NO_TIMES_DAY
from jobs.lake.disk import write_whole
from jobs.lake.erasure import Change, Visible
from jobs.lake.person import identifying
from jobs.lake.runs import ERASE, NIGHT

FOLDER = "_erasures"


@dataclass(frozen=True, kw_only=True)
class Work:
    """The tables' part of an erasure.

    Attributes:
        rows: rows removed per table; `blotted`: rows of logs in which the person was blotted out.
        versions: per table the old version of each that is in use, and the new one.
        doomed: per table the files that hold the person still.
        text_hashes: names of the texts that the person alone wrote.
        landing: whether the row in `runs` knows what the landing files will be.
    """

    rows: dict[str, int] = field(default_factory=dict)
    blotted: dict[str, int] = field(default_factory=dict)
    versions: dict[str, dict[str, int]] = field(default_factory=dict)
    doomed: dict[str, list[str]] = field(default_factory=dict)
    models: list[dict[str, Any]] = field(default_factory=list)
    text_hashes: list[str] = field(default_factory=list)
    landing: bool = False

    @staticmethod
    def of(changes: dict[str, Change], **more: Any) -> Work:
        has_rows = {name: bool(identifying(TABLES[name])) for name in changes}
        return Work(
            rows={name: change.rows for name, change in changes.items() if has_rows[name]},
            blotted={name: change.rows for name, change in changes.items() if not has_rows[name] and change.rows},
            versions={
                name: {str(old): new for old, new in change.versions.items()}
                for name, change in changes.items()
                if change.versions
            },
            doomed={name: list(change.doomed) for name, change in changes.items() if change.doomed},
            **more,
        )


def _path(root: str, erasure_id: str) -> Path:
    return Path(root) / FOLDER / f"{erasure_id}.work.json"


def save(root: str, erasure_id: str, work: Work) -> None:
    write_whole(_path(root, erasure_id), json.dumps(asdict(work)))


def forget(root: str, erasure_id: str) -> None:
    _path(root, erasure_id).unlink(missing_ok=True)


def recorded(root: str, erasure_id: str) -> Work | None:
    """What an earlier try recorded in `runs`; None where its tables are to be done again, from what was there before."""
    if not logs.read(root, "runs", f"run_id = '{erasure_id}' AND step = '{ERASE}'"):
        return None
    path = _path(root, erasure_id)
    return Work(**json.loads(path.read_text())) if path.is_file() else None


def record(root: str, erasure_id: str, work: Work, visible: Visible, details: dict[str, Any], seconds: float) -> None:
    """Let all readers go by the new versions: one commit to `runs`, for the next steps and for the newest night at once."""
    finished = logs.read(root, "runs", "status = 'done'")
    day = max((row["day"] for row in finished), default=NO_TIMES_DAY)
    note = f"{sum(work.rows.values())} rows of one person removed from {sum(map(bool, work.rows.values()))} tables"
    said = {"details": json.dumps({"note": note, **details}), "seconds": seconds}
    rows = [runs.row(erasure_id, ERASE, day, outputs=_moved(work, visible.pins), **said)]
    if visible.night is not None:
        night = visible.night
        same = {"first_day": night.first_day, "settings_hash": night.settings_hash, "code_version": night.code_version}
        outputs = {**night.versions, **_moved(work, night.versions)}
        rows.append(runs.row(erasure_id, NIGHT, night.day, outputs=outputs, seconds=seconds, **same))
    logs.append(root, "runs", rows)


def _moved(work: Work, versions: Any) -> dict[str, int]:
    return {
        name: became[str(versions[name])]
        for name, became in work.versions.items()
        if name in versions and str(versions[name]) in became
    }
