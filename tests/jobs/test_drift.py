"""Columns that come, go and change their type between one night and the next."""

import json
from datetime import date, timedelta

import pytest

from conf.mapping import Mapping
from jobs import ingest
from jobs.ingest.columns import check_types, json_columns, remembered, tell_new
from jobs.ingest.landing import File
from jobs.lake import logs, runs

FIRST = date(2024, 1, 30)
FEED = Mapping.model_validate(
    {
        "description": "t",
        "target_events": ["click"],
        "events": {
            "format": "json", "event_type": "click",
            "columns": {"user_id": "user", "item_id": "item", "event_time": {"sql": "coalesce(at, since)"}},
        },
    }
).events  # fmt: skip
FILE = File(path="in/a.json", size=1, changed_at_ms=0)


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_json_fields_have_a_kind_where_enough_values_show_it():
    rows = [{"user": 1, "item": "i", "at": "x", "since": None, "rare": [1], "mixed": n if n % 2 else str(n)} for n in range(10)]
    found = json_columns(lines(*rows[:9], {**rows[9], "once": True}), FEED, FILE, is_first=True)
    assert found == {"user": "number", "item": "string", "at": "string", "since": "", "rare": "list",
                     "mixed": "number|string", "once": ""}  # fmt: skip
    with pytest.raises(ValueError, match=r"in/a\.json: no column item \(for item_id\); it has at, since, user"):
        json_columns(lines(*[{"user": 1, "at": 2, "since": None}] * 10), FEED, FILE, is_first=False)
    noise = b"\xff\n" * 20 + b"[" * 100_000 + b"\n"
    with pytest.raises(ValueError, match="no line is a JSON object"):
        json_columns(noise, FEED, FILE, is_first=True)
    assert json_columns(noise, FEED, FILE, is_first=False) == {}, "a bad neighbour of a good file"


def test_a_mapped_column_of_another_type_stops_the_run_and_names_it(caplog):
    caplog.set_level("INFO")
    check_types({"user": "number", "other": "x"}, {"user": "number|string", "other": "y"}, FEED, "sources.events", accept=False)
    check_types({"user": "int64"}, {"user": "int32"}, FEED, "sources.events", accept=False)
    check_types({"user": "int64"}, {"user": ""}, FEED, "sources.events", accept=False)
    with pytest.raises(ValueError, match=r"sources\.events: column since is double, it was int64 before: deliver it.*--accept"):
        check_types({"since": "int64"}, {"since": "double"}, FEED, "sources.events", accept=False)
    check_types({"since": "int64"}, {"since": "double"}, FEED, "sources.events", accept=True)
    assert "column since is double, was int64: accepted" in caplog.text


def test_new_columns_are_told_once():
    before = {"user": "text", "gone": "text"}
    assert tell_new(before, {"user": "text", "item": "text", "more": "text"}, FEED, "sources.events") == ["more"]
    known = remembered(before, {"user": "", "more": "text"})
    assert known == {"user": "text", "gone": "text", "more": "text"}
    assert tell_new(known, {"more": "text", "gone": "text"}, FEED, "sources.events") == []


def night(make_context, made, day):
    """Run ingest of a day and record it as done, as the runner does."""
    context = make_context(day, first_day=FIRST, settings=made)
    ingest.run(context)
    made = {"outputs": context.outputs, "rows_out": context.rows_out, "details": json.dumps(context.details)}
    record = runs.row("t", "ingest", day, **made)
    logs.append(context.lake.root, "runs", [record])
    return context


def test_parquet_files_may_gain_columns_but_not_change_those_that_are_mapped(spark, make_settings, make_context, tmp_path):
    columns = {"user_id": "user", "item_id": "item", "event_time": "at"}
    mapping = {
        "description": "t", "target_events": ["click"],
        "events": {"format": "parquet", "event_type": "click", "columns": columns},
    }  # fmt: skip
    (tmp_path / "mapping.yaml").write_text(json.dumps(mapping))
    landing = tmp_path / "landing"
    made = make_settings(
        "conf/local.yaml", f"sources.events.path={landing}", f"sources.events.mapping={tmp_path / 'mapping.yaml'}"
    )

    def land(day, name, row, schema):
        rows = spark.createDataFrame([(*row, "2024-01-30")], f"{schema}, at string")
        rows.coalesce(1).write.parquet(str(landing / str(day) / name))

    days = [FIRST + timedelta(days=n) for n in range(3)]
    land(days[0], "a", (7, "i1"), "user bigint, item string")
    land(days[0], "b", (7, "i1"), "user int, item string")
    first = night(make_context, made, days[0])
    hashes = [row.row_hash for row in first.arrivals("raw_events").collect()]
    assert len(hashes) == 2 and len(set(hashes)) == 1, "a wider integer is the same value"
    assert "new_columns" not in first.details

    land(days[1], "a", (7, "i2", 1.5), "user bigint, item string, price double")
    land(days[1], "b", ("i3", 7), "item string, user bigint")
    second = night(make_context, made, days[1])
    assert second.rows_out["raw_events"] == 2
    assert second.details["new_columns"] == {"sources.events": ["price"]}
    assert second.details["columns"]["sources.events"] == {"at": "string", "item": "string", "price": "double", "user": "int64"}

    land(days[2], "a", (7.0, "i2", 1.5), "user double, item string, price double")
    land(days[2], "b", (7, "i4"), "user bigint, item string")
    with pytest.raises(ValueError, match=r"landing/2024-02-01/a/part.*: column user is double, it was int64 before"):
        night(make_context, made, days[2])
    land(days[2], "c", ("i4",), "item string")
    with pytest.raises(ValueError, match=r"landing/2024-02-01/c/part.*: no column user \(for user_id\); it has item, at"):
        night(make_context, made.accepting(), days[2])
    for name in ("b", "c"):
        for file in (landing / str(days[2]) / name).iterdir():
            file.unlink()
    third = night(make_context, made.accepting(), days[2])
    assert third.rows_out["raw_events"] == 1 and "new_columns" not in third.details
    assert third.details["columns"]["sources.events"]["user"] == "double", "what was accepted is what is compared from now on"
