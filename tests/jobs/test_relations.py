"""The feed of `relations`: changed rows, rows taken back, bad rows counted; nights leave what a bootstrap leaves."""

import json
from datetime import date, timedelta

import pytest

from conf.mapping import Mapping
from conf.settings import load_settings
from conf.tables import TABLES
from jobs.ingest.relations import related
from jobs.lake import logs
from jobs.lake.compare import compare
from jobs.lake.store import Lake
from jobs.pipeline import choose
from jobs.runner import run

DAYS = [date(2024, 1, 30) + timedelta(days=n) for n in range(4)]  # over the first of a month, a keyframe
FEED = {
    "format": "csv", "files": "relations*", "options": {"header": "true"},
    "columns": {"subject": "what", "relation": "how", "object": "to", "weight": "weight"},
}  # fmt: skip
MAPPING = {
    "description": "a log with relations",
    "target_events": ["click"],
    "events": {
        "files": "events*", "options": {"header": "true"}, "event_type": "click",
        "columns": {"user_id": "user", "item_id": "item", "event_time": "at"},
    },
    "relations": FEED,
}  # fmt: skip
# Arrival day (from 0) -> rows; day 1 brings none.
ROWS = {
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
STEPS = choose(only=("ingest",))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("relations")
    (folder / "mapping.yaml").write_text(json.dumps(MAPPING))
    for number, day in enumerate(DAYS):
        landing = folder / "landing" / str(day)
        landing.mkdir(parents=True)
        (landing / "events.csv").write_text(f"user,item,at\nanna,i{number},{day}T10:00:00Z\n")
        if number in ROWS:
            (landing / "relations.csv").write_text("\n".join(["what,how,to,weight", *ROWS[number]]) + "\n")
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
    return lake.read("item_relations", lake.version("item_relations"))


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
    found = compare(table(spark, bootstrapped), table(spark, nightly), TABLES["item_relations"])
    assert found.rows > 0 and found.equal, str(found)
    for settings in (bootstrapped, nightly):
        details = [json.loads(row["details"]) for row in logs.read(settings.lake, "runs", "step = 'ingest'")]
        refused = [one["item_relations_refused"] for one in details if "item_relations_refused" in one]
        assert refused == [{"bad_weight": 5, "no_object": 1, "no_relation": 1, "no_subject": 1}]


def test_each_change_is_a_row_on_the_day_on_which_it_arrived(spark, bootstrapped):
    rows = table(spark, bootstrapped).where("changed_on = day").orderBy("day", "subject").collect()
    found = [(row.subject, row.relation, row.object, row.weight, row.gone, DAYS.index(row.day)) for row in rows]
    assert found == [
        ("coffee", "is", "drink", 1.0, False, 0),
        ("i1", "serves", "Flat White", 0.8, False, 0),
        ("i2", "serves", "tea", 1.0, False, 0),
        ("i1", "serves", "Flat White", 0.9, False, 2),
        ("i2", "serves", "tea", 0.0, True, 2),
        ("i2", "serves", "tea", 0.5, False, 3),
    ], "of one day the heaviest, before one that takes it back; what is said again changes nothing"
    copies = {row.subject for row in table(spark, bootstrapped).where("changed_on < day").collect()}
    assert copies == {"coffee"}, "a keyframe copies what did not change on it"


@pytest.mark.parametrize(
    ("columns", "said"),
    [({"subject": "what", "object": "to"}, "relation must be mapped"), ({**FEED["columns"], "time": "t"}, "unknown time")],
)
def test_a_mapping_that_says_not_what_belongs_to_what_is_refused(columns, said):
    with pytest.raises(ValueError, match=said):
        Mapping.model_validate({**MAPPING, "relations": {**FEED, "columns": columns}})


def test_without_a_column_of_weights_each_weighs_one(spark):
    told = spark.createDataFrame(
        [("i1", "is", "x", None, DAYS[0])], "subject string, relation string, object string, broken string, day date"
    )
    [row] = related(told).collect()
    assert (row.weight, row.is_told, row.reason) == (1.0, True, None)
