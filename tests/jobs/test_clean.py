"""Every row becomes events, quarantine with its reasons, or a duplicate; and where and when it was."""

from datetime import date, datetime

import pytest
from pyspark.sql import functions as F

from conf.tables import TABLES
from jobs import clean
from jobs.lake.schema import spark_schema

DAY = date(2024, 6, 14)
ROW = {
    "row_hash": "h", "user_id": "u", "item_id": "i", "event_type": "click", "event_time": "2024-06-14T12:30:00Z",
    "latitude": "40.7484", "longitude": "-73.9857", "place": None, "category": None, "device": None, "scene": None,
    "session_id": None, "value": None, "text": None, "flags": None, "broken": None, "day": DAY,
}  # fmt: skip
ITEM = {"item_id": "i", "category": "Coffee Shop", "gone": False, "changed_on": DAY, "day": DAY}


def write(context, name, *rows):
    schema = spark_schema(TABLES[name])
    made = [tuple(row.get(column) for column in schema.names) for row in rows]
    context.write(name, context.spark.createDataFrame(made, schema))


@pytest.fixture
def cleaned(make_context):
    """cleaned(row changes ...) -> (events, quarantine, conservation), each row known by its row_hash."""

    def run(*changes, before=()):
        if before:
            earlier = make_context(date(2024, 6, 13))
            write(earlier, "raw_events", *[{**ROW, "row_hash": "h0", "day": date(2024, 6, 13), **change} for change in before])
            earlier.write("items", context_items(earlier))
        first = date(2024, 6, 13) if before else DAY
        context = make_context(DAY, first_day=first)
        write(context, "raw_events", *[{**ROW, "row_hash": f"h{n}", **change} for n, change in enumerate(changes)])
        write(context, "items", ITEM)
        clean.run(context)
        events = {row.row_hash: row for row in context.arrivals("events").collect()}
        bad = {row.row_hash: row for row in context.arrivals("events_quarantine").collect()}
        return events, bad, context.details["conservation"]

    def context_items(context):
        return context.spark.createDataFrame([], spark_schema(TABLES["items"]))

    return run


def test_a_good_row_is_placed_in_time_and_space(cleaned):
    events, bad, _ = cleaned({})
    found = events["h0"]
    assert not bad
    assert (found.time_zone, found.local_hour, found.slot) == ("America/New_York", 8, "weekday_morning")
    assert found.local_timestamp == datetime(2024, 6, 14, 8, 30) and found.local_date == DAY
    assert found.category == "Coffee Shop" and found.region.startswith("US/New York/") and len(found.cell) == 15


BAD = [
    ({"broken": "{user_id", "user_id": None, "item_id": None}, ["broken"]),
    ({"user_id": None}, ["no_user"]),
    ({"item_id": None}, ["no_item"]),
    ({"event_time": None}, ["no_time"]),
    ({"event_time": "yesterday"}, ["bad_time"]),
    ({"event_time": "2024-06-15T00:00:00Z"}, ["future"]),
    ({"event_time": "2024-05-14T23:59:59Z"}, ["too_late"]),
    ({"event_type": "teleport"}, ["bad_event_type"]),
    ({"latitude": "91"}, ["bad_coordinates"]),
    ({"latitude": "0", "longitude": "0.0"}, ["bad_coordinates"]),
    ({"latitude": None}, ["bad_coordinates"]),
    ({"longitude": "west"}, ["bad_coordinates"]),
    ({"latitude": "NaN"}, ["bad_coordinates"]),
    ({"value": "five"}, ["bad_value"]),
    ({"user_id": None, "value": "inf", "latitude": "1e9"}, ["no_user", "bad_coordinates", "bad_value"]),
]
GOOD = [
    {"event_time": "2024-06-14T23:59:59.999Z"},
    {"event_time": "2024-05-15T00:00:00Z"},
    {"latitude": None, "longitude": None},
    {"item_id": None, "event_type": "search", "text": "coffee"},
    {"latitude": "-90", "longitude": "180"},
    {"value": "4.5"},
]


def test_bad_rows_are_refused_with_every_reason_and_good_neighbours_stay(cleaned):
    """One run over all of them: a night's worth of trouble, and what is just inside the bounds."""
    changes = [*[change for change, _ in BAD], *GOOD]
    events, bad, counted = cleaned(*changes)
    assert {name: row.reasons for name, row in bad.items()} == {f"h{n}": reasons for n, (_, reasons) in enumerate(BAD)}
    assert set(events) == {f"h{n}" for n in range(len(BAD), len(changes))}
    count = counted[str(DAY)]
    assert (count["rows"], count["quarantined"], count["accepted"]) == (len(changes), len(BAD), len(GOOD))


def test_equal_rows_count_once_within_a_day_and_across_days(cleaned):
    events, bad, counted = cleaned({"row_hash": "a"}, {"row_hash": "a"}, {"row_hash": "b"}, {}, before=({"row_hash": "b"},))
    assert set(events) == {"a", "h3"} and not bad
    assert counted[str(DAY)] == {
        "rows": 4, "accepted": 2, "quarantined": 0, "duplicates": 2, "events": 2, "reasons": {},
    }  # fmt: skip


SLOTS = [
    ("2024-06-14 05:59:59", "weekday_night"),
    ("2024-06-14 06:00:00", "weekday_morning"),
    ("2024-06-14 12:00:00", "weekday_afternoon"),
    ("2024-06-14 18:00:00", "weekday_evening"),
    ("2024-06-14 22:00:00", "weekday_night"),
    ("2024-06-15 02:00:00", "weekday_night"),
    ("2024-06-15 06:00:00", "weekend_morning"),
    ("2024-06-16 23:00:00", "weekend_night"),
    ("2024-06-17 05:59:59", "weekend_night"),
    ("2024-06-17 06:00:00", "weekday_morning"),
]


def test_a_night_belongs_to_the_day_on_which_it_begins(spark):
    times = spark.createDataFrame(SLOTS, "local string, slot string")
    found = times.select("local", clean.slot_of(F.col("local").cast("timestamp")).alias("slot")).collect()
    assert [tuple(row) for row in found] == SLOTS
