"""Each user's last events; and the whole way from files to sequences, night by night and at once."""

import json
import random
from datetime import date, datetime, timedelta

import pytest
from pyspark.sql import functions as F

from conf.tables import TABLES
from jobs import sequences
from jobs.lake.compare import compare
from jobs.lake.schema import spark_schema
from jobs.lake.store import Lake
from jobs.pipeline import choose
from jobs.runner import run as run_steps

FIRST, LAST = date(2024, 1, 30), date(2024, 2, 3)
EVENT = {"user_id": "u", "item_id": "i", "event_type": "click", "row_hash": "r"}


def event(number, day, **more):
    """Arrives on `day`; at noon of that day, if nothing else is said."""
    moment = more.pop("at", datetime(day.year, day.month, day.day, 12))
    return {**EVENT, "event_id": f"e{number:03d}", "event_timestamp": moment, "event_date": moment.date(), "day": day, **more}


def events_of(spark, rows):
    schema = spark_schema(TABLES["events"])
    return spark.createDataFrame([tuple(row.get(field.name) for field in schema) for row in rows], schema)


def random_events(seed):
    """Late events, equal times, days without events, a user with one event."""
    rng = random.Random(seed)
    rows = [event(0, FIRST, user_id="once")]
    for day in (FIRST + timedelta(days=n) for n in (0, 1, 2, 4)):
        for user in ("a", "b", "c"):
            for _ in range(rng.choice([0, 1, 3, 5])):
                moment = datetime(day.year, day.month, day.day, rng.randrange(3)) - timedelta(days=rng.choice([0, 0, 1, 9]))
                item = rng.choice(["i1", "i2", "i3", None])
                more = {"user_id": user, "at": moment, "item_id": item, "event_type": rng.choice(["click", "view"])}
                rows.append(event(len(rows), day, **more))
    return rows


def reference(rows, user, day, length):
    known = sorted(
        (r for r in rows if r["user_id"] == user and r["day"] <= day), key=lambda r: (r["event_timestamp"], r["event_id"])
    )
    seen = sorted({r["item_id"] for r in known if r["event_type"] == "click" and r["item_id"]})
    return [(r["event_id"], r["day"]) for r in known[-length:]], seen, len(known)


def test_states_are_the_last_events_of_all_that_arrived(spark):
    rows, length = random_events(1), 4
    before = spark.createDataFrame([], spark_schema(TABLES["user_sequences"])).drop("gone", "day")
    arrived = events_of(spark, rows).withColumn("arrived_on", F.col("day"))
    keep_from = FIRST + timedelta(days=2)
    found = sequences.sequences(arrived, before, length=length, keep_from=keep_from, targets=("click",)).collect()
    assert all(row.changed_on == row.day and not row.gone for row in found)
    states = {
        (row.user_id, row.day): ([(e.event_id, e.arrived_on) for e in row.events], row.seen, row.events_total) for row in found
    }
    active = sorted({(row["user_id"], row["day"]) for row in rows})
    last_old = {user: max((d for u, d in active if u == user and d < keep_from), default=None) for user, _ in active}
    wanted = [(user, day) for user, day in active if day >= keep_from or day == last_old[user]]
    assert states == {(user, day): reference(rows, user, day, length) for user, day in wanted}


def test_seen_is_null_where_items_repeat_and_times_tie_by_id(spark):
    before = spark.createDataFrame([], spark_schema(TABLES["user_sequences"])).drop("gone", "day")
    rows = [event(3, FIRST), event(1, FIRST), event(2, FIRST)]
    arrived = events_of(spark, rows).withColumn("arrived_on", F.col("day"))
    [row] = sequences.sequences(arrived, before, length=2, keep_from=FIRST, targets=()).collect()
    assert [e.event_id for e in row.events] == ["e002", "e003"] and row.seen is None and row.events_total == 3


def lines_of(seed, days):
    """A log of every kind of row: late, early, broken, bad, doubled within a day and across days."""
    rng = random.Random(seed)
    written, landed = [], {}
    for day in days:
        lines = []
        for _ in range(rng.choice([6, 10])):
            moment = datetime(day.year, day.month, day.day, rng.randrange(24), rng.randrange(60)) - timedelta(
                days=rng.choice([0, 0, 0, 1, 3, 40])
            )
            place = rng.choice([(40.75, -73.99), (48.85, 2.35), (None, None), (None, 2.35), (95.0, 1.0)])
            row = {
                "user_id": rng.choice(["a", "b", "c", "d", None]),
                "item_id": rng.choice(["i1", "i2", "i3"]),
                "event_type": rng.choice(["view", "click", "search", "klick"]),
                "event_timestamp": moment.isoformat() + "Z",
                "latitude": place[0],
                "longitude": place[1],
                "rating": rng.choice([None, 4, "x"]),
            }
            lines.append(json.dumps({name: value for name, value in row.items() if value is not None}))
        lines += rng.choices(lines, k=2) + rng.choices(written or lines, k=2) + ['{"broken', '{"broken']
        rng.shuffle(lines)
        written += lines
        landed[day] = lines
    return landed


