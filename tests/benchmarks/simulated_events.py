"""People's events in a folder that `wherewhen simulate` wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

COLUMNS = ("user_id", "item_id", "event_type", "event_timestamp", "latitude", "longitude")


def people(folder: Path) -> list[str]:
    """Users who are no bots, by name."""
    truth = pd.read_csv(folder / "truth/users.csv", dtype={"is_bot": str})
    return sorted(truth.user_id[truth.is_bot == "false"])


def peoples_events(folder: Path) -> pd.DataFrame:
    """`COLUMNS` and `category`, in the order of the files: rows that can be read, of people, of the days of the folder.

    What else a row does not say is absent in it; what came twice is there twice.
    """
    items = pd.concat([pd.read_csv(file) for file in sorted(folder.glob("landing/*/items.csv"))])
    rows = []
    for file in sorted(folder.glob("landing/*/events*.jsonl")):
        for line in file.read_text(errors="replace").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            rows.append([row.get(name) for name in COLUMNS])
    found = pd.DataFrame(rows, columns=COLUMNS)
    found["event_timestamp"] = pd.to_datetime(found.event_timestamp, utc=True, errors="coerce", format="ISO8601")
    found["category"] = found.item_id.map(dict(zip(items.item_id, items.category, strict=True)))
    days = [pd.Timestamp(one.name, tz="UTC") for one in folder.glob("landing/*")]
    is_of_log = found.event_timestamp.between(min(days), max(days) + pd.Timedelta(days=1))
    return found[is_of_log & found.user_id.isin(people(folder))]
