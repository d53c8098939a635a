"""Baselines that follow the user's own past: frequencies, what follows the last item, kernels, categories.

All are made of `Counts`. Shape suffixes: B moments, L events of history, V items, P pairs of a moment and an item of its
history, C categories.
"""

from __future__ import annotations

import numpy as np

from conf.baselines import Content, Kernels, Markov
from models.counts import Counts
from models.queries import WEEKEND, Histories, Queries

_DAY = 86_400.0


def user_frequency(counts: Counts, histories: Histories) -> np.ndarray:
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


def markov(counts: Counts, histories: Histories, given: Markov) -> np.ndarray:
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
    personal_B = 1.0 / (moves_B + given.personal_prior)
    frequency_B = given.personal_prior * personal_B / (own_B + given.frequency_prior)
    global_B = given.frequency_prior * frequency_B / (all_moves_B + given.global_prior)

    scores_BV = np.outer(given.global_prior * global_B, counts.share_V).astype(np.float32)
    np.add.at(scores_BV, (row_T, item_T), frequency_B[row_T])
    np.add.at(scores_BV, (row_T[repeated_T], item_T[repeated_T]), personal_B[row_T[repeated_T]])
    for place in range(counts.successor_VK.shape[1]):
        next_B = np.where(known_B, counts.successor_VK[np.maximum(last_B, 0), place], -1)
        some = np.flatnonzero(next_B >= 0)
        scores_BV[some, next_B[some]] += global_B[some] * counts.successor_count_VK[last_B[some], place]
    return scores_BV


def kernels(counts: Counts, histories: Histories, queries: Queries, given: Kernels) -> np.ndarray:
    """A log-linear mix of the user's own frequencies, each with its events weighed by one kernel: none, recency, a like
    hour of the day, the same sort of day, the same item before it.

    Each frequency has a Dirichlet prior of popularity. Where a time is not known its kernel weighs all events alike.
    Source of the mix: Hinton, "Training Products of Experts by Minimizing Contrastive Divergence", Neural Computation 2002.
    """
    taken_BL = counts.items_taken(histories)
    row_P, item_P, pair_T = _pairs(taken_BL, len(counts.events_V))
    row_T, place_T = np.nonzero(taken_BL >= 0)
    share_V = counts.share_V
    powers, weights = _kernel_weights(taken_BL, histories, queries, given)
    own_P, rest_B = np.zeros(len(row_P)), np.zeros(len(taken_BL))
    for power, weight_BL in zip(powers, weights, strict=True):
        weight_T = weight_BL[row_T, place_T]
        all_B = np.bincount(row_T, weights=weight_T, minlength=len(taken_BL)) + given.prior
        item_weight_P = np.bincount(pair_T, weights=weight_T, minlength=len(row_P)) + given.prior * share_V[item_P]
        own_P += power * np.log(item_weight_P / all_B[row_P])
        rest_B += power * np.log(given.prior / all_B)
    scores_BV = (rest_B[:, None] + sum(powers) * np.log(share_V)[None, :]).astype(np.float32)
    scores_BV[row_P, item_P] = own_P
    return scores_BV


def _pairs(taken_BL: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct pairs of a row and an item taken in it, and for each event taken (in row order) the number of its pair."""
    row_T, place_T = np.nonzero(taken_BL >= 0)
    pair_P, inverse_T = np.unique(row_T * max(size, 1) + taken_BL[row_T, place_T], return_inverse=True)
    return pair_P // max(size, 1), pair_P % max(size, 1), inverse_T


def _kernel_weights(
    taken_BL: np.ndarray, histories: Histories, queries: Queries, given: Kernels
) -> tuple[list[float], list[np.ndarray]]:
    """Powers, and the weights (B, L) in 0..1 that go with each."""
    age_BL = np.maximum(queries.timestamp_B[:, None] - histories.timestamp_BL, 0) / _DAY
    hour_BL, now_B1 = histories.hour_of_week_BL, queries.hour_of_week_B[:, None]
    timed_BL = (hour_BL >= 0) & (now_B1 >= 0)
    apart_BL = np.abs(hour_BL - now_B1) % 24.0
    apart_BL = np.minimum(apart_BL, 24.0 - apart_BL)
    before_BL, last_B = _taken_before(taken_BL)
    powers = [given.frequency, given.recency, given.hour, given.weekday, given.previous]
    return powers, [
        np.ones(taken_BL.shape),
        np.exp2(-age_BL / given.half_life_days),
        np.where(timed_BL, np.exp(-0.5 * (apart_BL / given.hours) ** 2), 1.0),
        np.where(timed_BL, (hour_BL >= WEEKEND) == (now_B1 >= WEEKEND), 1.0),
        ((before_BL == last_B[:, None]) & (before_BL >= 0)).astype(np.float64),
    ]


def _taken_before(taken_BL: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each event the item taken before it, -1 where none was, (B, L); and the last one taken, (B,)."""
    rows, length = taken_BL.shape
    place_BL = np.maximum.accumulate(np.where(taken_BL >= 0, np.arange(length), -1), axis=1)
    earlier_BL = np.concatenate([np.full((rows, 1), -1), place_BL[:, :-1]], axis=1) if length else place_BL
    before_BL = np.where(earlier_BL >= 0, np.take_along_axis(taken_BL, np.maximum(earlier_BL, 0), axis=1), -1)
    newest_B = place_BL[:, -1] if length else np.full(rows, -1)
    last_B = np.where(newest_B >= 0, taken_BL[np.arange(rows), np.maximum(newest_B, 0)], -1) if length else newest_B
    return before_BL, last_B


def content(counts: Counts, histories: Histories, given: Content) -> np.ndarray:
    """Log of (how often the user takes the item's category) x (the item's share in its category).

    The user's categories have a Dirichlet prior of everybody's; newer events count more. Source: the naive Bayes of
    Pazzani, Billsus: "Content-Based Recommendation Systems", The Adaptive Web, 2007.
    """
    taken_BL = counts.items_taken(histories)
    size = len(counts.events_V)
    if not size:
        return np.zeros((len(taken_BL), 0), dtype=np.float32)
    category_V = counts.vocabulary.category_of_item_V
    categories = int(category_V.max()) + 1
    share_C = np.bincount(category_V, weights=counts.share_V, minlength=categories)
    row_T, place_T = np.nonzero(taken_BL >= 0)
    weight_T = np.exp2(-(taken_BL.shape[1] - 1 - place_T) / given.half_life_events)
    key_T = row_T * categories + category_V[taken_BL[row_T, place_T]]
    own_BC = np.bincount(key_T, weights=weight_T, minlength=len(taken_BL) * categories).reshape(-1, categories)
    likes_BC = (own_BC + given.prior * share_C) / (own_BC.sum(axis=1, keepdims=True) + given.prior)
    with np.errstate(divide="ignore"):
        in_category_V = np.log(counts.share_V / share_C[category_V])
        return (np.log(likes_BC)[:, category_V] + in_category_V).astype(np.float32)
