"""The few items of a catalogue that a moment may lead to, and what is known of each: what a learned ranker orders.

Candidates are the items of the user's own past, the best by the first ranker, what is liked near the place at the hour, what
users alike take, and what follows on the newest item. Shape suffixes: B moments, V items, C candidates of all moments in the
order of (moment, item), F features, P pairs of a moment and an item of its history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from models.facts import HOURS, Facts, sort_of_day
from models.own_past import KERNELS, OF_PAIR, OwnPast, kilometres, own_past
from models.queries import Histories, Queries
from models.top_k import top_k

FIRST_RANKED, NEARBY, ALIKE, FOLLOWING = 60, 40, 20, 20
# What is liked near the place: the log of how much lately, plus the hour's, less this much per log of the distance.
_FADING, _NEAREST_KM, _FAR_KM = 1.2, 0.15, 20.0
_NEIGHBOURHOOD_KM = 0.4
_LIKED = 2.0
OF_ITEM = (
    "is_newest", "first_score", "first_log_share", "events", "lately", "users", "per_user", "clock", "category_clock",
    "distance", "nearby", "likeness", "likeness_share", "moves", "moves_share", "category_moves", "likes_category",
    "likes_category_now", "own_neighbourhood", "own_neighbourhood_now", "taken", "gap", "hour", "sort_of_day",
    "distinct", "novelty",
)  # fmt: skip
FEATURES = (*[f"share_{name}" for name in KERNELS], *[f"sum_{name}" for name in KERNELS], *OF_PAIR, *OF_ITEM)


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """`features_CF`: `FEATURES`, float32, NaN where something cannot be said."""

    row_C: np.ndarray
    item_C: np.ndarray
    features_CF: np.ndarray

    def __len__(self) -> int:
        return len(self.row_C)

    def among(self, place_B: Sequence[np.ndarray]) -> Candidates:
        """Of each moment those that are among its catalogue places."""
        row_N = np.repeat(np.arange(len(place_B)), [len(places) for places in place_B])
        place_N = np.concatenate([*place_B, np.zeros(0, np.int64)]).astype(np.int64)
        size = max(int(self.item_C.max(initial=0)), int(place_N.max(initial=0))) + 1
        wanted = np.isin(self.row_C * size + self.item_C, (row_N * size + place_N)[place_N >= 0])
        return Candidates(row_C=self.row_C[wanted], item_C=self.item_C[wanted], features_CF=self.features_CF[wanted])


WAYS = ("nearby", "alike", "following")


def ways(known: Facts, histories: Histories, queries: Queries, many: int) -> dict[str, np.ndarray]:
    """The best items of each of `WAYS` by itself, (B, P) catalogue places, best first; ABSENT where it speaks for no more."""
    taken = replace(histories, item_BL=known.taken(histories))
    views = _views(known, own_past(taken, queries, known.vocabulary.category_of_item_V), queries)
    some_BV = np.isfinite(views.distance)
    worth = {
        "nearby": np.where(some_BV, views.nearby, -np.inf),
        "alike": np.where(views.likeness > 0, views.likeness, -np.inf),
        "following": np.where(views.moves > 0, views.moves, -np.inf),
    }
    return {name: top_k(worth_BV, many)[0] for name, worth_BV in worth.items()}


@dataclass(frozen=True, kw_only=True)
class _Views:
    """The whole catalogue as each moment sees it, (B, V); and when the moments are: hour 0 of a weekday where it is hidden."""

    told_B: np.ndarray
    sort_B: np.ndarray
    hour_B: np.ndarray
    distance: np.ndarray  # kilometres
    clock: np.ndarray
    nearby: np.ndarray
    likeness: np.ndarray
    moves: np.ndarray


def candidates(known: Facts, histories: Histories, queries: Queries, scores_BV: np.ndarray) -> Candidates:
    """scores_BV: of the first ranker, over the catalogue of the facts."""
    taken = replace(histories, item_BL=known.taken(histories))
    own = own_past(taken, queries, known.vocabulary.category_of_item_V)
    views = _views(known, own, queries)
    row_C, item_C = _chosen(own, views, scores_BV)
    pair_C, is_own_C = _found(own, row_C, item_C, scores_BV.shape[1])
    columns = [*_of_past(own, row_C, pair_C, is_own_C), *_of_items(known, own, views, queries, scores_BV, row_C, item_C)]
    features_CF = np.stack([np.broadcast_to(column, row_C.shape) for column in columns], axis=1).astype(np.float32)
    return Candidates(row_C=row_C, item_C=item_C, features_CF=features_CF)


def _views(known: Facts, own: OwnPast, queries: Queries) -> _Views:
    size, moments = len(known.events_V), len(queries.timestamp_B)
    told_B = queries.hour_of_week_B >= 0
    sort_B, hour_B = sort_of_day(queries.hour_of_week_B), np.where(told_B, queries.hour_of_week_B % HOURS, 0).astype(np.int64)
    clock_BV = known.clock_VSH[:, sort_B, hour_B].T * told_B[:, None]
    here = queries.latitude_B[:, None].astype(np.float64), queries.longitude_B[:, None].astype(np.float64)
    distance_BV = kilometres(*here, known.latitude_V, known.longitude_V)
    away_BV = np.log(np.nan_to_num(distance_BV, nan=_FAR_KM) + _NEAREST_KM)
    seasons_P = np.log1p(own.weight_KP[KERNELS.index("season")])
    liked_BV = sparse.csr_matrix((seasons_P, (own.row_P, own.item_P)), shape=(moments, size))
    after_B = np.flatnonzero(own.last_B >= 0)
    moves_BV = np.zeros((moments, size))
    moves_BV[after_B] = known.moves_VV[own.last_B[after_B]].toarray()
    return _Views(
        told_B=told_B,
        sort_B=sort_B,
        hour_B=hour_B,
        distance=distance_BV,
        clock=clock_BV,
        nearby=np.log(known.lately_V + 0.5) + clock_BV - _FADING * away_BV,
        likeness=(liked_BV @ known.likeness_VV).toarray(),
        moves=moves_BV,
    )


def _chosen(own: OwnPast, views: _Views, scores_BV: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    moments, size = scores_BV.shape
    rows, items = [own.row_P], [own.item_P]
    taken = (FIRST_RANKED, scores_BV), (NEARBY, views.nearby), (ALIKE, views.likeness), (FOLLOWING, views.moves)
    for many, worth_BV in taken:
        count = min(many, size)
        best_BK = np.argpartition(-worth_BV, count - 1, axis=1)[:, :count] if count else np.zeros((moments, 0), np.int64)
        rows.append(np.repeat(np.arange(moments), count))
        items.append(best_BK.ravel())
    pair_C = np.unique(np.concatenate(rows) * max(size, 1) + np.concatenate(items))
    return pair_C // max(size, 1), pair_C % max(size, 1)


def _found(own: OwnPast, row_C: np.ndarray, item_C: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each candidate stands in the own past, and whether it does."""
    if not len(own.row_P):
        return np.zeros(len(row_C), np.int64), np.zeros(len(row_C), bool)
    pair_P, pair_C = own.row_P * size + own.item_P, row_C * size + item_C
    place_C = np.minimum(np.searchsorted(pair_P, pair_C), len(pair_P) - 1)
    return place_C, pair_P[place_C] == pair_C


