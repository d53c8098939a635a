"""What is known of the items of a catalogue from what everybody took: how often, lately, where, at which hours, what
follows on what, and what the same users take.

Shape suffixes: E events of many owners, V items, C categories, S sorts of day (weekday, weekend), H hours of the day.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from models.histories import EventColumns
from models.queries import FIRST, Vocabulary

SORTS, HOURS = 2, 24
_DAY = 86_400.0
_LATELY_DAYS = 30.0
# One event leads to the next where no more than half a day lies between.
_LEADS_ON_S = 12 * 3600
# Events that an item, a category, is believed to have at the hours of its kind, of all, before it has any of its own.
_ITEM_PRIOR, _CATEGORY_PRIOR = 10.0, 20.0
_HOUR_WIDTH = 1.2
_LIKENESS_PRIOR = 5.0


@dataclass(frozen=True, kw_only=True)
class Facts:
    """As of one moment. Logs are natural; positions NaN where no event of the item has any.

    `clock_VSH`, `category_clock_CSH`: log of how much likelier the item, the category, is at an hour than anything is.
    `moves_VV`: how often one item followed on another. `likeness_VV`: cosine of two items' users, shrunk.
    `category_moves_CC`: log of how much likelier a category is after another than ever.
    """

    vocabulary: Vocabulary
    events_V: np.ndarray
    lately_V: np.ndarray
    users_V: np.ndarray
    latitude_V: np.ndarray
    longitude_V: np.ndarray
    clock_VSH: np.ndarray
    category_clock_CSH: np.ndarray
    category_share_C: np.ndarray
    category_moves_CC: np.ndarray
    moves_VV: sparse.csr_matrix
    likeness_VV: sparse.csr_matrix

    @cached_property
    def leaving_V(self) -> np.ndarray:  # noqa: N802
        """How often another item followed on each."""
        return np.asarray(self.moves_VV.sum(axis=1)).ravel()


def facts(vocabulary: Vocabulary, events: EventColumns, first_E: np.ndarray, until: int) -> Facts:
    """Of target events of whole users, each user's together and in order; `first_E` is the row at which its user begins.

    until: the moment, seconds since 1970, to which what is lately is aged.
    """
    size, kinds = len(vocabulary.items), len(vocabulary.categories) + FIRST
    category_V = vocabulary.category_of_item_V
    known = np.flatnonzero(events.item_E >= FIRST)
    item_T, owner_T = events.item_E[known].astype(np.int64) - FIRST, first_E[known]
    age_T = np.maximum(until - events.timestamp_E[known], 0) / _DAY
    latitude_V, longitude_V = (_mean(item_T, values[known], size) for values in (events.latitude_E, events.longitude_E))
    clock_VSH, category_clock_CSH = _clocks(item_T, events.hour_of_week_E[known], category_V, kinds)
    before_T = np.concatenate(([-1], item_T[:-1]))
    leads = (np.diff(owner_T, prepend=-1) == 0) & (np.diff(events.timestamp_E[known], prepend=0) <= _LEADS_ON_S)
    leads &= (before_T >= 0) & (before_T != item_T)
    share_C = np.bincount(category_V[item_T], minlength=kinds) + 1.0
    share_C /= share_C.sum()
    taken_UV = _taken(item_T, owner_T, size)
    return Facts(
        vocabulary=vocabulary,
        events_V=np.bincount(item_T, minlength=size).astype(np.float64),
        lately_V=np.bincount(item_T, weights=np.exp(-age_T / _LATELY_DAYS), minlength=size),
        users_V=np.asarray(taken_UV.sum(axis=0)).ravel(),
        latitude_V=latitude_V,
        longitude_V=longitude_V,
        clock_VSH=clock_VSH,
        category_clock_CSH=category_clock_CSH,
        category_share_C=share_C,
        category_moves_CC=_category_moves(category_V[before_T[leads]], category_V[item_T[leads]], share_C),
        moves_VV=sparse.csr_matrix((np.ones(leads.sum()), (before_T[leads], item_T[leads])), shape=(size, size)),
        likeness_VV=_likeness(taken_UV),
    )


def sort_of_day(hour_of_week: np.ndarray) -> np.ndarray:
    """0 on weekdays, 1 at the weekend; 0 where the hour is hidden."""
    return (hour_of_week >= 120.0).astype(np.int64)


def _mean(item_T: np.ndarray, values_T: np.ndarray, size: int) -> np.ndarray:
    told = np.isfinite(values_T)
    count_V = np.bincount(item_T[told], minlength=size)
    with np.errstate(invalid="ignore"):
        return np.bincount(item_T[told], weights=values_T[told], minlength=size) / np.where(count_V, count_V, np.nan)


def _clocks(item_T: np.ndarray, hour_T: np.ndarray, category_V: np.ndarray, kinds: int) -> tuple[np.ndarray, np.ndarray]:
    told = hour_T >= 0
    item_T, sort_T, hour_T = item_T[told], sort_of_day(hour_T[told]), (hour_T[told] % HOURS).astype(np.int64)
    item_VSH = np.zeros((len(category_V), SORTS, HOURS))
    np.add.at(item_VSH, (item_T, sort_T, hour_T), 1.0)
    item_VSH = _smooth(item_VSH)
    category_CSH = np.zeros((kinds, SORTS, HOURS))
    np.add.at(category_CSH, category_V, item_VSH)
    all_SH = item_VSH.sum(axis=0) + 1.0 / (SORTS * HOURS)
    all_SH /= all_SH.sum()
    category_CSH = _believed(category_CSH, all_SH, _CATEGORY_PRIOR)
    return np.log(_believed(item_VSH, category_CSH[category_V], _ITEM_PRIOR) / all_SH), np.log(category_CSH / all_SH)


def _believed(counts_NSH: np.ndarray, prior: np.ndarray, weight: float) -> np.ndarray:
    return (counts_NSH + weight * prior) / (counts_NSH.sum(axis=(1, 2), keepdims=True) + weight)


def _smooth(counts_NSH: np.ndarray) -> np.ndarray:
    """Each hour's counts spread over those beside it, round the clock."""
    apart_H = np.minimum(np.arange(HOURS), HOURS - np.arange(HOURS))
    kernel_H = np.exp(-0.5 * (apart_H / _HOUR_WIDTH) ** 2)
    turned_HH = (kernel_H / kernel_H.sum())[(np.arange(HOURS)[:, None] - np.arange(HOURS)) % HOURS]
    return counts_NSH @ turned_HH


