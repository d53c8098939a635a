"""The feed of `vectors`: changed rows, rows taken back, bad rows counted; nights leave what a bootstrap leaves."""

import json
from dataclasses import replace
from datetime import date, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf.mapping import Mapping
from conf.settings import load_settings
from conf.tables import TABLES
from jobs.features import features_as_of
from jobs.ingest.vectors import MOST_NUMBERS, vectored
from jobs.lake import logs
from jobs.lake.compare import compare
from jobs.lake.runs import Night, pins
from jobs.lake.store import Lake
from jobs.pipeline import choose
from jobs.runner import run

DAYS = [date(2024, 1, 30) + timedelta(days=n) for n in range(4)]  # over the first of a month, a keyframe
FEED = {
    "format": "parquet",
    "files": "vectors*",
    "columns": {"item_id": "item"},
    "attributes": {"image": "look", "audio": "sound"},
}
MAPPING = {
    "description": "a log with vectors",
    "target_events": ["click"],
    "events": {
        "files": "events*", "options": {"header": "true"}, "event_type": "click",
        "columns": {"user_id": "user", "item_id": "item", "event_time": "at"},
    },
    "vectors": FEED,
}  # fmt: skip
# Arrival day (from 0) -> item, image, audio; day 1 brings none.
ROWS = {
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
STEPS = choose(only=("ingest",))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors")
    (folder / "mapping.yaml").write_text(json.dumps(MAPPING))
    for number, day in enumerate(DAYS):
        landing = folder / "landing" / str(day)
        landing.mkdir(parents=True)
        (landing / "events.csv").write_text(f"user,item,at\nanna,i{number},{day}T10:00:00Z\n")
        if number in ROWS:
            items, images, sounds = zip(*ROWS[number], strict=True)
            table = pa.table(
                {"item": items, "look": pa.array(images, pa.list_(pa.float32())), "sound": pa.array(sounds, pa.string())}
            )
            pq.write_table(table, landing / "vectors.parquet")
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
    return lake.read("item_vectors", lake.version("item_vectors"))


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
    found = compare(table(spark, bootstrapped), table(spark, nightly), TABLES["item_vectors"])
    assert found.rows > 0 and found.equal, str(found)
    for settings in (bootstrapped, nightly):
        details = [json.loads(row["details"]) for row in logs.read(settings.lake, "runs", "step = 'ingest'")]
        refused = [one["item_vectors_refused"] for one in details if "item_vectors_refused" in one]
        assert refused == [{"bad_vector": 4, "no_item": 1}]


def test_each_change_is_a_row_on_the_day_on_which_it_arrived(spark, bootstrapped):
    rows = table(spark, bootstrapped).where("changed_on = day").orderBy("day", "item_id").collect()
    sound = pytest.approx([3.0, 0.002, 1.0])
    assert [(row.item_id, row.vectors, row.gone, DAYS.index(row.day)) for row in rows] == [
        ("i1", {"image": [0.5, -1.0], "audio": sound}, False, 0),
        ("i2", {"image": [1.0, 0.0]}, False, 0),
        ("i3", {"audio": [1.0, 2.0, 3.0]}, False, 0),
        ("i2", None, True, 2),
        ("i3", {"image": [2.0], "audio": [1.0, 2.0, 3.0]}, False, 2),
        ("i2", {"image": [3.0, 0.0]}, False, 3),
    ], "what is said again, in other words, changes nothing; of one day the greatest, before one that takes all back"
    copies = {row.item_id for row in table(spark, bootstrapped).where("changed_on < day").collect()}
    assert copies == {"i1"}, "a keyframe copies what did not change on it"


def test_a_vector_without_end_is_refused(spark):
    schema = "item_id string, attributes array<struct<key:string,value:string>>, broken string, day date"
    rows = [("i1", [("image", "1 " * length)], None, DAYS[0]) for length in (MOST_NUMBERS, MOST_NUMBERS + 1)]
    assert [row.reason for row in vectored(spark.createDataFrame(rows, schema)).collect()] == [None, "long_vector"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"columns": {"item_id": "i", "image": "v"}}, "under attributes"), ({"attributes": {}}, "at least one kind")],
)
def test_a_mapping_without_vectors_is_refused(changed, said):
    with pytest.raises(ValueError, match=said):
        Mapping.model_validate({**MAPPING, "vectors": {**FEED, **changed}})


def test_features_join_what_was_known_of_an_item_before_the_day(bootstrapped):
    night = Night(
        run_id="test", day=DAYS[-1], first_day=DAYS[0], versions=pins(bootstrapped.lake), settings_hash="", code_version="",
    )  # fmt: skip
    items, later = ["i2", "i2", "i2", "i9"], [0, 2, 3, 3]
    moments = [datetime.combine(DAYS[0] + timedelta(days=n), datetime.min.time()) for n in later]
    entities = pa.table({"item_id": items, "event_timestamp": moments})
    found = features_as_of(bootstrapped, night, entities, ["item_vectors"])["item_vectors__vectors"].to_pylist()
    assert [one and dict(one) for one in found] == [None, {"image": [1.0, 0.0]}, None, None]
    with pytest.raises(ValueError, match="the lake has no item_vectors: its log's mapping has no section `vectors:`"):
        features_as_of(bootstrapped, replace(night, versions={}), entities, ["item_vectors"])
