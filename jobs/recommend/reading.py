"""The files that `recommend` is given: who is asked about, and what they did since the night."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HISTORY = ("user_id", "item_id", "event_time", "event_type", "latitude", "longitude")
_NEEDED = HISTORY[:3]


def users(path: Path) -> list[str]:
    """The distinct ids of the column `user_id`, in their order.

    Raises:
        ValueError: no such file, or no such column.
    """
    found = dict.fromkeys(row["user_id"] for _, row in _rows(path, "--users", ("user_id",)) if row["user_id"])
    if not found:
        raise ValueError(f"--users {path} names nobody: a header `user_id`, then one id a line")
    return list(found)


def history(path: Path, event_type: str) -> dict[str, list[dict[str, Any]]]:
    """Events by user, in the words of `user_sequences`; `event_type` is that of rows that say none.

    Raises:
        ValueError: the file, a column or a value of a line is missing or cannot be understood.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for line, row in _rows(path, "--history", _NEEDED):
        if wrong := [name for name in _NEEDED if not row.get(name)]:
            raise ValueError(f"--history {path}, line {line}: {wrong[0]} is empty")
        found.setdefault(row["user_id"], []).append(
            {
                "item_id": row["item_id"],
                "event_type": row.get("event_type") or event_type,
                "event_timestamp": moment(row["event_time"], f"--history {path}, line {line}"),
                "latitude": _degrees(row.get("latitude"), 90.0, f"--history {path}, line {line}: latitude"),
                "longitude": _degrees(row.get("longitude"), 180.0, f"--history {path}, line {line}: longitude"),
            }
        )
    return found


def moment(text: str, where: str) -> datetime:
    """A time of ISO 8601; UTC where it says no offset.

    >>> moment("2024-06-16T18:30-04:00", "x").isoformat()
    '2024-06-16T22:30:00+00:00'

    Raises:
        ValueError: it is none.
    """
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{where}: {text!r} is no time: write 2024-06-16T18:30 (UTC) or 2024-06-16T18:30-04:00") from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def place(text: str, where: str) -> tuple[float, float]:
    """`LATITUDE,LONGITUDE` in degrees.

    >>> place("40.75, -73.98", "x")
    (40.75, -73.98)

    Raises:
        ValueError: it is none.
    """
    latitude, comma, longitude = text.partition(",")
    if not comma:
        raise ValueError(f"{where} {text}: write LATITUDE,LONGITUDE in degrees, as in 40.75,-73.98")
    north, east = _degrees(latitude, 90.0, f"{where}: latitude"), _degrees(longitude, 180.0, f"{where}: longitude")
    if north is None or east is None:
        raise ValueError(f"{where} {text}: write LATITUDE,LONGITUDE in degrees, as in 40.75,-73.98")
    return north, east


def _degrees(text: str | None, most: float, where: str) -> float | None:
    if text is None or not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not -most <= value <= most:
        raise ValueError(f"{where} {text!r} is no number from -{most:.0f} to {most:.0f}")
    return value


def _rows(path: Path, option: str, needed: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines by number, from 2 on."""
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{option} {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    reader = csv.DictReader(io.StringIO(text))
    if missing := [name for name in needed if name not in (reader.fieldnames or ())]:
        there = ", ".join(reader.fieldnames or ()) or "none"
        raise ValueError(f"{option} {path} has no column {missing[0]} in its first line; the columns are {there}")
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"{option} {path}, line {reader.line_num}: {error}") from None
