"""The items: what they are, where they are, when they appear and how they change."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from jobs.simulate import taxonomy
from jobs.simulate.atlas import CITIES, DISTRICTS, HOTSPOTS, Flags, Floats, Ints, shifted
from jobs.simulate.wording import BRANDS
from jobs.simulate.world import Purpose, World

_ADDED_SHARE = 0.05
_CHANGED_SHARE = 0.06
_NEVER = -1
_BRANDS_PER_CATEGORY = 6


@dataclass(frozen=True, kw_only=True)
class Shelves:
    """Items grouped by a key, each group in the order of appearance.

    So the items of a group that are there on a day are a prefix of the group.
    """

    key: Ints
    order: Ints
    start: Ints
    first_day: Ints

    def filled(self, day: int) -> Ints:
        """Items per group that are there on day number `day`."""
        return np.bincount(self.key[self.first_day <= day], minlength=len(self.start))

    def item(self, group: Ints, filled: Ints, share: Floats) -> Ints:
        """Per row, the item that lies at `share` in [0, 1) of the group's first `filled` items."""
        return self.order[self.start[group] + (share * filled).astype(np.int64)]


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Arrays over items unless said otherwise.

    city: index, -1 for goods, which are had anywhere. latitude, longitude: degrees, NaN for goods.
    quality: mean rating. first_day, changed_day: day numbers, changed_day -1 for never.
    new_price: the price from changed_day on. retitled: whether the title changes then too.
    in_city: shelves by `category * (cities + 1) + city + 1`; in_district: by that key
    `* districts + district`. hot: per hotspot, the items that lie in it.
    """

    category: Ints
    city: Ints
    district: Ints
    latitude: Floats
    longitude: Floats
    brand: Ints
    quality: Floats
    price: Floats
    first_day: Ints
    changed_day: Ints
    new_price: Floats
    retitled: Flags
    in_city: Shelves
    in_district: Shelves
    hot: tuple[Ints, ...]


def city_key(category: Ints, city: Ints) -> Ints:
    """Group of `Catalogue.in_city`; goods are on one shelf for all cities."""
    return category * (len(CITIES) + 1) + np.where(taxonomy.IS_PLACE[category], city + 1, 0)


def district_key(category: Ints, city: Ints, district: Ints) -> Ints:
    """Group of `Catalogue.in_district`."""
    there = np.where(taxonomy.IS_PLACE[category], district, 0)
    return city_key(category, city) * DISTRICTS + there


@lru_cache(maxsize=1)
def catalogue_of(world: World) -> Catalogue:
    """All items of a world. Kept, because every task of a worker asks for the same one."""
    rng = world.stream(Purpose.ITEMS)
    number = np.arange(world.items)
    category = number % len(taxonomy.CATEGORIES)
    # Dealt out in turn, so that small worlds too have every category in every city.
    turn = number // len(taxonomy.CATEGORIES)
    is_place = taxonomy.IS_PLACE[category]
    city = np.where(is_place, turn % len(CITIES), -1)
    district = np.where(is_place, turn // len(CITIES) % DISTRICTS, 0)
    first_day = _first_days(world, rng, turn)
    hot, district = _hotspot_items(category, city, district, first_day)
    latitude, longitude = _positions(rng, city, district, hot)
    changed_day = _changed_days(world, rng, first_day)
    median = np.array([entry.price for entry in taxonomy.CATEGORIES])[category]
    price = np.round(median * np.exp(rng.normal(0, 0.35, world.items)), 2)
    return Catalogue(
        category=category,
        city=city,
        district=district,
        latitude=latitude,
        longitude=longitude,
        brand=(category * 5 + rng.integers(0, _BRANDS_PER_CATEGORY, world.items)) % len(BRANDS),
        quality=np.clip(rng.normal(3.7, 0.9, world.items), 1, 5),
        price=price,
        first_day=first_day,
        changed_day=changed_day,
        new_price=np.round(price * rng.uniform(0.8, 1.3, world.items), 2),
        retitled=rng.random(world.items) < 0.3,
        in_city=_shelves(city_key(category, city), first_day, 1),
        in_district=_shelves(district_key(category, city, district), first_day, DISTRICTS),
        hot=hot,
    )


def _first_days(world: World, rng: np.random.Generator, turn: Ints) -> Ints:
    # The first of each category and city are there from the start: someone may want one today.
    added = (rng.random(world.items) < _ADDED_SHARE) & (turn >= len(CITIES))
    days = rng.integers(1, max(2, world.days), world.items)
    return np.where(added & (world.days > 1), days, 0)


def _changed_days(world: World, rng: np.random.Generator, first_day: Ints) -> Ints:
    changes = rng.random(world.items) < _CHANGED_SHARE
    days = rng.integers(1, max(2, world.days), world.items)
    return np.where(changes & (days > first_day) & (world.days > 1), days, _NEVER)


def _hotspot_items(category: Ints, city: Ints, district: Ints, first_day: Ints) -> tuple[tuple[Ints, ...], Ints]:
    """The items of each hotspot, and the districts with these items moved there."""
    district = district.copy()
    hot = []
    free = first_day == 0
    for spot in HOTSPOTS:
        index = [place.name for place in CITIES].index(spot.city)
        names = [name for name, _, _ in CITIES[index].districts]
        wanted = [taxonomy.NAMES.index(name) for name in spot.categories]
        of_city = free & (city == index) & np.isin(category, wanted)
        here = district == names.index(spot.district)
        chosen = np.flatnonzero(of_city & here)
        chosen = chosen if len(chosen) else np.flatnonzero(of_city)
        # Half of what the district has: the city's other places must not all stand in one spot.
        chosen = chosen[: max(2, len(chosen) // 2)]
        free[chosen] = False
        district[chosen] = names.index(spot.district)
        hot.append(chosen)
    return tuple(hot), district


def _positions(rng: np.random.Generator, city: Ints, district: Ints, hot: tuple[Ints, ...]) -> tuple[Floats, Floats]:
    centres = np.array([[centre[1:] for centre in place.districts] for place in CITIES])
    latitude, longitude = shifted(
        centres[city, district, 0],
        centres[city, district, 1],
        rng.normal(0, 600, len(city)),
        rng.normal(0, 600, len(city)),
    )
    angle = rng.uniform(0, 2 * np.pi, len(city))
    # The square root spreads them evenly over the disc; 0.9 leaves room for the receivers' noise.
    reach = 0.9 * np.sqrt(rng.random(len(city)))
    for spot, items in zip(HOTSPOTS, hot, strict=True):
        distance = spot.radius * reach[items]
        latitude[items], longitude[items] = shifted(
            np.full(len(items), spot.latitude),
            np.full(len(items), spot.longitude),
            distance * np.sin(angle[items]),
            distance * np.cos(angle[items]),
        )
    anywhere = city < 0
    return (
        np.where(anywhere, np.nan, np.round(latitude, 6)),
        np.where(anywhere, np.nan, np.round(longitude, 6)),
    )


def _shelves(key: Ints, first_day: Ints, places: int) -> Shelves:
    groups = len(taxonomy.CATEGORIES) * (len(CITIES) + 1) * places
    order = np.lexsort((np.arange(len(key)), first_day, key))
    sizes = np.bincount(key, minlength=groups)
    return Shelves(key=key, order=order, start=np.cumsum(sizes) - sizes, first_day=first_day)


def item_ids(numbers: Ints) -> list[str]:
    """Ids as the log writes them."""
    return [f"i{number:05d}" for number in numbers]


def rows_of_day(catalogue: Catalogue, day: int) -> pd.DataFrame:
    """The rows of `items.csv` on day number `day`: items that are new then, or changed."""
    new = catalogue.first_day == day
    numbers = np.flatnonzero(new | (catalogue.changed_day == day))
    changed = ~new[numbers]
    price = np.where(changed, catalogue.new_price[numbers], catalogue.price[numbers])
    return pd.DataFrame(
        {
            "item_id": item_ids(numbers),
            "title": [_title(catalogue, number, after) for number, after in zip(numbers, changed, strict=True)],
            "description": [_description(catalogue, number) for number in numbers],
            "category": [taxonomy.NAMES[c] for c in catalogue.category[numbers]],
            "brand": [BRANDS[b] for b in catalogue.brand[numbers]],
            "price": [f"{amount:.2f}" for amount in price],
            "latitude": catalogue.latitude[numbers],
            "longitude": catalogue.longitude[numbers],
        }
    )


def _title(catalogue: Catalogue, number: int, changed: bool) -> str:
    entry = taxonomy.CATEGORIES[catalogue.category[number]]
    brand = BRANDS[catalogue.brand[number]]
    renamed = changed and bool(catalogue.retitled[number])
    if entry.is_place:
        district = CITIES[catalogue.city[number]].districts[catalogue.district[number]][0]
        return f"{brand} {entry.name} {district}" + (" (renovated)" if renamed else "")
    noun = entry.nouns[number % len(entry.nouns)]
    return f"{brand} {noun} {number % 90 + 10}" + (" II" if renamed else "")


def _description(catalogue: Catalogue, number: int) -> str:
    entry = taxonomy.CATEGORIES[catalogue.category[number]]
    brand = BRANDS[catalogue.brand[number]]
    first, second, third = entry.nouns
    if entry.is_place:
        city = CITIES[catalogue.city[number]]
        district = city.districts[catalogue.district[number]][0]
        return f'{entry.name} in {district}, {city.name}: {first}, {second} and {third}. Regulars call it "the {brand} corner".'
    noun = entry.nouns[number % len(entry.nouns)]
    return f'{brand} {noun} from our {entry.name.lower()} range, "made to last".'


def truth_rows(world: World, catalogue: Catalogue) -> pd.DataFrame:
    """What is planted about the items; positions in degrees, dates, mean ratings."""
    changed = catalogue.changed_day
    return pd.DataFrame(
        {
            "item_id": item_ids(np.arange(world.items)),
            "category": [taxonomy.NAMES[c] for c in catalogue.category],
            "brand": [BRANDS[b] for b in catalogue.brand],
            "city": [CITIES[c].name if c >= 0 else "" for c in catalogue.city],
            "latitude": catalogue.latitude,
            "longitude": catalogue.longitude,
            "quality": np.round(catalogue.quality, 3),
            "added_on": [world.date_of(day) for day in catalogue.first_day.tolist()],
            "changed_on": [world.date_of(day) if day >= 0 else "" for day in changed.tolist()],
        }
    )
