from dataclasses import replace
from datetime import UTC, date, datetime

import deltalake
import pytest
from pyspark.sql import functions as F

from conf.contracts import column
from conf.tables import TABLES
from jobs.lake import logs
from jobs.lake.schema import gained, migrate
from jobs.lake.store import keyframe_copies, newest
from jobs.query.versions import Seen
from jobs.query.views import view

ROW = {"user_id": "u", "attributes": {"a": "1"}, "gone": False, "changed_on": date(2024, 1, 30), "day": date(2024, 1, 30)}


def users(spark, *changes):
    schema = "user_id string, attributes map<string,string>, gone boolean, changed_on date, day date"
    rows = [{**ROW, **change} for change in changes]
    return spark.createDataFrame([tuple(row.values()) for row in rows], schema)


def changed(user, day, **more):
    return {"user_id": user, "changed_on": day, "day": day, **more}


def test_keyframes_copy_owners_that_did_not_change(spark):
    rows = users(
        spark,
        changed("a", date(2024, 1, 5)),
        changed("a", date(2024, 2, 10)),
        changed("b", date(2024, 2, 1)),
        changed("c", date(2024, 1, 7)),
        changed("c", date(2024, 1, 9), gone=True),
    )
    copies = keyframe_copies(rows, ("user_id",), [date(2024, 2, 1), date(2024, 3, 1)])
    found = {(row.user_id, row.day, row.changed_on) for row in copies.collect()}
    assert found == {
        ("a", date(2024, 2, 1), date(2024, 1, 5)),
        ("a", date(2024, 3, 1), date(2024, 2, 10)),
        ("b", date(2024, 3, 1), date(2024, 2, 1)),
    }


def test_nights_read_back_the_newest_state_across_keyframes(make_context, spark):
    first = date(2024, 1, 30)
    for number, day in enumerate([first, date(2024, 1, 31), date(2024, 2, 1), date(2024, 2, 2)]):
        context = make_context(day, first_day=first)
        rows = users(spark, changed(f"u{number}", day), changed("all", day, attributes={"n": str(number)}))
        context.write("users", rows)
    context = make_context(date(2024, 2, 2), first_day=first)
    state = {row.user_id: row for row in context.state("users").collect()}
    assert set(state) == {"u0", "u1", "u2", "u3", "all"}
    assert state["all"].attributes == {"n": "3"} and state["u0"].changed_on == first
    before = {row.user_id for row in context.before("users").collect()}
    assert before == {"u0", "u1", "u2", "all"}
    stored = spark.read.format("delta").load(context.lake.path("users"))
    assert stored.where("day = '2024-02-01'").count() == 4, "a keyframe holds every owner"
    assert stored.where("day = '2024-02-02'").count() == 2, "other days hold the changed owners only"


def test_a_gone_owner_is_not_in_the_state(spark):
    rows = users(
        spark, changed("a", date(2024, 1, 5)), changed("a", date(2024, 1, 6), gone=True), changed("b", date(2024, 1, 5))
    )
    assert [row.user_id for row in newest(rows, ("user_id",)).collect()] == ["b"]


def test_a_broken_contract_is_refused_with_every_difference(make_context, spark):
    context = make_context(date(2024, 1, 30))
    wrong = users(spark, {}).drop("gone").withColumn("more", F.lit(1)).withColumn("changed_on", F.lit(1))
    with pytest.raises(ValueError, match=r"users: gone is missing; more is not in the contract; changed_on is int, not date"):
        context.write("users", wrong)
    with pytest.raises(ValueError, match="user_id"):
        context.write("users", users(spark, {"user_id": None}))
    assert context.lake.read("users", context.lake.version("users")).count() == 0


def test_what_is_empty_already_is_cleared_without_a_commit(make_context, spark):
    first, later = date(2024, 1, 29), date(2024, 1, 30)
    with pytest.MonkeyPatch.context() as contracts:
        make_context(first).clear("hotspots")
        version = make_context(first).lake.version("hotspots")
        assert version is not None, "a table that was never written is made"
        context = make_context(later, first_day=first)
        context.clear("hotspots")
        assert context.lake.version("hotspots") == version
        assert context.outputs == {"hotspots": version} and context.inputs == {"hotspots": version}
        more = replace(TABLES["hotspots"], columns=(*TABLES["hotspots"].columns, column("n", "int", "new")))
        contracts.setitem(TABLES, "hotspots", more)
        make_context(later, first_day=first).clear("hotspots")
        assert gained(TABLES["hotspots"], make_context(first).lake.delta("hotspots")) == [], "a contract is followed at once"


