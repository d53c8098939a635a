"""What sort of moment it was: by slot, by how active and how well known the user was, by region, by what was taken.

Shape suffixes: E events, Q moments, T items taken at unknown times.
"""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow.compute as pc

from models.histories import EventColumns, name_indices
from models.queries import FIRST, WEEKEND, Queries, Vocabulary
from models.replay import Log, Sight

ACTIVE_DAYS = 28
_ACTIVITY = (0, 5, 20)  # events in so many days: below the next number
_KNOWN = (0, 1, 10, 50)  # events known of the user: below the next number
_PARTS = np.array([*["morning"] * 6, *["afternoon"] * 6, *["evening"] * 4, *["night"] * 8], dtype=object)
_SECONDS = 1 << 33  # more than any time has, so that user and second are one number


def segments(log: Log, seen: Sight, events: EventColumns, asked: Queries, vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    """A name per moment for each dimension, (Q,) of str; None where it is not known.

    `slot` by the clock asked with; `active`: events of the user in the 28 days before; `known`: events of the user that
    are known at all; `item`: did the user take it before (`again`, `new`), or is it outside the catalogue (`cold`);
    `region`: where the user was last known to be; and what stands in the groups of the moment.
    """
    found = {"known": _steps(seen.stop_Q - seen.start_Q, _KNOWN), "item": _item(log, seen, events, vocabulary)}
    if (asked.hour_of_week_B >= 0).any():
        found["slot"] = slots(asked.hour_of_week_B)
        found["active"] = _steps(_recent(log, seen), _ACTIVITY)
    region_E = log.columns["region"].to_numpy(zero_copy_only=False)
    row_Q = seen.newest(np.array([name is not None for name in region_E], dtype=bool))
    if (row_Q >= 0).any():
        region_Q = region_E[np.maximum(row_Q, 0)]
        region_Q[row_Q < 0] = None
        found["region"] = region_Q
    return found | _groups(log)


def _groups(log: Log) -> dict[str, np.ndarray]:
    """A dimension per attribute that any of the users has."""
    maps = [chunk for chunk in log.groups_Q.chunks if chunk.null_count < len(chunk)]
    names = sorted({name for chunk in maps for name in chunk.keys.unique().to_pylist()})
    value = {name: pc.map_lookup(log.groups_Q, name, "first") for name in names}
    return {name: value_Q.to_numpy(zero_copy_only=False) for name, value_Q in value.items()}


def slots(hour_of_week: np.ndarray) -> np.ndarray:
    """Names of the slots of local hours of the week; None where negative.

    >>> slots(np.array([5.5, 6.0, 125.9, 126.0, -1.0])).tolist()
    ['weekend_night', 'weekday_morning', 'weekday_night', 'weekend_morning', None]
    """
    # Six hours earlier, each day with the night after it is one day.
    shifted = (np.floor(hour_of_week).astype(np.int64) - 6) % 168
    names = np.where(shifted >= WEEKEND, "weekend_", "weekday_").astype(object) + _PARTS[shifted % 24]
    names[hour_of_week < 0] = None
    return names


def _steps(count_Q: np.ndarray, bounds: tuple[int, ...]) -> np.ndarray:
    names = [f"{low}-{high - 1}" if high - 1 > low else str(low) for low, high in itertools.pairwise(bounds)]
    return np.array([*names, f"{bounds[-1]}+"], dtype=object)[np.searchsorted(bounds, count_Q, side="right") - 1]


def _recent(log: Log, seen: Sight) -> np.ndarray:
    """Events of the user in the days before each moment."""
    at_E = log.user_E * _SECONDS + log.microseconds_E // 1_000_000
    since_Q = log.user_Q * _SECONDS + log.microseconds_Q // 1_000_000 - ACTIVE_DAYS * 86_400
    return np.maximum(seen.stop_Q - np.searchsorted(at_E, since_Q, side="left"), 0)


def _item(log: Log, seen: Sight, events: EventColumns, vocabulary: Vocabulary) -> np.ndarray:
    size = FIRST + len(vocabulary.items)
    target_Q = name_indices(log.item_Q, vocabulary.items)
    # Rows are in the order of time: the first of a pair is the earliest. What was taken at unknown times was taken before.
    before = np.concatenate((log.user_T * size + name_indices(log.item_T, vocabulary.items), log.user_E * size + events.item_E))
    row = np.concatenate((np.full(len(log.user_T), -1), np.arange(len(log.user_E))))
    pair_P, first_P = np.unique(before, return_index=True)
    wanted_Q = log.user_Q * size + target_Q
    place_Q = np.minimum(np.searchsorted(pair_P, wanted_Q), max(len(pair_P) - 1, 0))
    is_there_Q = pair_P[place_Q] == wanted_Q if len(pair_P) else np.zeros(len(wanted_Q), dtype=bool)
    again_Q = is_there_Q & (row[first_P[place_Q]] < seen.stop_Q) if len(pair_P) else is_there_Q
    return np.where(target_Q < FIRST, "cold", np.where(again_Q, "again", "new")).astype(object)
