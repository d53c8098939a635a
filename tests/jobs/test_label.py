import itertools
import math
import random
from datetime import date, datetime, timedelta

import numpy as np
import pytest
from deltalake import QueryBuilder
from pyspark.sql import functions as F

from conf.tables import TABLES
from jobs import label
from jobs.lake.compare import compare
from jobs.lake.schema import spark_schema
from jobs.lake.store import Days
from jobs.time_series.gaps import gaps

FIRST, LAST = date(2024, 1, 30), date(2024, 2, 3)
NO_TIMES = date(2000, 1, 1)
EVENT = {
    "user_id": "u", "item_id": "i", "event_type": "check_in", "event_timestamp": datetime(2024, 1, 30, 12),
    "category": "coffee", "row_hash": "r", "day": FIRST,
}  # fmt: skip


def event(day, **more):
    """Arrives on `day`; at noon of that day, if nothing else is said."""
    moment = more.get("event_timestamp", datetime(day.year, day.month, day.day, 12))
    return {**EVENT, "day": day, "event_timestamp": moment, "event_date": moment.date(), **more}


def events_of(spark, rows):
    schema = spark_schema(TABLES["events"])
    rows = [{"event_id": f"e{number}", **row} for number, row in enumerate(rows)]
    return spark.createDataFrame([tuple(row.get(field.name) for field in schema) for row in rows], schema)


def random_events(seed, days, users=4, late=True):
    rng = random.Random(seed)
    rows = []
    for day in days:
        for number in range(users):
            for _ in range(rng.choice([0, 0, 1, 2, 4])):
                back = timedelta(days=rng.choice([0, 0, 0, 1, 5, 20]) if late else 0)
                moment = datetime(day.year, day.month, day.day, rng.randrange(24), rng.randrange(60), 7) - back
                kind = rng.choice(["check_in", "purchase", "impression", "dislike"])
                category = rng.choice(["coffee", "gym", "books", None])
                rows.append(event(day, user_id=f"u{number}", event_timestamp=moment, event_type=kind, category=category))
    return rows


def reference(rows, settings, user, category, day):
    """The state of one category at the end of `day`, from the definition; None where nothing is known."""
    weight = lambda row: settings.event_weights.get(row["event_type"], 1.0)  # noqa: E731
    known = [row for row in rows if row["user_id"] == user and row["category"] and row["day"] <= day and weight(row) != 0]
    own = [row for row in known if row["category"] == category]
    if not own:
        return None
    end = datetime(day.year, day.month, day.day) + timedelta(days=1)

    def total(half_life):
        ages = [(end - row["event_timestamp"]) / timedelta(days=1) for row in own]
        return math.fsum(weight(row) * 2.0 ** (-age / half_life) for row, age in zip(own, ages, strict=True))

    long_half, short_half = settings.long_half_life_days, settings.short_half_life_days
    long, short = total(long_half), total(short_half)
    arrived = sorted({row["day"] for row in own})
    weeks = {one.isocalendar()[:2] for one in arrived}
    returned = [later for earlier, later in itertools.pairwise(arrived) if (later - earlier).days > 28]
    idle = (day - arrived[-1]).days
    seen = (day - min(row["day"] for row in known)).days + 1
    expected = max(long, 0) * short_half * (1 - 0.5 ** (seen / short_half)) / (long_half * (1 - 0.5 ** (seen / long_half)))

    def label_after(days):
        if len(weeks) >= settings.long_min_weeks and long * 0.5 ** (days / long_half) >= settings.long_min_weight:
            return "long"
        return "short" if short * 0.5 ** (days / short_half) >= settings.short_min_weight else "none"

    name = label_after(0)
    if returned and (day - returned[-1]).days < 14:
        trend = "returning"
    elif idle >= 28 or (short <= expected / 2 and expected - short >= 1):
        trend = "fading"
    else:
        trend = "emerging" if short >= 2 * expected and short - expected >= 1 else "stable"
    return {
        "long_weight": long, "short_weight": short, "events": len(own), "active_weeks": len(weeks),
        "first_on": arrived[0], "last_on": arrived[-1], "idle_days": idle, "label": name, "trend": trend,
        "returned_days": (day - returned[-1]).days if returned else None, "known_days": seen - 1,
        "active_days": len(arrived), "span_days": (arrived[-1] - arrived[0]).days, "burstiness": burstiness(arrived),
        "label_until": next((day + timedelta(days=n) for n in range(1, 999) if label_after(n) != name), None),
    }  # fmt: skip


def burstiness(arrived):
    """As the series of the arrival days has it; None with fewer than two gaps."""
    counts = np.zeros(((arrived[-1] - arrived[0]).days + 1, 1))
    counts[[(day - arrived[0]).days for day in arrived]] = 1
    value = float(gaps(counts)["burstiness"][0])
    return None if math.isnan(value) else value


