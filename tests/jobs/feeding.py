"""A log with the feeds of surroundings, relations and vectors beside its events, read at once and night by night."""

import json
from datetime import date, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf.settings import load_settings
from jobs.lake import logs
from jobs.pipeline import choose
from jobs.runner import run

DAYS = [date(2024, 1, 30) + timedelta(days=n) for n in range(4)]  # over the first of a month, a keyframe
CONTEXT = {
    "format": "csv", "files": "context*", "options": {"header": "true"}, "time_zone": "Europe/Berlin", "lasts_hours": 3,
    "columns": {
        "name": "what", "value": "value", "valid_from": "from", "valid_until": "until", "cell": "h3", "region": "region",
    },
}  # fmt: skip
RELATIONS = {
    "format": "csv", "files": "relations*", "options": {"header": "true"},
    "columns": {"subject": "what", "relation": "how", "object": "to", "weight": "weight"},
}  # fmt: skip
VECTORS = {
    "format": "parquet",
    "files": "vectors*",
    "columns": {"item_id": "item"},
    "attributes": {"image": "look", "audio": "sound"},
}
MAPPING = {
    "description": "a log with feeds",
    "target_events": ["click"],
    "events": {
        "files": "events*", "options": {"header": "true"}, "event_type": "click",
        "columns": {"user_id": "user", "item_id": "item", "event_time": "at"},
    },
}  # fmt: skip
# Arrival day (from 0) -> rows; day 1 brings none.
CONTEXT_ROWS = {
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
RELATION_ROWS = {
    0: [
        "i1,serves,Flat  White ,0.8",
        "i1,serves,Flat White,0.3",
        "coffee,is,drink,1",
        "i2,serves,tea,1",
        ",is,drink,1",
        "i1,,drink,1",
        "i1,is,,1",
        "i1,is,bad,much",
        "i1,is,bad,0",
        "i1,is,bad,-1",
        "i1,is,bad,NaN",
        "i1,is,bad,101",
        "i1,never was,told,",
    ],
    2: ["i1,serves,Flat White,0.9", "coffee,is,drink,1.0", "i2,serves,tea,"],
    3: ["i2,serves,tea,0.5", "i2,serves,tea,"],
}
# Item, image, audio.
VECTOR_ROWS = {
    0: [
        ("i1", [0.5, -1.0], "[3, 2e-3 ,1]"),
        ("i1", [0.25, -1.0], "1 2 3"),
        ("i2", [1.0, 0.0], None),
        ("i3", None, "1;2;3"),
        (None, [1.0], None),
        ("i4", [1.0, float("nan")], None),
        ("i4", [], None),
        ("i4", None, "one two"),
        ("i4", None, "1e39"),
        ("i5", None, None),
    ],
    2: [("i1", [0.5, -1.0], "3,0.002,1"), ("i2", None, None), ("i3", [2.0], "1 2 3")],
    3: [("i2", [3.0, 0.0], None), ("i2", None, None)],
}
INGEST = choose(only=("ingest",))


@pytest.fixture(scope="session")
def feeds(tmp_path_factory):
    """The folder of the log. All feeds in one: a night costs by its steps, not by what lands."""
    folder = tmp_path_factory.mktemp("feeds")
    mapping = {**MAPPING, "context": CONTEXT, "relations": RELATIONS, "vectors": VECTORS}
    (folder / "mapping.yaml").write_text(json.dumps(mapping))
    for number, day in enumerate(DAYS):
        landing = folder / "landing" / str(day)
        landing.mkdir(parents=True)
        (landing / "events.csv").write_text(f"user,item,at\nanna,i{number},{day}T10:00:00Z\n")
        if number not in CONTEXT_ROWS:
            continue
        (landing / "context.csv").write_text("\n".join(["what,value,from,until,h3,region", *CONTEXT_ROWS[number]]) + "\n")
        (landing / "relations.csv").write_text("\n".join(["what,how,to,weight", *RELATION_ROWS[number]]) + "\n")
        items, images, sounds = zip(*VECTOR_ROWS[number], strict=True)
        columns = {"item": items, "look": pa.array(images, pa.list_(pa.float32())), "sound": pa.array(sounds, pa.string())}
        pq.write_table(pa.table(columns), landing / "vectors.parquet")
    return folder


@pytest.fixture(scope="session")
def fed_at_once(spark, feeds):
    settings = _settings_for(feeds, "at_once")
    run(spark, settings, DAYS[-1], steps=INGEST, bootstrap=True)
    return settings


@pytest.fixture(scope="session")
def fed_by_night(spark, feeds):
    settings = _settings_for(feeds, "by_night")
    run(spark, settings, DAYS[0], steps=INGEST, bootstrap=True)
    for day in DAYS[1:]:
        run(spark, settings, day, steps=INGEST)
    return settings


def _settings_for(folder, name):
    return load_settings(
        overrides=[
            f"lake={folder / name}",
            f"sources.events.mapping={folder / 'mapping.yaml'}",
            f"sources.events.path={folder / 'landing'}",
            "completeness.accept=true",
        ]
    )


def refused(settings, name):
    """What each run says of the feed's rows that it refused, where it refused any."""
    details = [json.loads(row["details"]) for row in logs.read(settings.lake, "runs", "step = 'ingest'")]
    return [one[f"{name}_refused"] for one in details if f"{name}_refused" in one]
