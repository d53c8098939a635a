"""Asks a ranker about past moments as it would have been asked then: nothing later, nothing of the answer.

A log holds, of many users, what is known (events, and items taken at unknown times) and what is asked
(target events). A moment is told the user's events with an earlier timestamp, its own time by
the local clock last known before it, and the place last known before it. Of the target event itself only the user
and the time are read; its item is compared with the ranking afterwards.

Shape suffixes: E events, Q moments asked about, T items taken, B moments of a batch, L events of a history, V items.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from models import metrics
from models.histories import (
    EventColumns,
    clock_offsets,
    event_columns,
    histories_of_rows,
    local_hours,
    microseconds,
    name_indices,
)
from models.queries import FIRST, Histories, Queries, Ranker

TRAJECTORY_GAP_US = 24 * 3600 * 1_000_000
_SCORES_AT_ONCE = 8_000_000
_MOMENTS_AT_ONCE = 512
TAKEN, LAKE, NEW, ASKED = 0, 1, 2, 3
COLUMNS = (
    "user_id", "origin", "row", "event_timestamp", "event_id", "item_id", "event_type", "category",
    "local_timestamp", "latitude", "longitude", "region", "groups",
)  # fmt: skip
# The newest events of a user whose categories say what the user likes.
_RECENT = 50


@dataclass(frozen=True, kw_only=True)
class Options:
    """How moments are asked.

    length: events of history at most. target_types: what counts as taken. worth: what an event of a type
    weighs, where that is not 1. repeats: False leaves out what the user has taken before. hide_time: ask
    with the time of the user's last event, or none. freeze_history: of the new events tell only the
    current trajectory.
    """

    length: int
    target_types: tuple[str, ...]
    worth: Mapping[str, float] = field(default_factory=dict)
    repeats: bool = True
    hide_time: bool = False
    freeze_history: bool = False

    def worth_of(self, event_types: pa.ChunkedArray) -> np.ndarray:
        """What events of these types weigh, float64."""
        distinct, code_N = _codes(event_types)
        return np.array([*[self.worth.get(name, 1.0) for name in distinct], 1.0])[code_N]


@dataclass(frozen=True, kw_only=True)
class Log:
    """The users of `users`, by their position there: their events, the moments asked about, what they took before."""

    users: np.ndarray  # object
    columns: Mapping[str, pa.Array]
    user_E: np.ndarray  # int64
    microseconds_E: np.ndarray  # int64
    is_new_E: np.ndarray  # bool
    user_Q: np.ndarray  # int64
    microseconds_Q: np.ndarray  # int64
    item_Q: pa.Array
    event_type_Q: pa.ChunkedArray
    row_Q: np.ndarray  # int64
    groups_Q: pa.Array  # map of string to string
    user_T: np.ndarray  # int64
    item_T: pa.Array


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Rank of each target (0: not in the catalogue), items ranked for it, and the best of them, -1 padded.

    `recent_QN`: category indices of the user's newest events, 0 pads; without columns where no best items are asked for.
    """

    target_Q: np.ndarray  # int64, catalogue position, -1: outside
    rank_Q: np.ndarray  # int64
    candidates_Q: np.ndarray  # int64
    best_QK: np.ndarray  # int64, catalogue positions
    recent_QN: np.ndarray  # int32