def _category_moves(before_T: np.ndarray, after_T: np.ndarray, share_C: np.ndarray) -> np.ndarray:
    moves_CC = np.zeros((len(share_C), len(share_C)))
    np.add.at(moves_CC, (before_T, after_T), 1.0)
    believed_CC = (moves_CC + _CATEGORY_PRIOR * share_C) / (moves_CC.sum(axis=1, keepdims=True) + _CATEGORY_PRIOR)
    return np.log(believed_CC / share_C)


def _taken(item_T: np.ndarray, owner_T: np.ndarray, size: int) -> sparse.csr_matrix:
    owner_T = np.unique(owner_T, return_inverse=True)[1]
    taken_UV = sparse.csr_matrix((np.ones(len(item_T)), (owner_T, item_T)), shape=(owner_T.max(initial=-1) + 1, size))
    taken_UV.data[:] = 1.0
    return taken_UV


def _likeness(taken_UV: sparse.csr_matrix) -> sparse.csr_matrix:
    both_VV = (taken_UV.T @ taken_UV).tocoo()
    users_V = np.asarray(taken_UV.sum(axis=0)).ravel() + _LIKENESS_PRIOR
    other = both_VV.row != both_VV.col
    row, column = both_VV.row[other], both_VV.col[other]
    return sparse.csr_matrix(
        (both_VV.data[other] / np.sqrt(users_V[row] * users_V[column]), (row, column)), shape=both_VV.shape
    )
