import cmath
import math
import random
from datetime import date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from conf.tables import TABLES
from jobs import time_series
from jobs.lake.compare import compare
from jobs.lake.context import Skipped
from jobs.lake.schema import spark_schema
from jobs.lake.store import Days

FIRST, LAST = date(2024, 1, 30), date(2024, 2, 3)
EVENT = {
    "user_id": "u", "item_id": "i", "event_type": "check_in", "event_date": FIRST, "event_timestamp": datetime(2024, 1, 30, 12),
    "local_hour": 12, "category": "coffee", "region": "US/New York/New York", "row_hash": "r", "day": FIRST,
}  # fmt: skip
WEEK = np.arange(56) * 2 * np.pi / 7


def events_of(spark, rows):
    schema = spark_schema(TABLES["events"])
    rows = [{**EVENT, "event_id": f"e{number}", **row} for number, row in enumerate(rows)]
    return spark.createDataFrame([tuple(row.get(field.name) for field in schema) for row in rows], schema)


def random_events(seed, users=4, days=Days(first=FIRST, last=LAST)):  # noqa: B008  frozen
    """Half the events late, some by more than a window of 14 days; one day without any."""
    rng = random.Random(seed)
    return [
        {
            "user_id": f"u{user}",
            "item_id": rng.choice(["a", "b", None]),
            "event_type": rng.choice(["check_in", "review"]),
            "event_date": day - timedelta(days=rng.choice([0, 0, 0, 1, 3, 8, 20])),
            "local_hour": rng.choice([8, 8, 9, 20, None]),
            "category": rng.choice(["coffee", None]),
            "region": rng.choice(["here", "there"]),
            "day": day,
        }
        for day in days
        if day != date(2024, 2, 2)
        for user in range(users)
        for _ in range(rng.choice([0, 1, 1, 5]))
    ]


def reference(rows, column, name, day, window):
    """One row of the features, from the definition."""
    known = [row for row in rows if row[column] == name and row["day"] <= day and 0 <= (day - row["event_date"]).days < window]
    counts = np.zeros(window)
    for row in known:
        counts[window - 1 - (day - row["event_date"]).days] += 1
    hours = [row["local_hour"] for row in known if row["local_hour"] is not None]
    mean = sum(cmath.exp(2j * math.pi * hour / 24) for hour in hours) / len(hours) if hours else None
    return {
        "events": len(known),
        "daily_strength": None if mean is None else abs(mean),
        "daily_peak_hour": None if mean is None or abs(mean) < 1e-9 else cmath.phase(mean) * 12 / math.pi % 24,
        **described(counts),
    }


def described(counts):
    time = np.arange(len(counts))
    slope, start = np.polyfit(time, counts, 1)
    residual = counts - start - slope * time
    power = np.abs(np.fft.rfft(residual)) ** 2
    total = 2 * power[1:].sum() - (power[-1] if len(counts) % 2 == 0 else 0)
    median = np.median(counts)
    mad = np.median(np.abs(counts - median))
    varies = np.sum(residual**2) > 1e-18 * max(1, np.sum(counts**2))
    return {
        "level": counts.mean(),
        "slope": slope,
        "weekly_strength": 2 * power[len(counts) // 7] / total if varies else 0.0,
        "anomaly": (counts[-1] - median) / (1.4826 * mad + 1),
    }


def assert_close(found, wanted, key=None):
    for name, value in wanted.items():
        if value is None or isinstance(value, int):
            assert found[name] == value, (key, name)
        else:
            assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-9), (key, name)


@pytest.mark.parametrize("window", [14, 56, 63])
def test_shape_agrees_with_polyfit_and_fft(window):
    rng = np.random.default_rng(2)
    counts = rng.poisson(rng.uniform(0, 4, size=(1, 40)), size=(window, 40)).astype(float)
    found = time_series.shape(counts)
    for number in range(40):
        one = {name: values[number] for name, values in found.items()}
        assert_close(one, described(counts[:, number]), number)


def alone(counts):
    return {name: values[0] for name, values in time_series.shape(np.asarray(counts, dtype=float)[:, None]).items()}


def test_planted_shapes_are_found():
    days = np.arange(56)
    assert_close(alone(3 + 0.25 * days), {"slope": 0.25, "weekly_strength": 0.0})
    assert_close(alone(np.full(56, 7)), {"level": 7.0, "slope": 0.0, "weekly_strength": 0.0, "anomaly": 0.0})
    assert_close(alone(np.zeros(56)), {"level": 0.0, "slope": 0.0, "weekly_strength": 0.0, "anomaly": 0.0})
    season = alone(20 + 0.5 * days + 5 * np.cos(WEEK + 1))
    assert season["weekly_strength"] > 0.98 and season["slope"] == pytest.approx(0.5, abs=0.02)
    assert alone(10 + 5 * np.cos(WEEK * 7 / 5))["weekly_strength"] < 0.02, "a period of 5 days is not weekly"
    noise = np.random.default_rng(1).normal(size=56)
    mixed = alone(20 + 3 * np.cos(WEEK) + 1.5 * noise / noise.std())
    assert 0.5 < mixed["weekly_strength"] < 0.85
    spike = np.tile([4, 5, 6, 5], 14)
    spike[-1] = 25
    assert alone(spike)["anomaly"] == pytest.approx(20 / (1.4826 * 1 + 1), abs=1)
    assert abs(alone(np.tile([4, 5, 6, 5], 14))["anomaly"]) < 1