def read_log(rows: pa.Table) -> Log:
    """A log from rows of `COLUMNS`, users together, each by (event_timestamp, event_id, origin).

    `origin` is TAKEN (an item taken at an unknown time: no other column is read), LAKE, NEW, or ASKED (it asks, and tells
    nothing); `row` names the moment that the row asks about, null where it asks nothing. A row that has the event id
    of the row before it is no event of its own: it may ask, and the event enters the history once.
    """
    names, user_R = _codes(rows.column("user_id"))
    _, event_R = _codes(rows.column("event_id"))
    origin_R = rows.column("origin").to_numpy()
    asked_R = rows.column("row").is_valid().to_numpy()
    times_R = microseconds(rows.column("event_timestamp"), len(rows))
    next_user, next_time = user_R[1:] > user_R[:-1], times_R[1:] >= times_R[:-1]
    assert np.all(next_user | ((user_R[1:] == user_R[:-1]) & next_time)), "rows out of order"
    again_R = np.zeros(len(rows), dtype=bool)
    again_R[1:] = ~next_user & (times_R[1:] == times_R[:-1]) & (event_R[1:] == event_R[:-1])
    is_event_R = np.isin(origin_R, (LAKE, NEW)) & ~again_R
    events, asked, taken = (np.flatnonzero(some) for some in (is_event_R, asked_R, origin_R == TAKEN))
    names_of_events = (
        "item_id", "event_type", "category", "event_timestamp", "local_timestamp", "latitude", "longitude", "region",
    )  # fmt: skip
    item_R = rows.column("item_id")
    return Log(
        users=names,
        columns={name: rows.column(name).take(events) for name in names_of_events},
        user_E=user_R[events],
        microseconds_E=times_R[events],
        is_new_E=origin_R[events] == NEW,
        user_Q=user_R[asked],
        microseconds_Q=times_R[asked],
        item_Q=item_R.take(asked),
        event_type_Q=rows.column("event_type").take(asked),
        row_Q=rows.column("row").take(asked).to_numpy().astype(np.int64),
        groups_Q=rows.column("groups").take(asked),
        user_T=user_R[taken],
        item_T=item_R.take(taken),
    )


