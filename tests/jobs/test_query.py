"""`query`: what a plain table name means, what is refused, and how answers are written."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from datetime import date

import deltalake
import pytest
from pyarrow import parquet

from jobs.lake.identities import load_key, pseudonym
from jobs.query import QueryError, answer, as_parquet, render
from jobs.query.statement import check

JAN30, JAN31, FEB1, FEB2, FEB3 = (date(2024, 1, 30), date(2024, 1, 31), date(2024, 2, 1), date(2024, 2, 2), date(2024, 2, 3))


@pytest.fixture
def lake(small_lake):
    return small_lake


def interest(user, category, day, **more):
    weights = {"long_weight": 8.0, "short_weight": 8.0, "long_half_life_days": 2.0, "short_half_life_days": 1.0}
    return {"user_id": user, "category": category, "day": day, **weights, **more}


@pytest.fixture
def night(lake):
    """Days 30 January to 2 February, a keyframe on the 1st; a later write is not finished."""
    version = lake.write(
        "user_interests",
        interest("a", "tea", JAN30),
        interest("a", "rum", JAN30),
        interest("b", "tea", JAN31),
        interest("left", "tea", JAN31),
        interest("a", "tea", FEB1, changed_on=JAN30),
        interest("a", "rum", FEB1, changed_on=JAN30),
        interest("b", "tea", FEB1, changed_on=JAN31),
        interest("left", "tea", FEB1, gone=True),
        interest("b", "gin", FEB2),
    )
    lake.finish(FEB2, {"user_interests": version})
    lake.finish(FEB2, {"user_interests": version}, step="night")
    lake.write("user_interests", interest("c", "unfinished", FEB3))
    return lake


def test_a_state_is_each_owners_newest_rows_aged_and_without_the_gone(night):
    rows = night.rows("select user_id, category, long_weight, short_weight, changed_on from user_interests order by 1, 2")
    assert rows == [
        {
            "user_id": "a",
            "category": "rum",
            "long_weight": pytest.approx(8 * 0.5**1.5),
            "short_weight": 1.0,
            "changed_on": "2024-01-30",
        },
        {
            "user_id": "a",
            "category": "tea",
            "long_weight": pytest.approx(8 * 0.5**1.5),
            "short_weight": 1.0,
            "changed_on": "2024-01-30",
        },
        {"user_id": "b", "category": "gin", "long_weight": 8.0, "short_weight": 8.0, "changed_on": "2024-02-02"},
    ]
    [columns] = night.rows("select * from user_interests limit 1")
    assert "gone" not in columns and "day" in columns


def test_history_is_every_stored_row_of_the_finished_version(night):
    assert night.rows("select count(*) as n, count(distinct day) as days from user_interests_history") == [{"n": 9, "days": 4}]


def test_a_snapshot_is_its_newest_partition_and_a_fact_all_rows(lake):
    hot = lake.write("hotspots", {"cell": "old", "day": JAN30}, {"cell": "new", "day": FEB1}, {"cell": "newer", "day": FEB1})
    fact = lake.write("cell_daily", {"day": JAN30}, {"day": FEB2})
    lake.finish(FEB2, {"hotspots": hot, "cell_daily": fact}, step="night")
    assert lake.rows("select cell from hotspots order by cell") == [{"cell": "new"}, {"cell": "newer"}]
    assert lake.rows("select count(*) as n from hotspots_history") == [{"n": 3}]
    assert lake.rows("select count(*) as n from cell_daily") == [{"n": 2}]


def test_before_the_first_night_single_steps_are_read_and_that_is_said(lake, caplog):
    caplog.set_level("INFO")
    version = lake.write("items", {"item_id": "i", "day": JAN30})
    lake.write("items", {"item_id": "unfinished", "day": JAN30})
    lake.finish(JAN30, {"items": version}, step="ingest")
    assert lake.rows("select item_id from items") == [{"item_id": "i"}]
    assert "no night is finished" in caplog.text


def test_a_logs_own_rows_are_read_as_they_stand(night):
    assert night.rows("select step, outputs['user_interests'] as v from runs order by finished_at") == [
        {"step": "label", "v": 2},
        {"step": "night", "v": 2},
    ]


def test_user_is_bound_to_the_pseudonym(lake):
    me = pseudonym("42", load_key())
    version = lake.write("users", {"user_id": me, "day": JAN30}, {"user_id": "other", "day": JAN30})
    lake.finish(JAN30, {"users": version}, step="night")
    sql = "select user_id, ':user' as kept from users where user_id = :user -- :user"
    assert lake.rows(sql, user="42") == [{"user_id": me, "kept": ":user"}]
    assert lake.rows(sql, user="it's' or true") == []
    with pytest.raises(QueryError, match="say which with --user"):
        lake.rows(sql)
    with pytest.raises(QueryError, match="does not name :user"):
        lake.rows("select 1", user="42")


def test_older_versions_and_runs_can_be_read(lake):
    first = lake.write("items", {"item_id": "one", "day": JAN30})
    lake.finish(JAN30, {"items": first}, step="ingest", run_id="old")
    lake.finish(JAN30, {"items": first}, step="night", run_id="old")
    second = lake.write("items", {"item_id": "two", "day": JAN31})
    lake.finish(JAN31, {"items": second}, step="ingest", run_id="new", inputs={"items": first})
    lake.finish(JAN31, {"items": second}, step="night", run_id="new")
    lake.finish(JAN31, {}, step="clean", run_id="single", inputs={"items": second})
    sql = "select item_id from items order by 1"
    assert lake.rows(sql) == [{"item_id": "one"}, {"item_id": "two"}]
    assert lake.rows(sql, versions={"items": first}) == [{"item_id": "one"}]
    assert lake.rows(sql, at_run="old") == [{"item_id": "one"}]
    assert lake.rows(sql, at_run="new") == lake.rows(sql, at_run="single") == [{"item_id": "one"}, {"item_id": "two"}]
    with pytest.raises(QueryError, match=r"no run sinle .* did you mean single"):
        lake.rows(sql, at_run="sinle")
    with pytest.raises(QueryError, match=r"items has no version 99: its newest is 2"):
        lake.rows(sql, versions={"items": 99})
    with pytest.raises(QueryError, match=r"--version itms=1: .* did you mean items"):
        lake.rows(sql, versions={"itms": 1})


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1) TO '{out}'",
        "COPY items TO '{out}'",
        "/* /* */ SELECT 1 AS one -- */ COPY (SELECT 1) TO '{out}'",
        "SELECT 1; COPY (SELECT 1) TO '{out}'",
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '{out}'",
        "CREATE TABLE x AS SELECT 1",
        "CREATE VIEW x AS SELECT 1",
        "INSERT INTO items SELECT * FROM items",
        "WITH a AS (SELECT 1) INSERT INTO items SELECT * FROM a",
        "WITH a AS (INSERT INTO items VALUES (1) RETURNING 1) SELECT * FROM a",
        "SELECT 1 INTO x",
        "UPDATE items SET title = 'x'",
        "DELETE FROM items",
        "DROP TABLE items",
        "TRUNCATE items",
        "SET datafusion.execution.batch_size = 1",
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE SELECT 1",
        "DESCRIBE items",
        "SHOW TABLES",
        "VALUES (1)",
        "FROM items",
        "TABLE items",
        "",
        ";",
        "-- nothing",
        "SELECT 1; SELECT 2",
        "SELECT 'it\\' ; SELECT 2",
        "SELECT * FROM '/etc/passwd'",
        'SELECT * FROM "/etc/passwd"',
        'SELECT * FROM "s3://bucket/rows.parquet"',
        "SELECT * FROM rows.parquet",
        "SELECT (SELECT count(*) FROM 'rows.csv')",
        'SELECT 1 WHERE EXISTS (SELECT 1 FROM "../items")',
        "WITH a AS (SELECT * FROM '/etc/passwd') SELECT * FROM a",
        "SELECT * FROM read_parquet('/x')",
        "SELECT * FROM items, LATERAL read_csv('/x')",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM datafusion.public.items",
        "SELECT * FROM vault",
        "SELECT * FROM vault_history",
        'SELECT * FROM "vault"',
        "WITH vault AS (SELECT * FROM vault) SELECT * FROM vault",
        "SELECT * FROM items WHERE item_id IN (SELECT user_id FROM vault)",
        'SELECT * FROM "Items"',
        "SELECT * FROM items_history_history",
        "SELECT $1",
        "SELECT ?",
        "SELECT :other",
        "SELECT * FROM",
        "SELECT 'open",
    ],
)
def test_anything_but_one_select_on_the_lakes_tables_is_refused(lake, tmp_path, sql):
    version = lake.write("items", {"item_id": "i", "day": JAN30})
    lake.finish(JAN30, {"items": version}, step="night")
    lake.write("vault", {"sealed": b"x"})
    out = tmp_path / "out.csv"
    with pytest.raises(QueryError) as refused:
        lake.rows(sql.format(out=out))
    assert "\n" not in str(refused.value)
    assert not out.exists() and deltalake.DeltaTable(f"{lake.root}/items").version() == version


@pytest.mark.parametrize(
    "sql",
    [
        "select 1 as n;",
        "(select 1 as n)",
        "select 2 as n union all select 3 order by n",
        "with items as (select 7 as n) select n from items",
        'with a as (select item_id from items) select count(*) as n from a, Items as i, "items"',
        "with hotspots as (select 1 as n) select n from hotspots",
        "select value as n from generate_series(1, 3)",
        "select unnest(make_array(1, 2)) as n",
        "select count(*) filter (where item_id = 'i') as n from items group by grouping sets ((day), ())",
        "select item_id as n from items qualify row_number() over (partition by item_id order by day desc) = 1",
        "select * exclude (title) from items",
        "select distinct on (item_id) item_id as n from items order by item_id, day",
        "select 'a\\' as n, '; drop table items' as m, \"N\" from (select 1 as \"N\")",
        "select $$it's$$ as n, e'a\\nb' as m, date '2024-01-01' + interval '1 day' as t",
        "select item_id as n /* a /* nested */ comment */ from items -- and the end",
        "select attributes['x'] as n, tags[1] as m, item_id::varchar as i, 1 <> 2 as o, 'a' || 'b' as c from items",
    ],
)
def test_what_datafusion_answers_is_passed_on(lake, sql):
    version = lake.write("items", {"item_id": "i", "day": JAN30})
    lake.finish(JAN30, {"items": version}, step="night")
    assert lake.rows(sql)


def test_the_statement_that_runs_is_the_one_that_was_checked():
    sql = "select/* a */1,'--x' /*+ hint */ ,\n  \"a--b\" -- end\nfrom items;"
    assert check(sql).text == "select 1,'--x' ,\n  \"a--b\" from items"


def test_near_names_are_suggested(night):
    with pytest.raises(QueryError, match="no table user_interest; did you mean user_interests"):
        night.rows("select * from user_interest")
    with pytest.raises(QueryError, match="no column lable; did you mean label"):
        night.rows("select u.lable from user_interests u")
    with pytest.raises(QueryError, match="no column zzz; the columns are active_days, active_weeks"):
        night.rows("select zzz from user_interests")


def test_what_is_not_there_or_fails_is_said_in_one_line(night):
    with pytest.raises(ValueError, match="hotspots has no finished rows"):
        night.rows("select * from hotspots")
    with pytest.raises(ValueError, match=r"the query failed: .*Cannot cast string") as failed:
        night.rows("select cast(category as int) from user_interests")
    assert not isinstance(failed.value, QueryError) and "\n" not in str(failed.value)
    with pytest.raises(QueryError, match=r"cannot be answered: .*frobnicate"):
        night.rows("select frobnicate(1)")


AWKWARD = (
    "select null as a, '' as b, 'x,\"y\"\nz' as c, 0.1 + 0.2 as d, true as e, x'ff' as f, cast('nan' as double) as g, "
    "make_array(1, null) as h, named_struct('a', make_array('b')) as i, "
    "timestamp '2024-01-30T12:00:00.5' as j, date '2024-01-30' as k, "
    "interval '1 day' as l, map(['k'], [1]) as m, cast(1.50 as decimal(10, 2)) as n, 9007199254740993 as o"
)


def test_csv_is_exact(lake):
    text = render(answer(lake.settings, AWKWARD), "csv")
    header, row = csv.reader(io.StringIO(text))
    assert header == list("abcdefghijklmno")
    assert row == [
        "", "", 'x,"y"\nz', "0.30000000000000004", "true", "ff", "nan", "[1, null]", '{"a": ["b"]}',
        "2024-01-30T12:00:00.500000", "2024-01-30", "1 days", '{"k": 1}', "1.50", "9007199254740993",
    ]  # fmt: skip
    assert text.splitlines()[1].startswith(',"",'), "null and the empty string can be told apart"


def test_json_and_parquet_hold_the_same(lake):
    rows = answer(lake.settings, AWKWARD)
    [row] = json.loads(render(rows, "json"))
    assert row["a"] is None and row["b"] == "" and row["d"] == 0.1 + 0.2 and row["g"] is None
    assert row["h"] == [1, None] and row["i"] == {"a": ["b"]} and row["m"] == {"k": 1} and row["o"] == 9007199254740993
    [stored] = parquet.read_table(io.BytesIO(as_parquet(rows))).to_pylist()
    assert stored["c"] == row["c"] and stored["f"] == b"\xff" and stored["h"] == [1, None] and stored["k"] == JAN30
    nothing = answer(lake.settings, f"select * from ({AWKWARD}) where not e")
    assert render(nothing, "json") == "[]\n" and render(nothing, "csv") == ",".join("abcdefghijklmno") + "\n"
    assert parquet.read_schema(io.BytesIO(as_parquet(nothing))).names == list("abcdefghijklmno")
    double = answer(lake.settings, "select a.n, b.n from (select 1 as n) a, (select 2 as n) b")
    for write in (as_parquet, lambda double: render(double, "json")):
        with pytest.raises(ValueError, match="two columns are called n"):
            write(double)
    assert render(double, "csv") == "n,n\n1,2\n"


def test_a_table_is_cut_to_the_terminal_and_says_so(lake, caplog):
    caplog.set_level("INFO")
    rows = answer(
        lake.settings, "select 'eine sehr lange Zeichenkette, die nicht passt' as one, 2 as two, null as three, 'ende' as four"
    )
    assert render(rows, "table") == (
        "one                                            two  three  four\n"
        "eine sehr lange Zeichenkette, die nicht passt    2  NULL   ende\n"
    )
    lines = render(rows, "table", width=26).splitlines()
    assert all(len(line) <= 26 for line in lines) and "…" in lines[1]
    assert "columns are left out" in caplog.text and "four" in caplog.text
    many = answer(lake.settings, "select value from generate_series(1, 1500)")
    assert len(render(many, "table").splitlines()) == 1001
    assert "first 1000 of 1500 rows" in caplog.text


def run_command(lake, *words, code):
    """The command's exit code, stdout and stderr, as a shell sees them."""
    program = f"import sys; sys.argv = ['wherewhen', *{['--set', f'lake={lake.root}', *words]!r}]\n" + code
    environment = {**os.environ, "PATH": "/nonexistent"}
    environment.pop("JAVA_HOME", None)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)


def test_the_command_needs_no_jvm_and_imports_nothing_heavy(night):
    program = (
        "from jobs.cli import main\n"
        "try: main()\n"
        "finally:\n"
        "    heavy = {'pyspark', 'pyarrow', 'pandas', 'numpy', 'torch', 'cryptography', 'jobs.runner'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    done = run_command(night, "query", "select count(*) as n from user_interests", "--format", "csv", code=program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "n\n3\n", "")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["query", "drop table items"], 2, "error: query answers exactly one SELECT; this is DROP\n"),
        (["query", "select 1", "--version", "items=x"], 2, "write TABLE=N"),
        (["query", "select 1", "--format", "xml"], 2, "'xml' is not one of"),
        (["query"], 2, "Missing argument 'SELECT'"),
        (["query", "select * from hotspots"], 1, "hotspots has no finished rows"),
        (["describe", "itms"], 2, "did you mean items"),
        (["runs", "--day", "today"], 2, "today is not a day"),
    ],
)
def test_errors_are_one_line_and_a_code(night, words, code, said):
    done = run_command(night, *words, code="from jobs.cli import main; main()")
    assert done.returncode == code and said in done.stderr and done.stderr.count("\n") == 1 and done.stdout == ""
