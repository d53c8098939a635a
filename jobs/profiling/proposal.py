"""A mapping file, proposed from what the columns of a sample mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import yaml

from conf.mapping import Mapping
from jobs.profiling.beside import feeds, in_folders, pattern
from jobs.profiling.kinds import Column
from jobs.profiling.roles import Role, roles_of, wide_flags
from jobs.profiling.sample import Sample
from jobs.profiling.vocabulary import event_type_of, event_type_of_file, words_of

NEEDED = ("user_id", "item_id", "event_time")
# What a model should predict: what costs most. Clicks count where there is nothing dearer.
_TARGETS = (
    ("purchase", "transaction", "check_in", "play", "rating", "review"),
    ("cart", "like", "follow"),
    ("click",),
    ("view",),
)
_RATING = {"rating", "stars", "score"}
_BY_SQL = {"epoch_micros": 1_000, "epoch_nanos": 1_000_000}
# Users who take one thing in a hundred again do take things again.
_REPEATS = 0.01


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A mapping as a file would hold it, and what a person must know of it.

    content: key -> value, in the file's order. comments: the path of a key -> why it is a guess.
    roles: our name -> their column. missing: needed columns that were not found; then it does not load.
    """

    content: dict[str, Any]
    comments: dict[tuple[str, ...], str] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    def mapping(self) -> Mapping:
        assert not self.missing, self.missing
        return Mapping.model_validate(self.content)

    def uses(self) -> dict[str, str]:
        """Their column -> what the mapping takes it for."""
        found = {role.column.name: name for name, role in self.roles.items()}
        return found | {theirs: f"wide.{ours}" for ours, theirs in self.content["events"].get("wide", {}).items()}

    def as_yaml(self) -> str:
        return "".join(f"# {line}\n" for line in self._head()) + "".join(
            f"{line}\n" for line in _lines(self.content, self.comments)
        )

    def _head(self) -> list[str]:
        lines = ["proposed from a sample: check what is marked as a guess"]
        lines += [f"not found: {name}; no run is possible without it" for name in self.missing]
        return lines


def propose(sample: Sample, columns: Sequence[Column], now: datetime) -> Proposal:
    """The mapping that fits what the columns hold, and the files beside them."""
    roles = roles_of(columns)
    beside = feeds(sample, roles, now)
    comments: dict[tuple[str, ...], str] = {
        ("events", "columns", name): role.guess for name, role in roles.items() if role.guess is not None
    }
    flags = wide_flags([column for column in columns if all(column is not role.column for role in roles.values())])
    events: dict[str, Any] = {"format": sample.format}
    if in_folders(sample.path) or beside:
        events["files"] = pattern(sample.path)
    if sample.options:
        events["options"] = dict(sample.options)
    types = _types(sample, columns, roles, flags, events, comments)
    _times(roles, events, comments)
    _ratings(roles, events, comments)
    events["columns"] = {name: role.column.name for name, role in roles.items()}
    if (at := roles.get("event_time")) is not None and at.column.moments is not None and at.column.moments.format in _BY_SQL:
        divided = f"cast(`{at.column.name}` as bigint) div {_BY_SQL[at.column.moments.format]}"
        events["columns"]["event_time"] = {"sql": divided}
    content = {
        "description": f"{sample.path.name}, as a profile of its first {len(sample.rows):,} rows saw it",
        "target_events": types,
        "repeats": _repeats(sample, roles),
        "events": events,
        **beside,
    }
    comments |= {(name,): "guess: a file beside it has the same ids, each once" for name in beside}
    comments["target_events",] = "guess: what to predict"
    comments["repeats",] = "guess: whether users in the sample take an item again"
    return Proposal(content=content, comments=comments, roles=roles, missing=tuple(sorted(set(NEEDED) - set(roles))))


def _types(
    sample: Sample,
    columns: Sequence[Column],
    roles: dict[str, Role],
    flags: dict[str, str],
    events: dict[str, Any],
    comments: dict[tuple[str, ...], str],
) -> list[str]:
    """Say where the event type stands; the types to predict."""
    if (of := roles.get("event_type")) is not None:
        counts = sample.rows[of.column.name].value_counts()
        named = {str(value): event_type_of(str(value)) for value in counts.index}
        if any(named.values()) or "event" in words_of(of.column.name) or not flags:
            often = {value for value, count in counts.items() if count >= len(sample.rows) / 100}
            kept = {value: ours or value for value, ours in named.items() if ours is not None or value in often}
            if all(named[value] for value in kept) or any(named.values()):
                return _typed(events, comments, kept, named)
        del roles["event_type"]
        comments.pop(("events", "columns", "event_type"), None)
    if flags:
        events["wide"] = flags
        events["seen"] = "impression"
        comments["events", "wide"] = "guess: event type -> the column that says whether it happened"
        comments["events", "seen"] = "guess: every row was seen; leave this out where rows without any flag mean nothing"
        return _dearest(flags)
    found, why = _only_type(sample, roles)
    events["event_type"] = found
    comments["events", "event_type"] = why
    return [found]


