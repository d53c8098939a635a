"""Where a user will be in a part of the week: a probability over the user's places, and over being elsewhere.

Legend: V visits, K days, L places of all days, S slots and `any` (last), R rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conf.contracts import ANY_SLOT, SLOTS
from jobs.spatial.clusters import NOISE, Ints
from jobs.spatial.places import Places
from jobs.spatial.seen import Seen
from jobs.spatial.sphere import Floats

EVERY_SLOT = (*SLOTS, ANY_SLOT)
ELSEWHERE = -1
_ANY = len(SLOTS)
_SECONDS_A_DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How much is believed of what.

    half_life_days: how fast visits count less, reckoned back from the user's last one.
    shrinkage: visits' worth of the user's whole week in each slot.
    elsewhere: visits' worth of being at no known place.
    """

    half_life_days: float
    shrinkage: float
    elsewhere: float


@dataclass(frozen=True, kw_only=True)
class Presence:
    """Rows by day, slot and place, (R,) each: `slot` a position in EVERY_SLOT, `place` a row of Places or ELSEWHERE."""

    day: Ints
    slot: Ints
    place: Ints
    weight: Floats
    probability: Floats


def presence(seen: Seen, places: Places, habits: Habits) -> Presence:
    """The probability of each place, and of being elsewhere, in each slot in which the user was seen, and in any.

    A visit weighs 0.5 ** (days to the user's last visit / half_life_days). Over the whole week
    (`any`) a place has its share of the weight, `elsewhere` added to that of visits to no place; in
    a slot its share of the slot's weight, drawn towards the whole week by `shrinkage`. Of a user of
    whom little is known so most is left elsewhere. A slot without a visit is as `any`.
    """
    start = np.searchsorted(seen.day, np.arange(seen.days + 1))
    last = seen.at[np.maximum(start[1:] - 1, 0)] if len(seen.at) else np.zeros(seen.days)
    weight = 0.5 ** ((last[seen.day] - seen.at) / (habits.half_life_days * _SECONDS_A_DAY))
    # One column for every place, and one a day for elsewhere.
    whereabouts = len(places.day) + seen.days
    at = np.where(places.of_visit == NOISE, len(places.day) + seen.day, places.of_visit)
    of_day = np.concatenate([places.day, np.arange(seen.days)])
    weight_LS = np.zeros((whereabouts, len(EVERY_SLOT)))
    timed = seen.slot >= 0
    np.add.at(weight_LS, (at[timed], seen.slot[timed]), weight[timed])
    weight_LS[:, _ANY] = np.bincount(at, weight, whereabouts)
    total_KS = np.stack([np.bincount(of_day, weights, seen.days) for weights in weight_LS.T], axis=1)
    prior = np.concatenate([np.zeros(len(places.day)), np.full(seen.days, habits.elsewhere)])
    overall = (weight_LS[:, _ANY] + prior) / (total_KS[:, _ANY] + habits.elsewhere)[of_day]
    shrunk_LS = (weight_LS + habits.shrinkage * overall[:, None]) / (total_KS + habits.shrinkage)[of_day]
    shrunk_LS[:, _ANY] = overall
    one, slot = np.nonzero((total_KS > 0)[of_day])
    place_id = np.concatenate([places.place_id, np.full(seen.days, ELSEWHERE)])
    in_order = np.lexsort((place_id[one], slot, of_day[one]))
    one, slot = one[in_order], slot[in_order]
    return Presence(
        day=of_day[one],
        slot=slot,
        place=np.where(one < len(places.day), one, ELSEWHERE),
        weight=weight_LS[one, slot],
        probability=shrunk_LS[one, slot],
    )
