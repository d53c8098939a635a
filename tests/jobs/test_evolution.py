"""The step on a lake: who is written when, by which version, and when a forecast is over."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from conf.learning import Model
from conf.tables import TABLES
from jobs import evolution
from jobs.evolution import IDLE_DAYS, LEAST_SHARE, TABLE, vectors
from jobs.lake import logs
from jobs.lake.context import Skipped
from jobs.lake.schema import spark_schema
from jobs.score.moments import EVENT_FIELDS, end_of
from models import registry
from models.histories import Moments, event_columns, histories_from_events, queries_before
from models.interest import InterestModel, new_network
from models.queries import Vocabulary

FIRST = date(2024, 1, 30)  # before a keyframe
VOCABULARY = Vocabulary(
    items=("a", "b", "c"), item_categories=("Gym", "Bar", "Cafe"), categories=("Bar", "Cafe", "Gym"), event_types=("check_in",)
)
EVENT = {
    "event_id": "e", "event_timestamp": datetime(2024, 1, 20, 13, tzinfo=UTC), "item_id": "a", "event_type": "check_in",
    "category": "Gym", "latitude": 40.75, "longitude": -73.98, "region": None,
    "local_timestamp": datetime(2024, 1, 20, 8, tzinfo=UTC), "slot": "weekend_morning", "value": None, "device": None,
    "scene": None, "arrived_on": date(2024, 1, 20),
}  # fmt: skip


def took(context, **users):
    """`user_sequences` of the context's day: per user the days on which an event happened and arrived."""
    rows = []
    for user, days in users.items():
        events = [{**EVENT, "event_timestamp": datetime(d.year, d.month, d.day, 13, tzinfo=UTC), "arrived_on": d} for d in days]
        day = context.days.last
        row = {
            "user_id": user,
            "events": events,
            "seen": None,
            "events_total": len(events),
            "gone": False,
            "changed_on": day,
            "day": day,
        }
        rows.append(tuple(row[name] for name in TABLES["user_sequences"].names))
    context.write("user_sequences", context.spark.createDataFrame(rows, spark_schema(TABLES["user_sequences"])))


def learn(context, version, day=FIRST, *, method="transformer", whole=True):
    torch.manual_seed(len(version))
    folder = registry.version_folder(context.lake.root, version)
    registry.save(InterestModel(new_network(Model(window=8, width=8, heads=2, layers=1), VOCABULARY), VOCABULARY), Path(folder))
    until = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=0 if whole else 5)
    row = {
        "model_version": version, "kind": "interest", "method": method, "day": day, "trained_until": until,
        "folder": f"models/{version}", "settings": "{}", "metrics": "{}", "items": 3, "created_at": logs.now(),
    }  # fmt: skip
    logs.append(context.lake.root, "model_versions", [row])


def publish(context, version, day=FIRST):
    row = {
        "kind": "interest", "model_version": version, "decision": "published", "reason": "first", "run_id": "r",
        "decided_at": logs.now(), "day": day,
    }  # fmt: skip
    logs.append(context.lake.root, "publications", [row])


def stored(context, day=None):
    rows = context.lake.read(TABLE, context.lake.version(TABLE), "true" if day is None else f"day = '{day}'")
    return sorted(
        (row.asDict() for row in rows.collect()), key=lambda row: (row["user_id"], row["horizon_days"], row["category"])
    )


def test_everybody_has_seven_days_of_shares(make_context, make_settings):
    context = make_context(FIRST, bootstrap=True, settings=make_settings())
    took(context, anna=[FIRST - timedelta(days=10)], bert=[FIRST])
    learn(context, "v1")
    evolution.run(context)
    rows = stored(context)
    assert {(row["user_id"], row["horizon_days"]) for row in rows} == {(u, d) for u in ("anna", "bert") for d in range(1, 8)}
    for user in ("anna", "bert"):
        for ahead in range(1, 8):
            of_day = [row for row in rows if (row["user_id"], row["horizon_days"]) == (user, ahead)]
            assert sum(row["share"] for row in of_day) == pytest.approx(1.0, abs=3 * LEAST_SHARE)
            assert all(row["forecast_date"] == FIRST + timedelta(days=ahead) and row["share"] >= LEAST_SHARE for row in of_day)
        days = {row["horizon_days"]: row["day_share"] for row in rows if row["user_id"] == user}
        assert sum(days.values()) == pytest.approx(1.0, abs=1e-4)
    assert {row["model_version"] for row in rows} == {"v1"} and context.details == {"model_version": "v1"}


