"""Files of items and users that lie beside a log, told by a column of the same name in which no id is there twice."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.profiling.kinds import Column, column_of
from jobs.profiling.roles import Role
from jobs.profiling.sample import Sample, sample
from jobs.profiling.vocabulary import ITEM_MEANINGS, words_of

if TYPE_CHECKING:
    import pandas as pd

_MOST_FILES = 50
_ROWS = 20_000
_DATED = re.compile(r"\d{4}-\d{2}-\d{2}")
# Of the ids in the log, so many stand in the file; both are samples.
_KNOWN = 0.3
_UNIQUE = 0.98
# So many values a|b make a column of lists.
_SEVERAL = 0.1
_FITS: dict[str, Callable[[Column], bool]] = {
    "price": lambda of: of.is_number,
    "latitude": lambda of: of.within(-90, 90),
    "longitude": lambda of: of.within(-180, 180),
}


def pattern(path: Path) -> str:
    """The files that are called like this one, whatever their number or date."""
    begin = re.match(r"[A-Za-z_]*[A-Za-z]", path.name)
    return f"{begin[0]}*" if begin else "*"


def in_folders(path: Path) -> bool:
    """Whether the file lies in a landing folder."""
    return _DATED.fullmatch(path.absolute().parent.name) is not None


def feeds(log: Sample, roles: dict[str, Role], now: datetime) -> dict[str, dict[str, Any]]:
    """`items` and `users` as a mapping has them, where a file beside the log holds them.

    The first of several columns that may be the log's item is settled by the file: `roles` is changed.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in _others(log.path):
        try:
            other = sample(path, _ROWS)
        except ValueError:
            continue  # whatever it is, it is no feed
        for name in ("item", "user"):
            key = _key(other, log, roles.get(f"{name}_id")) if f"{name}s" not in found else None
            if key is not None:
                columns = [column_of(str(one), other.rows[one], now) for one in other.rows.columns if one != key]
                found[f"{name}s"] = _feed(other, {f"{name}_id": key, **(_known(columns, other.rows) if name == "item" else {})})
                if name == "user":
                    found["users"]["attributes"] = {
                        one.name: one.name for one in columns if one.kind in ("category", "boolean")
                    }
                break
    key = found["items"]["columns"]["item_id"] if "items" in found else None
    if key is not None and key != roles["item_id"].column.name:
        roles["item_id"] = Role(column=column_of(key, log.rows[key], now), guess="guess: the file of items has it")
    return {name: feed for name, feed in found.items() if len(feed["columns"]) > 1 or feed.get("attributes")}


def _others(path: Path) -> list[Path]:
    """The files beside the log; of those that are called alike, as in landing folders, the largest."""
    folder = path.absolute().parent
    folders = sorted(one for one in folder.parent.iterdir() if _DATED.fullmatch(one.name)) if in_folders(path) else [folder]
    alike: dict[str, list[Path]] = {}
    for other in (file for one in folders[:_MOST_FILES] for file in sorted(one.iterdir())[:_MOST_FILES]):
        if other.is_file() and not other.name.startswith((".", "_")):
            alike.setdefault(pattern(other), []).append(other)
    return [max(files, key=lambda file: file.stat().st_size) for name, files in sorted(alike.items()) if name != pattern(path)]


def _key(other: Sample, log: Sample, role: Role | None) -> str | None:
    """The column of both that tells one row of the other from every other."""
    if role is None:
        return None
    rivals = (role.guess or "").removeprefix("guess: or ").split(", ")
    for name in (role.column.name, *rivals):
        if name in other.rows and name in log.rows and _holds(other.rows[name].dropna(), log.rows[name].dropna()):
            return name
    return None


def _holds(keys: pd.Series, ids: pd.Series) -> bool:
    return bool(len(keys)) and keys.nunique() >= _UNIQUE * len(keys) and ids.drop_duplicates().isin(keys).mean() >= _KNOWN


def _known(columns: list[Column], rows: pd.DataFrame) -> dict[str, Any]:
    """What a mapping may say of items -> their column; each column is taken once."""
    found: dict[str, Any] = {}
    for ours, words in ITEM_MEANINGS.items():
        fitting = [one for one in columns if set(words) & set(words_of(one.name)) and _FITS.get(ours, _is_given)(one)]
        if fitting and fitting[0].name not in found.values():
            found[ours] = fitting[0].name
    if ("latitude" in found) != ("longitude" in found):
        found = {ours: theirs for ours, theirs in found.items() if ours not in ("latitude", "longitude")}
    several = found.get("category")
    if several is not None and rows[several].str.contains("|", regex=False).mean() > _SEVERAL:
        found |= {"category": {"sql": f"split(`{several}`, '[|]')[0]"}, "tags": several}
    return found


def _is_given(column: Column) -> bool:
    return column.kind != "empty"


def _feed(other: Sample, columns: Mapping[str, Any]) -> dict[str, Any]:
    # What a title holds is not known from its first rows: quotes in it are doubled, and it may go over lines.
    options = {**other.options, **({"escape": '"', "multiLine": "true"} if other.format == "csv" else {})}
    return {"format": other.format, "files": pattern(other.path), "options": options, "columns": dict(columns)}
