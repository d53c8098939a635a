"""What an erasure has done so far: kept beside the tables until it is certified, so that a killed one can be finished."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from conf.tables import TABLES
from jobs.lake import logs, runs
from jobs.lake.context import NO_TIMES_DAY
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
    rows = [_row(erasure_id, ERASE, day, _moved(work, visible.pins), {"note": note, **details}, seconds)]
    if visible.night is not None:
        night = visible.night
        outputs = {**night.versions, **_moved(work, night.versions)}
        row = _row(erasure_id, NIGHT, night.day, outputs, {}, seconds)
        rows.append(
            row | {"first_day": night.first_day, "settings_hash": night.settings_hash, "code_version": night.code_version}
        )
    logs.append(root, "runs", rows)


def _moved(work: Work, versions: Any) -> dict[str, int]:
    return {
        name: became[str(versions[name])]
        for name, became in work.versions.items()
        if name in versions and str(versions[name]) in became
    }


def _row(erasure_id: str, step: str, day: date, outputs: dict[str, int], details: dict[str, Any], seconds: float) -> logs.Row:
    return {
        "run_id": erasure_id, "step": step, "day": day, "first_day": day, "status": "done", "settings_hash": "",
        "code_version": runs.code_version(), "inputs": {}, "outputs": outputs, "rows_out": {},
        "details": json.dumps(details), "seconds": seconds, "finished_at": logs.now(),
    }  # fmt: skip


def write_whole(path: Path, text: str) -> None:
    """Readers find the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}"
    try:
        scratch.write_text(text, encoding="utf-8")
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