def test_nights_write_the_users_of_the_day_and_those_whose_week_is_over(make_context, make_settings):
    settings = make_settings()
    first = make_context(FIRST, bootstrap=True, settings=settings)
    took(first, active=[FIRST], quiet=[FIRST], leaving=[FIRST - timedelta(days=IDLE_DAYS - 3)])
    learn(first, "v1")
    evolution.run(first)
    assert {row["user_id"] for row in stored(first)} == {"active", "quiet", "leaving"}
    written = {}
    for number in range(1, 9):
        day = FIRST + timedelta(days=number)
        night = make_context(day, first_day=FIRST, settings=settings)
        took(night, **({"active": [FIRST, day]} if number in (1, 3) else {}))
        evolution.run(night)
        changed = [row for row in stored(night, day) if row["changed_on"] == day]
        written[number] = {(row["user_id"], row["gone"]) for row in changed}
    active, quiet = ("active", False), ("quiet", False)
    # Nights 4 and after: `leaving` has done nothing for eight weeks; `active` is written a week after its third night.
    assert written == {1: {active}, 2: set(), 3: {active}, 4: {("leaving", True)}, 5: set(), 6: set(), 7: {quiet}, 8: set()}
    state = night.state(TABLE)
    assert {row.user_id for row in state.select("user_id").distinct().collect()} == {"active", "quiet"}


def test_the_network_that_serves_is_asked_else_the_newest_whole_one(make_context, make_settings):
    context = make_context(FIRST, bootstrap=True, settings=make_settings())
    took(context, anna=[FIRST])
    with pytest.raises(Skipped, match="nothing was learnt"):
        evolution.run(context)
    learn(context, "held-out", whole=False)
    with pytest.raises(Skipped, match="nothing was learnt"):
        evolution.run(context)
    learn(context, "older", FIRST - timedelta(days=1))
    learn(context, "newer")
    learn(context, "tomorrow", FIRST + timedelta(days=1))
    assert evolution.version_asked(context)["model_version"] == "newer"
    publish(context, "hybrid-1")
    assert evolution.version_asked(context)["model_version"] == "newer", "what serves is no network"
    publish(context, "older")
    assert evolution.version_asked(context)["model_version"] == "older"


def vectors_of(context, where="true"):
    rows = context.lake.read(vectors.TABLE, context.lake.version(vectors.TABLE), where).collect()
    return {row.user_id: row.asDict() for row in rows}


def test_vectors_are_those_that_score_and_hold_until_a_user_acts_or_another_version_is_asked(make_context, make_settings):
    settings = make_settings()
    first = make_context(FIRST, bootstrap=True, settings=settings)
    took(first, active=[FIRST - timedelta(days=3), FIRST], quiet=[FIRST - timedelta(days=90)])
    learn(first, "v1")
    evolution.run(first)
    found = vectors_of(first)
    assert set(found) == {"active", "quiet"} and {row["model_version"] for row in found.values()} == {"v1"}
    model = InterestModel.load(Path(registry.version_folder(first.lake.root, "v1")))
    columns = {name: pa.array([EVENT[name]] * 2) for name in EVENT_FIELDS}
    times = [datetime(d.year, d.month, d.day, 13, tzinfo=UTC) for d in (FIRST - timedelta(days=3), FIRST)]
    columns["event_timestamp"] = pa.array(times, pa.timestamp("us", tz="UTC"))
    events, one = event_columns(VOCABULARY, columns), np.array([0])
    asked = Moments(first_B=one, stop_B=one + 2, timestamp_B=np.array([end_of(FIRST)]), hour_of_week_B=np.array([-1.0]))
    histories, queries = histories_from_events(events, one, one + 2, 2), queries_before(events, asked)
    scores, pulls = model.scores(histories, queries)[0], model.history_term(histories, queries)
    np.testing.assert_allclose(found["active"]["gated"], model.query_vectors(histories, queries)[0], atol=1e-5)
    scored = np.array(found["active"]["gated"]) @ model.item_matrix() + model.item_bias()
    scored[pulls.places_P] += pulls.values_P
    np.testing.assert_allclose(scored, scores, atol=1e-5)
    assert {len(found["quiet"][name]) for name in ("short", "long", "gated")} == {8}
    assert not np.allclose(found["active"]["short"], found["active"]["long"])
    written = {}
    for number in range(1, 4):
        day = FIRST + timedelta(days=number)
        night = make_context(day, first_day=FIRST, settings=settings)
        took(night, **({"active": [FIRST, day]} if number == 1 else {}))
        if number == 3:
            learn(night, "v2", day)
        evolution.run(night)
        written[number] = {user for user, row in vectors_of(night, f"day = '{day}'").items() if row["changed_on"] == day}
    assert written == {1: {"active"}, 2: set(), 3: {"active", "quiet"}}
    assert {row.model_version for row in night.state(vectors.TABLE).collect()} == {"v2"}


def test_a_log_without_times_has_vectors_and_no_coming_days(make_context, make_settings):
    context = make_context(date(2000, 1, 1), bootstrap=True, settings=make_settings("conf/movielens.yaml"))
    took(context, anna=[date(2000, 1, 1)])
    learn(context, "v1", date(2000, 1, 1))
    evolution.run(context)
    assert set(vectors_of(context)) == {"anna"} and "no times" in context.details["forecasts"]
    assert context.lake.version(TABLE) is None
