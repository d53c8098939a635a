from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from pyspark.sql import functions as F

from conf.tables import TABLES
from jobs import train
from jobs.lake.schema import spark_schema
from models.registry import load_ranker

FIRST = date(2024, 1, 25)
LAST = date(2024, 2, 2)
SMALL = (
    "model.window=6",
    "model.width=8",
    "model.heads=2",
    "model.layers=1",
    "train.epochs=2",
    "train.batch_size=8",
    "evaluate.holdout_share=0.25",
)
EVENT = {
    "event_id": "e", "user_id": "u", "item_id": "a", "event_type": "check_in",
    "event_timestamp": datetime(2024, 1, 25, 9, tzinfo=UTC),
    "event_date": FIRST, "local_timestamp": datetime(2024, 1, 25, 4, tzinfo=UTC), "local_date": FIRST, "local_hour": 4,
    "slot": "weekday_night", "latitude": 40.0, "longitude": -74.0, "time_zone": "America/New_York", "cell": None,
    "region": None, "category": "x", "value": None, "text": None, "device": None, "scene": None, "session_id": None,
    "row_hash": "r", "day": FIRST,
}  # fmt: skip


def event(**changes):
    return {**EVENT, **changes}


def at(on, hour, **changes):
    moment = datetime(on.year, on.month, on.day, hour, tzinfo=UTC)
    local = moment - timedelta(hours=5)
    given = {"event_timestamp": moment, "event_date": on, "local_timestamp": local, "day": on}
    return event(**{**given, **changes})


def history(users=5, days=9):
    """Each user checks in twice a day; views in between are context only. Late, null and unplaced rows among them."""
    rows = []
    for user in range(users):
        for number in range(days):
            day = FIRST + timedelta(days=number)
            name = f"{user}-{number}"
            who = {"user_id": f"u{user}"}
            rows.append(at(day, 8, **who, event_id=f"{name}-m", item_id=f"i{user}"))
            rows.append(
                at(day, 12, **who, event_id=f"{name}-v", item_id="seen", event_type="view", latitude=None, longitude=None)
            )
            rows.append(at(day, 18, **who, event_id=f"{name}-e", item_id="bar", category=None if user == 1 else "y"))
    late = at(date(2024, 1, 26), 23, user_id="u0", event_id="late", item_id="i0", day=date(2024, 1, 31))
    single = at(date(2024, 1, 30), 10, user_id="once", event_id="single", item_id="rare")
    search = at(date(2024, 1, 30), 11, user_id="once", event_id="search", item_id=None, event_type="search", category=None)
    return [*rows, late, single, search]


def write_events(context, spark, rows):
    schema = spark_schema(TABLES["events"])
    context.write("events", spark.createDataFrame([tuple(row[name] for name in schema.names) for row in rows], schema))


@pytest.fixture
def lake(make_context, make_settings, spark):
    """A lake with `history()` and what a night needs of it; makes contexts to train in."""
    settings = make_settings("conf/local.yaml", *SMALL)
    write_events(make_context(FIRST, LAST, bootstrap=True, settings=settings), spark, history())

    def context(**more):
        more = {"settings": settings, "bootstrap": True, "first_day": FIRST, **more}
        first = FIRST if more["bootstrap"] else LAST
        return make_context(more.pop("first", first), more.pop("last", LAST), **more)

    return context


def windows(context, name="training_windows"):
    stored = context.lake.read(name, context.lake.version(name)).withColumn("until", F.unix_seconds("until"))
    rows = stored.orderBy("until", "fold", "user_id", "window")
    return [row.asDict() for row in rows.collect()]


def learnt(rows):
    """(user, seconds) of every marked target."""
    return [
        (row["user_id"], time)
        for row in rows
        for time, marked in zip(row["timestamp"], row["is_target"], strict=True)
        if marked == 1
    ]


def test_a_bootstrap_learns_each_target_once_and_trains_a_second_version_until_a_cut(lake):
    context = lake()
    train.run(context)
    rows = windows(context)
    versions = {row["trained_until"]: row for row in context.log_rows("model_versions")}
    assert set(versions) == {datetime(2024, 1, 31, tzinfo=UTC), datetime(2024, 2, 2, tzinfo=UTC)}
    for moment in versions:
        wanted = [
            (row["user_id"], int(row["event_timestamp"].timestamp()))
            for row in history()
            if row["event_type"] == "check_in" and row["day"] < moment.date()
        ]
        found = learnt([row for row in rows if row["until"] == moment.timestamp()])
        assert sorted(found) == sorted(wanted)
    assert {len(row["item"]) for row in rows} == {7}, "arrays of one length, model.window + 1"
    for row in versions.values():
        ranker = load_ranker(Path(context.lake.root) / row["folder"])
        assert ranker.method == row["method"] == "transformer"
        assert len(ranker.vocabulary.items) == row["items"]
    assert {row["model_version"] for row in context.log_rows("training_runs")} == {
        row["model_version"] for row in versions.values()
    }
