"""How often each item is taken, and what follows it: what baselines are made of, and the catalogue bounds.

Shape suffixes: B moments, L events of history, V items, K successors kept per item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from models.histories import name_indices
from models.queries import FIRST, Histories, Vocabulary

SUCCESSORS = 50
Columns = tuple[Any, Any, Any]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How often each item was a target, and what followed it.

    `successor_VK` holds catalogue positions of the K most frequent next items, -1 where there are
    fewer; `transitions_V` counts all transitions out of an item, those not kept (or to an item
    outside the catalogue) included.
    `target_types` are the event types that count in a history.
    """

    vocabulary: Vocabulary
    target_types: tuple[str, ...]
    events_V: np.ndarray  # float64
    transitions_V: np.ndarray  # float64
    successor_VK: np.ndarray  # int32
    successor_count_VK: np.ndarray  # float64

    @cached_property
    def share_V(self) -> np.ndarray:  # noqa: N802
        """Share of each item in all target events, one event's worth added to each, float64."""
        return (self.events_V + 1.0) / (self.events_V.sum() + max(len(self.events_V), 1))

    @cached_property
    def target_type_indices(self) -> np.ndarray:
        index = self.vocabulary.event_type_index
        return np.array([index[name] for name in self.target_types if name in index], dtype=np.int32)

    def items_taken(self, histories: Histories) -> np.ndarray:
        """Catalogue position of each event of history that is a target event, (B, L); -1 for all else."""
        counted_BL = np.isin(histories.event_type_BL, self.target_type_indices) & (histories.item_BL >= FIRST)
        return np.where(counted_BL, histories.item_BL - FIRST, -1)


def count(vocabulary: Vocabulary, target_types: Sequence[str], items: Columns, transitions: Columns) -> Counts:
    """Counts of named items; names outside the catalogue are left out.

    `items` are three arrays of one length: name, target events, and how many of these another target
    event of the user followed. `transitions`: item, next item, how often. Of each item the
    `SUCCESSORS` most frequent next items are kept, ties by catalogue position.
    """
    size = len(vocabulary.items)
    place_I = name_indices(items[0], vocabulary.items) - FIRST
    known_I = place_I >= 0
    events_V, transitions_V = (
        np.bincount(place_I[known_I], weights=np.asarray(numbers, dtype=np.float64)[known_I], minlength=size).astype(np.float64)
        for numbers in items[1:]
    )
    before_T = name_indices(transitions[0], vocabulary.items) - FIRST
    after_T = name_indices(transitions[1], vocabulary.items) - FIRST
    count_T = np.asarray(transitions[2], dtype=np.float64)
    known_T = (before_T >= 0) & (after_T >= 0)
    before_T, after_T, count_T = before_T[known_T], after_T[known_T], count_T[known_T]
    by_item = np.lexsort((after_T, -count_T, before_T))
    before_T, after_T, count_T = before_T[by_item], after_T[by_item], count_T[by_item]
    place_T = np.arange(len(before_T)) - np.searchsorted(before_T, before_T, side="left")
    kept_T = place_T < SUCCESSORS
    width = int(place_T[kept_T].max(initial=-1)) + 1
    successor_VK = np.full((size, width), -1, dtype=np.int32)
    successor_count_VK = np.zeros((size, width))
    successor_VK[before_T[kept_T], place_T[kept_T]] = after_T[kept_T]
    successor_count_VK[before_T[kept_T], place_T[kept_T]] = count_T[kept_T]
    return Counts(
        vocabulary=vocabulary,
        target_types=tuple(target_types),
        events_V=events_V,
        transitions_V=transitions_V,
        successor_VK=successor_VK,
        successor_count_VK=successor_count_VK,
    )
