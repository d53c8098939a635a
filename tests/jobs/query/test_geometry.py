"""Geometry of answers: what RFC 7946 asks of rings, lines and longitudes, anywhere on the globe."""

from __future__ import annotations

import itertools
import math

import h3
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.query.geometry import centres, line, point, polygon

latitudes, longitudes = st.floats(-89.9, 89.9), st.floats(-180, 180)
positions = st.tuples(longitudes, latitudes)


def rings(geometry):
    return geometry["coordinates"] if geometry["type"] == "Polygon" else [part[0] for part in geometry["coordinates"]]


def turned(ring):
    """Twice the signed area: positive where the ring runs counterclockwise."""
    return sum(x * to_y - to_x * y for (x, y), (to_x, to_y) in itertools.pairwise(ring))


@given(latitudes, longitudes, st.integers(3, 12))
@example(51.0, 180.0, 7)
@example(-16.5, 179.999, 9)
@example(70.0, -179.9999, 5)
def test_cells_are_closed_counterclockwise_rings_on_the_globe(latitude, longitude, resolution):
    cell = h3.latlng_to_cell(latitude, longitude, resolution)
    found = polygon(cell)
    if found["type"] == "Point":
        assert abs(latitude) > 85, "only a cell around a pole has no outline"
        return
    for ring in rings(found):
        assert len(ring) >= 4 and ring[0] == ring[-1] and turned(ring) >= 0
        assert all(-180 <= east <= 180 and -90 <= north <= 90 for east, north in ring)
        assert max(east for east, _ in ring) - min(east for east, _ in ring) < 180, "no part goes round the globe"
    crosses = max(east for _, east in h3.cell_to_boundary(cell)) - min(east for _, east in h3.cell_to_boundary(cell)) > 180
    assert (found["type"] == "MultiPolygon") <= crosses


def test_a_cell_across_180_degrees_keeps_its_area_in_two_parts():
    crossing = next(
        cell
        for cell in h3.grid_disk(h3.latlng_to_cell(-16.5, 180.0, 7), 2)
        if {east > 0 for _, east in h3.cell_to_boundary(cell)} == {True, False}
    )
    found = polygon(crossing)
    assert found["type"] == "MultiPolygon" and len(found["coordinates"]) == 2
    unrolled = [[east % 360, north] for north, east in h3.cell_to_boundary(crossing)]
    whole = abs(turned([*unrolled, unrolled[0]]))
    # Differences of products of degrees that are rounded to seven decimals.
    assert sum(map(turned, rings(found))) == pytest.approx(whole, rel=0.01)


@given(positions, positions)
@example((170.0, 10.0), (-170.0, 20.0))
@example((180.0, 0.0), (-180.0, 0.0))
def test_lines_take_the_shorter_way_and_are_cut_at_180_degrees(start, end):
    found = line(start, end)
    if found["type"] == "Point":
        assert start == end
        return
    parts = [found["coordinates"]] if found["type"] == "LineString" else found["coordinates"]
    assert all(len(part) >= 2 and -180 <= east <= 180 for part in parts for east, _ in part)
    assert sum(abs(part[-1][0] - part[0][0]) for part in parts) <= 180 + 1e-6
    assert parts[0][0] == pytest.approx(start, abs=1e-6)
    assert parts[-1][-1][1] == pytest.approx(end[1], abs=1e-6)


def test_what_has_no_place_has_no_geometry():
    assert polygon("nowhere") is None and polygon(None) is None
    assert point(None, 1.0) is None and point(91.0, 0.0) is None and point(0.0, math.nan) is None
    assert line(None, (0.0, 0.0)) is None


def test_a_region_lies_where_its_events_are_even_across_180_degrees():
    west, east = h3.latlng_to_cell(0.0, 179.0, 9), h3.latlng_to_cell(0.0, -179.0, 9)
    near = h3.latlng_to_cell(40.0, -74.0, 9)
    found = centres([("fiji", west, 1), ("fiji", east, 1), ("new york", near, 7)])
    assert abs(found["fiji"][0]) == pytest.approx(180, abs=0.01)
    assert found["new york"] == pytest.approx(h3.cell_to_latlng(near)[::-1])
