"""Deliveries to a real PostgreSQL and to folders: whole or not at all, with readers looking on."""

import csv
import json
import logging
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import pytest

from conf.settings import Folder, Postgres, SettingsError
from conf.tables import TABLES
from jobs import export as exporting
from jobs.export.rows import caller_rows
from jobs.lake import identities, logs, runs
from jobs.lake.person import Person
from jobs.lake.runs import NIGHT
from jobs.lake.schema import spark_schema
from jobs.sinks import folder, postgres
from jobs.sinks.postgres.table import Table, make, stage
from tests.jobs.delivering import DAY, NASTY, SCHEMA, delivery, lists

KEY = ("user_id", "rank")
ENTRY = {
    "user_id": "anna", "slot": "any", "rank": 1, "item_id": "i1", "score": 0.5, "source": "model:transformer",
    "reason": "chosen by 2 users", "model_version": "v1", "policy_version": None, "propensity": 1.0,
    "policy_context": None, "holdout": None, "gone": False,
    "changed_on": DAY, "day": DAY,
}  # fmt: skip


@pytest.fixture(scope="module")
def server(postgres):
    """The dsn of a PostgreSQL server that asks the role `careful` for a password."""
    rules = postgres.pgdata / "pg_hba.conf"
    rules.write_text("local all careful scram-sha-256\n" + rules.read_text())
    with psycopg.connect(postgres.get_uri(), autocommit=True) as connection:
        connection.execute("CREATE ROLE careful LOGIN PASSWORD 'right-9431'")
        connection.execute("GRANT CREATE ON SCHEMA public TO careful")
        connection.execute("CREATE ROLE shop")
        connection.execute("SELECT pg_reload_conf()")
    return postgres.get_uri()


@pytest.fixture
def ask(server):
    """SQL on the server: the rows of an answer, or nothing."""
    with psycopg.connect(server, autocommit=True) as connection:

        def answer(query, *values):
            cursor = connection.execute(query, values)
            return cursor.fetchall() if cursor.description else []

        yield answer


@pytest.fixture
def target(server, request, ask):
    """A sink whose table no other test uses."""
    name = request.node.name[:40].replace("[", "_").replace("]", "_")
    yield Postgres(kind="postgres", dsn=server, table=name)
    ask(f'DROP TABLE IF EXISTS "{name}" CASCADE')


def seal(context, *users):
    key = identities.load_key()
    rows = [
        {"user_id": identities.pseudonym(user, key), "sealed": identities.seal(user, key), "added_at": logs.now()}
        for user in users
    ]
    logs.append(context.lake.root, "vault", rows)


def write(context, name, *rows):
    key = identities.load_key()
    rows = [{**row, "user_id": identities.pseudonym(row["user_id"], key)} if "user_id" in row else row for row in rows]
    values = [tuple(row[column] for column in TABLES[name].names) for row in rows]
    context.write(name, context.spark.createDataFrame(values, spark_schema(TABLES[name])))


def test_the_table_is_made_with_its_key_and_holds_every_character(spark, target, ask):
    rows = [(text, 1, text[::-1], n / 7) for n, text in enumerate(NASTY)] + [
        ("null", 1, None, None),
        ("nul\x00l", 1, "a\x00b", 1e-300),
    ]
    wanted = {
        (text.replace("\x00", "\ufffd"), rank, item and item.replace("\x00", "\ufffd"), score)
        for text, rank, item, score in rows
    }
    frame = spark.createDataFrame(rows, SCHEMA)
    assert postgres.deliver(delivery(frame, KEY, comment="what it's about"), target).rows == len(rows)
    assert set(ask(f'SELECT user_id, rank, item_id, score FROM "{target.table}"')) == wanted
    assert ask("SELECT obj_description(%s::regclass)", f'"{target.table}"') == [("what it's about",)]
    with pytest.raises(psycopg.errors.UniqueViolation):
        ask(f"INSERT INTO \"{target.table}\" VALUES ('null', 1)")


