import random
from datetime import date, datetime, timedelta

import numpy as np
import pytest
from pyspark.sql import functions as F

from conf.tables import TABLES
from jobs import label
from jobs.labeller.moments import READ, moments, past
from jobs.lake.schema import spark_schema
from jobs.lake.store import Days
from models.lasting import OWN, STATE, Clock

FIRST, LAST = date(2024, 1, 1), date(2024, 2, 24)
EVENT = {"user_id": "u", "item_id": "i", "event_type": "check_in", "category": "coffee", "row_hash": "r"}


def event(day, **more):
    return {**EVENT, "day": day, "event_timestamp": datetime(day.year, day.month, day.day, 12), "event_date": day, **more}


def events_of(spark, rows):
    schema = spark_schema(TABLES["events"])
    rows = [{"event_id": f"e{number}", **row} for number, row in enumerate(rows)]
    return spark.createDataFrame([tuple(row.get(field.name) for field in schema) for row in rows], schema)


def random_events(seed=3, users=3):
    rng, rows = random.Random(seed), []
    for day in Days(first=FIRST, last=LAST):
        for number in range(users):
            for _ in range(rng.choice([0, 0, 0, 1, 2])):
                kind = rng.choice(["check_in", "check_in", "dislike", "impression"])
                rows.append(event(day, user_id=f"u{number}", category=rng.choice(["coffee", "gym", "books"]), event_type=kind))
    return rows


def nothing(spark):
    return spark.createDataFrame([], spark_schema(TABLES["user_interests"])).drop("gone", "day")


@pytest.fixture(scope="module")
def made(spark):
    """Events of four months, the label step's rows of them, and the moments."""
    from conf.settings import load_settings

    weights = "label.event_weights={impression: 0, dislike: -0.7}"
    settings = load_settings(overrides=[weights, "label.long_min_weeks=3"]).label
    labels, interests = label.advance(nothing(spark), events_of(spark, random_events()), Days(first=FIRST, last=LAST), settings)
    rows = interests.collect()
    return labels.collect(), rows, moments(written(spark, rows)).collect()


def written(spark, rows):
    """Rows of user_interests as if read from the table."""
    return spark.createDataFrame([tuple(row) for row in rows], spark_schema(TABLES["user_interests"])).select(*READ)


def test_a_moment_is_what_was_known_before_the_day_and_the_rule_says_what_it_said_then(made):
    labels, interests, found = made
    known_on = {(row.user_id, row.category, row.day): row for row in interests}
    days_of = {}
    for user, _, day in known_on:
        days_of.setdefault(user, set()).add(day)
    labelled = {(row.user_id, row.category, row.day): row for row in labels}
    asked = {(row.user_id, row.category, date(1970, 1, 1) + timedelta(days=row.n)): row for row in found}
    assert set(asked) == {key for key, row in known_on.items() if row.last_on == key[2]} and len(asked) == len(found)
    for (user, category, day), row in asked.items():
        before = max((one for one in days_of[user] if one < day), default=None)
        if before is None:
            assert row.passed is None and all(row[name] is None for name in STATE)
            continue
        assert row.passed == (day - before).days - 1
        of_user = [one for (who, _, when), one in known_on.items() if (who, when) == (user, before)]
        assert row.user_long_weight == pytest.approx(sum(one.long_weight for one in of_user))
        assert (row.user_categories, row.user_known_days) == (len(of_user), max(one.known_days for one in of_user))
        known = known_on.get((user, category, before))
        assert [row[name] for name in OWN] == [None if known is None else known[name] for name in OWN]
        said = labelled[user, category, day]
        assert row.is_long == (said.label == "long")
        aged = 0.0 if known is None else row.long_weight * 0.5 ** (row.passed / row.long_half_life_days)
        assert said.long_weight == pytest.approx(aged)
    assert {row.is_long for row in found} == {True, False}


def test_later_days_change_no_moment(spark, made):
    _, interests, found = made
    until = date(2024, 2, 10)
    fewer = moments(written(spark, [row for row in interests if row.day < until])).collect()
    known = {(row.user_id, row.category, row.n): row for row in found}
    assert fewer and all(known[row.user_id, row.category, row.n] == row for row in fewer)


def test_the_order_of_rows_changes_no_past(spark, made):
    _, interests, _ = made
    clock = Clock.of({19_000: 1, 20_000: 1})

    def told(rows):
        frame = moments(written(spark, rows))
        return past(frame.withColumn("user", F.xxhash64("user_id")).drop("user_id").toArrow(), clock, until=20_000)

    one, other = told(interests), told(interests[::-1])
    assert one.categories == other.categories == ["books", "coffee", "gym"]
    for name in one.moments.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(one.moments, name), getattr(other.moments, name))