def test_rhythm_finds_the_peak():
    hours = np.zeros((24, 5))
    hours[[23, 0, 1], 0] = 1
    hours[18, 1] = 4
    hours[:, 2] = 3
    hours[[6, 18], 3] = 2
    found = time_series.rhythm(hours)
    assert found["daily_strength"][:4] == pytest.approx([(1 + 2 * math.cos(math.pi / 12)) / 3, 1, 0, 0], abs=1e-12)
    assert found["daily_peak_hour"][:2] == pytest.approx([0, 18], abs=1e-9) and found["daily_peak_hour"][0] < 24
    assert np.isnan(found["daily_peak_hour"][2:]).all() and np.isnan(found["daily_strength"][4])


def batches(rows, size):
    """Increments of random events, one a row, sorted by entity, cut into batches."""
    since = date(1970, 1, 1)
    rows = sorted(rows, key=lambda row: row["user_id"])
    hours = [[int(row["local_hour"] == hour) for hour in range(24)] for row in rows]
    table = pa.table(
        {
            "entity": [f"user:{row['user_id']}" for row in rows],
            "entity_type": ["user"] * len(rows),
            "entity_id": [row["user_id"] for row in rows],
            "arrived": pa.array([(row["day"] - since).days for row in rows], "int32"),
            "dated": pa.array([(row["event_date"] - since).days for row in rows], "int32"),
            "events": pa.array([1] * len(rows), "int64"),
            "hours": pa.array(hours, pa.list_(pa.int64())),
        }
    )
    return table.to_batches(max_chunksize=size)


def test_batches_do_not_matter_to_the_last_bit():
    rows = random_events(4, users=30, days=Days(first=FIRST - timedelta(days=40), last=LAST))
    first = (FIRST - date(1970, 1, 1)).days
    whole, *cut = (
        pa.Table.from_batches(list(time_series.describing(first, 14)(iter(batches(rows, size))))).to_pydict()
        for size in (100_000, 1, 7, 64)
    )
    assert all(one == whole for one in cut)
    keys = set(zip(whole["entity_id"], whole["n"], strict=True))
    assert len(keys) == len(whole["n"])
    assert keys == {(row["user_id"], (row["day"] - date(1970, 1, 1)).days) for row in rows if row["day"] >= FIRST}
    for number, (user, n) in enumerate(zip(whole["entity_id"], whole["n"], strict=True)):
        one = {name: values[number] for name, values in whole.items()}
        assert_close(one, reference(rows, "user_id", user, date(1970, 1, 1) + timedelta(days=n), 14), (user, n))


def test_no_rows_give_no_rows():
    assert list(time_series.describing(0, 14)(iter([]))) == []
    assert list(time_series.describing(10**5, 14)(iter(batches(random_events(1), 10)))) == []


def stored(context, name):
    return context.lake.read(name, context.lake.version(name))


def test_nights_and_bootstrap_leave_equal_tables(spark, make_context, make_settings, tmp_path):
    rows = [
        *random_events(1),
        {**EVENT, "user_id": "once", "item_id": None, "category": None, "region": None, "local_hour": None},
    ]
    nights, at_once = (
        make_settings("conf/local.yaml", f"lake={tmp_path / name}", "time_series.window_days=14")
        for name in ("nights", "bootstrap")
    )
    for settings in (nights, at_once):
        make_context(FIRST, LAST, bootstrap=True, settings=settings).write("events", events_of(spark, rows))
    for day in Days(first=FIRST, last=LAST):
        context = make_context(day, first_day=FIRST, settings=nights)
        time_series.run(context)
    whole = make_context(FIRST, LAST, bootstrap=True, settings=at_once)
    time_series.run(whole)
    for name in ("activity_daily", "time_series_features"):
        comparison = compare(stored(context, name), stored(whole, name), TABLES[name])
        assert comparison.equal and comparison.rows > 20, f"{name}: {comparison}"

    features = stored(whole, "time_series_features").collect()
    changed = {(row.entity_type, row.entity_id, row.day): row for row in features if row.changed_on == row.day}
    columns = time_series.ENTITIES
    assert set(changed) == {
        (kind, row[column], row["day"]) for kind, column in columns.items() for row in rows if row[column] is not None
    }
    for (kind, name, day), row in changed.items():
        assert_close(row.asDict(), reference(rows, columns[kind], name, day, 14), (kind, name, day))
        assert row.entity == f"{kind}:{name}" and row.window_days == 14
    assert changed["user", "once", FIRST].daily_strength is None

    activity = stored(whole, "activity_daily").collect()
    assert sum(row.events for row in activity if row.entity_type == "user") == len(rows)
    assert sum(row.events for row in activity if row.entity_type == "category") == sum(
        row["category"] is not None for row in rows
    )
    for row in activity:
        own = [
            one["local_hour"]
            for one in rows
            if (one[columns[row.entity_type]], one["event_type"], one["event_date"], one["day"])
            == (row.entity_id, row.event_type, row.event_date, row.day)
        ]
        assert row.events == len(own) and row.hours == [own.count(hour) for hour in range(24)]


def test_a_log_without_times_is_skipped(make_context, make_settings):
    context = make_context(date(2000, 1, 1), bootstrap=True, settings=make_settings("conf/movielens.yaml"))
    with pytest.raises(Skipped, match="no times"):
        time_series.run(context)
    assert context.outputs == {}
