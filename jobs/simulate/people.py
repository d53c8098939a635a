"""The users: where they live and work, what they like for long, and what for a while."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pandas as pd

from conf.contracts import SLOTS
from jobs.simulate import taxonomy
from jobs.simulate.atlas import CITIES, DISTRICTS, Flags, Floats, Ints, shifted
from jobs.simulate.columns import DEVICES
from jobs.simulate.world import Purpose, World

# Bursts are drawn once per window of this many days, and end within it, so that none overlap.
WINDOW_DAYS = 45
_BURST_SHARE = 0.6
_BURST_LENGTHS = (7, 21)
_STRENGTHS = (6.0, 4.5, 3.5, 2.5)
_INDIFFERENCE = 0.3
BURST_STRENGTH = 8.0
ROUTINE_STRENGTH = 8.0
_ROUTINE_SLOTS = [slot for slot, name in enumerate(SLOTS) if not name.endswith("night")]
_AGES = ("18-24", "25-34", "35-44", "45-54", "55-64", "65+")
_GENDERS = ("female", "male", "diverse", "")


@dataclass(frozen=True, kw_only=True)
class People:
    """The users `first ..` of one slice; arrays have one row a user.

    home, work: (latitude, longitude) in degrees; *_district: index within the city.
    interests: categories, strongest first, -1 where there are fewer; taste: their weights, over
    all categories. routine_slot, routine_category: a habit of the week.
    burst_*: per window of WINDOW_DAYS days; start and end are day numbers, both included;
    category -1 for none. favourite: two shares in [0, 1) per category that pick from a shelf.
    pace: relative number of sessions, mean 1. leniency: added to ratings. joined: day number.
    """

    first: int
    city: Ints
    home: Floats
    work: Floats
    home_district: Ints
    work_district: Ints
    interests: Ints
    taste: npt.NDArray[np.float32]
    routine_slot: Ints
    routine_category: Ints
    burst_category: Ints
    burst_start: Ints
    burst_end: Ints
    favourite: npt.NDArray[np.float32]
    pace: Floats
    leniency: Floats
    device: Ints
    joined: Ints
    is_bot: Flags
    age: Ints
    gender: Ints

    def __len__(self) -> int:
        return len(self.city)


@lru_cache(maxsize=2)
def people_of(world: World, part: int) -> People:
    """The users whose rows make file number `part`. Kept: every day asks for the same ones."""
    rng = world.stream(Purpose.PEOPLE, part)
    first, end = world.users_of(part)
    size = end - first
    city = rng.choice(len(CITIES), size, p=[place.share for place in CITIES])
    home_district = rng.integers(0, DISTRICTS, size)
    # Most work in the first district, the others anywhere.
    work_district = np.where(rng.random(size) < 0.55, 0, rng.integers(0, DISTRICTS, size))
    interests = _interests(rng, size)
    bursts = _bursts(world, rng, interests)
    late_joiner = rng.random(size) < 0.15
    return People(
        first=first,
        city=city,
        home=_around(rng, city, home_district, 1000.0),
        work=_around(rng, city, work_district, 400.0),
        home_district=home_district,
        work_district=work_district,
        interests=interests,
        taste=_taste(interests),
        routine_slot=rng.choice(_ROUTINE_SLOTS, size),
        routine_category=rng.integers(0, len(taxonomy.CATEGORIES), size),
        burst_category=bursts[0],
        burst_start=bursts[1],
        burst_end=bursts[2],
        favourite=rng.random((size, len(taxonomy.CATEGORIES), 2), dtype=np.float32),
        pace=np.exp(rng.normal(-0.18, 0.6, size)),
        leniency=rng.normal(0, 0.4, size),
        device=rng.choice(len(DEVICES), size, p=[0.45, 0.4, 0.15]),
        joined=late_joiner * rng.integers(0, world.days // 2 + 1, size),
        is_bot=_bots(world, np.arange(first, end)),
        age=rng.choice(len(_AGES), size, p=[0.17, 0.28, 0.22, 0.15, 0.11, 0.07]),
        gender=rng.choice(len(_GENDERS), size, p=[0.47, 0.46, 0.02, 0.05]),
    )


def _bots(world: World, number: Ints) -> Flags:
    """Evenly spread over all users, which every slice can tell without knowing the others."""
    bots = math.ceil(world.bot_rate * world.users)
    if bots == 0:
        return np.zeros(len(number), dtype=np.bool_)
    step = world.users // bots
    offset = world.stream(Purpose.BOTS).integers(0, step)
    return ((number - offset) % step == 0) & (number >= offset) & (number < offset + bots * step)


def _around(rng: np.random.Generator, city: Ints, district: Ints, spread: float) -> Floats:
    """Positions (rows) scattered about the district centres; `spread` in metres."""
    centres = np.array([[centre[1:] for centre in place.districts] for place in CITIES])
    latitude, longitude = shifted(
        centres[city, district, 0],
        centres[city, district, 1],
        rng.normal(0, spread, len(city)),
        rng.normal(0, spread, len(city)),
    )
    return np.stack([latitude, longitude], axis=1).round(6)


def _interests(rng: np.random.Generator, size: int) -> Ints:
    """2..4 different categories a user, goods and places among them."""
    goods = rng.choice(np.flatnonzero(~taxonomy.IS_PLACE), size)
    places = rng.choice(np.flatnonzero(taxonomy.IS_PLACE), size)
    swap = rng.random(size) < 0.5
    more = rng.integers(0, len(taxonomy.CATEGORIES), (size, 2))
    third = np.where((more[:, 0] == goods) | (more[:, 0] == places), -1, more[:, 0])
    known = (more[:, 1] == goods) | (more[:, 1] == places) | (more[:, 1] == third) | (third < 0)
    fourth = np.where(known | (rng.random(size) < 0.5), -1, more[:, 1])
    return np.stack([np.where(swap, places, goods), np.where(swap, goods, places), third, fourth], axis=1)


def _taste(interests: Ints) -> npt.NDArray[np.float32]:
    taste = np.full((len(interests), len(taxonomy.CATEGORIES)), _INDIFFERENCE, dtype=np.float32)
    for rank, strength in enumerate(_STRENGTHS):
        has = np.flatnonzero(interests[:, rank] >= 0)
        taste[has, interests[has, rank]] = strength
    return taste


def _bursts(world: World, rng: np.random.Generator, interests: Ints) -> tuple[Ints, Ints, Ints]:
    windows = math.ceil(world.days / WINDOW_DAYS)
    shape = (len(interests), windows)
    category = rng.integers(0, len(taxonomy.CATEGORIES), shape)
    for _ in range(interests.shape[1]):
        lasting = (category[:, :, None] == interests[:, None, :]).any(axis=2)
        category = np.where(lasting, (category + 1) % len(taxonomy.CATEGORIES), category)
    shortest, longest = _BURST_LENGTHS
    offset = rng.integers(0, WINDOW_DAYS - longest, shape)
    start = np.arange(windows) * WINDOW_DAYS + offset
    end = start + rng.integers(shortest, longest + 1, shape) - 1
    none = (rng.random(shape) >= _BURST_SHARE) | (start >= world.days)
    return np.where(none, -1, category), start, np.minimum(end, world.days - 1)


def user_ids(numbers: Ints) -> list[str]:
    """Ids as the log writes them."""
    return [f"u{number:06d}" for number in numbers]


def rows_of_day(people: People, day: int) -> pd.DataFrame:
    """The rows of `users.csv` on day number `day`: the users who joined then."""
    rows = np.flatnonzero(people.joined == day)
    languages = [CITIES[city].language for city in people.city[rows]]
    return pd.DataFrame(
        {
            "user_id": user_ids(people.first + rows),
            "age_band": [_AGES[age] for age in people.age[rows]],
            "gender": [_GENDERS[gender] for gender in people.gender[rows]],
            "language": languages,
        }
    )


def truth_rows(world: World, people: People) -> pd.DataFrame:
    """What is planted about the users; interests strongest first, joined by `|`."""
    return pd.DataFrame(
        {
            "user_id": user_ids(people.first + np.arange(len(people))),
            "city": [CITIES[city].name for city in people.city],
            "time_zone": [CITIES[city].time_zone for city in people.city],
            "home_latitude": people.home[:, 0],
            "home_longitude": people.home[:, 1],
            "work_latitude": people.work[:, 0],
            "work_longitude": people.work[:, 1],
            "interests": ["|".join(taxonomy.NAMES[category] for category in row if category >= 0) for row in people.interests],
            "routine_slot": [SLOTS[slot] for slot in people.routine_slot],
            "routine_category": [taxonomy.NAMES[c] for c in people.routine_category],
            "joined_on": [world.date_of(day) for day in people.joined.tolist()],
            "is_bot": ["true" if bot else "false" for bot in people.is_bot],
        }
    )


def burst_rows(world: World, people: People) -> pd.DataFrame:
    """The passing interests of people: user, category, first and last day."""
    row, window = np.nonzero((people.burst_category >= 0) & ~people.is_bot[:, None])
    return pd.DataFrame(
        {
            "user_id": user_ids(people.first + row),
            "category": [taxonomy.NAMES[c] for c in people.burst_category[row, window]],
            "start_day": [world.date_of(day) for day in people.burst_start[row, window].tolist()],
            "end_day": [world.date_of(day) for day in people.burst_end[row, window].tolist()],
        }
    )