def close(found, wanted):
    floats = {name for name, value in wanted.items() if isinstance(value, float)}
    exact = {name: value for name, value in wanted.items() if name not in floats}
    return {name: found[name] for name in exact} == exact and all(
        found[name] == pytest.approx(wanted[name], rel=1e-9, abs=1e-12 if name == "burstiness" else 1e-290) for name in floats
    )


def assert_follows_the_definition(rows, settings, labels, interests):
    active = {
        (row["user_id"], row["day"])
        for row in rows
        if row["category"] and settings.event_weights.get(row["event_type"], 1) != 0
    }
    categories = {row["category"] for row in rows if row["category"]}
    wanted = {
        (user, category, day): state
        for user, day in active
        for category in categories
        if (state := reference(rows, settings, user, category, day)) is not None
    }
    found = {(row.user_id, row.category, row.day): row.asDict() for row in interests}
    assert len(found) == len(interests) and set(found) == set(wanted)
    for key, state in wanted.items():
        assert close(found[key], state), (key, found[key], state)
    labelled = {number: row for number, row in enumerate(rows) if row["category"]}
    assert sorted(row.event_id for row in labels) == sorted(f"e{number}" for number in labelled)
    for row in labels:
        one = labelled[int(row.event_id[1:])]
        state = reference(rows, settings, one["user_id"], one["category"], one["day"] - timedelta(days=1))
        state = state or {"label": "none", "trend": None, "long_weight": 0.0, "short_weight": 0.0}
        assert close(row.asDict(), {name: state[name] for name in ("label", "trend", "long_weight", "short_weight")}), row


@pytest.mark.parametrize(
    "overrides",
    [(), ("label.short_half_life_days=0.05", "label.long_half_life_days=2", "label.short_min_weight=0.01")],
    ids=["default half-lives", "so short that the range is cut in three"],
)
def test_every_state_follows_the_definition(spark, make_settings, overrides):
    weights = "label.event_weights={purchase: 3.5, impression: 0, dislike: -1.5}"
    settings = make_settings("conf/local.yaml", weights, "label.long_min_weeks=3", *overrides).label
    days = Days(first=date(2023, 11, 20), last=date(2024, 3, 31))
    busy = Days(first=date(2023, 11, 20), last=date(2023, 12, 12))
    late = Days(first=date(2024, 2, 20), last=date(2024, 3, 8))
    rows = random_events(5, busy) + random_events(6, late)
    # Of whom only what does not count came before.
    rows.append(event(busy.first, user_id="shy", event_type="impression", category="gym"))
    rows.append(event(busy.first + timedelta(days=1), user_id="shy", category="gym"))
    before = spark.createDataFrame([], spark_schema(TABLES["user_interests"])).drop("gone", "day")
    events = events_of(spark, rows).where("category IS NOT NULL")
    labels, interests = label.advance(before, events, days, settings)
    interests = interests.collect()
    assert_follows_the_definition(rows, settings, labels.collect(), interests)
    assert {row.trend for row in interests} >= {"stable", "returning"} and {row.label for row in interests} >= {"none", "short"}


@pytest.fixture
def lake_of(make_context, make_settings, tmp_path, spark):
    def make(name, rows, *overrides):
        settings = make_settings("conf/local.yaml", f"lake={tmp_path / name}", *overrides)
        make_context(FIRST, LAST, bootstrap=True, settings=settings).write("events", events_of(spark, rows))
        return settings

    return make


def stored(context, name):
    return context.lake.read(name, context.lake.version(name))


def test_nights_and_bootstrap_leave_equal_tables(make_context, lake_of):
    rows = [row for row in random_events(1, Days(first=FIRST, last=LAST), users=6) if row["day"] != date(2024, 2, 2)]
    rows += [event(date(2024, 1, 31), user_id="once"), event(date(2024, 1, 31), user_id="never", category=None)]
    rows += [event(LAST, user_id="once", event_type="impression"), event(FIRST, user_id="seen", event_type="impression")]
    weights = "label.event_weights={impression: 0, purchase: 2, dislike: -1.5}"
    nights, at_once = (lake_of(name, rows, weights) for name in ("nights", "bootstrap"))
    for day in Days(first=FIRST, last=LAST):
        context = make_context(day, first_day=FIRST, settings=nights)
        label.run(context)
    whole = make_context(FIRST, LAST, bootstrap=True, settings=at_once)
    label.run(whole)
    for name in ("event_labels", "user_interests"):
        comparison = compare(stored(context, name), stored(whole, name), TABLES[name])
        assert comparison.equal and comparison.rows > 20, f"{name}: {comparison}"
    interests = stored(whole, "user_interests")
    changed = interests.where("changed_on = day").collect()
    labels = stored(whole, "event_labels").collect()
    assert_follows_the_definition(rows, whole.settings.label, labels, changed)
    copies = {row.user_id: row.changed_on for row in interests.where("changed_on < day").collect()}
    assert copies["once"] == date(2024, 1, 31) and {row.day for row in interests.where("changed_on < day").collect()} == {
        date(2024, 2, 1)
    }
    assert not {"never", "seen"} & {row.user_id for row in interests.collect()}
    [late] = [row for row in labels if row.user_id == "once" and row.day == LAST]
    assert late.label == "short" and late.long_weight > 0, "an event without weight is labelled as others are"


