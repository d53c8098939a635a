"""One user's places with their roles, and the user's week by place."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from conf.contracts import SLOTS
from jobs.seeing.areas import Area, km, within_reach
from jobs.seeing.canvas import Canvas, labels
from jobs.seeing.reading import Reader, Row, literal

COLOURS = 6  # of places; the seventh and those after it share one
ELSEWHERE = "elsewhere"
_LEAST_M = 1_500.0
_DOT = (110, 420)  # radius of the least and the most visited place, units
_NEAR_M = 150.0  # an event that near to a place's centre was there, even where its radius is less

View = dict[str, Any]


def places_of(reader: Reader, pseudonym: str) -> list[Row]:
    """
    Raises:
        ValueError: the user is unknown, or has no places.
    """
    who = f"WHERE user_id = {literal(pseudonym)}"
    found = reader.rows(f"SELECT * FROM user_places {who} ORDER BY place_id") if reader.has("user_places") else []
    if found:
        return found
    if reader.has("user_sequences") and reader.rows(f"SELECT user_id FROM user_sequences {who}"):
        raise ValueError("this user has no places: too few events with a position, or the location is not allowed")
    raise ValueError(f"this user is not known in {reader.root} (--user takes the id as the log has it)")


def events_of(reader: Reader, pseudonym: str) -> list[Row]:
    """The user's last events, with the weekday (from 0, Monday) and the hour of their local time."""
    rows = reader.rows(f"SELECT events FROM user_sequences WHERE user_id = {literal(pseudonym)}")
    return [{**event, **_when(event["local_timestamp"])} for row in rows for event in row["events"]]


def _when(local: datetime | None) -> Row:
    return {"weekday": None if local is None else local.weekday(), "hour": None if local is None else local.hour}


def person(places: Sequence[Row], events: Sequence[Row], around: Sequence[Area] = ()) -> View:
    """What the page draws of a user: the places on a map per area, and the week.

    Args:
        events: weekday (from 0, Monday) and hour of the local time, latitude, longitude.
        around: areas whose cells are drawn under the places, pale.
    """
    shown = [{**place, "name": _name(place), "colour": min(number, COLOURS)} for number, place in enumerate(places)]
    return {
        "places": [{**place, "hours": _best(place["slot_visits"])} for place in shown],
        "maps": [_map(group, around) for group in _near(shown)],
        "slots": _slots(shown),
        "week": _week(shown, events),
    }


def _name(place: Row) -> str:
    return place["role"] if place["role"] != "other" else f"place {place['place_id'] + 1}"


def _best(slot_visits: Any) -> list[tuple[str, int]]:
    """Parts of the week with visits, most visits first."""
    return sorted(dict(slot_visits).items(), key=lambda pair: (-pair[1], pair[0]))


def _near(places: Sequence[Row]) -> list[list[Row]]:
    """Places by area, that with most visits first."""
    ordered = sorted(places, key=lambda one: (-one["visits"], one["place_id"]))
    return within_reach(ordered, lambda place: (place["longitude"], place["latitude"]))


def _map(places: Sequence[Row], around: Sequence[Area]) -> View:
    import h3

    positions = [(place["longitude"], place["latitude"]) for place in places]
    canvas = Canvas.around(positions, [1.0] * len(places), least_m=_LEAST_M)
    most = max(place["visits"] for place in places)
    ground, regions = [], []
    for area in around:
        for cell in sorted(area.events):
            if canvas.shows(*canvas.at(*h3.cell_to_latlng(cell)[::-1]), margin=-600):
                ground.append(canvas.outline((east, north) for north, east in h3.cell_to_boundary(cell)))
        regions += [(region.rsplit("/", 1)[-1], canvas.at(*at)) for region, at in sorted(area.labels.items())]
    dots = []
    for place in places:
        x, y = canvas.at(place["longitude"], place["latitude"])
        size = _DOT[0] + (_DOT[1] - _DOT[0]) * math.sqrt(place["visits"] / most)
        dots.append({**place, "x": x, "y": y, "size": round(size), "reach": round(place["radius_m"] * canvas.units_per_m)})
    # Above its dot; places with a role first, as there is not room for all.
    names = [
        (dot["name"], (dot["x"], dot["y"] - dot["size"] - 60)) for dot in sorted(dots, key=lambda dot: dot["role"] == "other")
    ]
    return {
        "height": canvas.height,
        "metres": 1 / canvas.units_per_m,
        "scale_bar": canvas.scale_bar,
        "ground": "".join(ground),
        "labels": labels(canvas, [*names, *regions]),
        "places": dots,
    }


def _slots(places: Sequence[Row]) -> list[View]:
    """Per part of the week: what share of the placed visits was at which place."""
    found = []
    for slot in SLOTS:
        visits = [(place, dict(place["slot_visits"]).get(slot, 0)) for place in places]
        total = sum(count for _, count in visits)
        if total:
            shares = [{"name": place["name"], "colour": place["colour"], "visits": count} for place, count in visits if count]
            found.append({"slot": slot, "visits": total, "shares": sorted(shares, key=lambda one: -one["visits"])})
    return found


def _week(places: Sequence[Row], events: Sequence[Row]) -> View | None:
    """Events by weekday and local hour, each with the place of most of them; None for a log without local times."""
    at: dict[tuple[int, int], Counter[str]] = {}
    for event in events:
        if event["weekday"] is not None:
            at.setdefault((event["weekday"], event["hour"]), Counter())[_place_of(event, places)] += 1
    if not at:
        return None
    colours = {place["name"]: place["colour"] for place in places}
    most = max(sum(counts.values()) for counts in at.values())
    days = [[_hour(at.get((weekday, hour)), most, colours) for hour in range(24)] for weekday in range(7)]
    return {"days": days, "events": sum(sum(counts.values()) for counts in at.values())}


def _hour(counts: Counter[str] | None, most: int, colours: Mapping[str, int]) -> View | None:
    """An hour of the week; its size as an area is its share of the fullest hour."""
    if counts is None:
        return None
    name = min(counts, key=lambda one: (-counts[one], one))
    events = sum(counts.values())
    return {"events": events, "name": name, "colour": colours.get(name), "size": round(math.sqrt(events / most), 2)}


def _place_of(event: Row, places: Sequence[Row]) -> str:
    if event["latitude"] is None or event["longitude"] is None:
        return ELSEWHERE
    at = (event["longitude"], event["latitude"])
    near = [(1000 * km((place["longitude"], place["latitude"]), at), place) for place in places]
    within = [(metres, place["name"]) for metres, place in near if metres <= max(place["radius_m"], _NEAR_M)]
    return min(within)[1] if within else ELSEWHERE