def _codes(names: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct names in their order of appearance, and the code of each row; -1 for null."""
    encoded = names.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks() if encoded.num_chunks != 1 else encoded.chunk(0)
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return encoded.dictionary.to_numpy(zero_copy_only=False), codes


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What each moment may see: its user's events `start .. stop - 1`, and of those before `start` the lake's.

    `lake_E` lists the rows that are the lake's; `lake_first_Q .. lake_stop_Q - 1` are a moment's part of it.
    Without `freeze_history` all lies in `start .. stop - 1`.
    """

    start_Q: np.ndarray
    stop_Q: np.ndarray
    lake_E: np.ndarray
    lake_first_Q: np.ndarray
    lake_stop_Q: np.ndarray

    def rows(self, chosen: slice, length: int) -> np.ndarray:
        """The last `length` rows that each chosen moment sees, oldest first, -1 in front, (B, L)."""
        back_L = np.arange(length - 1, -1, -1)
        tail_B = (self.stop_Q - self.start_Q)[chosen, None]
        recent_BL = self.stop_Q[chosen, None] - 1 - back_L
        place_BL = self.lake_stop_Q[chosen, None] - 1 - (back_L - tail_B)
        is_lake_BL = (back_L >= tail_B) & (place_BL >= self.lake_first_Q[chosen, None])
        lake_BL = self.lake_E[np.where(is_lake_BL, place_BL, 0)] if len(self.lake_E) else np.zeros_like(place_BL)
        return np.where(back_L < tail_B, recent_BL, np.where(is_lake_BL, lake_BL, -1))

    def newest(self, counts_E: np.ndarray | None = None) -> np.ndarray:
        """The newest row that each moment sees (of those that count), -1 where it sees none, (Q,)."""
        counts_E = np.ones(self._size(), dtype=bool) if counts_E is None else counts_E
        if len(counts_E) == 0:
            return np.full(len(self.stop_Q), -1)
        newest_E = np.maximum.accumulate(np.where(counts_E, np.arange(len(counts_E)), -1))
        recent_Q = newest_E[np.maximum(self.stop_Q - 1, 0)]
        found_Q = np.where((self.stop_Q > self.start_Q) & (recent_Q >= self.start_Q), recent_Q, -1)
        if len(self.lake_E):
            places = np.maximum.accumulate(np.where(counts_E[self.lake_E], np.arange(len(self.lake_E)), -1))
            place_Q = places[np.maximum(self.lake_stop_Q - 1, 0)]
            has_Q = (self.lake_stop_Q > self.lake_first_Q) & (place_Q >= self.lake_first_Q)
            found_Q = np.where((found_Q < 0) & has_Q, self.lake_E[np.maximum(place_Q, 0)], found_Q)
        return found_Q

    def _size(self) -> int:
        return int(max(self.stop_Q.max(initial=0), self.lake_E.max(initial=-1) + 1))


def sight(log: Log, freeze_history: bool) -> Sight:
    """What each moment may see: events of its user with an earlier timestamp; frozen, of the new ones the trajectory's.

    A trajectory ends where more than 24 hours lie between two events, or between the last and the moment.
    """
    events, asked = len(log.user_E), len(log.user_Q)
    # A moment sorts before events of its own time: these are not known yet.
    is_event = np.concatenate((np.ones(events, dtype=np.int64), np.zeros(asked, dtype=np.int64)))
    order = np.lexsort(
        (is_event, np.concatenate((log.microseconds_E, log.microseconds_Q)), np.concatenate((log.user_E, log.user_Q)))
    )
    before = np.empty(events + asked, dtype=np.int64)
    before[order] = np.cumsum(is_event[order])
    stop_Q = before[events:]
    first_Q = np.searchsorted(log.user_E, log.user_Q, side="left")
    lake_E = np.flatnonzero(~log.is_new_E)
    start_Q = first_Q
    if freeze_history and events:
        breaks_E = np.ones(events, dtype=bool)
        breaks_E[1:] = (np.diff(log.user_E) != 0) | (np.diff(log.microseconds_E) > TRAJECTORY_GAP_US)
        began_E = np.maximum.accumulate(np.where(breaks_E, np.arange(events), 0))
        last_Q = np.maximum(stop_Q - 1, 0)
        goes_on_Q = (stop_Q > first_Q) & (log.microseconds_Q - log.microseconds_E[last_Q] <= TRAJECTORY_GAP_US)
        start_Q = np.where(goes_on_Q, began_E[last_Q], stop_Q)
    lake_before = np.concatenate(([0], np.cumsum(~log.is_new_E)))
    return Sight(
        start_Q=start_Q, stop_Q=stop_Q, lake_E=lake_E, lake_first_Q=lake_before[first_Q], lake_stop_Q=lake_before[start_Q]
    )


def queries(log: Log, seen: Sight, events: EventColumns, hide_time: bool) -> Queries:
    """What the moments are asked with: their time, and place and clock as known from what was seen before."""
    placed_Q = seen.newest(~(np.isnan(events.latitude_E) | np.isnan(events.longitude_E)))
    if hide_time:
        newest_Q = seen.newest()
        timestamp_Q, hour_Q = _picked(events.timestamp_E, newest_Q, 0), _picked(events.hour_of_week_E, newest_Q, -1.0)
    else:
        timestamp_Q = log.microseconds_Q // 1_000_000
        clocked_Q = seen.newest(events.hour_of_week_E >= 0)
        offset_Q = clock_offsets(_picked(events.timestamp_E, clocked_Q, 0), _picked(events.hour_of_week_E, clocked_Q, 0.0))
        hour_Q = np.where(clocked_Q >= 0, local_hours(timestamp_Q, offset_Q), np.float32(-1.0))
    return Queries(
        timestamp_B=timestamp_Q,
        hour_of_week_B=hour_Q,
        latitude_B=_picked(events.latitude_E, placed_Q, np.nan),
        longitude_B=_picked(events.longitude_E, placed_Q, np.nan),
    )


def _picked(values_E: np.ndarray, row_Q: np.ndarray, absent: float) -> np.ndarray:
    """The values of the rows; `absent` where the row is -1."""
    if len(values_E) == 0:
        return np.full(len(row_Q), absent, dtype=values_E.dtype)
    return np.where(row_Q >= 0, values_E[np.maximum(row_Q, 0)], np.asarray(absent, dtype=values_E.dtype))


def answers(log: Log, ranker: Ranker, options: Options, k: int = 0) -> Answers:
    """The rank of every target of the log, in the order of `log.row_Q`, and its k best items.

    Memory is bounded by a batch: some 8 million scores, 512 histories.
    """
    from models.top_k import top_k

    size, asked = len(ranker.vocabulary.items), len(log.user_Q)
    width = min(k, size)
    target_Q = name_indices(log.item_Q, ranker.vocabulary.items) - FIRST
    found = Answers(
        target_Q=target_Q,
        rank_Q=np.zeros(asked, dtype=np.int64),
        candidates_Q=np.zeros(asked, dtype=np.int64),
        best_QK=np.full((asked, width), -1, dtype=np.int64),
        recent_QN=np.zeros((asked, _RECENT if width else 0), dtype=np.int32),
    )
    for chosen, histories, moments in batches(log, ranker, options):
        scores_BV = ranker.scores(histories, moments)
        assert not np.isnan(scores_BV).any(), f"{ranker.method} scored an item NaN"
        left_out = histories.seen
        found.rank_Q[chosen] = metrics.ranks(scores_BV, target_Q[chosen], left_out)
        found.candidates_Q[chosen] = size - np.array([len(items) for items in left_out]) if left_out is not None else size
        if width:
            found.best_QK[chosen] = top_k(scores_BV, k, seen=left_out)[0]
            newest = histories.category_BL[:, -_RECENT:]
            found.recent_QN[chosen, _RECENT - newest.shape[1] :] = newest
    return found


def batches(log: Log, ranker: Ranker, options: Options) -> Iterator[tuple[slice, Histories, Queries]]:
    """Batches of the moments, in the order of `log.row_Q`, as the ranker is asked."""
    seen = sight(log, options.freeze_history)
    events = event_columns(ranker.vocabulary, log.columns)
    asked = queries(log, seen, events, options.hide_time)
    taken = None if options.repeats else _Taken(log, seen, events, ranker, options)
    length = min(options.length, getattr(ranker, "window", options.length))
    at_once = max(1, min(_MOMENTS_AT_ONCE, _SCORES_AT_ONCE // max(len(ranker.vocabulary.items), 1)))
    for start in range(0, len(log.user_Q), at_once):
        chosen = slice(start, min(start + at_once, len(log.user_Q)))
        left_out = None if taken is None else [taken.before(moment) for moment in range(chosen.start, chosen.stop)]
        histories = histories_of_rows(events, seen.rows(chosen, length), left_out)
        yield (
            chosen,
            histories,
            Queries(
                timestamp_B=asked.timestamp_B[chosen],
                hour_of_week_B=asked.hour_of_week_B[chosen],
                latitude_B=asked.latitude_B[chosen],
                longitude_B=asked.longitude_B[chosen],
            ),
        )


class _Taken:
    """What each moment's user had taken by then, as sorted catalogue positions."""

    def __init__(self, log: Log, seen: Sight, events: EventColumns, ranker: Ranker, options: Options) -> None:
        is_target_E = np.isin(log.columns["event_type"].to_numpy(zero_copy_only=False), options.target_types)
        self.seen = seen
        self.user_Q, self.user_T = log.user_Q, log.user_T
        self.item_E = np.where(is_target_E, events.item_E - FIRST, -1)
        self.item_T = name_indices(log.item_T, ranker.vocabulary.items) - FIRST

    def before(self, moment: int) -> np.ndarray:
        seen, user = self.seen, self.user_Q[moment]
        known = self.item_T[np.searchsorted(self.user_T, user, "left") : np.searchsorted(self.user_T, user, "right")]
        recent = self.item_E[seen.start_Q[moment] : seen.stop_Q[moment]]
        lake = self.item_E[seen.lake_E[seen.lake_first_Q[moment] : seen.lake_stop_Q[moment]]]
        items = np.unique(np.concatenate((known, recent, lake)))
        return items[items >= 0]