DAY_0 = date(2024, 1, 1)


def every(step, start, end, **more):
    return [event(DAY_0 + timedelta(days=n), **more) for n in range(start, end, step)]


def test_planted_interests_come_out(spark, make_settings):
    rows = [
        *every(1, 0, 90, category="coffee"),
        *every(1, 82, 90, category="museum"),
        *every(1, 0, 72, category="cinema"),
        *every(2, 0, 40, category="gym"),
        *every(1, 86, 90, category="gym"),
        *every(90, 5, 6, category="dentist"),
        *every(7, 3, 90, category="market"),
        *every(1, 89, 90, category="zoo"),
    ]
    before = spark.createDataFrame([], spark_schema(TABLES["user_interests"])).drop("gone", "day")
    days = Days(first=DAY_0, last=DAY_0 + timedelta(days=89))
    _, interests = label.advance(before, events_of(spark, rows), days, make_settings().label)
    found = {row.category: (row.label, row.trend) for row in interests.where(F.col("day") == F.lit(days.last)).collect()}
    assert found == {
        "coffee": ("long", "stable"),
        "museum": ("short", "emerging"),
        "cinema": ("long", "fading"),
        "gym": ("long", "returning"),
        "dentist": ("none", "fading"),
        "market": ("long", "stable"),
        "zoo": ("short", "stable"),  # one event is no trend
    }
    # A user who is new is not wholly "emerging": there was no time for anything else.
    young = interests.where((F.col("category") == "coffee") & (F.col("day") < F.lit(days.first + timedelta(days=60))))
    assert {row.trend for row in young.collect()} == {"stable"}


def test_stored_interests_age_alike_in_spark_and_without_it(make_context, lake_of):
    """What a reader makes of a row 20 days later is what the definition says of that day."""
    rows = random_events(3, Days(first=FIRST, last=LAST), users=5)
    settings = lake_of("lake", rows, "label.long_min_weeks=1")
    context = make_context(FIRST, LAST, bootstrap=True, settings=settings)
    label.run(context)
    contract = TABLES["user_interests"]
    aged = [
        f"{column.aged or column.name} AS {column.name}" for column in contract.columns if column.name not in ("gone", "day")
    ]
    later = LAST + timedelta(days=20)
    days = (later - LAST).days
    where = "changed_on = day AND day = '2024-02-03'"
    in_spark = stored(context, "user_interests").where(where).withColumn("age_days", F.lit(days)).selectExpr(*aged).collect()
    query = f"SELECT {', '.join(aged)} FROM (SELECT *, {days} AS age_days FROM stored WHERE {where})"
    result = QueryBuilder().register("stored", context.lake.delta("user_interests")).execute(query).read_all()
    listed = [
        dict(zip(result.schema.names, row, strict=True))
        for row in zip(*(one.to_pylist() for one in result.columns), strict=True)
    ]
    without = {(row["user_id"], row["category"]): row for row in listed}
    assert len(in_spark) == len(without) > 5
    for row in in_spark:
        state = reference(rows, settings.label, row.user_id, row.category, later)
        assert close(row.asDict(), state), (row, state)
        assert close(without[row.user_id, row.category], state)
    assert {row.label for row in in_spark} == {"long", "none"}, "some kept their label and some lost it"


def test_a_log_without_times_is_one_day(spark, make_context, make_settings, tmp_path):
    position = lambda number: datetime(2000, 1, 1) + timedelta(seconds=number)  # noqa: E731
    rows = [
        event(NO_TIMES, user_id=f"u{number % 3}", event_timestamp=position(number), category=["drama", "war"][number % 2])
        for number in range(60)
    ]
    settings = make_settings("conf/movielens.yaml", f"lake={tmp_path / 'order'}")
    context = make_context(NO_TIMES, bootstrap=True, settings=settings)
    context.write("events", events_of(spark, rows))
    label.run(context)
    assert_follows_the_definition(
        rows, settings.label, stored(context, "event_labels").collect(), stored(context, "user_interests").collect()
    )
    assert {(row.label, row.trend) for row in stored(context, "event_labels").collect()} == {("none", None)}
    assert {(row.label, row.trend) for row in stored(context, "user_interests").collect()} == {("short", "stable")}
