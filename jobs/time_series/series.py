"""Cuts what arrived of each entity into its series: the last days of each of its event types, as of each active day.

Legend: R increments (what arrived of one entity and event type for one date and hour), G groups (an entity's
event type), P series (a group as of one of its entity's active days), N days of the window, H hours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

HOURS = 24


@dataclass(frozen=True, kw_only=True)
class Increments:
    """Arguments are (R,), sorted by entity, then group: their numbers, arrival day and own date as days since 1970.

    An increment is dated no later than it arrives.
    """

    entity: Ints
    group: Ints
    arrived: Ints
    dated: Ints

    def __post_init__(self) -> None:
        assert (self.dated <= self.arrived).all(), "an event is dated after its arrival"


@dataclass(frozen=True, kw_only=True)
class Series:
    """The series to describe, each the `window` days of a group that end with `day`, sorted by group and day.

    Increment r belongs to the series `begin[r]` to `end[r] - 1`: those of its group from the day
    of its arrival until its date leaves the window. `emptied` are the (entity, day) on which
    something arrived, but nothing is left within the window.
    """

    group: Ints  # (P,)
    day: Ints  # (P,)
    window: int
    dated: Ints  # (R,)
    begin: Ints  # (R,)
    end: Ints  # (R,)
    emptied: tuple[Ints, Ints]

    def counts(self, events: Ints) -> Floats:
        """Events per day of the window, (N, P)."""
        row, series = _ranges(self.begin, self.end)
        position = self.dated[row] - self.day[series] + self.window - 1
        size = len(self.day)
        flat = np.bincount(position * size + series, weights=events[row], minlength=self.window * size)
        counts: Floats = flat.reshape(self.window, size).astype(np.float64)
        return counts

    def hours(self, events: Ints, hour: Ints) -> Floats:
        """Events per local hour over the window, (H, P): whole numbers added where increments come, taken off where they go.

        `hour` is `HOURS` where none is known.
        """
        size, known = len(self.day) + 1, hour < HOURS
        of_hour, weights = hour[known] * size, events[known]
        come = np.bincount(of_hour + self.begin[known], weights=weights, minlength=HOURS * size)
        go = np.bincount(of_hour + self.end[known], weights=weights, minlength=HOURS * size)
        return np.cumsum((come - go).reshape(HOURS, size), axis=1)[:, :-1]


def cut(increments: Increments, *, first: int, window: int) -> Series:
    """The series of each entity's active days (those with arrivals) from `first` on; those with an event in their window."""
    span = int(increments.arrived.max()) + window + 2  # days of one group never reach the next one's in these keys
    of_entity = increments.entity * span + increments.arrived
    active = np.unique(of_entity[increments.arrived >= first])
    group, first_row = np.unique(increments.group, return_index=True)
    entity = increments.entity[first_row]
    number, place = _ranges(np.searchsorted(active, entity * span), np.searchsorted(active, (entity + 1) * span))
    key = group[number] * span + active[place] % span
    start = increments.group * span
    begin = np.searchsorted(key, start + np.maximum(increments.arrived, first))
    end = np.maximum(begin, np.searchsorted(key, start + increments.dated + window))
    # A series is left out before its group's first event, and after the last one has left the window.
    size = len(key) + 1
    holds = np.cumsum(np.bincount(begin, minlength=size) - np.bincount(end, minlength=size))[:-1] > 0
    kept = np.concatenate([[0], np.cumsum(holds)])
    emptied = np.setdiff1d(active, active[place[holds]])
    return Series(
        group=key[holds] // span,
        day=key[holds] % span,
        window=window,
        dated=increments.dated,
        begin=kept[begin],
        end=kept[end],
        emptied=(emptied // span, emptied % span),
    )


def _ranges(begin: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Row number and element of each of the ranges `begin[row]` to `end[row] - 1`, in order."""
    lengths = end - begin
    row = np.repeat(np.arange(len(lengths)), lengths)
    return row, np.arange(len(row)) + np.repeat(begin - (np.cumsum(lengths) - lengths), lengths)