@pytest.fixture
def landing(tmp_path):
    """Five days across a month's end, one of them without a folder."""
    days = [FIRST + timedelta(days=n) for n in (0, 1, 2, 4)]
    items = "item_id,title,description,category,brand,price,latitude,longitude\n"
    for day, lines in lines_of(5, days).items():
        folder = tmp_path / "landing" / str(day)
        folder.mkdir(parents=True)
        (folder / "events.jsonl").write_text("".join(line + "\n" for line in lines))
    for day, rows in {0: "i1,One,,A,,1,,\n", 2: "i1,One,,B,,1,,\ni2,Two,,,,2,,\n", 4: "i1,One,,B,,1,,\n"}.items():
        (tmp_path / "landing" / str(FIRST + timedelta(days=day)) / "items.csv").write_text(items + rows)
    for day, rows in {0: "a,young,f,en\nb,old,,\n", 4: "a,young,f,en\nb,old,m,fr\nz,,,\n"}.items():
        (tmp_path / "landing" / str(FIRST + timedelta(days=day)) / "users.csv").write_text(
            "user_id,age_band,gender,language\n" + rows
        )
    return tmp_path / "landing"


def test_nights_and_bootstrap_leave_equal_tables(spark, make_settings, landing, tmp_path):
    def settings(lake):
        return make_settings(
            "conf/local.yaml",
            f"sources.events.path={landing}",
            f"lake={tmp_path / lake}",
            "sequences.length=5",
            "ingest.lookback_days=3",
        )

    steps = choose(to_step="sequences")
    outcome = run_steps(spark, settings("at_once"), LAST, steps=steps, bootstrap=True)
    assert (outcome.days.first, outcome.days.last) == (FIRST, LAST)
    run_steps(spark, settings("nightly"), FIRST + timedelta(days=1), steps=steps, bootstrap=True)
    for day in (FIRST + timedelta(days=n) for n in (2, 3, 4)):
        run_steps(spark, settings("nightly").accepting(), day, steps=steps)  # one has no folder
    lakes = [Lake(spark, str(tmp_path / name)) for name in ("at_once", "nightly")]
    for name in ("raw_events", "items", "users", "events", "events_quarantine", "user_sequences"):
        one, other = (lake.read(name, lake.version(name)) for lake in lakes)
        found = compare(one, other, TABLES[name])
        assert found.equal and found.rows > 3, f"{name}: {found}"


def test_events_by_user_are_what_a_fold_needs(spark, make_context):
    """From them, the last N as of the end of each active day, in a night as in a bootstrap."""
    rows, length = random_events(2), 4
    days = sorted({row["day"] for row in rows})

    def folded(context):
        found = {}
        known = sequences.events_by_user(context).select("user_id", "event_id", "event_timestamp", "arrived_on").collect()
        for user in {row.user_id for row in known}:
            own = sorted((row for row in known if row.user_id == user), key=lambda row: (row.event_timestamp, row.event_id))
            for day in days:
                if day in context.days and any(row.arrived_on == day for row in own):
                    found[user, day] = [row.event_id for row in own if row.arrived_on <= day][-length:]
        return found

    context = make_context(FIRST, LAST, bootstrap=True)
    context.write("events", events_of(spark, rows))
    wanted = {
        (user, day): [e for e, _ in reference(rows, user, day, length)[0]]
        for user, day in {(r["user_id"], r["day"]) for r in rows}
    }
    assert folded(context) == wanted
    before = [row for row in rows if row["day"] < LAST]
    state = sequences.sequences(
        events_of(spark, before).withColumn("arrived_on", F.col("day")),
        context.before("user_sequences"),
        length=length,
        keep_from=FIRST,
        targets=(),
    )
    made = make_context(FIRST, LAST - timedelta(days=1), bootstrap=True)
    made.write("user_sequences", state)
    night = make_context(LAST, first_day=FIRST)
    assert folded(night) == {key: last for key, last in wanted.items() if key[1] == LAST}
