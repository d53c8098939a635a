"""Segments: what is refused before a night, and what is delivered of one, under the caller's ids, as of the day."""

import csv
from datetime import date

import psycopg
import pytest

from conf.settings import Folder, Postgres, Segment, SettingsError
from conf.tables import TABLES
from jobs import export as exporting
from jobs import segments
from jobs.lake import identities, logs
from jobs.lake.schema import spark_schema

DAY = date(2024, 1, 31)
INTEREST = {
    **dict.fromkeys(TABLES["user_interests"].names), "long_weight": 8.0, "short_weight": 4.0, "long_half_life_days": 60.0,
    "short_half_life_days": 10.0, "events": 5, "active_weeks": 4, "active_days": 5, "first_on": DAY, "last_on": DAY,
    "span_days": 0, "squared_gaps": 0, "idle_days": 0, "known_days": 100, "long_min_weeks": 4, "long_min_weight": 1.0,
    "short_min_weight": 0.5, "label": "long", "trend": "stable", "gone": False,
}  # fmt: skip


def asking(settings, **queries):
    return settings.model_copy(update={"segments": {name: Segment(query=query) for name, query in queries.items()}})


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("select category from user_interests", "select user_id"),
        ("select user_id, 1 + 1 from users", "column 2 has no name"),
        ("select user_id, u.USER_ID from users u", "two columns are called user_id"),
        ("select user_id from user_interest", "there is no table user_interest; did you mean user_interests"),
        ("select user_id from user_interests_history", "of now"),
        ("select user_id from vault", "cannot be queried"),
        ("select 'anna' as user_id", "reads no table"),
        ("delete from users", "exactly one SELECT"),
        ("select user_id frm users", "cannot be read"),
    ],
)
def test_a_wrong_segment_is_named_before_a_night(make_settings, query, said):
    with pytest.raises(SettingsError, match=rf"segments\.near\.query: .*{said}"):
        segments.check_all(asking(make_settings(), near=query))


def test_names_that_mislead_are_refused(make_settings):
    with pytest.raises(SettingsError, match=r"segments\.users: a table is called so"):
        segments.check_all(asking(make_settings(), users="select user_id from users"))
    with pytest.raises(SettingsError, match=r"segments.Coffee lovers"):
        make_settings("conf/local.yaml", "segments={'Coffee lovers': {query: select user_id from users}}")


def test_single_events_are_not_asked_where_users_say_what_they_are_for(make_settings, monkeypatch):
    settings = asking(make_settings(), near="select user_id from events where category = 'coffee'")
    segments.check_all(settings)
    monkeypatch.setattr(type(settings), "asks_consent", True)
    with pytest.raises(SettingsError, match="events holds single events"):
        segments.check_all(settings)


@pytest.fixture
def context(make_context, make_settings, tmp_path, postgres):
    """Interests last changed today and 20 days ago, of two users and of one whom the vault does not know."""
    settings = asking(
        make_settings(),
        near="SELECT user_id, short_weight::float8 AS weight, label || '!' AS said FROM user_interests WHERE category ~ 'coff'",
        known="select * from users",
        wrong="select user_id, no_such_column from user_interests",
    )
    key, earlier = identities.load_key(), date(2024, 1, 11)
    rows = [
        {**INTEREST, "user_id": identities.pseudonym(user, key), "category": category, "changed_on": day, "day": day}
        for user, day, category in (
            ("anna", DAY, "coffee"),
            ("ben", earlier, "coffee"),
            ("gone", DAY, "coffee"),
            ("anna", DAY, "tea"),
        )
    ]
    contract = TABLES["user_interests"]
    wrote = make_context(date(2024, 1, 2), DAY, first_day=date(2024, 1, 1), settings=settings, bootstrap=True)
    values = [tuple(row[name] for name in contract.names) for row in rows]
    wrote.write("user_interests", wrote.lake.spark.createDataFrame(values, spark_schema(contract)))
    vault = [
        {"user_id": identities.pseudonym(user, key), "sealed": identities.seal(user, key), "added_at": logs.now()}
        for user in ("anna", "ben")
    ]
    logs.append(settings.lake, "vault", vault)
    sinks = {
        "shop": Postgres(kind="postgres", dsn=postgres.get_uri(), table="near_coffee", source="near"),
        "files": Folder(kind="csv", path=str(tmp_path / "near"), source="near"),
        "table": Folder(kind="csv", path=str(tmp_path / "interests"), source="user_interests"),
        "unwritten": Folder(kind="csv", path=str(tmp_path / "known"), source="known"),
        "wrong": Folder(kind="csv", path=str(tmp_path / "wrong"), source="wrong"),
    }
    return make_context(DAY, first_day=date(2024, 1, 1), settings=settings.model_copy(update={"sinks": sinks}))


def test_a_segment_is_delivered_as_of_the_day_under_the_callers_ids(context, postgres, tmp_path):
    served = {one.sink: one for one in exporting.deliver(context, context.settings.sinks)}
    assert {name: (one.rows, one.error is None) for name, one in served.items() if name != "unwritten"} == {
        "shop": (2, True), "files": (2, True), "table": (3, True), "wrong": (0, False),
    }  # fmt: skip
    assert "unwritten" not in served, "nothing is delivered of what was never written"
    assert "segments.wrong.query: Spark cannot answer it" in served["wrong"].error and "no_such_column" in served["wrong"].error
    with psycopg.connect(postgres.get_uri(), autocommit=True) as server:
        found = dict.fromkeys(server.execute("SELECT user_id, weight, said FROM near_coffee").fetchall())
        server.execute("DROP TABLE near_coffee")
    assert set(found) == {("anna", 4.0, "long!"), ("ben", 1.0, "long!")}, "a weight is aged to the day"
    files = [row for file in (tmp_path / "near").glob("*.csv") for row in csv.DictReader(file.open())]
    assert sorted(row["user_id"] for row in files) == ["anna", "ben"]
    table = [row for file in (tmp_path / "interests").glob("*.csv") for row in csv.DictReader(file.open())]
    weights = {(row["user_id"], row["category"]): float(row["short_weight"]) for row in table}
    assert weights == {("anna", "coffee"): 4.0, ("anna", "tea"): 4.0, ("ben", "coffee"): 1.0}, "of a state, too"
    assert {row["table_name"] for row in logs.read(context.settings.lake, "export_log")} == {"near", "user_interests", "wrong"}
