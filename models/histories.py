"""From events in columns to what a ranking reads: the histories and queries of many moments at once.

Training, evaluation, bulk scoring and single lists all build their examples here, so that they
cannot differ. Shape suffixes: E events of many owners, B moments, L events of a history.

    events = event_columns(vocabulary, {"item_id": ..., "category": ..., ...})   # by (owner, timestamp, event_id)
    first_E = first_of_owner(user_id_E)
    stop_E = stop_before(first_E, events.timestamp_E)     # history of event e: rows first_E[e] .. stop_E[e] - 1
    histories = histories_from_events(events, first_E[chosen], stop_E[chosen], length)
    queries = queries_before(events, Moments(first_B=first_E[chosen], stop_B=stop_E[chosen], ...))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.queries import FIRST, HOURS_PER_WEEK, PADDING, UNKNOWN, Histories, Queries, Vocabulary

_MONDAY = 3 * 24.0  # 1970-01-01 was a Thursday: 72 hours into its week


@dataclass(frozen=True, kw_only=True)
class EventColumns:
    """Events of many owners; an owner's events lie together, oldest first by (timestamp, event id).

    Units and absent values are those of `Histories`.
    """

    item_E: np.ndarray  # int32
    category_E: np.ndarray  # int32
    event_type_E: np.ndarray  # int32
    timestamp_E: np.ndarray  # int64
    hour_of_week_E: np.ndarray  # float32
    latitude_E: np.ndarray  # float32
    longitude_E: np.ndarray  # float32

    def __len__(self) -> int:
        return len(self.item_E)


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Moments asked about: the rows `first_B .. stop_B - 1` of the events came before; when it is asked.

    `hour_of_week_B` is local, -1 = hidden. Left out, it follows from the time and the clock of the
    newest row before: the clock at the place of the event to be predicted would tell of the place.
    """

    first_B: np.ndarray  # int64
    stop_B: np.ndarray  # int64
    timestamp_B: np.ndarray  # int64, seconds since 1970 UTC
    hour_of_week_B: np.ndarray | None = None  # float32


def event_columns(vocabulary: Vocabulary, columns: Mapping[str, Any]) -> EventColumns:
    """Events by the names of the lake (table `events`, or the structs of `user_sequences`), as indices and numbers.

    Reads `item_id, category, event_type, event_timestamp, local_timestamp, latitude, longitude`: arrays
    of Arrow, or anything Arrow makes arrays of. Timestamps are Arrow timestamps or microseconds.
    """
    count = len(columns["item_id"])
    return EventColumns(
        item_E=name_indices(columns["item_id"], vocabulary.items),
        category_E=name_indices(columns["category"], vocabulary.categories),
        event_type_E=name_indices(columns["event_type"], vocabulary.event_types),
        timestamp_E=microseconds(columns["event_timestamp"], count) // 1_000_000,
        hour_of_week_E=hours_of_week(microseconds(columns["local_timestamp"], count)),
        latitude_E=_floats(columns["latitude"], count),
        longitude_E=_floats(columns["longitude"], count),
    )


def name_indices(names: Any, known: tuple[str, ...]) -> np.ndarray:
    """Vocabulary index of each name, int32; 1 where the name is null or unknown."""
    found = pc.index_in(_arrow(names, pa.string()).cast(pa.string()), value_set=pa.array(known, pa.string()))
    return pc.fill_null(pc.add(found, FIRST), UNKNOWN).to_numpy(zero_copy_only=False).astype(np.int32)


NO_TIME = np.iinfo(np.int64).min


def microseconds(times: Any, count: int) -> np.ndarray:
    """Timestamps as int64 microseconds since 1970; `NO_TIME` where null."""
    if isinstance(times, np.ndarray) and times.dtype == np.int64:
        return times
    array = _arrow(times, pa.timestamp("us"))
    if pa.types.is_null(array.type):
        return np.full(count, NO_TIME, dtype=np.int64)
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.timestamp("us", tz=array.type.tz)).cast(pa.int64())
    return pc.fill_null(array, NO_TIME).to_numpy(zero_copy_only=False).astype(np.int64)


def hours_of_week(local_microseconds: np.ndarray) -> np.ndarray:
    """Local hours since Monday 00:00, float32 in [0, 168); -1 where there is no local time.

    >>> hours_of_week(np.array([0, 4 * 86_400_000_000, NO_TIME])).tolist()
    [72.0, 0.0, -1.0]
    """
    hours = (local_microseconds.astype(np.float64) / 3.6e9 + _MONDAY) % HOURS_PER_WEEK
    # The largest hour rounds up to 168 in float32, which is 0.
    rounded = hours.astype(np.float32) % np.float32(HOURS_PER_WEEK)
    return np.where(local_microseconds == NO_TIME, np.float32(-1.0), rounded)


def _floats(values: Any, count: int) -> np.ndarray:
    array = _arrow(values, pa.float64())
    if pa.types.is_null(array.type):
        return np.full(count, np.nan, dtype=np.float32)
    return array.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float32)


def _arrow(values: Any, kind: pa.DataType) -> pa.Array:
    """As one Arrow array; nulls are kept."""
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
    if isinstance(values, pa.Array):
        return values
    return pa.array(values, type=kind, from_pandas=True)


