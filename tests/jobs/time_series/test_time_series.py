import random
from datetime import date, datetime, timedelta
from itertools import groupby

import numpy as np
import pyarrow as pa
import pytest
from deltalake import QueryBuilder
from pyspark.sql import functions as F
from scipy.stats import false_discovery_control

from conf.contracts import ENTITIES, SERIES_DAYS, SERIES_WINDOWS
from conf.tables import TABLES
from jobs import time_series
from jobs.lake.compare import compare
from jobs.lake.context import Skipped
from jobs.lake.schema import spark_schema
from jobs.lake.store import Days
from jobs.query.views import aged
from jobs.time_series import features
from jobs.time_series.gaps import gaps
from jobs.time_series.rhythm import rhythm
from jobs.time_series.shape import slope, trend_and_season, volatility, weekly
from jobs.time_series.surprise import change_point, last_day

FIRST, LAST = date(2024, 1, 30), date(2024, 2, 3)
EPOCH = date(1970, 1, 1)
EVENT = {
    "user_id": "u", "item_id": "i", "event_type": "check_in", "event_date": FIRST, "event_timestamp": datetime(2024, 1, 30, 12),
    "local_hour": 12, "category": "coffee", "region": "US/New York/New York", "slot": "weekday_morning", "row_hash": "r",
    "day": FIRST,
}  # fmt: skip


def number(day):
    return (day - EPOCH).days


def events_of(spark, rows):
    schema = spark_schema(TABLES["events"])
    rows = [{**EVENT, "event_id": f"e{number}", **row} for number, row in enumerate(rows)]
    return spark.createDataFrame([tuple(row.get(field.name) for field in schema) for row in rows], schema)


def random_events(seed, days, users=4):
    """Half the events late, some by more than the series reach back; now and then a day without any."""
    rng = random.Random(seed)
    return [
        {
            "user_id": f"u{user}",
            "item_id": rng.choice(["a", "b", None]),
            "event_type": rng.choice(["check_in", "check_in", "review"]),
            "event_date": day - timedelta(days=rng.choice([0, 0, 0, 1, 3, 8, 20, 100])),
            "local_hour": rng.choice([8, 8, 9, 20, None]),
            "category": rng.choice(["coffee", None]),
            "region": rng.choice(["here", "there"]),
            "slot": rng.choice(["weekday_morning", "weekend_night", None]),
            "day": day,
        }
        for day in days
        if day.day != 2
        for user in range(users)
        for _ in range(rng.choice([0, 1, 1, 5]))
    ]


def names_of(row):
    """The entities of an event, from the definition."""
    columns = {name: [row[column] for column in columns] for name, columns in ENTITIES.items()}
    return {(kind, " | ".join(values)) for kind, values in columns.items() if None not in values}