def test_contents_are_exchanged_while_views_grants_and_indexes_stay(spark, target, ask):
    key = ("user_id", "rank")
    postgres.deliver(delivery(lists(spark, 1), key), target)
    ask(f'CREATE VIEW shown AS SELECT * FROM "{target.table}" WHERE rank = 1')
    ask(f'CREATE INDEX by_item ON "{target.table}" (item_id)')
    ask(f'GRANT SELECT ON "{target.table}" TO shop')
    identity = ask("SELECT %s::regclass::oid", f'"{target.table}"')
    before = dict(ask(f'SELECT user_id || rank, xmin::text FROM "{target.table}"'))

    few = lists(spark, 1, users=30).unionByName(lists(spark, 2, users=50).where("substr(user_id, 2) >= 40"))
    assert postgres.deliver(delivery(few, key), target).rows == 120
    after = dict(ask(f'SELECT user_id || rank, xmin::text FROM "{target.table}"'))
    assert len(before.items() & after.items()) == 90, "rows that did not change are not touched"
    assert ask("SELECT count(*) FROM shown") == [(40,)]
    assert ask(f"SELECT has_table_privilege('shop', '\"{target.table}\"', 'SELECT')") == [(True,)]
    assert ask("SELECT %s::regclass::oid", f'"{target.table}"') == identity
    assert ask("SELECT count(*) FROM pg_indexes WHERE tablename = %s", target.table) == [(2,)]
    assert ask("SELECT count(*) FROM pg_class WHERE relname LIKE '%%staging%%'") == [(0,)]
    assert postgres.deliver(delivery(few.limit(0), key), target).rows == 0
    assert ask(f'SELECT count(*) FROM "{target.table}"') == [(0,)]


@pytest.mark.parametrize("isolation", [psycopg.IsolationLevel.READ_COMMITTED, psycopg.IsolationLevel.REPEATABLE_READ])
def test_a_reader_sees_one_night_or_the_next(spark, server, target, isolation):
    postgres.deliver(delivery(lists(spark, 1), KEY), target)
    seen, done = Counter(), threading.Event()

    def read():
        with psycopg.connect(server) as connection:
            connection.isolation_level = isolation
            while not done.is_set():
                with connection.transaction():
                    connection.execute("SELECT 1")  # fixes the snapshot before the table is touched
                    time.sleep(0.002)
                    seen[tuple(connection.execute(f'SELECT score, count(*) FROM "{target.table}" GROUP BY 1'))] += 1

    reader = threading.Thread(target=read)
    reader.start()
    for night in (2, 3):
        postgres.deliver(delivery(lists(spark, night), KEY), target)
    time.sleep(0.1)
    done.set()
    reader.join()
    assert set(seen) == {((1.0, 120),), ((2.0, 120),), ((3.0, 120),)}


def test_a_table_of_somebody_else_is_filled_even_without_a_key(spark, target, ask):
    ask(f'CREATE TABLE "{target.table}" (item_id varchar(20), rank numeric, user_id text, score real, note text DEFAULT $$n$$)')
    for night in (1, 2):
        assert postgres.deliver(delivery(lists(spark, night), KEY), target).rows == 120
    assert ask(f'SELECT DISTINCT item_id, score, note FROM "{target.table}"') == [("i2", 2.0, "n")]
    ask(f'ALTER TABLE "{target.table}" DROP COLUMN score')
    with pytest.raises(ValueError, match=r"lacks the column\(s\) score: add them"):
        postgres.deliver(delivery(lists(spark, 3), ()), target)


@pytest.mark.parametrize("body", ["RETURN NULL", "RAISE EXCEPTION 'no room for it'"])
def test_a_failure_leaves_the_old_contents(spark, target, ask, body):
    postgres.deliver(delivery(lists(spark, 1), KEY), target)
    body = f"BEGIN IF NEW.user_id = 'u7' THEN {body}; END IF; RETURN NEW; END"
    ask(f"CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")
    ask(f'CREATE TRIGGER refuse BEFORE INSERT ON "{target.table}" FOR EACH ROW EXECUTE FUNCTION refuse()')
    with pytest.raises(ValueError, match=r"120 rows were sent, 117 would be there.*nothing was changed|no room for it"):
        postgres.deliver(delivery(lists(spark, 2), KEY), target)
    assert ask(f'SELECT score, count(*) FROM "{target.table}" GROUP BY 1') == [(1.0, 120)]
    assert ask("SELECT count(*) FROM pg_class WHERE relname LIKE '%%staging%%'") == [(0,)]


def test_a_row_that_the_table_cannot_hold_is_said_in_one_line_without_its_contents(spark, target, ask):
    ask(f'CREATE TABLE "{target.table}" (user_id text, rank int, item_id varchar(2), score real)')
    rows = spark.createDataFrame([("secret-user", 1, "too long", 1.0)], SCHEMA)
    with pytest.raises(ValueError, match="value too long for type character varying") as raised:
        postgres.deliver(delivery(rows, ()), target)
    assert "\n" not in str(raised.value) and "secret-user" not in str(raised.value) and "Traceback" not in str(raised.value)


def test_two_exports_at_once_are_refused(spark, server, target):
    with psycopg.connect(server) as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"wherewhen {target.table}"])
        with pytest.raises(ValueError, match=r"another export into .* is under way"):
            postgres.deliver(delivery(lists(spark, 1), ()), target)


