"""What was planted and is known from the world alone; tasks write the rest while they simulate."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from jobs.simulate import taxonomy
from jobs.simulate.atlas import CITIES, HOTSPOTS
from jobs.simulate.catalogue import Catalogue, item_ids, truth_rows
from jobs.simulate.flaws import FLAWS
from jobs.simulate.world import World

# Rows by (day number, kind), kinds as in FLAWS.
Counts = Mapping[tuple[int, str], int]


def truth_tables(world: World, catalogue: Catalogue, counts: Counts) -> dict[str, pd.DataFrame]:
    """Truth tables by name, apart from those of users, bursts and single defective rows."""
    return {
        "categories": _categories(),
        "habits": _habits(),
        "cities": _cities(),
        "hotspots": _hotspots(catalogue),
        "items": truth_rows(world, catalogue),
        "days": _days(world, counts),
        "defects": _defects(world, counts),
        "summary": _summary(world, counts),
    }


def _categories() -> pd.DataFrame:
    rows = [
        (
            entry.name,
            entry.is_place,
            entry.trend_per_day,
            entry.weekly[0],
            entry.weekly[1],
            entry.annual[0],
            entry.annual[1],
        )
        for entry in taxonomy.CATEGORIES
    ]
    columns = [
        "category",
        "is_place",
        "trend_per_day",
        "weekly_amplitude",
        "weekly_peak_weekday",
        "annual_amplitude",
        "annual_peak_day",
    ]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(is_place=table["is_place"].map({True: "true", False: "false"}))


def _habits() -> pd.DataFrame:
    rows = [(entry.name, entry.leads_to, taxonomy.FOLLOW_PROBABILITY) for entry in taxonomy.CATEGORIES if entry.leads_to]
    return pd.DataFrame(rows, columns=["category", "next_category", "probability"])


def _cities() -> pd.DataFrame:
    rows = [
        (city.name, city.time_zone, name, latitude, longitude)
        for city in CITIES
        for name, latitude, longitude in city.districts
    ]
    columns = ["city", "time_zone", "district", "latitude", "longitude"]
    return pd.DataFrame(rows, columns=columns)


def _hotspots(catalogue: Catalogue) -> pd.DataFrame:
    """Hotspots that hold items; in a very small world some cities have none."""
    rows = [
        (
            spot.name,
            spot.city,
            spot.latitude,
            spot.longitude,
            spot.radius,
            "|".join(spot.slots),
            spot.weight,
            "|".join(item_ids(items)),
        )
        for spot, items in zip(HOTSPOTS, catalogue.hot, strict=True)
        if len(items)
    ]
    columns = [
        "hotspot",
        "city",
        "latitude",
        "longitude",
        "radius_metres",
        "slots",
        "weight",
        "items",
    ]
    return pd.DataFrame(rows, columns=columns)


def _days(world: World, counts: Counts) -> pd.DataFrame:
    rows = [
        (
            world.date_of(day).isoformat(),
            sum(counts.get((day, kind), 0) for kind in FLAWS),
            counts.get((day, "good"), 0),
        )
        for day in range(world.days)
    ]
    return pd.DataFrame(rows, columns=["day", "lines", "good"])


def _defects(world: World, counts: Counts) -> pd.DataFrame:
    rows = [
        (world.date_of(day).isoformat(), kind, counts[day, kind])
        for day in range(world.days)
        for kind in FLAWS
        if kind != "good" and counts.get((day, kind), 0)
    ]
    return pd.DataFrame(rows, columns=["day", "kind", "rows"])


def _summary(world: World, counts: Counts) -> pd.DataFrame:
    rows = [
        ("users", world.users),
        ("items", world.items),
        ("days", world.days),
        ("seed", world.seed),
        ("lines", sum(counts.values())),
    ]
    rows += [(kind, sum(rows for (_, other), rows in counts.items() if other == kind)) for kind in FLAWS]
    return pd.DataFrame(rows, columns=["name", "value"])