def reference(rows, event_type, day, first_day):
    """The features of the `rows` of one entity as of a day, one series by itself; None without an event in reach."""
    known = [
        row
        for row in rows
        if row["event_type"] == event_type and row["day"] <= day and 0 <= (day - row["event_date"]).days < SERIES_DAYS
    ]
    if not known:
        return None
    seen = min(SERIES_DAYS, (day - first_day).days + 1)
    counts, hours, last = np.zeros(SERIES_DAYS), np.zeros((24, 1)), np.array([number(day)])
    for row in known:
        counts[SERIES_DAYS - 1 - (day - row["event_date"]).days] += 1
        if row["local_hour"] is not None:
            hours[row["local_hour"]] += 1
    found = {
        "observed_days": seen, "level": counts.sum() / seen, "recent": [counts[-days:].sum() for days in range(1, 91)],
        **{f"events_{days}d": counts[-days:].sum() for days in SERIES_WINDOWS},
        **gaps(counts[:, None]), **rhythm(hours),
    }  # fmt: skip
    whole = counts[SERIES_DAYS - seen // 7 * 7 :, None]
    if seen >= 14:
        found |= weekly(whole, last) | {"volatility": volatility(whole)}
    if seen >= 15:
        found |= last_day(counts[-1 - (seen - 1) // 7 * 7 : -1, None], counts[-1:])
    if seen >= 21:
        found["slope"] = slope(whole)
    if seen >= 28:
        found |= trend_and_season(whole, last) | change_point(whole)
    return {name: value[0] if isinstance(value, np.ndarray) else value for name, value in found.items()}


def assert_follows(row, wanted, key):
    for column in features._FEATURES:
        found, value = row[column.name], wanted.get(column.name)
        if value is None or np.isnan(value).any():
            assert found is None, (key, column.name, found)
        else:
            assert found == pytest.approx(list(value) if np.ndim(value) else value, rel=1e-9, abs=1e-9), (key, column.name)


def batches(rows, size):
    """Random events as series, one a row, by user and event type, cut into batches."""
    rows = sorted(rows, key=lambda row: (row["user_id"], row["event_type"]))
    series = [(key, list(own)) for key, own in groupby(rows, key=lambda row: (row["user_id"], row["event_type"]))]
    dates = [[(number(row["day"]) << 32) + number(row["event_date"]) for row in own] for _, own in series]
    counts = [[(1 << features.HOUR_BITS) + hour_of(row) for row in own] for _, own in series]
    table = pa.table(
        {
            "entity": [f"user:{user}" for (user, _), _ in series],
            "event_type": [event_type for (_, event_type), _ in series],
            "dates": pa.array(dates, pa.list_(pa.int64())),
            "counts": pa.array(counts, pa.list_(pa.int64())),
        }
    )
    return table.to_batches(max_chunksize=size)


def hour_of(row):
    return features.NO_HOUR if row["local_hour"] is None else row["local_hour"]


def test_batches_do_not_matter_to_the_last_bit_and_every_row_follows_the_definition(monkeypatch):
    """Over the first half year of a log: the series grow from a day to thirteen weeks."""
    days = Days(first=date(2024, 1, 1), last=date(2024, 6, 30))
    rows = random_events(4, days, users=6)
    described = features.describing(number(FIRST), number(days.first))
    whole, *cut = (pa.Table.from_batches(list(described(iter(batches(rows, size))))).to_pylist() for size in (100_000, 1, 2, 5))
    assert all(repr(one) == repr(whole) for one in cut)
    with monkeypatch.context() as few:
        few.setattr(features, "_AT_ONCE", 16)
        few.setattr(features, "_INCREMENTS_AT_ONCE", 100)
        assert repr(pa.Table.from_batches(list(described(iter(batches(rows, 10**5))))).to_pylist()) == repr(whole)
    alive = {(row["entity"], row["event_type"], row["n"]): row for row in whole if not row["gone"]}
    arrivals = {(row["user_id"], row["day"]) for row in rows if row["day"] >= FIRST}
    assert {(user, n) for user, _, n in alive} == {(f"user:{user}", number(day)) for user, day in arrivals}
    for user, day in arrivals:
        own = [row for row in rows if row["user_id"] == user]
        for event_type in ("check_in", "review"):
            wanted = reference(own, event_type, day, days.first)
            assert (wanted is None) == ((f"user:{user}", event_type, number(day)) not in alive)
            if wanted is not None:
                assert_follows(alive[f"user:{user}", event_type, number(day)], wanted, (user, event_type, day))
    assert {row["observed_days"] for row in alive.values()} >= {30, 91}


def test_an_entity_of_which_only_the_past_arrives_is_gone():
    past = [{**random_events(1, Days(first=FIRST, last=FIRST))[0], "event_date": FIRST - timedelta(days=SERIES_DAYS)}]
    (batch,) = features.describing(number(FIRST), number(FIRST))(iter(batches(past, 10)))
    (row,) = batch.to_pylist()
    assert (
        row["gone"] and row["event_type"] == "" and row["entity"] == f"user:{past[0]['user_id']}" and row["n"] == number(FIRST)
    )


def test_no_rows_give_no_rows():
    assert list(features.describing(0, 0)(iter([]))) == []
    rows = random_events(1, Days(first=FIRST, last=LAST))
    assert list(features.describing(10**5, 0)(iter(batches(rows, 10)))) == []


def stored(context, name):
    return context.lake.read(name, context.lake.version(name))


def test_nights_and_bootstrap_leave_equal_tables(spark, make_context, make_settings, tmp_path):
    start = FIRST - timedelta(days=30)
    rows = [
        *random_events(1, Days(first=start, last=LAST)),
        {**EVENT, "user_id": "once", "item_id": None, "category": None, "region": None, "slot": None, "local_hour": None},
    ]
    nights, at_once = (make_settings("conf/local.yaml", f"lake={tmp_path / name}") for name in ("nights", "bootstrap"))
    for settings in (nights, at_once):
        make_context(start, LAST, bootstrap=True, settings=settings).write("events", events_of(spark, rows))
    time_series.run(make_context(start, FIRST - timedelta(days=1), bootstrap=True, settings=nights))
    for day in Days(first=FIRST, last=LAST):
        context = make_context(day, first_day=start, settings=nights)
        time_series.run(context)
    whole = make_context(start, LAST, bootstrap=True, settings=at_once)
    time_series.run(whole)
    for name in ("activity_daily", "time_series_features"):
        comparison = compare(stored(context, name), stored(whole, name), TABLES[name])
        assert comparison.equal and comparison.rows > 20, f"{name}: {comparison}"

    described = stored(whole, "time_series_features").where("changed_on = day").collect()
    found = {(row.entity_type, row.entity_id, row.event_type, row.day): row for row in described}
    assert {key[:2] + key[3:] for key in found} == {(*name, row["day"]) for row in rows for name in names_of(row)}
    assert sum(row.gone for row in described) > 0
    # One series by itself takes its time: of all rows every fourth.
    for (kind, name, event_type, day), row in sorted(found.items())[::4]:
        own = [one for one in rows if (kind, name) in names_of(one)]
        assert row.entity == f"{kind}:{name}"
        if row.gone:
            assert all(reference(own, one, day, start) is None for one in ("check_in", "review"))
        else:
            assert_follows(row, reference(own, event_type, day, start), (kind, name, event_type, day))

    activity = stored(whole, "activity_daily").collect()
    assert sum(row.events for row in activity if row.entity_type == "user") == len(rows)
    for row in activity:
        own = [
            one["local_hour"]
            for one in rows
            if (row.entity_type, row.entity_id) in names_of(one)
            and (one["event_type"], one["event_date"], one["day"]) == (row.event_type, row.event_date, row.day)
        ]
        assert row.events == own.count(row.local_hour)


def test_windows_age_alike_in_spark_and_without_it(spark, make_context, make_settings):
    """What a reader makes of a row some days later is what a row of that day would say."""
    rows = random_events(3, Days(first=FIRST - timedelta(days=120), last=LAST))
    context = make_context(FIRST - timedelta(days=120), LAST, bootstrap=True, settings=make_settings())
    context.write("events", events_of(spark, rows))
    time_series.run(context)
    names = [*(f"events_{days}d" for days in SERIES_WINDOWS), "days_since"]
    columns = [TABLES["time_series_features"].column(name) for name in names]
    where = f"changed_on = day AND day = '{LAST}' AND entity_type = 'user'"
    table = stored(context, "time_series_features").where(where)
    for days in (0, 1, 6, 7, 30, 89, 90, 400):
        expected = {}
        for row in table.collect():
            own = [one for one in rows if one["user_id"] == row.entity_id and one["event_type"] == row.event_type]
            ages = [(LAST - one["event_date"]).days for one in own if (LAST - one["event_date"]).days < SERIES_DAYS]
            windows = [sum(age + days < length for age in ages) for length in SERIES_WINDOWS]
            expected[row.entity_id, row.event_type] = (*windows, min(ages) + days)
        in_spark = table.withColumn("age_days", F.lit(days)).selectExpr(
            "entity_id", "event_type", *[f"{column.aged} AS {column.name}" for column in columns]
        )
        assert {(row[0], row[1]): tuple(row[2:]) for row in in_spark.collect()} == expected
        query = ", ".join(map(aged, columns))
        query = f"SELECT entity_id, event_type, {query} FROM (SELECT *, {days} AS age_days FROM stored WHERE {where})"
        result = QueryBuilder().register("stored", context.lake.delta("time_series_features")).execute(query).read_all()
        listed = zip(*(one.to_pylist() for one in result.columns), strict=True)
        assert {(row[0], row[1]): tuple(row[2:]) for row in listed} == expected and len(expected) > 3


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_discoveries_agree_with_scipy(spark, rate):
    rng = np.random.default_rng(12)
    rows = []
    for day in (FIRST, LAST):
        for kind, size in (("user", 400), ("item", 30), ("region", 1)):
            # Some are far off; ties, and values that are missing.
            p = np.where(rng.random(size) < 0.1, rng.random(size) * 1e-3, rng.random(size)).round(3)
            rows += [(day, kind, f"{kind}{at}", None if at % 11 == 5 else float(value)) for at, value in enumerate(p)]
    described = spark.createDataFrame(rows, "day date, entity_type string, entity_id string, anomaly_p double")
    blank = [
        column
        for column in TABLES["time_series_features"].names
        if column not in (*described.columns, "is_anomaly", "changed_on")
    ]
    described = described.withColumns({name: F.lit(None) for name in blank})
    found = {
        (row.day, row.entity_type, row.entity_id): row.is_anomaly
        for row in time_series.with_discoveries(described, rate).collect()
    }
    wanted = {}
    for family in {row[:2] for row in rows}:
        own = [row for row in rows if row[:2] == family]
        known = [row for row in own if row[3] is not None]
        adjusted = false_discovery_control([row[3] for row in known])
        wanted |= {row[:3]: False for row in own} | {row[:3]: bool(p <= rate) for row, p in zip(known, adjusted, strict=True)}
    assert found == wanted and 10 < sum(found.values()) < len(rows) / 2


def test_a_log_without_times_is_skipped(make_context, make_settings):
    context = make_context(date(2000, 1, 1), bootstrap=True, settings=make_settings("conf/movielens.yaml"))
    with pytest.raises(Skipped, match="no times"):
        time_series.run(context)
    assert context.outputs == {}