def test_another_attempt_at_a_partition_replaces_the_first(spark, server, target, ask):
    import pyarrow as pa

    frame = lists(spark, 1)
    how, table = postgres.login(target), Table.of(target.table)
    with how.connect() as connection:
        make(connection, table, frame.schema, delivery(frame))
        stage(connection, table, frame.schema, None, ())
    batch = pa.RecordBatch.from_pydict({"user_id": pa.array(["a", "b"]), "rank": pa.array([1, 2], pa.int32()),
                                        "item_id": pa.array(["x", None]), "score": pa.array([0.1, 0.2])})  # fmt: skip
    for part in (0, 1, 0):
        assert postgres._copy([batch, batch.slice(1)], how, table, table.staging, frame.columns, part)[0] == 3
    staging = f'"_staging_{target.table}"'
    assert ask(f"SELECT _part, count(*) FROM {staging} GROUP BY 1 ORDER BY 1") == [(0, 3), (1, 3)]
    ask(f"DROP TABLE {staging}")


def test_passwords_come_from_the_environment_and_are_never_told(server, monkeypatch):
    sink = Postgres(kind="postgres", dsn=server.replace("postgres:@", "careful@"), password_env="SHOP_PASSWORD")
    with pytest.raises(ValueError, match="set SHOP_PASSWORD"):
        postgres.login(sink)
    monkeypatch.setenv("SHOP_PASSWORD", "wrong-5507")
    said = refusal(sink)
    assert "password authentication failed" in said and "database postgres" in said and "\n" not in said
    assert "wrong-5507" not in said + repr(postgres.login(sink))
    monkeypatch.setenv("SHOP_PASSWORD", "right-9431")
    postgres.login(sink).connect().close()
    said = refusal(Postgres(kind="postgres", dsn="postgresql://me:hidden-1@127.0.0.1:1/shop"))
    assert "127.0.0.1:1, database shop cannot be reached" in said and "hidden-1" not in said
    said = refusal(Postgres(kind="postgres", dsn="hidden-1 = = nonsense"))
    assert "neither postgresql://user@host:port/database nor" in said and "hidden-1" not in said


def refusal(sink):
    with pytest.raises(ValueError) as raised:
        postgres.login(sink).connect()
    return str(raised.value)


def read_csv(path):
    return [row for file in sorted(Path(path).glob("*.csv")) for row in csv.DictReader(file.open(newline="", encoding="utf-8"))]


def read_json(path):
    return [json.loads(line) for file in sorted(Path(path).glob("*.json")) for line in file.open(encoding="utf-8")]


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_a_folder_is_exchanged_whole(spark, tmp_path, kind):
    sink = Folder(kind=kind, path=str(tmp_path / "out" / "lists"))
    read = {"csv": read_csv, "json": read_json, "parquet": lambda path: pq.read_table(path).to_pylist()}[kind]
    assert folder.deliver(delivery(lists(spark, 1), KEY, run_id="r1"), sink).rows == 120
    first = Path(sink.path).resolve()
    assert len(read(sink.path)) == 120 and {row["item_id"] for row in read(sink.path)} == {"i1"}
    (first.with_name(first.name + "-dead.writing")).mkdir()
    for _ in range(2):  # a run again leaves equal contents
        assert folder.deliver(delivery(lists(spark, 2, users=2), KEY, run_id="r2"), sink).rows == 6
        assert {row["item_id"] for row in read(sink.path)} == {"i2"} and len(read(sink.path)) == 6
    assert not first.exists(), "only the delivery before is kept, for readers that are still in it"
    assert len([path for path in (tmp_path / "out").iterdir() if path.is_dir() and not path.is_symlink()]) == 3
    assert {path.suffix for path in Path(sink.path).iterdir() if path.name != "_MANIFEST"} == {f".{kind}"}
    assert folder.deliver(delivery(lists(spark, 3).limit(0), KEY, run_id="r3"), sink).rows == 0
    assert read(sink.path) == []


