"""The pages of `map` and `plot`: whole, by themselves, harmless whatever the data says; and what is wrong in one line."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import h3
import pytest

from jobs.lake.identities import load_key, pseudonym
from jobs.seeing.entities import Entity
from jobs.seeing.pages import map_page, person_page, plot_page

DAY = date(2024, 6, 16)
HOSTILE = "<script>alert('x')</script> \"' & </script><img src=x onerror=alert(1)>"
REGION = f"US/New York/{HOSTILE}"
HOME, WORK = (40.70, -74.01), (40.76, -73.97)
SLOTS = ("any", "weekday_morning", "weekend_night")


class Page(HTMLParser):
    """Tags with their attributes, scripts by their type, and the text that a reader sees."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.scripts, self._within = [], [], [], ""
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._within = tag
            if tag == "script":
                self.scripts.append((dict(attrs).get("type"), ""))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag == self._within:
            self._within = ""

    def handle_data(self, data):
        if self._within == "script":
            kind, said = self.scripts[-1]
            self.scripts[-1] = (kind, said + data)
        elif not self._within:
            self.words.append(data)

    def having(self, tag, name):
        return [attributes for found, attributes in self.tags if found == tag and name in attributes.get("class", "").split()]


def page_of(text):
    """The page, once it is known to hold nothing from elsewhere and no script but ours."""
    page = Page(text)
    assert {tag for tag, _ in page.tags}.isdisjoint({"img", "link", "iframe", "object", "form", "a", "base", "embed"})
    names = {name for _, attributes in page.tags for name in attributes}
    assert names.isdisjoint({"src", "href", "srcset", "action"}) and not any(name.startswith("on") for name in names)
    assert not re.search(r"url\(|@import|https?:|fetch\(|XMLHttp|WebSocket|import\(|innerHTML|eval\(", text)
    [policy] = [attributes["content"] for tag, attributes in page.tags if tag == "meta" and "http-equiv" in attributes]
    [script] = [said for kind, said in page.scripts if kind is None]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    for kind, said in page.scripts:
        if kind is not None:
            json.loads(said)
    assert {label["for"] for tag, label in page.tags if tag == "label"} == {
        one["id"] for tag, one in page.tags if tag == "input"
    }, "every choice has a label"
    return page


@pytest.fixture
def lake(small_lake):
    """A region with a hostile name, two cells, a hotspot, and user 42 at home on weekday nights and at work by day."""
    me = pseudonym("42", load_key())
    cells = [h3.latlng_to_cell(*at, 9) for at in (HOME, WORK)]
    daily = [
        {"cell": cell, "region": REGION, "slot": slot, "category": "", "events": 3 + number, "users": 2, "day": DAY}
        for number, cell in enumerate(cells)
        for slot in SLOTS[1:]
    ]
    old = {**daily[0], "cell": h3.latlng_to_cell(0, 0, 9), "region": "GA/old", "day": DAY - timedelta(days=300)}
    place = {"user_id": me, "radius_m": 40.0, "confidence": 0.9, "main_slots": [], "day": DAY}
    places = [
        {**place, "place_id": 0, "latitude": HOME[0], "longitude": HOME[1], "visits": 6, "share": 0.6, "role": "home",
         "slot_visits": {"weekday_morning": 1, "weekend_night": 5}},
        {**place, "place_id": 1, "latitude": WORK[0], "longitude": WORK[1], "visits": 3, "share": 0.3, "role": "work",
         "slot_visits": {"weekday_morning": 3}},
    ]  # fmt: skip
    event = {"event_id": "e", "item_id": "i", "event_type": "click", "slot": "weekday_morning"}
    when = datetime(2024, 6, 12, 9, tzinfo=UTC)  # a Wednesday
    events = [
        {**event, "local_timestamp": when, "latitude": WORK[0], "longitude": WORK[1]},
        {**event, "local_timestamp": when + timedelta(hours=12), "latitude": HOME[0] + 0.0005, "longitude": HOME[1]},
        {**event, "local_timestamp": when + timedelta(hours=13), "latitude": 41.5, "longitude": HOME[1]},
        {**event, "local_timestamp": None, "latitude": None, "longitude": None},
    ]
    click = {"entity_type": "category", "entity_id": HOSTILE, "event_type": HOSTILE, "event_date": DAY, "events": 5, "day": DAY}
    rows = {
        "cell_daily": [*daily, old],
        "hotspots": [{"cell": cells[0], "region": REGION, "slot": "weekday_morning", "day": DAY}],
        "hotspot_trends": [{"cell": cells[0], "region": REGION, "trend": "emerging", "day": DAY}],
        "user_places": places,
        "user_sequences": [{"user_id": name, "events": events, "day": DAY} for name in (me, pseudonym("43", load_key()))],
        "activity_daily": [click],
        "time_series_features": [{"entity": f"category:{HOSTILE}", **{k: v for k, v in click.items() if k.startswith("e")},
                                  "is_anomaly": True, "expected": 1.0, "anomaly": 4.0, "day": DAY}],
    }  # fmt: skip
    rows["time_series_features"][0] = {
        name: value for name, value in rows["time_series_features"][0].items() if name not in ("event_date", "events")
    }
    small_lake.finish(DAY, {name: small_lake.write(name, *found) for name, found in rows.items()}, step="night", first_day=DAY)
    return small_lake