def test_rows_that_should_not_be_there_are_cleared(make_context, spark):
    first, later = date(2024, 1, 29), date(2024, 1, 30)
    context = make_context(later, first_day=first)
    context.write("users", users(spark, changed("a", later)))
    again = make_context(later, first_day=first)
    again.clear("users")
    assert again.lake.read("users", again.lake.version("users")).isEmpty()


def test_an_empty_result_clears_the_partition(make_context, spark):
    context = make_context(date(2024, 1, 30))
    context.write("users", users(spark, {}))
    assert context.rows_out["users"] == 1
    context.write("users", users(spark, {}).where("false"))
    assert context.lake.read("users", context.lake.version("users")).count() == 0


def test_every_contract_makes_a_table(tmp_path, spark):
    import deltalake

    from jobs.lake.schema import create, differences

    for name, contract in TABLES.items():
        create(str(tmp_path / name), contract)
        assert differences(contract, deltalake.DeltaTable(tmp_path / name)) == []
        assert spark.read.format("delta").load(str(tmp_path / name)).columns == list(contract.names)


def with_columns(contract, *more, without=()):
    kept = [column for column in contract.columns if column.name not in without]
    return replace(contract, columns=(*kept[:1], *more, *kept[1:]))


def test_a_contract_that_gains_a_nullable_column_migrates_its_table(make_context, spark, monkeypatch):
    day = date(2024, 1, 30)
    context = make_context(day)
    context.write("users", users(spark, {}))
    lake, old = context.lake, context.pins["users"]
    monkeypatch.setitem(TABLES, "users", with_columns(TABLES["users"], column("score", "array<double>", "new")))
    assert [row.score for row in lake.read("users", old).collect()] == [None], "before it is migrated"
    assert lake.version("users") == old, "reading writes nothing"
    sql = view(TABLES["users"], Seen(version=old, day=day, first_day=day), ["score"])
    engine = deltalake.QueryBuilder().register("users_history", lake.delta("users"))
    assert engine.execute(sql).read_all().column("score").to_pylist() == [None]

    stale = lake.delta("users")
    assert gained(TABLES["users"], lake.ensure("users")) == []
    assert gained(TABLES["users"], migrate(stale, TABLES["users"])) == [], "another process did it meanwhile"
    assert lake.version("users") == old + 1
    more = users(spark, {"user_id": "v"}).withColumn("score", F.array(F.lit(1.5)))
    context = make_context(date(2024, 1, 31), first_day=day)
    context.write("users", more.withColumns({"day": F.lit(context.days.last), "changed_on": F.lit(context.days.last)}))
    found = {row.user_id: row.score for row in lake.read("users", context.pins["users"]).collect()}
    assert found == {"u": None, "v": [1.5]}


def test_any_other_change_of_a_contract_is_refused_until_a_whole_history_brings_it(make_context, spark, monkeypatch):
    day = date(2024, 1, 30)
    context = make_context(day)
    context.write("users", users(spark, {}))
    old = context.pins["users"]
    changed_contract = with_columns(TABLES["users"], column("attributes", "string", "x"), without=("attributes",))
    monkeypatch.setitem(TABLES, "users", replace(changed_contract, checks={"one": "attributes = '1'"}))
    rows = users(spark, {}).withColumn("attributes", F.lit("1"))
    for attempt in (lambda: context.write("users", rows), lambda: context.lake.read("users", old)):
        with pytest.raises(ValueError, match=r"lake/users .*attributes is .*run `wherewhen rebuild users`"):
            attempt()
    whole = make_context(day, bootstrap=True)
    assert whole.before("users").count() == 0
    whole.write("users", rows)
    assert whole.pins["users"] == old + 1
    assert [row.attributes for row in whole.lake.read("users", whole.pins["users"]).collect()] == ["1"]
    table = whole.lake.delta("users")
    assert table.metadata().configuration["delta.constraints.one"] == "attributes = '1'" and len(table.file_uris()) == 1
    assert deltalake.DeltaTable(table.table_uri, version=old).schema() != table.schema(), "readers keep the old version"


def test_a_log_that_gained_a_column_is_read_and_appended_to(tmp_path, monkeypatch):
    root = str(tmp_path)
    row = {"user_id": "u", "sealed": b"x", "added_at": datetime(2024, 1, 1, tzinfo=UTC)}
    logs.append(root, "vault", [row])
    monkeypatch.setitem(TABLES, "vault", with_columns(TABLES["vault"], column("bucket", "bigint", "new")))
    assert [one["bucket"] for one in logs.read(root, "vault")] == [None]
    logs.append(root, "vault", [{**row, "bucket": 3}])
    assert sorted(one["bucket"] or 0 for one in logs.read(root, "vault")) == [0, 3]
