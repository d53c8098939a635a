"""Lists that were mixed, shown and answered, from rows of `feedback`, as policies are judged by them (`models.off_policy`).

Where there are very many, of as many users as memory allows: pseudonyms are keyed hashes, so that the first of them in order
are drawn by chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

import numpy as np

from conf.contracts import IMPRESSION
from jobs.score.blending import PART, SOURCES, TOGETHER
from models.off_policy import Answered

ENTRY = ("user_id", "list_day", "slot", "rank", "source", "propensity", "policy_context", "event_type", "event_timestamp")
_MOST_ENTRIES, _BUCKETS = 2_000_000, 256


def sampled_below(entries: int) -> str | None:
    """Of so many entries those of users whose pseudonyms are less than this; None: all.

    >>> sampled_below(2_000_000), sampled_below(4_000_000)
    (None, '80')
    """
    if entries <= _MOST_ENTRIES:
        return None
    return f"{max(1, int(_BUCKETS * _MOST_ENTRIES / entries)):02x}"


def answered_lists(rows: Iterable[Mapping[str, Any]], rewards: Mapping[str, float]) -> tuple[Answered, list[tuple[str, str]]]:
    """The lists, and of each its context (region and activity, slot). rows: `ENTRY`, of matched entries that were mixed."""
    rows = list(rows)
    lists: dict[tuple[Any, ...], dict[int, Mapping[str, Any]]] = {}
    days: dict[tuple[Any, ...], list[date]] = {}
    for row in rows:
        if row["event_type"] == IMPRESSION:
            on = row["event_timestamp"].date()
            lists.setdefault((row["user_id"], row["list_day"], row["slot"], on), {})[row["rank"]] = row
            days.setdefault((row["user_id"], row["list_day"], row["slot"], row["rank"]), []).append(on)
    worth: dict[tuple[Any, ...], float] = {}
    for row in rows:
        entry = (row["user_id"], row["list_day"], row["slot"], row["rank"])
        # For the newest showing up to then; before the first there was none.
        shown_on = [on for on in days.get(entry, ()) if on <= row["event_timestamp"].date()]
        if shown_on:
            key = (*entry, max(shown_on))
            worth[key] = worth.get(key, 0.0) + rewards.get(row["event_type"], 0.0)
    size = max((rank for entries_ in lists.values() for rank in entries_), default=1)
    agreed_NK, reward_NK = np.zeros((len(lists), size), np.int64), np.zeros((len(lists), size))
    propensity_NK = np.ones((len(lists), size))
    users: dict[str, int] = {}
    contexts = []
    for place, (of, entries_) in enumerate(lists.items()):
        for rank, row in entries_.items():
            # Another release's sources are of no mix that can be asked about.
            agreed = sum(1 << SOURCES.index(name) for name in row["source"].split(TOGETHER) if name in SOURCES)
            agreed_NK[place, rank - 1] = agreed
            propensity_NK[place, rank - 1] = row["propensity"] if agreed else 1.0
            reward_NK[place, rank - 1] = min(1.0, max(0.0, worth[(*of[:3], rank, of[3])]))
        contexts.append((next(iter(entries_.values()))["policy_context"] or PART, of[2]))
        users.setdefault(of[0], len(users))
    user_N = np.array([users[of[0]] for of in lists], dtype=np.int64)
    return Answered(agreed_NK=agreed_NK, propensity_NK=propensity_NK, reward_NK=reward_NK, user_N=user_N), contexts
