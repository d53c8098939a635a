"""Which model versions learnt from a person's events."""

from __future__ import annotations

from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from jobs.lake import logs, parquet
from jobs.lake.erasure import Visible, newest_files
from jobs.lake.logs import table_path
from jobs.lake.person import Person, owned

PRECISION = (
    "a version is listed when an event of the person, as the lake held it, arrived before the version's trained_until; "
    "`windows` counts the person's training windows where those are still stored, else it is null. A version that goes on "
    "from another's weights holds what that one learnt. Weights are not changed: train and publish another version, "
    "then delete the folders of these"
)


def versions_trained(root: str, person: Person, target_events: tuple[str, ...]) -> list[dict[str, Any]]:
    """One entry per version, oldest first: events and target events of the person that had arrived by then."""
    visible = Visible.of(root)
    events: Counter[tuple[date, bool]] = Counter()
    for day, group in _groups(root, "events", visible, person, ("user_id", "event_type")):
        events.update((day, kind in target_events) for kind in group.column("event_type").to_pylist())
    windows: Counter[tuple[date, Any]] = Counter()
    for day, group in _groups(root, "training_windows", visible, person, ("user_id", "until")):
        windows.update((day, until) for until in group.column("until").to_pylist())
    trained_days = _days(root, "training_windows", visible)
    found = []
    for row in sorted(logs.read(root, "model_versions"), key=lambda row: row["created_at"]):
        before = {key: count for key, count in events.items() if key[0] < row["trained_until"].date()}
        if before:
            is_stored = row["kind"] == "interest" and row["day"] in trained_days
            found.append(
                {
                    "model_version": row["model_version"],
                    "kind": row["kind"],
                    "method": row["method"],
                    "day": str(row["day"]),
                    "trained_until": row["trained_until"].isoformat(),
                    "events": sum(before.values()),
                    "targets": sum(count for (_, is_target), count in before.items() if is_target),
                    "windows": windows[row["day"], row["trained_until"]] if is_stored else None,
                }
            )
    return found


def _days(root: str, name: str, visible: Visible) -> set[date]:
    return {date.fromisoformat(file.day) for file in newest_files(root, name, visible).values() if file.day is not None}


def _groups(root: str, name: str, visible: Visible, person: Person, columns: tuple[str, ...]) -> Any:
    """The person's rows of a table, with their day."""
    for path, file in newest_files(root, name, visible).items():
        assert file.day is not None
        for group in parquet.groups(Path(table_path(root, name)) / path, columns):
            mine = group.filter(owned(person, group))
            if pc.any(pc.is_valid(mine.column(columns[-1]))).as_py():
                yield date.fromisoformat(file.day), mine
