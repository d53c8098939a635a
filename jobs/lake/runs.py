"""The run records: what is finished, and at which table versions. Needs no JVM."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from conf.tables import TABLES
from jobs.lake import logs

NIGHT, ERASE, REFRESH = "night", "erase", "refresh"
# The status of a refresh and its steps: no day is done by it, and the next night starts from what stood before.
REFRESHED = "refreshed"


@dataclass(frozen=True, kw_only=True)
class Night:
    """A finished run of all steps."""

    run_id: str
    day: date
    first_day: date
    versions: dict[str, int]
    settings_hash: str
    code_version: str


def nights(root: str) -> list[Night]:
    """Finished nights, oldest record first; a day run twice is there twice."""
    rows = sorted(logs.read(root, "runs", f"step = '{NIGHT}' AND status = 'done'"), key=lambda row: row["finished_at"])
    return [_night(row) for row in rows]


def _night(row: logs.Row) -> Night:
    return Night(
        run_id=row["run_id"],
        day=row["day"],
        first_day=row["first_day"],
        versions=row["outputs"],
        settings_hash=row["settings_hash"],
        code_version=row["code_version"],
    )


def newest_night(root: str) -> Night | None:
    """The night that readers see: of the newest finished day the newest record."""
    finished = nights(root)
    if not finished:
        return None
    newest_day = max(night.day for night in finished)
    return [night for night in finished if night.day == newest_day][-1]


def finished_night(root: str) -> Night:
    """The same.

    Raises:
        ValueError: no day is finished.
    """
    if (night := newest_night(root)) is None:
        raise ValueError(f"{root} has no finished day to start from: run the pipeline first (run --day D --bootstrap)")
    return night


def newest_refresh(root: str) -> Night | None:
    """A refresh that readers see: newer than the newest night and of a later day. `versions`: of what it made."""
    night = newest_night(root)
    rows = logs.read(root, "runs", f"step = '{REFRESH}' AND status = '{REFRESHED}'")
    newest = max(rows, key=lambda row: row["finished_at"], default=None)
    if night is None or newest is None or newest["day"] <= night.day:
        return None
    closed = logs.read(root, "runs", f"step = '{NIGHT}' AND run_id = '{night.run_id}'")
    if max(row["finished_at"] for row in closed) > newest["finished_at"]:  # as an erasure leaves it
        return None
    return _night(newest)


def stored_by_refresh(root: str) -> dict[str, int]:
    """Table -> the version that the refresh wrote that readers see, facts of its day included; {}: there is none."""
    if (refresh := newest_refresh(root)) is None:
        return {}
    [row] = logs.read(root, "runs", f"step = '{REFRESH}' AND run_id = '{refresh.run_id}'")
    made: dict[str, int] = json.loads(row["details"])["made"]
    return made


def pins(root: str) -> dict[str, int]:
    """Table -> version of its last committed write: that of the newest `done` row that names it.

    What a killed step wrote without reaching its `done` row is on disk but in no pin. To a log several steps may add rows,
    also side by side: of its versions, which only grow, the highest holds what each of them added.
    """
    done = sorted(logs.read(root, "runs", f"status = 'done' AND step <> '{NIGHT}'"), key=lambda row: row["finished_at"])
    found: dict[str, int] = {}
    for table, version in (output for row in done for output in row["outputs"].items()):
        is_log = table in TABLES and TABLES[table].kind == "log"
        found[table] = max(version, found.get(table, version)) if is_log else version
    return found


def row(run_id: str, step: str, day: date, **more: Any) -> logs.Row:
    """A record of something done on one day; `more` in place of what most leave empty."""
    return {
        "run_id": run_id, "step": step, "day": day, "first_day": day, "status": "done", "settings_hash": "",
        "code_version": code_version(), "inputs": {}, "outputs": {}, "rows_out": {}, "details": "{}", "seconds": 0.0,
        "finished_at": logs.now(), **more,
    }  # fmt: skip


@cache
def code_version() -> str:
    """The release and a hash of every source file: of what no single step makes."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted(path for folder in ("conf", "jobs", "models") for path in (root / folder).rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return f"{release()}+{digest.hexdigest()[:12]}"


def release() -> str:
    try:
        return metadata.version("wherewhen")
    except metadata.PackageNotFoundError:
        return "0"
