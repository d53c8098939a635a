"""Hands out everything that is held about a person, under the caller's id. Needs no JVM, but for sinks that are reached by one.

Found by the very rule by which `erase` removes: what is not handed out is not removed, and the other way round.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from conf.settings import Settings
from conf.tables import TABLES
from jobs.erase import lake_folder
from jobs.erase.trained import PRECISION, versions_trained
from jobs.lake import logs, parquet
from jobs.lake.erasure import Visible, newest_files, text_hashes
from jobs.lake.identities import load_tombstone_key
from jobs.lake.logs import table_path
from jobs.lake.person import WITHOUT_PERSONS, Person, check_key, identifying, owned
from jobs.lake.runs import stored_by_refresh
from jobs.lake.tombstones import TABLE, tombstone_of

Row = dict[str, Any]
# The id under encryption: handed out it would be but noise.
_SEALED = "sealed"
_NOT_HERE = "landing files (the source's own) and what left through sinks that are no longer in the settings"


def subject(settings: Settings, raw_id: str) -> dict[str, Any]:
    """All rows of a person: every stored one of each table, what the sinks hold, model versions trained on them.

    Raises:
        ValueError: no such lake, another key, a sink that cannot be reached.
    """
    root = lake_folder(settings)
    person = Person.of(raw_id)
    check_key(root)
    visible = replace(Visible.of(root), refreshed=stored_by_refresh(root))
    hashes = _texts_of(root, visible, person)
    tables = {name: list(_rows(root, name, visible, person, hashes)) for name in TABLES if identifying(TABLES[name])}
    return {
        "user_id": raw_id,
        "made_at": logs.now().isoformat(),
        "tables": {name: rows for name, rows in tables.items() if rows},
        "sinks": {name: rows for name, sink in settings.sinks.items() if (rows := _sink_rows(settings, sink, person))},
        "models_trained_on_the_person": versions_trained(root, person, settings.mapping.target_events),
        "models_precision": PRECISION,
        "erasures": _erasures(root, person),
        "tables_that_name_nobody": WITHOUT_PERSONS,
        "not_included": _NOT_HERE,
    }


def write_folder(found: dict[str, Any], folder: Path) -> None:
    """One file of JSON lines a table and a sink, and `subject.json` for the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("tables", "sinks"):
        for name, rows in found[kind].items():
            lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
            (folder / f"{kind.removesuffix('s')}-{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    rest = {key: value for key, value in found.items() if key not in ("tables", "sinks")}
    (folder / "subject.json").write_text(document(rest), encoding="utf-8")


def document(found: dict[str, Any]) -> str:
    return json.dumps(found, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def _texts_of(root: str, visible: Visible, person: Person) -> frozenset[str]:
    """Hashes of all texts that the person wrote, those that others have too included."""
    found: set[str] = set()
    for path in newest_files(root, "events", visible):
        for rows in parquet.groups(Path(table_path(root, "events")) / path, ("user_id", "text")):
            found.update(text_hashes(rows.filter(pc.and_(pc.is_valid(rows.column("text")), owned(person, rows)))))
    return frozenset(found)


def _rows(root: str, name: str, visible: Visible, person: Person, hashes: frozenset[str]) -> Iterator[Row]:
    """The person's rows as steps last left them, oldest day first."""
    held = newest_files(root, name, visible).values()
    for file in sorted(held, key=lambda file: (file.day or "", file.path)):
        for rows in parquet.groups(Path(table_path(root, name)) / file.path):
            for row in rows.filter(owned(person, rows, hashes)).to_pylist():
                plain = {key: _plain(value) for key, value in row.items() if key != _SEALED}
                yield _under_own_id(plain, person) | ({} if file.day is None else {"day": file.day})


def _under_own_id(value: Any, person: Person) -> Any:
    """The caller's id wherever the pseudonym stands."""
    if isinstance(value, str):
        return value.replace(person.pseudonym, person.raw_id)
    if isinstance(value, dict):
        return {key: _under_own_id(one, person) for key, one in value.items()}
    return [_under_own_id(one, person) for one in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """As JSON has it: times in ISO 8601, what is no number missing."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        is_map = bool(value) and all(isinstance(one, tuple) for one in value)
        return {key: _plain(one) for key, one in value} if is_map else [_plain(one) for one in value]
    return {key: _plain(one) for key, one in value.items()} if isinstance(value, dict) else value


def _sink_rows(settings: Settings, sink: Any, person: Person) -> list[Row]:
    from jobs.sinks import module_of, reach

    reach(settings, sink)
    rows = module_of(sink).rows_of(sink, person)
    return [{key: _plain(value) for key, value in row.items()} for row in rows]


def _erasures(root: str, person: Person) -> list[Row]:
    """When the person was erased, if ever."""
    rows = logs.read(root, TABLE)
    if not rows:
        return []
    mine = tombstone_of(person.raw_id, load_tombstone_key())["tombstone"]
    known = sorted((row for row in rows if row["tombstone"] == mine), key=lambda row: row["recorded_at"])
    return [{"status": row["status"], "recorded_at": row["recorded_at"].isoformat()} for row in known]
