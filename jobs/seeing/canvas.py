"""A map's canvas: metres around its middle as whole units of an SVG, x to the east and y to the south."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jobs.query.geometry import Position

WIDTH = 10_000  # units; about a tenth of a pixel on a wide screen
_EARTH_RADIUS_M = 6_371_008.8
_MARGIN = 0.06
_FLATTEST, _TALLEST = 0.5, 1.0  # height over width
_LETTER = 0.58  # mean width of a letter over its height


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """Equirectangular around (`longitude`, `latitude`), which lies in the middle: true to a thousandth over 100 km."""

    longitude: float
    latitude: float
    units_per_m: float
    height: int

    @classmethod
    def around(cls, positions: Sequence[Position], weights: Sequence[float], *, least_m: float, share: float = 1.0) -> Canvas:
        """A canvas that holds `share` of the weight between its edges, in either direction, and spans at least `least_m`."""
        middle = positions[0][0]
        # East of the first position, so that 180 degrees is no edge.
        east = [(longitude - middle + 180) % 360 - 180 for longitude, _ in positions]
        west_edge, east_edge = _spread(east, weights, share)
        south, north = _spread([latitude for _, latitude in positions], weights, share)
        latitude = (south + north) / 2
        m_per_degree = math.radians(1) * _EARTH_RADIUS_M
        width = max((east_edge - west_edge) * m_per_degree * math.cos(math.radians(latitude)), least_m)
        height = max((north - south) * m_per_degree, least_m)
        width, height = width * (1 + 2 * _MARGIN), height * (1 + 2 * _MARGIN)
        shape = min(max(height / width, _FLATTEST), _TALLEST)
        return cls(
            longitude=(middle + (west_edge + east_edge) / 2 + 180) % 360 - 180,
            latitude=latitude,
            units_per_m=WIDTH / max(width, height / shape),
            height=round(WIDTH * shape),
        )

    def at(self, longitude: float, latitude: float) -> tuple[int, int]:
        east = (longitude - self.longitude + 180) % 360 - 180
        scale = math.radians(1) * _EARTH_RADIUS_M * self.units_per_m
        x = WIDTH / 2 + east * scale * math.cos(math.radians(self.latitude))
        return round(x), round(self.height / 2 - (latitude - self.latitude) * scale)

    def shows(self, x: int, y: int, margin: int = 0) -> bool:
        return margin <= x <= WIDTH - margin and margin <= y <= self.height - margin

    def outline(self, ring: Iterable[Position]) -> str:
        """A closed ring of (longitude, latitude) as SVG path data, relative and whole: short."""
        corners = [self.at(*position) for position in ring]
        (x, y), pieces = corners[0], []
        for to_x, to_y in corners[1:]:
            pieces.append(f"{to_x - x}{'' if to_y < y else ' '}{to_y - y}")
            x, y = to_x, to_y
        joined = "".join(piece if piece.startswith("-") or not number else f" {piece}" for number, piece in enumerate(pieces))
        return f"M{corners[0][0]} {corners[0][1]}l{joined}z"

    @property
    def scale_bar(self) -> tuple[int, str]:
        """Its length in units, and what it says: 1, 2 or 5 times a power of ten of metres, about a fifth of the width."""
        room = WIDTH / 5 / self.units_per_m
        power = 10 ** math.floor(math.log10(room))
        metres = next(step * power for step in (5, 2, 1) if step * power <= room)
        return round(metres * self.units_per_m), f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"


@dataclass(frozen=True, kw_only=True)
class Label:
    """A name on a map; `main`: there is room for it on a telephone too."""

    x: int
    y: int
    text: str
    main: bool


def labels(canvas: Canvas, named: Iterable[tuple[str, tuple[int, int]]], most: int = 16) -> list[Label]:
    """Names that lie on the canvas, by their points on it, and do not cover each other; the first ones stay."""
    found: list[Label] = []
    taken: dict[int, list[tuple[float, float, float, float]]] = {_SIZE: [], _SIZE_ON_A_TELEPHONE: []}
    for text, (x, y) in named:
        if len(found) == most or not canvas.shows(x, y, margin=_SIZE):
            continue
        fits = {size: _box(x, y, text, size) for size in taken}
        if fits[_SIZE][0] < 0 or fits[_SIZE][2] > WIDTH:
            continue
        free = {size: not any(_overlap(fits[size], other) for other in taken[size]) for size in taken}
        if free[_SIZE]:
            taken[_SIZE].append(fits[_SIZE])
            if free[_SIZE_ON_A_TELEPHONE]:
                taken[_SIZE_ON_A_TELEPHONE].append(fits[_SIZE_ON_A_TELEPHONE])
            found.append(Label(x=x, y=y, text=text, main=free[_SIZE_ON_A_TELEPHONE]))
    return found


# Heights of letters in units, as the style sheet has them.
_SIZE, _SIZE_ON_A_TELEPHONE = 150, 380


def _box(x: int, y: int, text: str, size: int) -> tuple[float, float, float, float]:
    half = len(text) * size * _LETTER / 2
    return x - half, y - size, x + half, y + size / 2


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _spread(values: Sequence[float], weights: Sequence[float], share: float) -> tuple[float, float]:
    """The least and the greatest value, without the tails that hold less than `1 - share` of the weight."""
    ordered = sorted(zip(values, weights, strict=True))
    tail = sum(weights) * (1 - share) / 2
    ends = []
    for end in (ordered, ordered[::-1]):
        passed = 0.0
        for value, weight in end:
            passed += weight
            if passed > tail:
                ends.append(value)
                break
    return ends[0], ends[1]
