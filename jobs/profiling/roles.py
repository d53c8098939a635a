"""Which column means what: by its name where that says something, by what it holds where it does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from conf.mapping import EVENT_COLUMNS
from jobs.profiling.kinds import Column
from jobs.profiling.vocabulary import ABOUT, MEANINGS, ORDER, event_type_of, words_of

_WEIGHTS = {word: 10 - place / 10 for words in MEANINGS.values() for place, word in enumerate(words)}
_IDS = ("id", "integer", "category", "text", "number")
_FITS: dict[str, Callable[[Column], bool]] = {
    "user_id": lambda of: of.kind in _IDS,
    "item_id": lambda of: of.kind in _IDS,
    "event_type": lambda of: of.kind in ("category", "integer", "boolean") and of.distinct <= 50,
    "event_time": lambda of: of.moments is not None,
    "latitude": lambda of: of.within(-90, 90) and of.kind != "boolean",
    "longitude": lambda of: of.within(-180, 180) and of.kind != "boolean",
    "category": lambda of: of.kind in ("category", "text", "id", "integer"),
    "device": lambda of: of.kind == "category",
    "scene": lambda of: of.kind == "category",
    "session_id": lambda of: of.kind in ("id", "integer"),
    "value": lambda of: of.is_number and of.kind != "boolean",
    "text": lambda of: of.kind == "text",
    "ip": lambda of: of.kind == "ip",
}


@dataclass(frozen=True, kw_only=True)
class Role:
    """`guess` says why, in a few words, where the column's name alone did not settle it."""

    column: Column
    guess: str | None = None


def roles_of(columns: Sequence[Column]) -> dict[str, Role]:
    """Our name -> the column that has that role; each column has one at most. What is not found is not there."""
    roles: dict[str, Role] = {}
    known = [name for name in _FITS if name in EVENT_COLUMNS]
    # The surest first: who names a role best gets it.
    scored = [(_score(role, column), role, column) for role in known for column in columns if _FITS[role](column)]
    for score, role, column in sorted(scored, key=lambda one: -one[0]):
        taken = any(column is other.column for other in roles.values())
        if score > 0 and role not in roles and not taken:
            roles[role] = Role(column=column, guess=_doubt(score, role, column, scored))
    if ("latitude" in roles) != ("longitude" in roles):
        roles = {name: role for name, role in roles.items() if name not in ("latitude", "longitude")}
    _fill_by_content(roles, columns)
    return {name: roles[name] for name in EVENT_COLUMNS if name in roles}


def _score(role: str, column: Column) -> float:
    """How well a name fits; 0 where it says nothing."""
    words = words_of(column.name)
    named = [word for word in words if word in MEANINGS[role]]
    if not named:
        return 0.0
    score = max(_WEIGHTS[word] for word in named)
    if role in ("user_id", "item_id"):
        is_id = words[-1] in ("id", "ids", "key", "code") or words[-1].endswith("id")
        about = (set(words) - {"parent"}) & ABOUT
        if about or column.kind == "text" or (column.kind in ("category", "number") and not is_id and words != named):
            return 0.0
        return score + 5 * is_id
    if role == "text":
        # The whole text before its title or an excerpt of it.
        return score + min(column.mean_words, 200) / 20
    if role in ("event_type", "category", "value", "device", "scene") and (words[-1] == "id" or set(words) & {"count"}):
        return score / 4 if column.kind in ("category", "integer") and role == "category" else 0.0
    return score + (2 if len(words) == len(named) else 0)


def _doubt(score: float, role: str, column: Column, scored: Sequence[tuple[float, str, Column]]) -> str | None:
    rivals = [
        other.name for rate, name, other in scored if name == role and other is not column and rate >= score - 3 and rate > 0
    ]
    if rivals and role != "text":
        return f"guess: or {', '.join(rivals[:3])}"
    if role == "event_time" and column.moments is not None and column.moments.also:
        return f"guess: day and month may be swapped, {column.moments.also} fits as well"
    return None


def _fill_by_content(roles: dict[str, Role], columns: Sequence[Column]) -> None:
    """Roles that no name gave, by what the columns left hold and the order in which logs have them."""

    def left() -> list[Column]:
        return [column for column in columns if all(column is not role.column for role in roles.values())]

    if "event_time" not in roles:
        times = [column for column in left() if column.moments is not None]
        if times:
            roles["event_time"] = Role(column=times[0], guess="guess: the first column that holds times")
        elif order := [column for column in left() if column.kind == "integer" and ORDER & set(words_of(column.name))]:
            roles["event_time"] = Role(column=order[0], guess="no column holds times: an order")
    unnamed = [column for column in left() if _says_nothing(column.name)]
    if "latitude" not in roles:
        for first, second in pairwise(unnamed):
            precise = min(first.decimals, second.decimals) >= 3
            if precise and first.within(-90, 90) and second.within(-180, 180):
                roles["latitude"] = Role(column=first, guess="guess: two decimal columns side by side")
                roles["longitude"] = Role(column=second, guess="guess: two decimal columns side by side")
                break
    for role in ("user_id", "item_id"):
        ids = [
            one for one in left() if one.kind in ("id", "integer") and 1 < one.distinct < one.given and not _in_vocabulary(one)
        ]
        if role not in roles and ids:
            best = next((one for one in ids if words_of(one.name)[-1:] == ["id"]), ids[0])
            roles[role] = Role(column=best, guess=f"guess: the {'first' if best is ids[0] else 'likeliest'} column of ids left")
    if "event_type" not in roles:
        typed = [one for one in left() if one.kind == "category" and all(map(event_type_of, one.examples))]
        if typed:
            roles["event_type"] = Role(column=typed[0], guess="guess: its values are types of events")
    if "value" not in roles:
        small = [
            one for one in left() if _says_nothing(one.name) and one.is_number and one.distinct <= 20 and one.within(0, 100)
        ]
        if small:
            roles["value"] = Role(column=small[0], guess="guess: a few small numbers, as ratings are")


def _says_nothing(name: str) -> bool:
    return re.fullmatch(r"_c\d+|", name) is not None


def _in_vocabulary(column: Column) -> bool:
    """Named for something else than an id."""
    words = set(words_of(column.name))
    others = {word for role, known in MEANINGS.items() if role not in ("user_id", "item_id") for word in known}
    return bool(words & (others | ORDER | ABOUT)) or column.moments is not None


def wide_flags(columns: Sequence[Column]) -> dict[str, str]:
    """Event type -> the flag column that says whether it happened, of a log with one row for several types."""
    flags: dict[str, str] = {}
    for column in columns:
        words = [word for word in words_of(column.name) if word not in ("is", "has", "flag", "was")]
        found = event_type_of("_".join(words)) if column.kind == "boolean" and words else None
        if found is not None:
            flags.setdefault(found, column.name)
    return flags
