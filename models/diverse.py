"""Lists out of the best of a ranking: at most so many of a kind, and more of the same only where it is worth it.

Shape suffixes: B moments, P best items of each, K length of a list, A attributes, V items.
"""

from __future__ import annotations

import numpy as np

from models.top_k import ABSENT

NOT_KNOWN = -1
_COUNTS_AT_ONCE = 4_000_000


def diverse(
    position_BP: np.ndarray, score_BP: np.ndarray, k: int, *, kind_AV: np.ndarray, cap_A: np.ndarray, weight: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (B, K) and scores of lists that are filled one after the other; K = min(k, P).

    Taken is what is worth most and of no kind of which there are enough: the score, brought to 0..1 among the best, less
    `weight` where an item of the same first attribute is on the list already. Source: Carbonell and Goldstein, "The Use of
    MMR, Diversity-Based Reranking", SIGIR 1998. A list that lacks items ends with position -1 and score -inf.

    Args:
        position_BP: as `models.top_k` gives them, best first.
        kind_AV: of each attribute the kinds of the items, whole numbers; -1: not known, like no other.
        cap_A: of each attribute how many of a kind a list may hold.
        weight: 0 (worth alone) up to 1.
    """
    rows, length = len(position_BP), min(k, position_BP.shape[1])
    there_BP = position_BP != ABSENT
    if not weight:
        return _taken(position_BP, score_BP, _allowed(position_BP, length, kind_AV, cap_A), length)
    worth_BP = (1.0 - weight) * _even(score_BP, there_BP)
    kind_ABP = np.where(there_BP, kind_AV[:, np.maximum(position_BP, 0)], NOT_KNOWN)
    held_ABP = np.zeros(kind_ABP.shape, np.int32)
    free_BP = there_BP.copy()
    positions, scores = np.full((rows, length), ABSENT, np.int64), np.full((rows, length), -np.inf, np.float32)
    every = np.arange(rows)
    for place in range(length):
        value_BP = worth_BP - weight * (held_ABP[0] > 0)
        allowed_BP = free_BP & (held_ABP < cap_A[:, None, None]).all(axis=0)
        best_B = np.where(allowed_BP, value_BP, -np.inf).argmax(axis=1)
        some_B = np.flatnonzero(allowed_BP[every, best_B])
        if not len(some_B):
            break
        best = best_B[some_B]
        positions[some_B, place], scores[some_B, place] = position_BP[some_B, best], score_BP[some_B, best]
        free_BP[some_B, best] = False
        taken_AB = kind_ABP[:, some_B, best]
        held_ABP[:, some_B] += (kind_ABP[:, some_B] == taken_AB[..., None]) & (taken_AB != NOT_KNOWN)[..., None]
    return positions, scores


def _allowed(position_BP: np.ndarray, length: int, kind_AV: np.ndarray, cap_A: np.ndarray) -> np.ndarray:
    """Down each ranking, what goes on the list: of no kind of which there are enough, until it is full; (B, P)."""
    rows, out_of = position_BP.shape
    binding = [(kinds_V, cap) for kinds_V, cap in zip(kind_AV, cap_A, strict=True) if cap < length]
    # Read place by place.
    position_PB = np.ascontiguousarray(position_BP.T)
    kind_APB = [kinds_V[np.maximum(position_PB, 0)] for kinds_V, _ in binding]
    allowed_PB, many_B = np.zeros((out_of, rows), bool), np.zeros(rows, np.int64)
    sizes = [int(kinds_V.max(initial=NOT_KNOWN)) + 2 for kinds_V, _ in binding]  # the last counts those not known, in vain
    at_once = max(1, _COUNTS_AT_ONCE // sum(sizes, 1))
    for start in range(0, rows, at_once):
        part = slice(start, start + at_once)
        every, many = np.arange(len(many_B[part])), many_B[part]
        counts = [np.zeros((len(every), size), np.int32) for size in sizes]
        for place in range(out_of):
            takes = (position_PB[place, part] != ABSENT) & (many < length)
            if not takes.any():
                break
            kinds = [kind_PB[place, part] for kind_PB in kind_APB]
            for count, kind, (_, cap) in zip(counts, kinds, binding, strict=True):
                takes &= (kind == NOT_KNOWN) | (count[every, kind] < cap)
            for count, kind in zip(counts, kinds, strict=True):
                count[every, kind] += takes
            allowed_PB[place, part] = takes
            many += takes
    return allowed_PB.T


def _taken(position_BP: np.ndarray, score_BP: np.ndarray, allowed_BP: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    row_C, place_C = np.nonzero(allowed_BP)
    many_B = allowed_BP.sum(axis=1)
    column_C = np.arange(len(row_C)) - np.repeat(np.cumsum(many_B) - many_B, many_B)
    positions = np.full((len(position_BP), length), ABSENT, np.int64)
    scores = np.full(positions.shape, -np.inf, np.float32)
    positions[row_C, column_C], scores[row_C, column_C] = position_BP[row_C, place_C], score_BP[row_C, place_C]
    return positions, scores


def _even(score_BP: np.ndarray, there_BP: np.ndarray) -> np.ndarray:
    """Scores from 0 (the least of the best) to 1."""
    least_B1 = np.where(there_BP, score_BP, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    span_B1 = np.where(there_BP, score_BP, -np.inf).max(axis=1, keepdims=True, initial=-np.inf) - least_B1
    with np.errstate(invalid="ignore", divide="ignore"):
        even_BP = (score_BP.astype(np.float64) - least_B1) / span_B1
    return np.where(there_BP & (span_B1 > 0), even_BP, 1.0)
