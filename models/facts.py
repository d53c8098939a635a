"""What is known of the items of a catalogue from what everybody took: how often, lately, where, at which hours, what
follows on what, and what the same users take.

All of it is made of `Tallies`: whole numbers that are added up over users in any order, so that equal logs give equal facts.
Shape suffixes: E events of many owners, V items, C categories, S sorts of day (weekday, weekend), H hours of the day,
N numbers of a kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from models.histories import EventColumns
from models.queries import FIRST, PADDING, WEEKEND, Histories, Vocabulary

SORTS, HOURS = 2, 24
# Kinds of tallies: a number each of an item (and what else is said).
AT_HOUR, LATELY, USERS, PLACED, NORTH, EAST, MOVES, CATEGORY_MOVES, BOTH = KINDS = (
    "at_hour",  # events in an hour of a sort of day; HIDDEN where it is not known
    "lately",  # events, each the less the older it is, in millionths
    "users",
    "placed",  # events with a position, and sums of these in microdegrees
    "north",
    "east",
    "moves",  # how often the second item followed on the first
    "category_moves",  # the same of categories
    "both",  # users who took both items
)
# Of each item so many of the most frequent.
MOST = {MOVES: 50, BOTH: 100}
HIDDEN = SORTS * HOURS
_MICRO = 1_000_000
# Of each user so many of the newest items are taken together.
_TOGETHER = 100
_DAY = 86_400.0
_LATELY_DAYS = 30.0
# One event leads to the next where no more than half a day lies between.
_LEADS_ON_S = 12 * 3600
# Events that an item, a category, is believed to have at the hours of its kind, of all, before it has any of its own.
_ITEM_PRIOR, _CATEGORY_PRIOR = 10.0, 20.0
_HOUR_WIDTH = 1.2
_LIKENESS_PRIOR = 5.0
# Of a kind: what of, and what besides, catalogue places (categories: indices), int64; the number, int64. Each pair once.
Tally = tuple[np.ndarray, np.ndarray, np.ndarray]
Tallies = Mapping[str, Tally]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """As of one moment. Logs are natural; positions NaN where no event of the item has any.

    `target_types`: the event types that count. `clock_VSH`, `category_clock_CSH`: log of how much likelier the item, the
    category, is at an hour than anything is. `moves_VV`: how often one item followed on another. `likeness_VV`: cosine of two
    items' users, shrunk. `category_moves_CC`: log of how much likelier a category is after another than ever.
    """

    vocabulary: Vocabulary
    target_types: tuple[str, ...]
    tallies: Tallies
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

    def taken(self, histories: Histories) -> np.ndarray:
        """The items of events that count, (B, L); padding in the place of all others."""
        index = self.vocabulary.event_type_index
        counted = np.array([index[name] for name in self.target_types if name in index], dtype=np.int32)
        taken_BL: np.ndarray = np.where(np.isin(histories.event_type_BL, counted), histories.item_BL, PADDING)
        return taken_BL


def tallied(vocabulary: Vocabulary, events: EventColumns, first_E: np.ndarray, until: int) -> Tallies:
    """Of target events of whole users, each user's together and in order; `first_E` is the row at which its user begins.

    until: the moment, seconds since 1970, to which what is lately is aged.
    """
    category_V = vocabulary.category_of_item_V.astype(np.int64)
    known = np.flatnonzero(events.item_E >= FIRST)
    item_T, owner_T = events.item_E[known].astype(np.int64) - FIRST, first_E[known]
    time_T = events.timestamp_E[known]
    hour_T = events.hour_of_week_E[known]
    at_T = np.where(hour_T >= 0, sort_of_day(hour_T) * HOURS + (hour_T % HOURS).astype(np.int64), HIDDEN)
    lately_T = np.round(np.exp(-np.maximum(until - time_T, 0) / _DAY / _LATELY_DAYS) * _MICRO).astype(np.int64)
    latitude_T, longitude_T = events.latitude_E[known].astype(np.float64), events.longitude_E[known].astype(np.float64)
    placed = np.flatnonzero(np.isfinite(latitude_T) & np.isfinite(longitude_T))
    north, east = (np.round(values_T[placed] * _MICRO).astype(np.int64) for values_T in (latitude_T, longitude_T))
    before_T = np.concatenate(([-1], item_T[:-1]))
    leads = (np.diff(owner_T, prepend=-1) == 0) & (np.diff(time_T, prepend=0) <= _LEADS_ON_S)
    leads &= (before_T >= 0) & (before_T != item_T)
    before_T, after_T = before_T[leads], item_T[leads]
    taken, together = _taken(item_T, owner_T)
    none_T = np.zeros(len(item_T), np.int64)
    return {
        AT_HOUR: _summed(item_T, at_T),
        LATELY: _summed(item_T, none_T, lately_T),
        USERS: _summed(taken, np.zeros(len(taken), np.int64)),
        PLACED: _summed(item_T[placed], none_T[placed]),
        NORTH: _summed(item_T[placed], none_T[placed], north),
        EAST: _summed(item_T[placed], none_T[placed], east),
        MOVES: _summed(before_T, after_T),
        CATEGORY_MOVES: _summed(category_V[before_T], category_V[after_T]),
        BOTH: _summed(*together),
    }


def added(parts: Iterable[Tallies]) -> Tallies:
    """The tallies of disjoint users together."""
    given = list(parts)
    return {
        kind: _summed(*(np.concatenate([np.zeros(0, np.int64), *(part[kind][at] for part in given)]) for at in range(3)))
        for kind in KINDS
    }


def _summed(of_N: np.ndarray, and_N: np.ndarray, number_N: np.ndarray | None = None) -> Tally:
    """Each pair once, in order."""
    number_N = np.ones(len(of_N), np.int64) if number_N is None else number_N
    order = np.lexsort((and_N, of_N))
    of_N, and_N, number_N = of_N[order], and_N[order], number_N[order]
    begins = np.flatnonzero((np.diff(of_N, prepend=-1) != 0) | (np.diff(and_N, prepend=-1) != 0))
    number = np.add.reduceat(number_N, begins) if len(begins) else number_N
    return of_N[begins], and_N[begins], number


def _taken(item_T: np.ndarray, owner_T: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The items of each owner, and the pairs of its newest, each once."""
    size = int(item_T.max(initial=-1)) + 1
    pair_T = owner_T * size + item_T
    # The last place of each, to tell the newest.
    newest_P, place_P = np.unique(pair_T[::-1], return_index=True)
    order = np.lexsort((place_P, newest_P // max(size, 1)))
    item_P, owner_P = newest_P[order] % max(size, 1), newest_P[order] // max(size, 1)
    begins = np.flatnonzero(np.diff(owner_P, prepend=-1) != 0)
    count = np.diff(np.append(begins, len(owner_P)))
    kept = np.minimum(count, _TOGETHER)
    # Every one of the kept with every one of the same owner.
    many_P = np.repeat(kept, kept)
    mine_P = np.repeat(begins, kept) + _counting(kept)
    one = np.repeat(mine_P, many_P)
    other = np.repeat(np.repeat(begins, kept), many_P) + _counting(many_P)
    apart = one != other
    return item_P, (item_P[one[apart]], item_P[other[apart]])


def _counting(size_G: np.ndarray) -> np.ndarray:
    """0, 1, ... within each group."""
    return np.arange(size_G.sum()) - np.repeat(np.cumsum(size_G) - size_G, size_G)


def facts(vocabulary: Vocabulary, target_types: tuple[str, ...], tallies: Tallies) -> Facts:
    """Of the tallies of all users."""
    size, kinds = len(vocabulary.items), len(vocabulary.categories) + FIRST
    kept = {kind: _most(tally, MOST[kind]) if kind in MOST else tally for kind, tally in tallies.items()}
    category_V = vocabulary.category_of_item_V

    def of_item(kind: str) -> np.ndarray:
        return np.bincount(kept[kind][0], weights=kept[kind][2], minlength=size)

    events_V, placed_V = of_item(AT_HOUR), of_item(PLACED)
    share_C = np.bincount(category_V, weights=events_V, minlength=kinds) + 1.0
    share_C /= share_C.sum()
    clock_VSH, category_clock_CSH = _clocks(kept[AT_HOUR], category_V, kinds)
    with np.errstate(invalid="ignore"):
        latitude_V, longitude_V = (of_item(kind) / _MICRO / np.where(placed_V, placed_V, np.nan) for kind in (NORTH, EAST))
    users_V = of_item(USERS)
    before, after, times = kept[MOVES]
    return Facts(
        vocabulary=vocabulary,
        target_types=target_types,
        tallies=kept,
        events_V=events_V,
        lately_V=of_item(LATELY) / _MICRO,
        users_V=users_V,
        latitude_V=latitude_V,
        longitude_V=longitude_V,
        clock_VSH=clock_VSH,
        category_clock_CSH=category_clock_CSH,
        category_share_C=share_C,
        category_moves_CC=_category_moves(kept[CATEGORY_MOVES], share_C),
        moves_VV=sparse.csr_matrix((times.astype(np.float64), (before, after)), shape=(size, size)),
        likeness_VV=_likeness(kept[BOTH], users_V),
    )


def _most(tally: Tally, most: int) -> Tally:
    """Of each the most frequent, ties by place."""
    of_N, and_N, number_N = tally
    order = np.lexsort((and_N, -number_N, of_N))
    begins = np.flatnonzero(np.diff(of_N[order], prepend=-1) != 0)
    place = _counting(np.diff(np.append(begins, len(of_N))))
    kept = np.sort(order[place < most])
    return of_N[kept], and_N[kept], number_N[kept]


def sort_of_day(hour_of_week: np.ndarray) -> np.ndarray:
    """0 on weekdays, 1 at the weekend; 0 where the hour is hidden."""
    return (hour_of_week >= WEEKEND).astype(np.int64)


def _clocks(at_hour: Tally, category_V: np.ndarray, kinds: int) -> tuple[np.ndarray, np.ndarray]:
    item_N, hour_N, number_N = at_hour
    told = hour_N != HIDDEN
    item_VSH = np.zeros((len(category_V), SORTS * HOURS))
    item_VSH[item_N[told], hour_N[told]] = number_N[told]
    item_VSH = _smooth(item_VSH.reshape(-1, SORTS, HOURS))
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


def _category_moves(moves: Tally, share_C: np.ndarray) -> np.ndarray:
    moves_CC = np.zeros((len(share_C), len(share_C)))
    moves_CC[moves[0], moves[1]] = moves[2]
    believed_CC = (moves_CC + _CATEGORY_PRIOR * share_C) / (moves_CC.sum(axis=1, keepdims=True) + _CATEGORY_PRIOR)
    return np.log(believed_CC / share_C)


def _likeness(both: Tally, users_V: np.ndarray) -> sparse.csr_matrix:
    one_N, other_N, number_N = both
    believed_V = users_V + _LIKENESS_PRIOR
    likeness_N = number_N / np.sqrt(believed_V[one_N] * believed_V[other_N])
    return sparse.csr_matrix((likeness_N, (one_N, other_N)), shape=(len(users_V), len(users_V)))
