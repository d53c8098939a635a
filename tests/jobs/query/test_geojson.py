"""`query --format geojson`: planners' tables as valid GeoJSON, each row where it belongs."""

from __future__ import annotations

import json
from datetime import date

import h3
import pytest

from conf.settings import SettingsError
from jobs.query import answer
from jobs.query.geojson import as_geojson

DAY = date(2024, 6, 16)
WEST, EAST = h3.latlng_to_cell(40.70, -74.01, 9), h3.latlng_to_cell(40.68, -73.94, 9)


@pytest.fixture
def city(small_lake):
    """Two regions of a cell each, trips between them, a hotspot."""
    lake = small_lake
    at = {"day": DAY}
    flow = {"slot": "any", "trips": 12, "users": 10, "median_duration_s": 60.0, **at}
    rows = {
        "cell_daily": [{"cell": WEST, "region": "US/NY/West", **at}, {"cell": EAST, "region": "US/NY/East", **at}],
        "region_flows": [
            {"origin": "US/NY/West", "destination": "US/NY/East", **flow},
            {"origin": "US/NY/East", "destination": "US/NY/East", **flow},
            {"origin": "US/NY/West", "destination": "nowhere", **flow},
        ],
        "region_stays": [{"region": "US/NY/East", "slot": "any", "stays": 3, "users": 3, **at}],
        "region_interests": [{"region": "US/NY/West", "slot": "any", "category": '"tea" <b>', "share": 1.0, **at}],
        "hotspots": [{"cell": WEST, "slot": "any", "latitude": 1.0, "longitude": 2.0, **at}],
        "hotspot_trends": [{"cell": EAST, "trend": "emerging", **at}],
        "user_places": [{"user_id": "u", "latitude": 40.7, "longitude": -74.0, "day": DAY}],
    }
    lake.finish(DAY, {name: lake.write(name, *found) for name, found in rows.items()}, step="night")
    return lake


def features(lake, sql):
    text = as_geojson(answer(lake.settings, sql), lake.settings)
    found = json.loads(text)
    assert found["type"] == "FeatureCollection" and text.endswith("\n")
    for feature in found["features"]:
        assert set(feature) == {"type", "geometry", "properties"} and feature["type"] == "Feature"
    return found["features"]


def at(cell):
    latitude, longitude = h3.cell_to_latlng(cell)
    return [pytest.approx(longitude, abs=1e-6), pytest.approx(latitude, abs=1e-6)]


def test_flows_are_lines_between_the_regions_and_points_within_one(city):
    across, within, lost = features(city, "select * from region_flows")
    assert across["geometry"] == {"type": "LineString", "coordinates": [at(WEST), at(EAST)]}
    assert across["properties"]["trips"] == 12 and across["properties"]["day"] == "2024-06-16"
    assert within["geometry"] == {"type": "Point", "coordinates": at(EAST)}
    assert lost["geometry"] is None, "a region that has no cells"


@pytest.mark.parametrize(("table", "cell"), [("region_stays", EAST), ("region_interests", WEST)])
def test_what_is_of_a_region_stands_at_its_position(city, table, cell):
    [found] = features(city, f"select * from {table}")
    assert found["geometry"] == {"type": "Point", "coordinates": at(cell)}


@pytest.mark.parametrize(("table", "cell"), [("hotspots", WEST), ("hotspot_trends", EAST)])
def test_cells_are_hexagons_even_beside_coordinates(city, table, cell):
    [found] = features(city, f"select * from {table}")
    [ring] = found["geometry"]["coordinates"]
    assert found["geometry"]["type"] == "Polygon" and len(ring) == 7
    assert {tuple(corner) for corner in ring} == {
        (round(east, 7), round(north, 7)) for north, east in h3.cell_to_boundary(cell)
    }


def test_coordinates_are_points_and_properties_hold_every_column(city):
    [found] = features(city, "select latitude, longitude, user_id, 'x' as more from user_places")
    assert found["geometry"] == {"type": "Point", "coordinates": [-74.0, 40.7]}
    assert found["properties"] == {"latitude": 40.7, "longitude": -74.0, "user_id": "u", "more": "x"}
    assert features(city, "select cell from hotspots where false") == []


def test_rows_without_a_place_and_regions_without_cells_are_said(city, small_lake, tmp_path):
    with pytest.raises(SettingsError, match="select cell, or latitude and longitude, or origin and destination, or region"):
        features(city, "select trips from region_flows")
    city.finish(DAY, {"region_stays": 1}, step="night")
    with pytest.raises(ValueError, match="regions have no position without cells: cell_daily has no finished rows"):
        features(city, "select * from region_stays")