def _of_past(own: OwnPast, row_C: np.ndarray, pair_C: np.ndarray, is_own_C: np.ndarray) -> list[np.ndarray]:
    if not len(own.row_P):
        nothing = [np.zeros(len(row_C))] * (2 * len(KERNELS))
        return [*nothing, *[np.full(len(row_C), np.nan)] * len(OF_PAIR)]
    sum_KC = np.where(is_own_C, own.weight_KP[:, pair_C], 0.0)
    share_KC = sum_KC / (own.all_KB[:, row_C] + 1e-3)
    return [*share_KC, *sum_KC, *[np.where(is_own_C, own.of_pair_P[name][pair_C], np.nan) for name in OF_PAIR]]


def _of_items(
    known: Facts, own: OwnPast, views: _Views, queries: Queries, scores_BV: np.ndarray, row_C: np.ndarray, item_C: np.ndarray
) -> list[np.ndarray]:
    category_C = known.vocabulary.category_of_item_V[item_C]
    last_C = np.maximum(own.last_B, 0)[row_C]
    after_C = own.last_B[row_C] >= 0
    best_B = scores_BV.max(axis=1, initial=-np.inf)
    log_all_B = np.log(np.exp(scores_BV - best_B[:, None]).sum(axis=1))
    relative_C = scores_BV[row_C, item_C] - best_B[row_C]
    ever, season, now = (KERNELS.index(name) for name in ("ever", "season", "part_of_day"))
    likes_C, likes_now_C = (_likes(known, own, kernel, row_C, category_C, len(scores_BV)) for kernel in (season, now))
    around_C, around_now_C = _neighbourhood(known, own, (season, now), row_C, item_C)
    distinct_B = np.bincount(own.row_P, minlength=len(scores_BV))
    taken_B = own.all_KB[ever]
    likeness_C = views.likeness[row_C, item_C]
    return [
        item_C == np.where(after_C, last_C, -1),
        relative_C,
        relative_C - log_all_B[row_C],
        np.log(known.events_V[item_C] + 0.5),
        np.log(known.lately_V[item_C] + 0.1),
        known.users_V[item_C],
        known.events_V[item_C] / np.maximum(known.users_V[item_C], 1),
        views.clock[row_C, item_C],
        np.where(views.told_B[row_C], known.category_clock_CSH[category_C, views.sort_B[row_C], views.hour_B[row_C]], 0.0),
        np.log(views.distance[row_C, item_C] + 0.03),
        views.nearby[row_C, item_C],
        likeness_C,
        likeness_C / (views.likeness.max(axis=1, initial=0.0)[row_C] + 1e-6),
        views.moves[row_C, item_C],
        views.moves[row_C, item_C] / (known.leaving_V[last_C] + 5.0),
        np.where(after_C, known.category_moves_CC[known.vocabulary.category_of_item_V[last_C], category_C], 0.0),
        likes_C,
        likes_now_C,
        around_C,
        around_now_C,
        taken_B[row_C],
        np.log(own.gap_B)[row_C],
        np.where(views.told_B, queries.hour_of_week_B % HOURS, np.nan)[row_C],
        views.sort_B[row_C],
        distinct_B[row_C],
        (distinct_B / np.maximum(taken_B, 1))[row_C],
    ]


