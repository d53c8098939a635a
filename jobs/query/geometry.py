"""Cells, points and lines as RFC 7946 wants them: longitude first, rings closed and counterclockwise, cut at 180 degrees."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

Geometry = dict[str, Any]
Position = tuple[float, float]  # longitude, latitude, degrees

_DECIMALS = 7  # about a centimetre


def point(latitude: float | None, longitude: float | None) -> Geometry | None:
    """None where a coordinate is missing, no number, or off the globe."""
    if latitude is None or longitude is None or not (abs(latitude) <= 90 and abs(longitude) <= 180):
        return None
    return {"type": "Point", "coordinates": _rounded((longitude, latitude))}


def polygon(cell: str | None) -> Geometry | None:
    """The outline of an H3 cell, in two parts where it crosses 180 degrees; None for what is no cell.

    The twelve cells of a resolution near a pole that surround it have no outline on a map; they are their centre.
    """
    import h3

    if cell is None or not h3.is_valid_cell(cell):
        return None
    ring = _continuous([(east, north) for north, east in h3.cell_to_boundary(cell)])
    if abs(ring[-1][0] - ring[0][0]) > 180:
        return point(*h3.cell_to_latlng(cell))
    parts = [_closed(part) for part in _halves(ring)]
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": [parts[0]]}
    return {"type": "MultiPolygon", "coordinates": [[part] for part in parts]}


def line(start: Position | None, end: Position | None) -> Geometry | None:
    """From one position to another the shorter way round, cut at 180 degrees; a point where they are one."""
    if start is None or end is None:
        return None
    if start == end:
        return point(start[1], start[0])
    (x, y), (to_x, to_y) = _continuous([start, end])
    if abs(to_x) <= 180:
        return {"type": "LineString", "coordinates": [_rounded((x, y)), _rounded((to_x, to_y))]}
    edge = math.copysign(180.0, to_x)
    crossing = y + (to_y - y) * (edge - x) / (to_x - x)
    parts = [[(x, y), (edge, crossing)], [(-edge, crossing), (to_x - 2 * edge, to_y)]]
    return {"type": "MultiLineString", "coordinates": [[_rounded(one) for one in part] for part in parts]}


def centres(cells: Iterable[tuple[str, str, int]]) -> dict[str, Position]:
    """Region -> the mean position of its events on the sphere, from rows of (region, cell, events)."""
    import h3

    sums: dict[str, list[float]] = {}
    for region, cell, events in cells:
        north, east = map(math.radians, h3.cell_to_latlng(cell))
        total = sums.setdefault(region, [0.0, 0.0, 0.0])
        total[0] += events * math.cos(north) * math.cos(east)
        total[1] += events * math.cos(north) * math.sin(east)
        total[2] += events * math.sin(north)
    return {
        region: (math.degrees(math.atan2(y, x)), math.degrees(math.atan2(z, math.hypot(x, y))))
        for region, (x, y, z) in sums.items()
    }


def _rounded(position: Position) -> list[float]:
    return [round(position[0], _DECIMALS), round(position[1], _DECIMALS)]


def _continuous(positions: list[Position]) -> list[Position]:
    """Each longitude within half a turn of the one before: a ring across 180 degrees then goes on beyond it."""
    found = [positions[0]]
    for east, north in positions[1:]:
        found.append((east - 360 * round((east - found[-1][0]) / 360), north))
    return found


def _halves(ring: list[Position]) -> list[list[Position]]:
    """The ring as it is, or what lies on either side of 180 degrees, the outer part turned back onto the map."""
    most, least = max(east for east, _ in ring), min(east for east, _ in ring)
    if most <= 180 and least >= -180:
        return [ring]
    edge = 180.0 if most > 180 else -180.0
    inside = _clipped(ring, edge, keep_below=edge > 0)
    outside = [(east - 2 * edge, north) for east, north in _clipped(ring, edge, keep_below=edge < 0)]
    return [part for part in (inside, outside) if len(part) > 2]


def _clipped(ring: list[Position], edge: float, *, keep_below: bool) -> list[Position]:
    """Sutherland and Hodgman (1974), against one meridian."""
    found: list[Position] = []
    for (x, y), (to_x, to_y) in zip(ring, [*ring[1:], ring[0]], strict=True):
        here, there = (x <= edge, to_x <= edge) if keep_below else (x >= edge, to_x >= edge)
        if here:
            found.append((x, y))
        if here != there:
            found.append((edge, y + (to_y - y) * (edge - x) / (to_x - x)))
    return found


def _closed(ring: list[Position]) -> list[list[float]]:
    turned = sum(x * to_y - to_x * y for (x, y), (to_x, to_y) in zip(ring, [*ring[1:], ring[0]], strict=True))
    ordered = ring if turned > 0 else ring[::-1]
    positions = [_rounded(one) for one in ordered]
    return [*positions, positions[0]]
