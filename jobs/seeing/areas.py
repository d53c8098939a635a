"""Areas: cells of regions that lie together, small enough for one map, with their events per part of the week."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TypeVar

from conf.contracts import ANY_SLOT
from jobs.query.geometry import Position, centres
from jobs.query.statement import nearest
from jobs.seeing.reading import Reader, Row, literal

T = TypeVar("T")
REACH_KM = 40.0  # regions whose centres are that near to a busier one share its map
_EARTH_RADIUS_KM = 6371.0088
_NO_REGION = "elsewhere"


@dataclass(frozen=True, kw_only=True)
class Window:
    """Which days are counted: the last `days` that end with `last`."""

    last: date
    days: int

    @property
    def where(self) -> str:
        return f"day > DATE '{self.last - timedelta(days=self.days)}' AND day <= DATE '{self.last}'"


@dataclass(frozen=True, kw_only=True)
class Area:
    """One map's cells, all of one resolution.

    `events`: cell -> part of the week (`any` included) -> events; `region` of each cell; `labels`: region -> position of
    its events; `hot`: part of the week -> hot cells; `trends`: cell -> emerging, persistent or fading.
    """

    name: str
    resolution: int
    events: Mapping[str, Mapping[str, int]]
    region: Mapping[str, str]
    labels: Mapping[str, Position]
    hot: Mapping[str, frozenset[str]]
    trends: Mapping[str, str]

    @property
    def total(self) -> int:
        return sum(slots[ANY_SLOT] for slots in self.events.values())


def areas(reader: Reader, window: Window, *, most: int, most_cells: int, region: str | None = None) -> tuple[list[Area], int]:
    """The `most` busiest areas, or one region by itself; and how many areas there are.

    None where no event of the window has a place. Where an area has more than `most_cells` cells, they are joined
    into larger ones.

    Raises:
        ValueError: no such region; says what is near.
    """
    totals = reader.rows(
        f"SELECT coalesce(region, '{_NO_REGION}') AS region, substr(cell, 1, 9), min(cell) AS cell, sum(events) AS events "
        f"FROM cell_daily WHERE {window.where} GROUP BY 1, 2"
    )
    groups = grouped(totals)
    if region is not None and totals:
        known = sorted({row["region"] for row in totals})
        if region not in known:
            raise ValueError(f"there is no region {region}{nearest_region(region, known)}")
        return [_area(reader, window, (region,), most_cells)], 1
    return [_area(reader, window, group, most_cells) for group in groups[:most]], len(groups)


def nearest_region(name: str, known: Sequence[str]) -> str:
    """Near names; one that is the last part of a region's name is near."""
    same = [one for one in known if one.rsplit("/", 1)[-1].casefold() == name.rsplit("/", 1)[-1].casefold()]
    if same:
        return f"; did you mean {', '.join(same[:3])}?"
    return nearest(name, known) or '; `wherewhen query "select distinct region from cell_daily"` lists them'


def grouped(totals: Iterable[Row]) -> list[tuple[str, ...]]:
    """Regions by area, busiest area first, in it the busiest region first: each goes to the first busier one within reach."""
    events: Counter[str] = Counter()
    cells = [(row["region"], row["cell"], row["events"]) for row in totals]
    for region, _, count in cells:
        events[region] += count
    at = centres(cells)
    groups = within_reach(sorted(events, key=lambda name: (-events[name], name)), at.__getitem__)
    return [tuple(group) for group in sorted(groups, key=lambda group: (-sum(events[name] for name in group), group[0]))]


def within_reach(ones: Iterable[T], at: Callable[[T], Position]) -> list[list[T]]:
    """Each goes to the first group whose first one lies within `REACH_KM` of it, else begins its own."""
    groups: list[list[T]] = []
    for one in ones:
        near = next((group for group in groups if km(at(group[0]), at(one)) <= REACH_KM), None)
        if near is None:
            groups.append([one])
        else:
            near.append(one)
    return groups


def km(one: Position, other: Position) -> float:
    """Great-circle distance (haversine)."""
    (east, north), (to_east, to_north) = (tuple(map(math.radians, position)) for position in (one, other))
    across = math.sin((to_north - north) / 2) ** 2 + math.cos(north) * math.cos(to_north) * math.sin((to_east - east) / 2) ** 2
    return 2 * _EARTH_RADIUS_KM * math.asin(math.sqrt(min(across, 1.0)))


def _area(reader: Reader, window: Window, regions: tuple[str, ...], most_cells: int) -> Area:
    names = ", ".join(map(literal, regions))
    here = f"coalesce(region, '{_NO_REGION}') IN ({names})"
    rows = reader.rows(
        f"SELECT cell, coalesce(region, '{_NO_REGION}') AS region, slot, sum(events) AS events FROM cell_daily "
        f"WHERE {window.where} AND {here} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )
    hot = reader.rows(f"SELECT cell, slot FROM hotspots WHERE {here}") if reader.has("hotspots") else []
    trends = (
        reader.rows(f"SELECT cell, trend FROM hotspot_trends WHERE {here} ORDER BY cell")
        if reader.has("hotspot_trends")
        else []
    )
    return area_of(named(regions), rows, hot, trends, most_cells)


def named(regions: Sequence[str]) -> str:
    """What an area is called: its busiest region, and how many more."""
    first = regions[0].rsplit("/", 1)[-1]
    return first if len(regions) == 1 else f"{first} and {len(regions) - 1} more"


def area_of(name: str, rows: Sequence[Row], hot: Sequence[Row], trends: Sequence[Row], most_cells: int) -> Area:
    """An area from rows of cell_daily (region, cell, slot, events), hotspots and hotspot_trends; larger cells where needed."""
    import h3

    resolution = max((h3.get_resolution(row["cell"]) for row in rows), default=9)
    larger = {row["cell"]: row["cell"] for row in (*rows, *hot, *trends)}
    while len({larger[row["cell"]] for row in rows}) > most_cells and resolution > 0:
        resolution -= 1
        larger = {cell: h3.cell_to_parent(cell, resolution) for cell in larger}
    events: dict[str, Counter[str]] = defaultdict(Counter)
    by_region: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        cell = larger[row["cell"]]
        events[cell].update({slot: row["events"] for slot in {row["slot"], ANY_SLOT}})
        by_region[cell][row["region"]] += row["events"]
    hot_in: dict[str, set[str]] = defaultdict(set)
    for row in hot:
        hot_in[row["slot"]].add(larger[row["cell"]])
    return Area(
        name=name,
        resolution=resolution,
        events=events,
        region={cell: min(counts, key=lambda region: (-counts[region], region)) for cell, counts in by_region.items()},
        labels=centres((row["region"], row["cell"], row["events"]) for row in rows if row["region"] != _NO_REGION),
        hot={slot: frozenset(cells) for slot, cells in hot_in.items()},
        trends={larger[row["cell"]]: row["trend"] for row in trends},
    )
