"""The places where one user dwells, as seen from each of many days, and what they are to the user.

Legend: V visits, U positions seen, N (day, position) pairs that belong to a place, L places of all
days, S slots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from conf.contracts import SLOTS
from jobs.spatial.clusters import NOISE, Flags, Ints, clusters
from jobs.spatial.seen import Seen, offsets_between
from jobs.spatial.sphere import Floats, distance_m, on_sphere, position

ROLES = ("other", "home", "work")
OTHER, HOME, WORK = range(3)
# Evidence of a visit by its slot. People sleep at home, and are there when they neither work nor are out.
_HOME_EVIDENCE = {"weekday_night": 2, "weekend_night": 2, "weekday_evening": 1, "weekend_morning": 1, "weekend_evening": 1}
_AT_HOME = np.array([_HOME_EVIDENCE.get(slot, 0) for slot in SLOTS])
_AT_WORK = np.array([slot in ("weekday_morning", "weekday_afternoon") for slot in SLOTS], dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Places:
    """Places by day and `place_id`, (L,) each; `day` counts the days of `Seen`.

    slot_visits, is_main: (L, S) in the order of SLOTS; role: position in ROLES. Metres: radius, the farthest
    visit from the centre; spread, the root mean square distance of the visits from it.
    of_visit: the row of each visit's place, (V,); -1: at none.
    anchor: a position of the place, as an index into `Spots`; centre: offset of the centre from it, (L, 3).
    """

    day: Ints
    place_id: Ints
    anchor: Ints
    centre: Floats
    latitude: Floats
    longitude: Floats
    radius_m: Floats
    spread_m: Floats
    visits: Ints
    share: Floats
    slot_visits: Ints
    is_main: Flags
    role: Ints
    confidence: Floats
    of_visit: Ints


def find_places(seen: Seen, radius_m: float, min_visits: int) -> Places:
    """Clusters of visits: DBSCAN on the distinct positions, each with its visits as weight.

    Places are numbered by visits; ties go to the cluster whose smallest core position (latitude,
    then longitude) is smaller. The centre is the spherical mean of the visits, the radius reaches
    the farthest of them.
    """
    spots, days = seen.spots, seen.days
    active, at = np.unique(seen.spot, return_inverse=True)
    weights_KU = np.bincount(seen.day * len(active) + at, minlength=days * len(active)).reshape(days, len(active))
    labels_KU = clusters(spots.vectors[active], weights_KU, radius_m, min_visits)
    node_day, node = np.nonzero(labels_KU != NOISE)
    weight = weights_KU[node_day, node]
    found, place = np.unique(node_day * len(active) + labels_KU[node_day, node], return_inverse=True)
    day, label = np.divmod(found, max(len(active), 1))
    visits = np.bincount(place, weight, len(found)).astype(np.int64)
    in_order = np.lexsort((label, -visits, day))
    place = np.argsort(in_order)[place]
    day, visits, anchor = day[in_order], visits[in_order], active[label[in_order]]
    offset = offsets_between(spots, active[node], anchor[place])
    sums = [np.bincount(place, axis * weight, len(found)) for axis in offset.T]
    centre = on_sphere(np.stack(sums, axis=1) / visits[:, None])
    latitude, longitude = position(centre, spots.latitude[anchor], spots.longitude[anchor])
    radius = np.zeros(len(found))
    distance = distance_m(offset, centre[place])
    np.maximum.at(radius, place, distance)
    place_KU = np.full(labels_KU.shape, NOISE)
    place_KU[node_day, node] = place
    place_V = place_KU[seen.day, at]
    slot_visits = _by_slot(place_V, seen.slot, len(found))
    role, confidence = roles(day, slot_visits, _variety(place_V, seen.item, len(found)), min_visits)
    return Places(
        day=day,
        place_id=np.arange(len(day)) - np.searchsorted(day, day),
        anchor=anchor,
        centre=centre,
        latitude=latitude,
        longitude=longitude,
        radius_m=radius,
        spread_m=np.sqrt(np.bincount(place, np.square(distance) * weight, len(found)) / visits),
        visits=visits,
        share=visits / seen.visits[day],
        slot_visits=slot_visits,
        is_main=_first_best(day, slot_visits) & (slot_visits > 0),
        role=role,
        confidence=confidence,
        of_visit=place_V,
    )


def roles(day: Ints, slot_visits: Ints, variety: Floats, min_visits: int) -> tuple[Ints, Floats]:
    """Role (position in ROLES) and confidence of each place; places come by day and number.

    Evidence of a home: 2 for a visit by night, 1 for one on a weekday evening or a weekend morning
    or evening. The home is the place with the most, if that is `min_visits` or more. Evidence of a
    workplace: the visits on weekday mornings and afternoons, times the variety of the items that
    they are about, as those in a favourite cafe are about the cafe. Work is the place with the most
    among the others, if it has `min_visits` such visits or more, and they are half of its visits at
    known times or more. Ties go to the smaller number.

    Confidence of home and work is their share of the day's evidence, `min_visits` added to the
    whole, that for work without the home's; of other places what the greater of their two shares
    leaves, times n / (n + min_visits) for n visits at known times. Without times every place is
    `other`, with confidence 0.
    """
    timed = slot_visits.sum(axis=1)
    for_home = slot_visits @ _AT_HOME
    is_home = _first_best(day, for_home[:, None])[:, 0] & (for_home >= min_visits)
    by_day = np.where(is_home, 0, slot_visits @ _AT_WORK)
    is_candidate = (by_day >= min_visits) & (2 * by_day >= timed)
    for_work = by_day * variety
    is_work = _first_best(day, np.where(is_candidate, for_work, 0.0)[:, None])[:, 0] & is_candidate
    share_home, share_work = (_share(day, evidence, min_visits) for evidence in (for_home, for_work))
    other = (1 - np.maximum(share_home, share_work)) * timed / (timed + min_visits)
    role = np.where(is_home, HOME, np.where(is_work, WORK, OTHER))
    return role, np.where(is_home, share_home, np.where(is_work, share_work, other))


def _share(day: Ints, evidence: Ints | Floats, prior: int) -> Floats:
    """Each place's share of its day's evidence and the prior."""
    start, group = _groups(day)
    whole = np.add.reduceat(evidence, start)[group] if len(day) else evidence
    share: Floats = evidence / (whole + prior)
    return share


def _variety(place: Ints, item: Ints, places: int) -> Floats:
    """Effective number of items at each place: the inverse of Simpson's index; 1 where no item is known."""
    known = (place != NOISE) & (item != 0)
    number = np.unique(item[known], return_inverse=True)[1]
    items = int(number.max(initial=0)) + 1
    pairs, count = np.unique(place[known] * items + number, return_counts=True)
    visits = np.bincount(pairs // items, count, places)
    squares = np.bincount(pairs // items, count.astype(np.float64) ** 2, places)
    return np.divide(visits**2, squares, out=np.ones(places), where=squares > 0)


def _by_slot(place: Ints, slot: Ints, places: int) -> Ints:
    """Visits per place and slot, (L, S), those outside places and without a slot left out."""
    counted = (place != NOISE) & (slot >= 0)
    flat = place[counted] * len(SLOTS) + slot[counted]
    return np.bincount(flat, minlength=places * len(SLOTS)).reshape(places, len(SLOTS))


def _groups(day: Ints) -> tuple[Ints, Ints]:
    """First row of each run of equal days, and which run each row is in."""
    start = np.flatnonzero(np.diff(day, prepend=NOISE))
    return start, np.repeat(np.arange(len(start)), np.diff(start, append=len(day)))


def _first_best(day: Ints, values: npt.NDArray[np.number]) -> Flags:
    """Per column of (L, C) and day, the first row that holds the day's maximum."""
    if not len(day):
        return np.zeros(values.shape, dtype=np.bool_)
    start, group = _groups(day)
    is_top = values == np.maximum.reduceat(values, start)[group]
    nth = np.cumsum(is_top, axis=0)
    before = (nth - is_top)[start]
    return is_top & (nth - before[group] == 1)
