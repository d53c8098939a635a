"""What any model has to beat: popularity, the user's own habits, and what usually follows the last item.

All three are made of `Counts`, which the catalogue bounds. They know no times and no places.
Shape suffixes: B moments, L events of history, V items, K successors kept per item.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from models.histories import name_indices
from models.queries import FIRST, Histories, Queries, Vocabulary

BASELINES = ("popularity", "user_frequency", "markov")
SUCCESSORS = 50
Columns = tuple[Any, Any, Any]
_DETAILS, _ARRAYS, _VOCABULARY = "version.json", "counts.npz", "vocabulary.json"
# Events' worth of trust in what a level of the Markov chain backs off to.
_GLOBAL_PRIOR, _FREQUENCY_PRIOR, _PERSONAL_PRIOR = 10.0, 5.0, 2.0


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


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A `Ranker` over counts; `method` is one of `BASELINES`."""

    method: str
    counts: Counts

    @property
    def vocabulary(self) -> Vocabulary:
        return self.counts.vocabulary

    def scores(self, histories: Histories, queries: Queries) -> np.ndarray:
        """Scores of all items, (B, V) float32; `queries` is not read."""
        return _SCORES[self.method](self.counts, histories)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        arrays = ("events_V", "transitions_V", "successor_VK", "successor_count_VK")
        np.savez_compressed(folder / _ARRAYS, **{name: getattr(self.counts, name) for name in arrays})
        self.vocabulary.save(folder / _VOCABULARY)
        (folder / _DETAILS).write_text(json.dumps({"method": self.method, "target_types": self.counts.target_types}))

    @staticmethod
    def load(folder: Path) -> Baseline:
        details = json.loads((folder / _DETAILS).read_text())
        with np.load(folder / _ARRAYS) as stored:
            arrays = {name: stored[name] for name in stored.files}
        vocabulary = Vocabulary.load(folder / _VOCABULARY)
        return Baseline(
            method=details["method"],
            counts=Counts(vocabulary=vocabulary, target_types=tuple(details["target_types"]), **arrays),
        )


def baseline(name: str, counts: Counts) -> Baseline:
    """One of the baselines by name.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in BASELINES:
        raise ValueError(f"there is no baseline {name}; the baselines are {', '.join(BASELINES)}")
    return Baseline(method=name, counts=counts)


def _popularity(counts: Counts, histories: Histories) -> np.ndarray:
    return np.repeat(counts.events_V.astype(np.float32)[None, :], len(histories.item_BL), axis=0)


def _user_frequency(counts: Counts, histories: Histories) -> np.ndarray:
    """How often the item is in the history; ties by the newest, the rest of the catalogue by popularity."""
    taken_BL = counts.items_taken(histories)
    size, length = len(counts.events_V), taken_BL.shape[1]
    most = max(counts.events_V.max(initial=0.0), 1.0)
    # All below 1, and an item of the history at least 1: no two of one history can tie, the places differ.
    scores_BV = np.repeat((counts.events_V / (most + 1.0)).astype(np.float32)[None, :], len(taken_BL), axis=0)
    row_T, place_T = np.nonzero(taken_BL >= 0)
    if len(row_T):
        pair_P, inverse_T = np.unique(row_T * size + taken_BL[row_T, place_T], return_inverse=True)
        newest_P = np.zeros(len(pair_P), dtype=np.int64)
        np.maximum.at(newest_P, inverse_T, place_T + 1)
        scores_BV.reshape(-1)[pair_P] = np.bincount(inverse_T) * (length + 1) + newest_P
    return scores_BV


def _markov(counts: Counts, histories: Histories) -> np.ndarray:
    """Probability of the next item given the last: a hierarchy of Dirichlet priors (MacKay and Peto, 1995).

    Personal transitions back off to the user's own frequencies, these to everybody's transitions,
    these to popularity.
    """
    taken_BL = counts.items_taken(histories)
    rows = np.arange(len(taken_BL))
    size = len(counts.events_V)
    last_place_B = np.where(taken_BL >= 0, np.arange(taken_BL.shape[1]), 0).max(axis=1, initial=0)
    last_B = taken_BL[rows, last_place_B] if taken_BL.shape[1] else np.full(len(rows), -1)
    known_B = last_B >= 0
    # The history without its gaps: each taken item with the one taken before it.
    row_T, place_T = np.nonzero(taken_BL >= 0)
    item_T = taken_BL[row_T, place_T]
    follows_T = np.concatenate(([False], row_T[1:] == row_T[:-1])) if len(row_T) else np.zeros(0, dtype=bool)
    repeated_T = follows_T & (np.concatenate(([-1], item_T[:-1])) == last_B[row_T]) if len(row_T) else follows_T

    own_B = np.bincount(row_T, minlength=len(rows)).astype(np.float64)
    moves_B = np.bincount(row_T[repeated_T], minlength=len(rows)).astype(np.float64)
    all_moves_B = np.where(known_B, counts.transitions_V[np.maximum(last_B, 0)], 0.0) if size else np.zeros(len(rows))
    personal_B = 1.0 / (moves_B + _PERSONAL_PRIOR)
    frequency_B = _PERSONAL_PRIOR * personal_B / (own_B + _FREQUENCY_PRIOR)
    global_B = _FREQUENCY_PRIOR * frequency_B / (all_moves_B + _GLOBAL_PRIOR)

    scores_BV = np.outer(_GLOBAL_PRIOR * global_B, counts.share_V).astype(np.float32)
    np.add.at(scores_BV, (row_T, item_T), frequency_B[row_T])
    np.add.at(scores_BV, (row_T[repeated_T], item_T[repeated_T]), personal_B[row_T[repeated_T]])
    for place in range(counts.successor_VK.shape[1]):
        next_B = np.where(known_B, counts.successor_VK[np.maximum(last_B, 0), place], -1)
        some = np.flatnonzero(next_B >= 0)
        scores_BV[some, next_B[some]] += global_B[some] * counts.successor_count_VK[last_B[some], place]
    return scores_BV


_SCORES = {"popularity": _popularity, "user_frequency": _user_frequency, "markov": _markov}
