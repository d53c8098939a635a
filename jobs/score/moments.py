"""The users of a batch, what is known of them, and the moments at which they are asked.

Shape suffixes: U users of a batch, S slots (`any` last), B = U x S moments, T some users, E events.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conf.contracts import AGAINST, ANY_SLOT, SLOTS
from jobs.score.reasons import ANY, NO_DATE, Past, Places

if TYPE_CHECKING:
    from jobs.score.lists import Catalogue, Scorer
    from models.histories import EventColumns
    from models.queries import Histories, Queries

ALL_SLOTS = (*SLOTS, ANY_SLOT)
EVENT_FIELDS = (
    "item_id", "category", "event_type", "event_timestamp", "local_timestamp", "slot", "latitude", "longitude",
)  # fmt: skip
# Whole days since a user's newest event; whoever is between two is asked as on the lower one, so that a list that nothing
# else changes holds for a while. Half an octave: the interest model's buckets of gaps are as wide.
ASKED_FROM = np.unique(np.array([0, *2.0 ** (np.arange(32) / 2)]).astype(np.int64))
_DAY_S = 86_400


def slot_hour(slot: str) -> float:
    """The middle of a slot in local hours since Monday 00:00.

    >>> slot_hour("weekday_morning"), slot_hour("weekday_night"), slot_hour("weekend_night")
    (57.0, 74.0, 146.0)
    """
    part_of_week, _, part_of_day = slot.partition("_")
    day = {"weekday": 2, "weekend": 5}[part_of_week]
    return day * 24.0 + {"night": 26.0, "morning": 9.0, "afternoon": 15.0, "evening": 20.0}[part_of_day]


def end_of(day: date) -> int:
    """Of a day in UTC, seconds since 1970."""
    return int(datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC).timestamp())


def asked_from(end: int, newest_B: np.ndarray) -> np.ndarray:
    """The ends of the days that moments are asked from: `end` itself, or earlier, by how long before it each newest event was.

    >>> [int(end - asked_from(end, np.array([end - 86_400 * days]))[0]) // 86_400 for end in [10**6] for days in (1, 3, 4, 7)]
    [0, 1, 0, 2]
    """
    idle_B = np.maximum(end - newest_B, 0) // _DAY_S
    return np.asarray(end - (idle_B - ASKED_FROM[np.searchsorted(ASKED_FROM, idle_B, side="right") - 1]) * _DAY_S)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When all are asked, in place of slots: seconds since 1970, None: as a night asks for `any`, hour hidden; and where.

    `offset` is by how many hours the clocks there are ahead of UTC; None: as the user's own were last.
    """

    timestamp: int | None = None
    latitude: float | None = None
    longitude: float | None = None
    offset: float | None = None


@dataclass(frozen=True, kw_only=True)
class Users:
    """One batch: the users' events in columns, user u's in rows first_U[u] .. stop_U[u] - 1."""

    columns: dict[str, pa.Array]
    events: EventColumns
    first_U: np.ndarray
    stop_U: np.ndarray
    kept_U: np.ndarray
    seen: list[np.ndarray] | None
    places: Places

    @staticmethod
    def read(batch: pa.RecordBatch, catalogue: Catalogue, scorer: Scorer) -> Users:
        from models.histories import Moments, event_columns, queries_before

        columns = {name: batch.column(name).flatten() for name in EVENT_FIELDS}
        vocabulary = catalogue.ranker.vocabulary
        events = event_columns(vocabulary, columns)
        length_U = pc.fill_null(pc.list_value_length(batch.column("item_id")), 0).to_numpy(zero_copy_only=False)
        stop_U = np.cumsum(length_U, dtype=np.int64)
        first_U = stop_U - length_U
        seen = _joined(
            None if scorer.repeats else places_of(batch.column("seen"), vocabulary.items),
            _disliked(columns, events.item_E, stop_U, scorer.targets),
            places_of(batch.column("unwanted"), vocabulary.items)
            if batch.column("unwanted").null_count < len(first_U)
            else None,
        )
        nowhere_U = np.zeros(len(first_U))
        last = queries_before(events, Moments(first_B=first_U, stop_B=stop_U, timestamp_B=nowhere_U, hour_of_week_B=nowhere_U))
        main = [_by_slot(batch.column(f"place_{axis}")) for axis in ("latitude", "longitude")]
        is_main_US = np.pad(~np.isnan(main[0]), ((0, 0), (0, 1)))
        latitude_U, longitude_U = last.latitude_B, last.longitude_B
        if scorer.moment is not None and scorer.moment.latitude is not None:
            latitude_U, longitude_U = (
                np.full(len(first_U), degrees) for degrees in (scorer.moment.latitude, scorer.moment.longitude)
            )
        return Users(
            columns=columns,
            events=events,
            first_U=first_U,
            stop_U=stop_U,
            kept_U=pc.fill_null(batch.column("kept"), 0).to_numpy(zero_copy_only=False),
            seen=seen,
            places=Places(
                latitude_US=np.where(is_main_US, np.pad(main[0], ((0, 0), (0, 1))), latitude_U[:, None]),
                longitude_US=np.where(is_main_US, np.pad(main[1], ((0, 0), (0, 1))), longitude_U[:, None]),
                is_main_US=is_main_US,
            ),
        )

    def moments(self, user_T: np.ndarray, scorer: Scorer) -> tuple[Histories, Queries]:
        """The histories of some users, and their queries: all slots of the first user, then of the next."""
        from models.histories import histories_from_events, local_hours
        from models.queries import Queries

        slots = np.arange(len(ALL_SLOTS)) if scorer.slots else np.array([ANY])
        user_B, slot_B = np.repeat(user_T, len(slots)), np.tile(slots, len(user_T))
        # No longer than needed: padding costs the encoder as much as events do.
        length = int(min(scorer.length, max(1, (self.stop_U - self.first_U)[user_T].max())))
        histories = histories_from_events(
            self.events,
            self.first_U[user_T],
            self.stop_U[user_T],
            length,
            None if self.seen is None else [self.seen[user] for user in user_T],
        )
        hour_B = np.array([*[slot_hour(slot) for slot in SLOTS], -1.0])[slot_B]
        timestamp_B = self._timestamps(user_B, hour_B, scorer)
        if scorer.moment is not None and scorer.moment.timestamp is not None:
            timestamp_B = np.full(len(user_B), scorer.moment.timestamp, dtype=np.int64)
            offset_B = self._offsets(user_B, scorer.moment.offset)
            hour_B = np.where(np.isnan(offset_B), -1.0, local_hours(timestamp_B, offset_B))
        return histories, Queries(
            timestamp_B=timestamp_B,
            hour_of_week_B=hour_B.astype(np.float32),
            latitude_B=self.places.latitude_US[user_B, slot_B].astype(np.float32),
            longitude_B=self.places.longitude_US[user_B, slot_B].astype(np.float32),
        )

    def _timestamps(self, user_B: np.ndarray, hour_B: np.ndarray, scorer: Scorer) -> np.ndarray:
        """When each moment is, seconds since 1970: the first such local hour after the day asked from; `any` as that ends."""
        from models.histories import local_hours

        some_B = self.stop_U[user_B] > self.first_U[user_B]
        newest_B = np.where(some_B, self._of_rows(self.events.timestamp_E, self.stop_U[user_B] - 1), 0)
        if not scorer.has_times:
            return newest_B + 1
        end_B = asked_from(end_of(scorer.day), newest_B)
        local_B = local_hours(end_B, np.nan_to_num(self._offsets(user_B)))
        ahead_B = np.where(hour_B < 0, 0.0, (hour_B - local_B) % 168.0)
        return end_B + np.round(ahead_B * 3600.0).astype(np.int64)

    def _offsets(self, user_B: np.ndarray, given: float | None = None) -> np.ndarray:
        """Hours by which the clocks of users were ahead of UTC at their newest event with one, or as given; else NaN."""
        from models.histories import clock_offsets

        if given is not None:
            return np.full(len(user_B), given)
        clocked_E = np.maximum.accumulate(np.where(self.events.hour_of_week_E >= 0, np.arange(len(self.events)), -1))
        row_B = self._of_rows(clocked_E, self.stop_U[user_B] - 1)
        known_B = (self.stop_U[user_B] > self.first_U[user_B]) & (row_B >= self.first_U[user_B])
        times_B, hours_B = (self._of_rows(values, row_B) for values in (self.events.timestamp_E, self.events.hour_of_week_E))
        return np.where(known_B, clock_offsets(times_B, hours_B), np.nan)

    def _of_rows(self, values_E: np.ndarray, row_B: np.ndarray) -> np.ndarray:
        """Of a row before the first, as if it were the first; of no events, zeros."""
        return values_E[np.maximum(row_B, 0)] if len(values_E) else np.zeros(len(row_B), values_E.dtype)

    def past(self, scorer: Scorer, catalogue: Catalogue) -> Past:
        """The target events, for the reasons."""
        from models.queries import FIRST

        type_E = _codes(self.columns["event_type"], scorer.targets)
        kept = np.flatnonzero(type_E >= 0)
        local = self.columns["local_timestamp"].cast(pa.timestamp("us")).cast(pa.date32()).cast(pa.int32())
        position = {name: place for place, name in enumerate(catalogue.names.categories)}
        return Past(
            user_E=np.repeat(np.arange(len(self.first_U)), self.stop_U - self.first_U)[kept],
            item_E=self.events.item_E[kept] - FIRST,
            category_E=_codes(self.columns["category"], tuple(position))[kept],
            slot_E=_codes(self.columns["slot"], SLOTS)[kept],
            type_E=type_E[kept],
            date_E=pc.fill_null(local, NO_DATE).to_numpy(zero_copy_only=False)[kept],
            latitude_E=self.events.latitude_E[kept].astype(np.float64),
            longitude_E=self.events.longitude_E[kept].astype(np.float64),
            kept_U=self.kept_U,
        )


def _disliked(
    columns: dict[str, pa.Array], item_E: np.ndarray, stop_U: np.ndarray, targets: tuple[str, ...]
) -> list[np.ndarray] | None:
    """Of each user the catalogue places of items that they were against and have not taken since; None: nobody was."""
    from models.histories import microseconds
    from models.queries import FIRST

    code_E = _codes(columns["event_type"], (*AGAINST, *targets))
    is_against_E = (code_E >= 0) & (code_E < len(AGAINST))
    if not is_against_E.any():
        return None
    told = np.flatnonzero((code_E >= 0) & (item_E >= FIRST))
    user_N, place_N = np.searchsorted(stop_U, told, side="right"), item_E[told].astype(np.int64) - FIRST
    # Of each pair the newest counts; what was done at the same moment is not since.
    time_N = microseconds(columns["event_timestamp"], len(code_E))[told]
    order = np.lexsort((is_against_E[told], time_N, place_N, user_N))
    is_last_N = np.append((np.diff(user_N[order]) != 0) | (np.diff(place_N[order]) != 0), len(order) > 0)[: len(order)]
    last = order[is_last_N]
    last = last[is_against_E[told[last]]]
    return np.split(place_N[last], np.searchsorted(user_N[last], np.arange(1, len(stop_U))))


def _joined(*some: list[np.ndarray] | None) -> list[np.ndarray] | None:
    """Of each user the places that any of the lists has; None: none has any."""
    given = [lists for lists in some if lists is not None]
    if len(given) < 2:
        return given[0] if given else None
    return [np.unique(np.concatenate(places)) for places in zip(*given, strict=True)]


def places_of(lists: pa.Array, items: tuple[str, ...]) -> list[np.ndarray]:
    """The catalogue places of each list of item ids; those that are not in the catalogue are left out."""
    from models.histories import name_indices
    from models.queries import FIRST

    ends = np.cumsum(pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False))
    place_T = name_indices(lists.flatten(), items) - FIRST
    return [part[part >= 0] for part in np.split(place_T, ends[:-1])]


def _by_slot(places: pa.Array) -> np.ndarray:
    """(U, slots) from lists of one value per slot; NaN where a user has none."""
    filled = pc.fill_null(places.flatten(), np.nan).to_numpy(zero_copy_only=False).reshape(-1, len(SLOTS))
    by_slot = np.full((len(places), len(SLOTS)), np.nan)
    by_slot[places.is_valid().to_numpy(zero_copy_only=False)] = filled
    return by_slot


def _codes(names: pa.Array, known: tuple[str, ...]) -> np.ndarray:
    """Position of each name in `known`; -1 where it is null or not there."""
    return pc.fill_null(pc.index_in(names, value_set=pa.array(known, pa.string())), -1).to_numpy(zero_copy_only=False)