def test_the_map_has_a_choice_and_a_layer_for_each_part_of_the_week(lake):
    page = page_of(map_page(lake.settings, region=None, days=None))
    choices = [one for one in page.having("input", "choice") if one["name"] == "a0-slot"]
    assert [one["id"] for one in choices] == [f"a0-{slot}" for slot in SLOTS]
    assert ["checked" in one for one in choices] == [True, False, False] and {one["type"] for one in choices} == {"radio"}
    layers = {one["class"].split()[-1] for one in page.having("g", "layer")}
    assert layers == {one["class"].split()[-1].replace("i", "s") for one in choices}, "each choice shows one layer"
    assert len(page.having("path", "hot")) == 1 and page.text.count("emerging hotspot (1)") == 1
    [picture] = [attributes for tag, attributes in page.tags if tag == "svg" and "role" in attributes]
    assert "14 events of 56 days in 2 hexagons" in picture["aria-label"]
    assert HOSTILE.rsplit("/", 1)[-1] in page.text and "GA/old" not in page.text, "outside the window"
    [points] = [json.loads(said) for kind, said in page.scripts if kind is not None]
    assert points["slots"] == list(SLOTS) and sorted(cell[3:] for cell in points["cells"]) == [[6, 3, 3], [8, 4, 4]]


def test_the_style_shows_the_layer_of_the_choice():
    style = (Path(__file__).parents[3] / "jobs/seeing/pictures.css").read_text()
    for number in range(9):
        assert f".i{number}:checked ~ .picture .s{number}" in style and f".i{number}:focus-visible ~ .slots .l{number}" in style
    assert ".layer, .map > .key.layer, .panel { display: none; }" in style


def test_one_region_and_other_days(lake):
    page = page_of(map_page(lake.settings, region="GA/old", days=400))
    assert "GA/old 3 weekday mornings" in page.text and HOSTILE not in page.text
    with pytest.raises(ValueError, match="no region OLD; did you mean GA/old"):
        map_page(lake.settings, region="OLD", days=400)


def test_a_users_places_and_week(lake):
    page = page_of(person_page(lake.settings, "42"))
    assert "User 42" in page.text and "2 places" in page.text and pseudonym("42", load_key())[:8] not in page.text
    assert re.search(r"home 90.0% sure 6 60.0% weekend nights 5×, weekday mornings 1×", page.text)
    hours = [attributes["title"] for attributes in page.having("span", "cell") if "title" in attributes]
    assert hours == [
        "Wed 09:00, 1 event, mostly at work",
        "Wed 21:00, 1 event, mostly at home",
        "Wed 22:00, 1 event, mostly at elsewhere",
    ]
    assert len(page.having("span", "cell")) == 7 * 24
    [picture] = [attributes for tag, attributes in page.tags if tag == "svg" and "role" in attributes]
    assert picture["aria-label"] == "Map of 2 places: home with 6 visits, work with 3 visits"
    assert re.search(r"weekday mornings work 75.0%", page.text)


def test_the_plot_marks_what_the_table_marks_and_escapes_names(lake):
    page = page_of(plot_page(lake.settings, Entity(kind="category", id=HOSTILE, label=HOSTILE), days=28))
    assert page.text.count(HOSTILE) >= 2, "as title and as event type, shown as it is"
    [mark] = page.having("span", "anomaly")
    assert mark["title"] == "2024-06-16: 5 events, 1 expected" and "2024-06-16 : 5 events, 1 expected" in page.text


def command(lake, *words):
    program = f"import sys; sys.argv = ['wherewhen', *{['--set', f'lake={lake.root}', *words]!r}]\n"
    program += (
        "from jobs.cli import main\n"
        "try: main()\n"
        "finally: assert not {'pyspark', 'pandas', 'torch', 'sklearn', 'jobs.runner'} & set(sys.modules)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env={**os.environ, "PATH": "/nonexistent"}
    )


def test_the_commands_write_pages_without_a_jvm(lake, tmp_path):
    for words in (["map"], ["map", "--user", "42"], ["plot", "--category", HOSTILE]):
        done = command(lake, *words, "--output", str(tmp_path / "new/page.html"))
        assert done.returncode == 0 and re.fullmatch(r"\S+page.html, \d+ KiB\n", done.stderr), done.stderr
        page_of((tmp_path / "new/page.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["map", "--user", "nobody"], 1, "this user is not known in"),
        (["map", "--user", "43"], 1, "this user has no places"),
        (["map", "--user", "42", "--region", "x"], 2, "leave out --region and --days"),
        (["map", "--region", "GA/odl", "--days", "400"], 1, "did you mean GA/old"),
        (["plot"], 2, "say whose series"),
        (["plot", "--category", "scripd"], 1, "scripd: no event of this category in the last 182 days is in"),
        (["plot", "--user", "44", "--days", "7"], 1, "User 44: no event of this user in the last 7 days"),
        (["plot", "--item", "i"], 1, "i: no event of this item in the last 182 days"),
    ],
)
def test_errors_are_one_line_and_a_code(lake, words, code, said, tmp_path):
    done = command(lake, *words, "--output", str(tmp_path / "page.html"))
    assert done.returncode == code and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "page.html").exists()


def test_a_lake_without_rows_or_places_is_said(small_lake):
    with pytest.raises(ValueError, match=r"nothing is finished in .* yet: run a day first"):
        map_page(small_lake.settings, region=None, days=None)
    small_lake.finish(DAY, {"items": small_lake.write("items", {"item_id": "i", "day": DAY})}, step="night")
    for draw in (
        lambda: map_page(small_lake.settings, region=None, days=None),
        lambda: plot_page(small_lake.settings, Entity(kind="item", id="i", label="i"), days=28),
    ):
        with pytest.raises(ValueError, match=r"(cell|activity)_daily has no finished rows"):
            draw()
    cells = small_lake.write("cell_daily", {"cell": h3.latlng_to_cell(0, 0, 9), "slot": "any", "day": date(2020, 1, 1)})
    small_lake.finish(DAY, {"cell_daily": cells}, step="night")
    with pytest.raises(ValueError, match="no event of the 56 days up to 2024-06-16 has a place"):
        map_page(small_lake.settings, region=None, days=None)
