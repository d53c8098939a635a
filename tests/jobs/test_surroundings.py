"""The feed of `context`: late and changed rows, rows taken back, bad rows counted; nights leave what a bootstrap leaves."""

import json
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest

from conf.mapping import Mapping
from conf.settings import load_settings
from conf.tables import TABLES
from jobs.features import features
from jobs.lake import logs
from jobs.lake.compare import compare
from jobs.lake.store import Lake
from jobs.pipeline import choose
from jobs.runner import run

DAYS = [date(2024, 1, 30) + timedelta(days=n) for n in range(4)]  # over the first of a month, a keyframe
FEED = {
    "format": "csv", "files": "context*", "options": {"header": "true"}, "time_zone": "Europe/Berlin", "lasts_hours": 3,
    "columns": {
        "name": "what", "value": "value", "valid_from": "from", "valid_until": "until", "cell": "h3", "region": "region",
    },
}  # fmt: skip
MAPPING = {
    "description": "a log with surroundings",
    "target_events": ["click"],
    "events": {
        "files": "events*", "options": {"header": "true"}, "event_type": "click",
        "columns": {"user_id": "user", "item_id": "item", "event_time": "at"},
    },
    "context": FEED,
}  # fmt: skip
# Arrival day (from 0) -> rows; day 1 brings none.
ROWS = {
    0: [
        "holiday,yes,2024-02-02,2024-02-03,,DE",
        "rain,1.5,2024-01-31T10:00,,,",
        "rain,1.5,2024-01-31T10:00,,,",
        "rain,2.5,2024-01-31T10:00,,,",
        "parade,yes,2024-02-01T18:00:00Z,2024-02-01T20:00:00Z,891f1d4893bffff,",
        ",yes,2024-02-01,,,",
        "rain,3,,,,",
        "rain,3,soon,,,",
        "rain,3,2024-02-01,2024-01-31,,",
        "rain,3,2024-02-01,,here,",
        "never told,,2024-02-01,,,",
    ],
    2: [
        "rain,7,2024-01-31T10:00,2024-01-31T12:00,,",  # changed, and late: a day after its time
        "holiday,yes,2024-02-02,2024-02-03,,DE",  # said again
        "parade,,2024-02-01T18:00:00Z,,891F1D4893BFFFF,",  # taken back
    ],
    3: ["parade,again,2024-02-01T18:00:00Z,2024-02-01T19:00:00Z,891f1d4893bffff,"],
}
STEPS = choose(only=("ingest",))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("surroundings")
    (folder / "mapping.yaml").write_text(json.dumps(MAPPING))
    for number, day in enumerate(DAYS):
        landing = folder / "landing" / str(day)
        landing.mkdir(parents=True)
        (landing / "events.csv").write_text(f"user,item,at\nanna,i{number},{day}T10:00:00Z\n")
        if number in ROWS:
            (landing / "context.csv").write_text("\n".join(["what,value,from,until,h3,region", *ROWS[number]]) + "\n")
    return folder


def settings_for(world, name):
    return load_settings(
        overrides=[
            f"lake={world / name}",
            f"sources.events.mapping={world / 'mapping.yaml'}",
            f"sources.events.path={world / 'landing'}",
            "completeness.accept=true",
        ]
    )


def table(spark, settings):
    lake = Lake(spark, settings.lake)
    return lake.read("context", lake.version("context"))


@pytest.fixture(scope="module")
def bootstrapped(spark, world):
    settings = settings_for(world, "bootstrapped")
    run(spark, settings, DAYS[-1], steps=STEPS, bootstrap=True)
    return settings


def test_nights_leave_what_the_bootstrap_leaves(spark, world, bootstrapped):
    nightly = settings_for(world, "nightly")
    run(spark, nightly, DAYS[0], steps=STEPS, bootstrap=True)
    for day in DAYS[1:]:
        run(spark, nightly, day, steps=STEPS)
    found = compare(table(spark, bootstrapped), table(spark, nightly), TABLES["context"])
    assert found.rows > 0 and found.equal, str(found)
    refused = {"bad_cell": 1, "bad_time": 1, "ends_before_it_begins": 1, "no_name": 1, "no_time": 1}
    for settings in (bootstrapped, nightly):
        details = [json.loads(row["details"]) for row in logs.read(settings.lake, "runs", "step = 'ingest'")]
        assert [one["context_refused"] for one in details if "context_refused" in one] == [refused]


def test_each_change_is_a_row_on_the_day_on_which_it_arrived(spark, bootstrapped):
    rows = table(spark, bootstrapped).where("changed_on = day").orderBy("day", "name").collect()
    found = [(row.name, row.value, row.number, row.gone, DAYS.index(row.day)) for row in rows]
    assert found == [
        ("holiday", "yes", None, False, 0),
        ("parade", "yes", None, False, 0),
        ("rain", "2.5", 2.5, False, 0),
        ("parade", None, None, True, 2),
        ("rain", "7", 7.0, False, 2),
        ("parade", "again", None, False, 3),
    ], "of one day the greatest; what is said again changes nothing; what was never told cannot be taken back"
    [holiday, parade, rain, *_] = rows
    assert (rain.valid_from, rain.valid_until) == (datetime(2024, 1, 31, 9), datetime(2024, 1, 31, 12)), "Berlin, three hours"
    assert holiday.region == "DE" and holiday.cell is None and parade.cell == "891f1d4893bffff"
    copies = [row.name for row in table(spark, bootstrapped).where("changed_on < day").collect()]
    assert copies == ["holiday"], "a keyframe copies what did not change on it"


def test_features_know_what_was_told_before_the_day(bootstrapped):
    logs.append(bootstrapped.lake, "runs", [_night(bootstrapped)])
    moments = [
        (1, datetime(2024, 1, 31, 10, tzinfo=UTC), None),
        (2, datetime(2024, 2, 2, 12, tzinfo=UTC), "DE/Berlin/Berlin"),
        (3, datetime(2024, 2, 2, 12, tzinfo=UTC), "FR"),
    ]
    number, moment, region = zip(*moments, strict=True)
    asked = pa.table({"number": number, "event_timestamp": moment, "region": pa.array(region, pa.string())})
    rows = features(bootstrapped, asked, ["context"]).to_pylist()
    assert [dict(row["context__values"]) for row in rows] == [{"rain": "2.5"}, {"holiday": "yes"}, {}]
    assert [dict(row["context__numbers"]) for row in rows] == [{"rain": 2.5}, {}, {}]


def _night(settings):
    """The record that the night is finished."""
    from jobs.lake.runs import NIGHT, pins, row

    return row("night", NIGHT, DAYS[-1], first_day=DAYS[0], outputs=pins(settings.lake))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"columns": {"name": "what"}}, "valid_from must be mapped"),
        ({"columns": {**FEED["columns"], "temperature": "t"}}, "unknown temperature"),
        ({"time_format": "position"}, "context needs times"),
    ],
)
def test_a_mapping_that_says_not_what_holds_when_is_refused(changed, said):
    with pytest.raises(ValueError, match=said):
        Mapping.model_validate({**MAPPING, "context": {**FEED, **changed}})