def test_a_killed_delivery_leaves_the_old_folder(spark, tmp_path, monkeypatch):
    sink = Folder(kind="csv", path=str(tmp_path / "lists"))
    folder.deliver(delivery(lists(spark, 1), KEY, run_id="r1"), sink)
    monkeypatch.setattr(folder, "_turn", lambda path, final: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        folder.deliver(delivery(lists(spark, 2), KEY, run_id="r2"), sink)
    assert {row["item_id"] for row in read_csv(sink.path)} == {"i1"}


def test_csv_reads_back_every_character(spark, tmp_path):
    rows = [(text, n, text[::-1], n / 7) for n, text in enumerate(NASTY)] + [("none", 9, None, None)]
    sink = Folder(kind="csv", path=str(tmp_path / "lists"))
    folder.deliver(delivery(spark.createDataFrame(rows, SCHEMA), KEY, run_id="r"), sink)
    found = [(row["user_id"], int(row["rank"]), row["item_id"], row["score"]) for row in read_csv(sink.path)]
    assert sorted(found) == sorted(
        (user, rank, item or "", "" if score is None else str(score)) for user, rank, item, score in rows
    )


def test_json_holds_every_character_and_what_is_nested_and_lets_go_of_a_person(spark, tmp_path):
    rows = [(text, n, {"a": [text[::-1], None]}) for n, text in enumerate(NASTY)] + [("none", 9, None)]
    sink = Folder(kind="json", path=str(tmp_path / "lists"))
    frame = spark.createDataFrame(rows, "user_id string, rank int, more map<string,array<string>>")
    folder.deliver(delivery(frame, KEY, run_id="r"), sink)
    found = [(row["user_id"], row["rank"], row["more"]) for row in read_json(sink.path)]
    assert sorted(found, key=str) == sorted(rows, key=str)
    person = Person.of(NASTY[0])
    assert [row["rank"] for row in folder.rows_of(sink, person)] == ["0"]
    assert folder.erase(sink, person) == 1
    assert {row["rank"] for row in read_json(sink.path)} == {rank for _, rank, _ in rows} - {0}


def test_a_folder_of_somebody_else_is_left_alone(spark, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    with pytest.raises(ValueError, match="was not made by an export"):
        folder.deliver(delivery(lists(spark, 1), KEY, run_id="r"), Folder(kind="csv", path=str(tmp_path / "mine")))
    with pytest.raises(ValueError, match="not to a URL"):
        folder.deliver(delivery(lists(spark, 1), KEY, run_id="r"), Folder(kind="csv", path="s3://bucket/x"))


def sinks(tmp_path, **more):
    return {"files": Folder(kind="csv", path=str(tmp_path / "out")), **more}


def night(context, settings, **versions):
    logs.append(settings.lake, "runs", [runs.row("n", NIGHT, context.days.last, outputs=versions)])


def test_the_step_serves_what_it_can_records_all_and_fails_for_the_rest(
    make_context, make_settings, server, tmp_path, ask, caplog, monkeypatch
):
    monkeypatch.setenv("SHOP_PASSWORD", "wrong-5507")
    closed = Postgres(kind="postgres", dsn=server.replace("postgres:@", "careful@"), password_env="SHOP_PASSWORD")
    open_ = Postgres(kind="postgres", dsn=server, table="public.served")
    settings = make_settings().model_copy(update={"sinks": sinks(tmp_path, broken=closed, shop=open_)})
    context = make_context(DAY, settings=settings)
    # Caller's ids with every kind of character; one user is in no vault.
    seal(context, "anna", *NASTY)
    write(
        context,
        "recommendations",
        ENTRY,
        *[{**ENTRY, "user_id": user, "rank": 2} for user in NASTY],
        {**ENTRY, "user_id": "erased"},
    )
    context = make_context(DAY, settings=settings)
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(ValueError, match=r"sink broken failed: PostgreSQL at .* \(files, shop: delivered\)"),
    ):
        exporting.run(context)
    assert "wrong-5507" not in caplog.text
    log = {row["sink"]: row for row in logs.read(settings.lake, "export_log")}
    assert {name: (row["status"], row["rows"]) for name, row in log.items()} == {
        "files": ("done", 9), "broken": ("failed", 0), "shop": ("done", 9),
    }  # fmt: skip
    assert log["shop"]["table_version"] == context.pins["recommendations"] and "password" in log["broken"]["error"]
    expected = ["user_id", "slot", "rank", "item_id", "score", "source", "reason", "model_version", "propensity", "changed_on"]
    served = ask("SELECT * FROM served")
    assert {row[0] for row in served} == {"anna", *NASTY}
    assert ("anna", "any", 1, "i1", 0.5, "model:transformer", "chosen by 2 users", "v1", 1.0, DAY) in served
    files = read_csv(tmp_path / "out")
    assert list(files[0]) == expected and {row["user_id"] for row in files} == {"anna", *NASTY}
    ask("DROP TABLE served")

    # The command serves the newest night again.
    night(context, settings, recommendations=context.pins["recommendations"], vault=context.pins["vault"])
    with caplog.at_level(logging.INFO):
        (counted,) = exporting.export(context.spark, settings, "files", dry_run=True)
    assert counted.rows == 0 and "holds recommendations as of 2024-01-31 already" in caplog.text
    with caplog.at_level(logging.INFO):
        (counted,) = exporting.export(context.spark, settings, "files", dry_run=True, whole=True)
    assert counted.rows == 9 and "would send 9 rows of recommendations as of 2024-01-31" in caplog.text
    assert len(logs.read(settings.lake, "export_log")) == 3, "a dry run writes nothing"
    (again,) = exporting.export(context.spark, settings, "files")
    assert (again.rows, again.how) == (0, "nothing") and read_csv(tmp_path / "out") == files
    (again,) = exporting.export(context.spark, settings, "files", whole=True)
    assert (again.rows, again.how) == (9, "everything") and read_csv(tmp_path / "out") == files
    with pytest.raises(SettingsError, match="no sink other; the settings have broken, files, shop"):
        exporting.export(context.spark, settings, "other")


def test_rows_that_repeat_another_leave_too(make_context, make_settings, server, ask):
    """Of raw events an exact duplicate is a row like any other, so its hash is no primary key."""
    sink = Postgres(kind="postgres", dsn=server, table="raw", source="raw_events")
    settings = make_settings().model_copy(update={"sinks": {"raw": sink}})
    context = make_context(DAY, settings=settings)
    seal(context, "anna")
    row = {**dict.fromkeys(TABLES["raw_events"].names), "row_hash": "h", "user_id": "anna", "item_id": "i", "day": DAY}
    write(context, "raw_events", row, row)
    context = make_context(DAY, settings=settings)
    (outcome,) = exporting.deliver(context, settings.sinks)
    assert (outcome.error, outcome.rows) == (None, 2)
    assert ask("SELECT user_id, item_id FROM raw") == [("anna", "i")] * 2
    ask("DROP TABLE raw")


def test_wrong_settings_are_named(make_context, make_settings, spark):
    with pytest.raises(SettingsError, match="no sinks in the settings"):
        exporting.export(spark, make_settings())
    context = make_context(DAY)
    exporting.run(context)
    assert context.details == {"sinks": "none in the settings"} and context.outputs == {}
    settings = make_settings().model_copy(update={"sinks": {"files": Folder(kind="csv", path="x", source="vault")}})
    with pytest.raises(ValueError, match="no night is finished"):
        exporting.export(spark, settings)
    for source, said in (("vault", "never leaves the lake"), ("nothing", "there is no table nothing")):
        with pytest.raises(SettingsError, match=f"sinks.files.source: .*{said}"):
            exporting.deliver(context, {"files": Folder(kind="csv", path="x", source=source)})
    assert exporting.deliver(context, {"files": Folder(kind="csv", path="x", source="items")}) == []


def test_any_table_leaves_under_the_callers_ids(make_context, make_settings, tmp_path):
    settings = make_settings("conf/movielens.yaml")
    context = make_context(DAY, settings=settings)
    seal(context, "anna")
    event = {
        "event_id": "e", "event_timestamp": datetime(2000, 1, 1, 0, 0, 5, tzinfo=UTC), "item_id": "i", "event_type": "rating",
        "category": None, "latitude": None, "longitude": None, "region": None, "local_timestamp": None, "slot": None,
        "value": 4.0, "device": None, "scene": None, "arrived_on": DAY,
    }  # fmt: skip
    state = {"gone": False, "changed_on": DAY, "day": DAY}
    write(context, "user_sequences", {"user_id": "anna", "events": [event], "seen": ["i"], "events_total": 1, **state})
    pseudonym = identities.pseudonym("anna", identities.load_key())
    activity = {"event_type": "rating", "event_date": DAY, "local_hour": None, "events": 3, "day": DAY}
    write(
        context, "activity_daily",
        {"entity_type": "user", "entity_id": pseudonym, **activity}, {"entity_type": "item", "entity_id": "i", **activity},
    )  # fmt: skip
    context = make_context(DAY, settings=settings)
    (sequence,) = caller_rows(context, "user_sequences").collect()
    assert (sequence.user_id, sequence.events[0].item_id, sequence.events[0].event_timestamp) == ("anna", "i", None)
    rows = caller_rows(context, "activity_daily").collect()
    assert {(row.entity_type, row.entity_id, row.event_date) for row in rows} == {("user", "anna", None), ("item", "i", None)}
    sink = Folder(kind="csv", path=str(tmp_path / "sequences"), source="user_sequences")
    (outcome,) = exporting.deliver(context, {"files": sink})
    assert outcome.error is None and '"item_id":"i"' in read_csv(sink.path)[0]["events"]
