"""Maps: every event on them once, where it was, to scale, and nothing that is not ours."""

from __future__ import annotations

import math
import re
from collections import Counter

import h3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.contracts import ANY_SLOT
from jobs.query.geometry import centres
from jobs.seeing.areas import area_of, grouped, nearest_region
from jobs.seeing.canvas import WIDTH, Canvas, labels
from jobs.seeing.heatmap import CLASSES, bounds, heatmap

CENTRE = h3.latlng_to_cell(40.72, -73.99, 9)
DISK = sorted(h3.grid_disk(CENTRE, 12))
SLOTS = ("weekday_morning", "weekend_night")


def row(cell, slot, events, region="US/New York/New York City"):
    return {"cell": cell, "region": region, "slot": slot, "events": events}


ROWS = [row(cell, slot, 1 + number * (1 + where) % 50) for number, cell in enumerate(DISK) for where, slot in enumerate(SLOTS)]
HOT = [{"cell": cell, "slot": "weekday_morning"} for cell in h3.grid_disk(CENTRE, 1)]


@pytest.mark.parametrize("most_cells", [1000, 200, 20, 1])
def test_cells_are_joined_until_they_are_few_enough_and_no_event_is_lost(most_cells):
    area = area_of("here", ROWS, HOT, [{"cell": CENTRE, "trend": "emerging"}], most_cells)
    assert len(area.events) <= most_cells and {h3.get_resolution(cell) for cell in area.events} == {area.resolution}
    assert area.total == sum(one["events"] for one in ROWS)
    for slot in SLOTS:
        assert sum(found.get(slot, 0) for found in area.events.values()) == sum(
            one["events"] for one in ROWS if one["slot"] == slot
        )
    assert area.trends == {h3.cell_to_parent(CENTRE, area.resolution): "emerging"}
    assert area.hot == {"weekday_morning": {h3.cell_to_parent(one["cell"], area.resolution) for one in HOT}}


def test_regions_within_reach_of_a_busier_one_share_its_map():
    at = {"a/New York": (40.71, -74.0), "a/Hoboken": (40.74, -74.03), "b/Boston": (42.36, -71.06), "a/Far": (41.5, -74.0)}
    rows = [
        {"region": name, "cell": h3.latlng_to_cell(*position, 9), "events": events}
        for (name, position), events in zip(at.items(), (50, 10, 70, 5), strict=True)
    ]
    assert grouped(rows) == [("b/Boston",), ("a/New York", "a/Hoboken"), ("a/Far",)]
    assert grouped([]) == []


def test_a_region_is_found_by_its_last_name():
    known = ["US/New York/Manhattan", "US/Kansas/Manhattan", "US/New York/Brooklyn"]
    assert nearest_region("manhattan", known) == "; did you mean US/New York/Manhattan, US/Kansas/Manhattan?"
    assert "US/New York/Brooklyn" in nearest_region("US/New York/Broklyn", known)
    assert "select distinct region" in nearest_region("Atlantis", known)


@given(st.integers(1, 10**9))
def test_classes_reach_from_one_to_the_most(most):
    found = bounds(most)
    assert found[0] == 1 and found == sorted(set(found)) and len(found) <= CLASSES and found[-1] <= most


def shapes(layer):
    """(colour, hexagons) of each class."""
    return Counter({one["colour"]: one["path"].count("M") for one in layer["classes"]})


def test_every_part_of_the_week_is_a_layer_with_each_of_its_cells_in_one_class():
    view = heatmap(area_of("here", ROWS, HOT, [], 1000))
    assert [layer["slot"] for layer in view["layers"]] == [ANY_SLOT, *SLOTS]
    for layer in view["layers"]:
        assert sum(shapes(layer).values()) == layer["cells"] == len(DISK)
        for one in layer["classes"]:
            assert re.fullmatch(r"(M-?\d+ -?\d+l[-\d ]+z)*", one["path"])
            assert one["upto"] is None or one["from"] <= one["upto"]
    [_, morning, night] = view["layers"]
    assert [one["from"] for one in morning["classes"]] == [one["from"] for one in night["classes"]], "to be compared"
    assert morning["hot_cells"] == 7 and morning["hot"].count("M") == 1, "seven hot cells that touch have one outline"
    assert night["hot"] == ""
    assert view["listed"][0]["events"] == max(sum(one["events"] for one in ROWS if one["cell"] == cell) for cell in DISK)


def test_the_darkest_class_holds_the_busiest_cell():
    area = area_of("here", [row(DISK[0], "weekday_morning", 1), row(DISK[1], "weekday_morning", 999)], [], [], 1000)
    layer = heatmap(area)["layers"][1]
    assert shapes(layer)[0] == 1 and shapes(layer)[CLASSES - 1] == 1 and sum(shapes(layer).values()) == 2


def test_a_log_without_parts_of_the_week_has_one_layer():
    view = heatmap(area_of("here", [row(DISK[0], ANY_SLOT, 3)], [], [], 1000))
    assert [(layer["slot"], layer["events"]) for layer in view["layers"]] == [(ANY_SLOT, 3)]
    assert view["listed"][0]["slot"] is None


@given(st.floats(-65, 65), st.floats(-180, 180), st.floats(500, 50_000))
def test_the_canvas_is_to_scale_and_its_bar_says_so(latitude, longitude, least_m):
    canvas = Canvas.around([(longitude, latitude)], [1.0], least_m=least_m)
    x, y = canvas.at(longitude, latitude)
    assert abs(x - WIDTH / 2) <= 1 and abs(y - canvas.height / 2) <= 1
    length, said = canvas.scale_bar
    metres = float(said.split()[0]) * (1000 if said.endswith("km") else 1)
    assert 0.05 * WIDTH <= length <= 0.2 * WIDTH + 1
    # So many metres to the east of the middle.
    east = longitude + math.degrees(metres / (6_371_008.8 * math.cos(math.radians(latitude))))
    to_x, _ = canvas.at((east + 180) % 360 - 180, latitude)
    assert to_x - x == pytest.approx(length, abs=3)


def test_a_city_across_180_degrees_is_one_map():
    canvas = Canvas.around([(179.98, -16.5), (-179.98, -16.5)], [1.0, 1.0], least_m=1000)
    (west, _), (east, _) = canvas.at(179.98, -16.5), canvas.at(-179.98, -16.5)
    assert 0 < west < east < WIDTH and canvas.units_per_m * 4000 < WIDTH


def test_what_lies_far_out_is_outside_the_first_view():
    canvas = Canvas.around([(0.0, 0.0), (0.01, 0.01), (5.0, 5.0)], [500.0, 499.0, 1.0], least_m=1000, share=0.99)
    assert canvas.shows(*canvas.at(0.0, 0.0)) and not canvas.shows(*canvas.at(5.0, 5.0))


def test_names_do_not_cover_each_other_the_first_ones_stay():
    canvas = Canvas.around([(0.0, 0.0)], [1.0], least_m=10_000)
    at = {"first": (0.0, 0.0), "second": (0.0001, 0.0), "third": (0.03, 0.0), "away": (9.0, 0.0)}
    found = labels(canvas, [(name, canvas.at(*position)) for name, position in at.items()])
    assert [(one.text, one.main) for one in found] == [("first", True), ("third", True)]


def test_the_label_of_a_region_lies_where_its_events_are():
    area = area_of("here", ROWS, [], [], 1000)
    assert area.labels == centres((one["region"], one["cell"], one["events"]) for one in ROWS)
