"""How one user moves, as seen from each of many days. Legend: V visits, K days."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jobs.spatial.clusters import Ints
from jobs.spatial.places import HOME, Places
from jobs.spatial.seen import Seen, offsets_between
from jobs.spatial.sphere import EARTH_RADIUS_M, Floats, distance_m, offsets, on_sphere

NO_HOME = -1


@dataclass(frozen=True, kw_only=True)
class Mobility:
    """One row per day that sees a visit; `day` counts the days of `Seen`; distances in metres, entropy in nats.

    returner_radius_m is NaN without a place, home_distance_m where no place is a home, daily_range_m without
    a time. latitude, longitude: the last visit.
    """

    day: Ints
    radius_of_gyration_m: Floats
    returner_radius_m: Floats
    daily_range_m: Floats
    entropy: Floats
    cells: Ints
    home_distance_m: Floats
    latitude: Floats
    longitude: Floats


def describe(seen: Seen, places: Places) -> Mobility:
    """Radius of gyration, daily range and entropy of a user's visits.

    Radius of gyration: root mean square distance from the visits' spherical mean (Gonzalez, Hidalgo
    and Barabasi, 2008). Entropy: Shannon's, of the shares of the H3 cells (resolution 9) that were
    visited: the temporal-uncorrelated entropy of Song, Qu, Blumm and Barabasi (2010). Returner radius:
    the radius of gyration of the visits to the two most visited places; where it is half the whole one
    or more, a user is a returner, else an explorer (Pappalardo et al., 2015). Daily range: the diagonal
    of the box that holds the visits of a local day, the mean over days.
    """
    visits = seen.visits
    present = np.flatnonzero(visits)
    last = seen.spot[np.cumsum(visits)[present] - 1]
    entropy, cells = _spread(seen, visits)
    return Mobility(
        day=present,
        radius_of_gyration_m=_radius_of_gyration(seen, visits)[present],
        returner_radius_m=_returner_radius(seen, places)[present],
        daily_range_m=_daily_range(seen)[present],
        entropy=entropy[present],
        cells=cells[present],
        home_distance_m=_home_distance(seen, places)[present],
        latitude=seen.spots.latitude[last],
        longitude=seen.spots.longitude[last],
    )


def _radius_of_gyration(seen: Seen, visits: Ints) -> Floats:
    """Root mean square distance from the spherical mean, per day; 0 without visits."""
    first = (np.cumsum(visits) - visits)[seen.day]
    offset = offsets_between(seen.spots, seen.spot, seen.spot[first])
    count = np.maximum(visits, 1)
    sums = [np.bincount(seen.day, axis, seen.days) for axis in offset.T]
    centre = on_sphere(np.stack(sums, axis=1) / count[:, None])
    squares = distance_m(offset, centre[seen.day]) ** 2
    return np.sqrt(np.bincount(seen.day, squares, seen.days) / count)


def _returner_radius(seen: Seen, places: Places) -> Floats:
    """Radius of gyration of the visits to places 0 and 1, per day; NaN without a place."""
    radius = np.full(seen.days, np.nan)
    first = np.flatnonzero(places.place_id == 0)
    second = np.minimum(first + 1, len(places.day) - 1)
    weight = places.visits[first].astype(np.float64)
    # A day with one place takes it twice, the second time with no visits.
    other = np.where((places.day[second] == places.day[first]) & (second > first), places.visits[second], 0)
    both = weight + other
    within = (weight * places.spread_m[first] ** 2 + other * places.spread_m[second] ** 2) / both
    between = offsets(places.latitude[second], places.longitude[second], places.latitude[first], places.longitude[first])
    apart = distance_m(between, np.zeros_like(between))
    radius[places.day[first]] = np.sqrt(within + weight * other * np.square(apart / both))
    return radius


def _daily_range(seen: Seen) -> Floats:
    """Mean over local days of the diagonal of the box around a day's visits, per day; NaN without a time."""
    timed = np.flatnonzero(seen.local_day >= 0)
    if not len(timed):
        return np.full(seen.days, np.nan)
    span = int(seen.local_day.max()) + 1
    dates, first, date = np.unique(seen.day[timed] * span + seen.local_day[timed], return_index=True, return_inverse=True)
    offset = offsets_between(seen.spots, seen.spot[timed], seen.spot[timed[first]][date])[:, :2]
    low, high = np.zeros((len(dates), 2)), np.zeros((len(dates), 2))
    np.minimum.at(low, date, offset)
    np.maximum.at(high, date, offset)
    diagonal = EARTH_RADIUS_M * np.sqrt(np.square(high - low).sum(axis=1))
    of_day = dates // span
    count = np.bincount(of_day, minlength=seen.days)
    total = np.bincount(of_day, diagonal, seen.days)
    return np.divide(total, count, out=np.full(seen.days, np.nan), where=count > 0)


def _spread(seen: Seen, visits: Ints) -> tuple[Floats, Ints]:
    """Entropy over cells and number of cells, per day."""
    cell = seen.spots.cell[seen.spot]
    cells = int(cell.max(initial=0)) + 1
    counts = np.bincount(seen.day * cells + cell, minlength=seen.days * cells).reshape(seen.days, cells)
    day, visited = np.nonzero(counts)
    share = counts[day, visited] / visits[day]
    # Not below 0: of one cell the sum is -0.0.
    entropy = np.maximum(-np.bincount(day, share * np.log(share), seen.days), 0.0)
    return entropy, np.bincount(day, minlength=seen.days)


def _home_distance(seen: Seen, places: Places) -> Floats:
    """Median distance of the visits from home, per day; NaN without a home."""
    home = np.full(seen.days, NO_HOME)
    is_home = np.flatnonzero(places.role == HOME)
    home[places.day[is_home]] = is_home
    distance = np.full(len(seen.day), np.nan)
    known = np.flatnonzero(home[seen.day] != NO_HOME)
    place = home[seen.day[known]]
    offset = offsets_between(seen.spots, seen.spot[known], places.anchor[place])
    distance[known] = distance_m(offset, places.centre[place])
    nearest_first = distance[np.lexsort((distance, seen.day))]
    visits = seen.visits
    median = np.full(seen.days, np.nan)
    present = np.flatnonzero(visits)
    start = (np.cumsum(visits) - visits)[present]
    low, high = start + (visits[present] - 1) // 2, start + visits[present] // 2
    median[present] = (nearest_first[low] + nearest_first[high]) / 2
    return median
