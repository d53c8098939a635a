"""README's questions about when and where together, answered from a lake whose answers are known."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from jobs.lake.identities import load_key, pseudonym

DAY = date(2024, 6, 16)
README = (Path(__file__).parents[3] / "README.md").read_text()
SECTION = README.split("### What is known of when and where together")[1].split("###")[0]
CITY = "US/New York/New York City"


@pytest.fixture
def ask(small_lake):
    """ask(word) -> the answer to the section's query that holds it."""
    lake, queries = small_lake, re.findall(r'^wherewhen query "(.*?)"(?: --user (\S+))?$', SECTION, flags=re.M)
    assert len(queries) == 3
    user = pseudonym("u000012", load_key())
    at = {"user_id": user, "slot": "weekday_evening", "day": DAY}
    counts = {"kind": "category", "origin": "coffee", "slot": "weekday_morning"}
    rows = {
        "user_slot_places": [
            {**at, "place_id": 0, "probability": 0.7},
            {**at, "place_id": -1, "probability": 0.3},
            {**at, "user_id": "another", "place_id": 0, "probability": 0.1},
        ],
        "user_places": [{"user_id": user, "place_id": 0, "role": "home", "day": DAY}],
        "cell_daily": [
            {"cell": cell, "region": region, "slot": slot, "events": events, "day": DAY}
            for cell, region, slot, events in (
                ("a", CITY, "weekday_evening", 5),
                ("a", CITY, "weekday_night", 15),
                ("b", CITY, "weekday_night", 20),
                ("c", "elsewhere", "weekday_evening", 9),
            )
        ],
        "transitions": [
            {**counts, "destination": "tea", "transitions": 2, "seconds": 60.0, "day": DAY},
            {**counts, "destination": "tea", "transitions": 1, "seconds": 30.0, "day": date(2024, 6, 15)},
            {**counts, "destination": "bar", "transitions": 9, "seconds": 1.0, "slot": "weekend_night", "day": DAY},
        ],
    }
    lake.finish(DAY, {name: lake.write(name, *found) for name, found in rows.items()}, step="night")

    def answer(word):
        [(sql, of)] = [query for query in queries if word in query[0]]
        return lake.rows(sql, user=of or None)

    return answer


def test_where_a_user_will_be(ask):
    assert ask("user_slot_places") == [
        {"place_id": 0, "role": "home", "probability": 0.7},
        {"place_id": -1, "role": None, "probability": 0.3},
    ]


def test_elsewhere_is_where_people_of_the_region_are_in_the_slot(ask):
    found = {row["cell"]: row["probability"] for row in ask("cell_daily")}
    assert found == {"a": pytest.approx((5 + 300 * 0.5) / 305), "b": pytest.approx(150 / 305)}


def test_what_follows_on_what(ask):
    assert ask("transitions") == [{"destination": "tea", "n": 3, "mean_gap_s": 30.0}]
