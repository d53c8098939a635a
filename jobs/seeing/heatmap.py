"""A heatmap of an area: hexagons by events, a layer a part of the week, with hotspots, their trends, and names."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from math import ceil
from typing import Any

from conf.contracts import ANY_SLOT, SLOTS
from jobs.seeing.areas import Area
from jobs.seeing.canvas import Canvas, labels

CLASSES = 6
_SHOWN = 0.9  # share of events within the first view, in either direction: what lies far out makes the rest small
_LEAST_M = 3_000.0
_LISTED = 8
_TRENDS = ("emerging", "persistent", "fading")

View = dict[str, Any]


def heatmap(area: Area) -> View:
    """All that the page draws of an area: plain values, its shapes as SVG path data."""
    import h3

    centre = {cell: h3.cell_to_latlng(cell)[::-1] for cell in sorted(area.events)}
    counts = [area.events[cell][ANY_SLOT] for cell in centre]
    canvas = Canvas.around(list(centre.values()), counts, least_m=_LEAST_M, share=_SHOWN)
    hexagons = {cell: canvas.outline((east, north) for north, east in h3.cell_to_boundary(cell)) for cell in centre}
    busiest = Counter({region: 0 for region in area.labels})
    for cell, region in area.region.items():
        busiest[region] += area.events[cell][ANY_SLOT]
    names = sorted(area.labels, key=lambda region: (-busiest[region], region))
    slots = [ANY_SLOT, *(slot for slot in SLOTS if any(slot in found for found in area.events.values()))]
    return {
        "name": area.name,
        "events": area.total,
        "cells": len(centre),
        "height": canvas.height,
        "metres": 1 / canvas.units_per_m,
        "scale_bar": canvas.scale_bar,
        "edge_m": round(h3.average_hexagon_edge_length(area.resolution, unit="m")),
        "layers": [_layer(area, slot, hexagons, canvas) for slot in slots],
        "trends": [
            {"kind": trend, "x": at[0], "y": at[1]}
            for cell, trend in sorted(area.trends.items())
            if canvas.shows(*(at := canvas.at(*h3.cell_to_latlng(cell)[::-1])))
        ],
        "trend_counts": {kind: count for kind in _TRENDS if (count := sum(one == kind for one in area.trends.values()))},
        "labels": labels(canvas, ((region.rsplit("/", 1)[-1], canvas.at(*area.labels[region])) for region in names)),
        "listed": _listed(area, slots),
        "points": _points(area, slots, names, {cell: canvas.at(*position) for cell, position in centre.items()}),
    }


def bounds(most: int) -> list[int]:
    """The least count of each class, at equal ratios from 1 on: at most six, the last class holds `most`."""
    return sorted({ceil(max(most, 1) ** (step / CLASSES)) for step in range(CLASSES)})


def _layer(area: Area, slot: str, hexagons: dict[str, str], canvas: Canvas) -> View:
    import h3

    of_slot = {cell: found[slot] for cell, found in area.events.items() if slot in found}
    # The eight parts of the week share one scale, so that they can be compared.
    alike = (slot,) if slot == ANY_SLOT else SLOTS
    least = bounds(max(found.get(name, 0) for found in area.events.values() for name in alike))
    classes: list[list[str]] = [[] for _ in least]
    for cell in sorted(of_slot):
        classes[bisect_right(least, of_slot[cell]) - 1].append(hexagons[cell])
    hot = sorted(area.hot.get(slot, ()))
    rings: Iterable[Any] = ()
    if hot:
        shape = h3.cells_to_geo(hot)
        polygons = [shape["coordinates"]] if shape["type"] == "Polygon" else shape["coordinates"]
        rings = (ring[:-1] for polygon in polygons for ring in polygon)
    return {
        "slot": slot,
        "events": sum(of_slot.values()),
        "cells": len(of_slot),
        # Fewer classes than colours take those that lie farthest apart.
        "classes": [
            {"colour": _colour(number, len(least)), "path": "".join(paths), "from": at, "upto": upto}
            for number, (paths, at, upto) in enumerate(
                zip(classes, least, [*(one - 1 for one in least[1:]), None], strict=True)
            )
        ],
        "hot": "".join(canvas.outline(ring) for ring in rings),
        "hot_cells": len(hot),
    }


def _colour(number: int, classes: int) -> int:
    return CLASSES - 1 if classes == 1 else round(number * (CLASSES - 1) / (classes - 1))


def _listed(area: Area, slots: list[str]) -> list[View]:
    """The busiest cells in words: what the picture says to who cannot see it."""
    order = sorted(area.events, key=lambda cell: (-area.events[cell][ANY_SLOT], cell))
    found = []
    for cell in order[:_LISTED]:
        own = {slot: count for slot, count in area.events[cell].items() if slot != ANY_SLOT}
        found.append(
            {
                "cell": cell,
                "region": area.region[cell],
                "events": area.events[cell][ANY_SLOT],
                "slot": min(own, key=lambda slot: (-own[slot], slot), default=None),
                "hot": [slot for slot in slots if cell in area.hot.get(slot, ())],
                "trend": area.trends.get(cell),
            }
        )
    return found


def _points(area: Area, slots: list[str], names: list[str], at: dict[str, tuple[int, int]]) -> View:
    """What the script tells of the cell under the pointer: x, y, region, events by part of the week."""
    number = {name: index for index, name in enumerate(names)}
    return {
        "slots": slots,
        "regions": names,
        "cells": [
            [*at[cell], number.get(area.region[cell], -1), *(area.events[cell].get(slot, 0) for slot in slots)] for cell in at
        ],
    }