def first_of_owner(owner_E: Any) -> np.ndarray:
    """For each row the row at which its owner's events begin, int64. `owner_E`: any array of ids, owners together."""
    owners = np.asarray(owner_E)
    return _start_of_run(owners[1:] != owners[:-1]) if len(owners) else np.zeros(0, dtype=np.int64)


def stop_before(first_E: np.ndarray, timestamp_E: np.ndarray) -> np.ndarray:
    """For each row the end (exclusive) of what came before it: its owner's events with an earlier timestamp, int64.

    Events of the same time as the row's do not count as known before it.
    """
    if len(first_E) == 0:
        return np.zeros(0, dtype=np.int64)
    return _start_of_run((first_E[1:] != first_E[:-1]) | (timestamp_E[1:] != timestamp_E[:-1]))


def _start_of_run(differs: np.ndarray) -> np.ndarray:
    """`differs[n]`: row n + 1 differs from row n. The start of each row's run of equals."""
    rows = np.arange(len(differs) + 1)
    starts = np.where(np.concatenate(([True], differs)), rows, 0)
    return np.maximum.accumulate(starts)


def histories_from_events(
    events: EventColumns, first_B: np.ndarray, stop_B: np.ndarray, length: int, seen: list[np.ndarray] | None = None
) -> Histories:
    """The last `length` of the rows `first_B .. stop_B - 1` for each moment, padded in front."""
    row_BL = np.asarray(stop_B)[:, None] - length + np.arange(length)
    return histories_of_rows(events, np.where(row_BL >= np.asarray(first_B)[:, None], row_BL, -1), seen)


def histories_of_rows(events: EventColumns, row_BL: np.ndarray, seen: list[np.ndarray] | None = None) -> Histories:
    """Histories made of any rows, oldest first, -1 = padding (in front)."""
    absent = row_BL < 0
    safe = np.where(absent, 0, row_BL)

    def take(values: np.ndarray, padding: float) -> np.ndarray:
        if len(values) == 0:
            return np.full(row_BL.shape, padding, dtype=values.dtype)
        taken = values[safe]
        taken[absent] = padding
        return taken

    return Histories(
        item_BL=take(events.item_E, PADDING),
        category_BL=take(events.category_E, PADDING),
        event_type_BL=take(events.event_type_E, PADDING),
        timestamp_BL=take(events.timestamp_E, 0),
        hour_of_week_BL=take(events.hour_of_week_E, -1.0),
        latitude_BL=take(events.latitude_E, np.nan),
        longitude_BL=take(events.longitude_E, np.nan),
        seen=seen,
    )


def queries_before(events: EventColumns, moments: Moments) -> Queries:
    """The queries of the moments; place and clock are those of the newest row before each that has one, else unknown."""
    latitude_B = longitude_B = np.full(len(moments.stop_B), np.nan, dtype=np.float32)
    hour_of_week_B = np.full(len(moments.stop_B), -1.0, dtype=np.float32)
    if len(events):
        row_B = _newest_before(moments, ~(np.isnan(events.latitude_E) | np.isnan(events.longitude_E)))
        latitude_B = np.where(row_B >= 0, events.latitude_E[row_B], np.float32(np.nan))
        longitude_B = np.where(row_B >= 0, events.longitude_E[row_B], np.float32(np.nan))
        row_B = _newest_before(moments, events.hour_of_week_E >= 0)
        offset_B = clock_offsets(events.timestamp_E[row_B], events.hour_of_week_E[row_B])
        hour_of_week_B = np.where(row_B >= 0, local_hours(moments.timestamp_B, offset_B), np.float32(-1.0))
    return Queries(
        timestamp_B=moments.timestamp_B.astype(np.int64),
        hour_of_week_B=hour_of_week_B if moments.hour_of_week_B is None else moments.hour_of_week_B.astype(np.float32),
        latitude_B=latitude_B,
        longitude_B=longitude_B,
    )


def _newest_before(moments: Moments, known_E: np.ndarray) -> np.ndarray:
    """The newest row before each moment where `known_E`, int64; -1 where there is none."""
    row_E = np.maximum.accumulate(np.where(known_E, np.arange(len(known_E)), -1))
    row_B = row_E[np.maximum(moments.stop_B - 1, 0)]
    return np.where((moments.stop_B > moments.first_B) & (row_B >= moments.first_B), row_B, -1)


def clock_offsets(timestamp: np.ndarray, hour_of_week: np.ndarray) -> np.ndarray:
    """Hours by which local clocks were ahead of UTC, in quarters of an hour, 0..168; any shape."""
    utc = (timestamp / 3600.0 + _MONDAY) % HOURS_PER_WEEK
    return np.round((hour_of_week.astype(np.float64) - utc) * 4.0) / 4.0 % HOURS_PER_WEEK


def local_hours(timestamp: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Local hour of the week at UTC seconds, for a clock ahead by `offset` hours; float32 in [0, 168)."""
    return ((timestamp / 3600.0 + _MONDAY + offset) % HOURS_PER_WEEK).astype(np.float32) % np.float32(HOURS_PER_WEEK)