def _likes(known: Facts, own: OwnPast, kernel: int, row_C: np.ndarray, category_C: np.ndarray, moments: int) -> np.ndarray:
    """Log of how much more of the own past is of the candidate's category than of everybody's."""
    share = known.category_share_C
    place_T = own.row_T * len(share) + own.category_T
    liked = np.bincount(place_T, weights=own.weight_KT[kernel], minlength=moments * len(share)).reshape(moments, len(share))
    believed = (liked + _LIKED * share) / (liked.sum(axis=1, keepdims=True) + _LIKED)
    return np.log(believed[row_C, category_C] / share[category_C])


def _neighbourhood(
    known: Facts, own: OwnPast, kernels: tuple[int, int], row_C: np.ndarray, item_C: np.ndarray
) -> list[np.ndarray]:
    """How much of the own past lies around each candidate, itself left out: shares under each of the kernels."""
    moments = own.all_KB.shape[1]
    count_B = np.bincount(own.row_P, minlength=moments)
    first_B = np.concatenate(([0], np.cumsum(count_B)[:-1]))
    # Every candidate with every item of its moment's past.
    many_C = count_B[row_C]
    candidate_N = np.repeat(np.arange(len(row_C)), many_C)
    pair_N = first_B[row_C][candidate_N] + np.arange(len(candidate_N)) - np.repeat(np.cumsum(many_C) - many_C, many_C)
    item_N, other_N = item_C[candidate_N], own.item_P[pair_N]
    apart_N = kilometres(
        known.latitude_V[item_N], known.longitude_V[item_N], known.latitude_V[other_N], known.longitude_V[other_N]
    )
    near_N = np.where(item_N == other_N, 0.0, np.nan_to_num(np.exp(-apart_N / _NEIGHBOURHOOD_KM)))
    return [
        np.bincount(candidate_N, weights=near_N * own.weight_KP[kernel][pair_N], minlength=len(row_C))
        / (own.all_KB[kernel][row_C] + 1.0)
        for kernel in kernels
    ]
