"""What each of many days sees of one user's path: the last placed events, by distinct position.

Legend: E events of the user, K days, V visits (a placed event as seen from one day), U distinct
positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import h3.api.basic_int as h3
import numpy as np

from jobs.spatial.clusters import Ints
from jobs.spatial.sphere import Floats, offsets, unit_vectors

CELL_RESOLUTION = 9
NOWHERE = -1


@dataclass(frozen=True, kw_only=True)
class Path:
    """Events of one user, oldest first, (E,) each.

    Days count from any origin; at in seconds, from any origin; latitude and longitude in degrees, NaN where unknown; slot is a
    position in SLOTS, -1 where unknown; item is any number that stands for the item, 0 for none;
    local_day is the event's own date on the clock on the wall, -1 where unknown.
    """

    arrived_on: Ints
    at: Floats
    latitude: Floats
    longitude: Floats
    slot: Ints
    item: Ints
    local_day: Ints


@dataclass(frozen=True, kw_only=True)
class Spots:
    """The distinct positions of a user by (latitude, longitude), (U,) each; `of_event` (E,), -1: nowhere."""

    latitude: Floats
    longitude: Floats
    vectors: Floats
    cell: Ints
    of_event: Ints


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Visits as seen from `days` days, by day and then in order of time, (V,) each."""

    days: int
    day: Ints
    at: Floats
    spot: Ints
    slot: Ints
    item: Ints
    local_day: Ints
    spots: Spots

    @property
    def visits(self) -> Ints:
        """Visits per day, (K,)."""
        return np.bincount(self.day, minlength=self.days)


def offsets_between(spots: Spots, spot: Ints, anchor: Ints) -> Floats:
    """Offsets of spots from other spots, both by index, (n, 3)."""
    return offsets(spots.latitude[spot], spots.longitude[spot], spots.latitude[anchor], spots.longitude[anchor])


def spots_of(path: Path) -> Spots:
    """The distinct positions on a path; a position that lacks a coordinate is none."""
    placed = np.flatnonzero(~(np.isnan(path.latitude) | np.isnan(path.longitude)))
    in_order = placed[np.lexsort((path.longitude[placed], path.latitude[placed]))]
    latitude, longitude = path.latitude[in_order], path.longitude[in_order]
    begins = np.ones(len(in_order), dtype=np.bool_)
    begins[1:] = (np.diff(latitude) != 0) | (np.diff(longitude) != 0)
    of_event = np.full(len(path.latitude), NOWHERE)
    of_event[in_order] = np.cumsum(begins) - 1
    latitude, longitude = latitude[begins], longitude[begins]
    cells = [h3.latlng_to_cell(*spot, CELL_RESOLUTION) for spot in zip(latitude.tolist(), longitude.tolist(), strict=True)]
    return Spots(
        latitude=latitude,
        longitude=longitude,
        vectors=unit_vectors(latitude, longitude),
        cell=np.unique(np.array(cells, dtype=np.int64), return_inverse=True)[1],
        of_event=of_event,
    )


def seen_from(path: Path, spots: Spots, days: Ints, length: int) -> Seen:
    """What the end of each day sees: the placed among the last `length` events that had arrived."""
    events = [np.flatnonzero(path.arrived_on <= day)[-length:] for day in days]
    event = np.concatenate([np.zeros(0, dtype=np.int64), *events])
    day = np.repeat(np.arange(len(days)), [len(some) for some in events])
    placed = spots.of_event[event] != NOWHERE
    day, event = day[placed], event[placed]
    return Seen(
        days=len(days),
        day=day,
        at=path.at[event],
        spot=spots.of_event[event],
        slot=path.slot[event],
        item=path.item[event],
        local_day=path.local_day[event],
        spots=spots,
    )