def _typed(
    events: dict[str, Any], comments: dict[tuple[str, ...], str], kept: dict[str, str], named: dict[str, str | None]
) -> list[str]:
    if any(theirs != ours for theirs, ours in kept.items()) or any(named[theirs] is None for theirs in kept):
        events["event_types"] = kept
        for theirs in kept:
            if named[theirs] is None:
                comments["events", "event_types", theirs] = "guess: no type that is known; it keeps its name"
    return _dearest(list(kept.values()))


def _dearest(types: Sequence[str] | dict[str, str]) -> list[str]:
    for group in _TARGETS:
        if found := sorted(set(types) & set(group), key=group.index):
            return found
    return sorted(set(types))


def _only_type(sample: Sample, roles: dict[str, Role]) -> tuple[str, str]:
    if (found := event_type_of_file(sample.path)) is not None:
        return found, "guess: by the file's name; every row is one"
    if "text" in roles:
        return "review", "guess: rows hold text; every row is one"
    words = {word for role in roles.values() for word in words_of(role.column.name)}
    value = roles.get("value")
    if value is not None and (_RATING & {*words_of(value.column.name)} or value.guess):
        return "rating", "guess: rows hold a rating; every row is one"
    if words & {"price", "amount", "quantity", "qty", "spend", "revenue", "total"}:
        return "purchase", "guess: rows hold a price or an amount; every row is one"
    if "latitude" in roles:
        return "check_in", "guess: rows hold a position; every row is one"
    return "view", "guess: nothing tells what users did; every row is one"


def _times(roles: dict[str, Role], events: dict[str, Any], comments: dict[tuple[str, ...], str]) -> None:
    if "event_time" not in roles:
        return
    moments = roles["event_time"].column.moments
    if moments is None:
        events["time_format"] = "position"
        return
    events["time_format"] = "epoch_millis" if moments.format in _BY_SQL else moments.format
    if not moments.offsets and not moments.is_date:
        events["time_zone"] = "UTC"
        comments["events", "time_zone"] = "guess: the times say no offset"


def _ratings(roles: dict[str, Role], events: dict[str, Any], comments: dict[tuple[str, ...], str]) -> None:
    """Say what ratings mean, where texts come with some and these are on a scale that many use."""
    if not {"text", "value"} <= set(roles):
        return
    value = roles["value"].column
    best = next((best for best in (5, 10) if 2 < value.distinct <= 10 and value.within(1, best)), None)
    if best is not None and _RATING & {*words_of(value.name)}:
        events["rating_scale"] = [1, best]
        comments["events", "rating_scale"] = f"guess: 1 is the worst, {best} the best"


def _repeats(sample: Sample, roles: dict[str, Role]) -> bool:
    if not {"user_id", "item_id"} <= set(roles):
        return True
    pairs = sample.rows[[roles["user_id"].column.name, roles["item_id"].column.name]].dropna()
    times = sample.rows.loc[pairs.index, roles["event_time"].column.name] if "event_time" in roles else None
    # The same moment twice is a duplicate, not a habit.
    once = pairs.assign(_at=times).drop_duplicates() if times is not None else pairs
    again = once.duplicated(subset=list(pairs.columns))
    return bool(len(once) and again.mean() >= _REPEATS)


def _lines(content: dict[str, Any], comments: dict[tuple[str, ...], str], above: tuple[str, ...] = ()) -> list[str]:
    """YAML with a comment behind each key that has one."""
    lines = []
    for key, value in content.items():
        path = (*above, key)
        said = f"   # {comments[path]}" if path in comments else ""
        name = "  " * len(above) + _scalar(key)
        if isinstance(value, dict) and value:
            lines += [f"{name}:{said}", *_lines(value, comments, path)]
        else:
            lines.append(f"{name}: {_scalar(value)}{said}")
    return lines


def _scalar(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_scalar, value)) + "]"
    if value == {}:
        return "{}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w ./*-]*\w|[A-Za-z_*]+", value, re.ASCII)
    if plain and isinstance(yaml.safe_load(value), str):
        return value
    return yaml.safe_dump(value, default_style='"', allow_unicode=True, width=1 << 20).strip()
