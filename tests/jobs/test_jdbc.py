"""The JDBC sink against Derby, which Spark brings: a database whose readers wait for writers, and that tells types apart."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path
from zipfile import ZipFile

import pytest
from py4j.protocol import Py4JJavaError

from conf.settings import Jdbc, SettingsError, load_settings
from jobs.doctor import checks
from jobs.lake import commits, session
from jobs.lake.person import Person
from jobs.sinks import jdbc
from jobs.sinks.delivery import Changes
from jobs.sinks.jdbc.database import Database, server_of
from tests.jobs.delivering import DAY, NASTY, SCHEMA, delivery, lists

ROOT = Path(__file__).parents[2]
KEY = ("user_id", "rank")


class Derby:
    """A database in memory, as another was saved if it is named, and a connection to ask it by."""

    def __init__(self, spark, more="", saved=None):
        place = f"jdbc:derby:memory:{uuid.uuid4().hex}"
        self.url, self.jvm = f"{place};create=true{more}", spark._jvm
        self.connection = self.connect(self.url if saved is None else f"{place};createFrom={saved}")

    def connect(self, url=None):
        return self.jvm.java.sql.DriverManager.getConnection(url or self.url)

    def sink(self, **more):
        return Jdbc(kind="jdbc", url=self.url, **more)

    def ask(self, query, connection=None):
        statement = (connection or self.connection).createStatement()
        if not statement.execute(query):
            return statement.getUpdateCount()
        answer, rows = statement.getResultSet(), []
        count = answer.getMetaData().getColumnCount()
        while answer.next():
            rows.append(tuple(answer.getString(number) for number in range(1, count + 1)))
        statement.close()
        return rows


@pytest.fixture(scope="module")
def utc(spark):
    session.times_are_utc(spark)


@pytest.fixture
def derby(spark, utc):
    return Derby(spark)


@pytest.fixture(scope="module")
def saved(spark, utc, tmp_path_factory):
    """Where a database was saved that holds the lists of the first night: to deliver them to each test takes Spark."""
    derby, folder = Derby(spark), tmp_path_factory.mktemp("derby")
    assert jdbc.deliver(delivery(lists(spark, 1), KEY), derby.sink()).rows == 120
    derby.ask(f"CALL SYSCS_UTIL.SYSCS_BACKUP_DATABASE('{folder}')")
    [place] = folder.iterdir()
    return place


@pytest.fixture
def delivered(spark, saved):
    """A copy of it."""
    return Derby(spark, saved=saved)


def scores(derby, table="recommendations"):
    return sorted({float(score) for (score,) in derby.ask(f'SELECT "score" FROM {table}')})


def changed(spark, rows, owners):
    """A delivery of changes: rows, and whose they are."""
    return Changes(
        rows=spark.createDataFrame(rows, SCHEMA), owners=spark.createDataFrame([(one,) for one in owners], "user_id string")
    )


def test_the_table_is_made_and_holds_every_value(spark, derby):
    schema = "user_id string, n int, big bigint, x double, f float, yes boolean, d date, at timestamp, list array<int>"
    at = datetime(2024, 1, 31, 10, 11, 12, 131415, UTC)
    rows = [(text, 1, 2**40, 0.1 + number, 0.5, True, DAY, at, [1, 2]) for number, text in enumerate(NASTY)]
    rows += [("nothing", *[None] * 8), ("large", 0, 0, 1e300, None, False, DAY, at, [])]
    frame = spark.createDataFrame(rows, schema)
    sink = derby.sink()
    sent = jdbc.deliver(delivery(frame, ("user_id",)), sink)
    assert (sent.rows, sent.how) == (len(rows), "everything")
    there = {row[0]: row[1:] for row in derby.ask("SELECT * FROM recommendations")}
    assert set(there) == {row[0] for row in rows} and there["nothing"] == (None,) * 8
    number, big, x, half, yes, day, stamp, nested = there['say "hi"']
    assert (number, big, float(x), float(half), day, nested) == ("1", str(2**40), 0.1, 0.5, str(DAY), "[1,2]")
    assert yes in ("true", "1") and stamp == "2024-01-31 10:11:12.131415", "as UTC has it"
    assert jdbc.check(delivery(frame), sink) is None
    names = {name for (name,) in derby.ask("SELECT tablename FROM sys.systables WHERE tabletype = 'T'")}
    assert names == {"RECOMMENDATIONS", "WHEREWHEN_DELIVERIES"}, "what was staged is gone"


def test_contents_are_exchanged_and_what_hangs_on_the_table_stays(spark, derby):
    sink = derby.sink(table="shop.lists")
    derby.ask("CREATE SCHEMA shop")
    first = delivery(lists(spark, 1), KEY)
    assert jdbc.deliver(first, sink).rows == 120
    derby.ask('CREATE VIEW shop.best AS SELECT "user_id", "score" FROM shop.lists WHERE "rank" = 1')
    derby.ask('CREATE UNIQUE INDEX shop.by_user ON shop.lists ("user_id", "rank")')
    derby.ask("ALTER TABLE shop.lists ADD COLUMN ours VARCHAR(9) DEFAULT 'ours'")
    jdbc.deliver(delivery(lists(spark, 2, users=30), KEY), sink)
    assert scores(derby, "shop.best") == [2.0] and len(derby.ask("SELECT * FROM shop.best")) == 30
    assert set(derby.ask("SELECT ours FROM shop.lists")) == {("ours",)}


def test_nothing_is_sent_to_a_table_that_holds_it_unless_others_wrote_there(spark, derby):
    sink, one = derby.sink(), delivery(lists(spark, 1), KEY, state="s")
    assert jdbc.manifest(sink) is None
    jdbc.deliver(one, sink)
    assert jdbc.manifest(sink) == one.manifest and jdbc.manifest(sink).day == DAY
    assert jdbc.deliver(one, sink).how == "nothing"
    derby.ask("DELETE FROM recommendations WHERE \"user_id\" = 'u1'")
    assert "holds 117 rows, 120 are here" in jdbc.check(one, sink)
    assert jdbc.deliver(one, sink).how == "everything" and jdbc.check(one, sink) is None
    derby.ask('UPDATE recommendations SET "score" = 3 WHERE "user_id" = \'u1\'')
    assert jdbc.check(one, sink) == "it holds other values in score"
    derby.ask("DROP TABLE recommendations")
    assert "there is no table" in jdbc.check(one, sink) and jdbc.manifest(sink) is None
    assert jdbc.deliver(one, sink).how == "everything"


def test_only_owners_that_changed_are_exchanged(spark, delivered):
    derby, sink = delivered, delivered.sink()
    derby.ask("CREATE TABLE touched (who VARCHAR(99))")
    derby.ask(
        "CREATE TRIGGER touching AFTER DELETE ON recommendations REFERENCING OLD AS o FOR EACH ROW "
        'INSERT INTO touched VALUES (o."user_id")'
    )  # fmt: skip
    derby.ask("UPDATE recommendations SET \"user_id\" = 'u2 ' WHERE \"user_id\" = 'u3'")  # another to us, none to Derby's =
    some = changed(spark, [("u1", 1, "i9", 9.0), ("new", 1, "i9", 9.0)], ["u1", "u2", "new"])
    sent = jdbc.deliver(delivery(lists(spark, 2), KEY, since=lambda before: some), sink)
    assert (sent.rows, sent.how) == (2, "changes")
    assert {who for (who,) in derby.ask("SELECT who FROM touched")} == {"u1", "u2"}
    rows = derby.ask('SELECT "user_id", "item_id" FROM recommendations')
    assert len(rows) == 120 - 6 + 2 and ("u1", "i9") in rows and {"u2", "u2 "} & {user for user, _ in rows} == {"u2 "}
    assert jdbc.manifest(sink) is not None, "the count is that of all rows"


def test_where_letters_are_not_told_apart_everything_is_sent(spark, utc):
    derby = Derby(spark, ";territory=en_US;collation=TERRITORY_BASED:PRIMARY")
    sink = derby.sink()
    rows = [("anna", 1, "i1", 1.0), ("Anna", 1, "i2", 1.0)]
    jdbc.deliver(delivery(spark.createDataFrame(rows, SCHEMA)), sink)
    now = [("anna", 1, "i3", 2.0), ("Anna", 1, "i2", 1.0)]
    some = changed(spark, now[:1], ["anna"])
    assert jdbc.deliver(delivery(spark.createDataFrame(now, SCHEMA), since=lambda before: some), sink).how == "everything"
    assert sorted(derby.ask('SELECT "item_id" FROM recommendations')) == [("i2",), ("i3",)]
    assert jdbc.erase(sink, Person.of("anna")) == 2 and jdbc.manifest(sink) is None, "the next delivery brings Anna back"


def test_what_cannot_be_read_is_not_taken_for_missing(delivered):
    derby, sink = delivered, delivered.sink()
    derby.ask("CALL SYSCS_UTIL.SYSCS_SET_DATABASE_PROPERTY('derby.locks.waitTimeout', '1')")
    other = derby.connect()
    other.setAutoCommit(False)
    derby.ask("DROP TABLE recommendations", other)
    for look in (jdbc.rows_of, jdbc.erase):
        with pytest.raises(ValueError, match="lock"):
            look(sink, Person.of("u1"))
    other.rollback()
    assert len(jdbc.rows_of(sink, Person.of("u1"))) == 3


def test_a_reader_sees_one_night_or_the_next(spark, delivered):
    derby, sink, seen, stop = delivered, delivered.sink(), [], threading.Event()
    connection = derby.connect()

    def look():
        while not stop.is_set():
            seen.append(tuple(derby.ask('SELECT MIN("score"), MAX("score"), COUNT(*) FROM recommendations', connection)))

    reader = threading.Thread(target=look)
    reader.start()
    for night in (2, 3):
        jdbc.deliver(delivery(lists(spark, night), KEY), sink)
    stop.set()
    reader.join()
    states = {(float(low), float(high), int(count)) for ((low, high, count),) in seen}
    assert states <= {(float(night), float(night), 120) for night in (1, 2, 3)} and len(seen) > 5


def test_a_failure_leaves_the_old_contents_and_says_so_in_one_line_without_rows(spark, delivered):
    derby, sink = delivered, delivered.sink()
    derby.ask('ALTER TABLE recommendations ADD CONSTRAINT small CHECK ("score" < 2)')
    with pytest.raises(ValueError, match=r"^database at jdbc:derby:memory:\w+: .*constraint") as said:
        jdbc.deliver(delivery(lists(spark, 2), KEY), sink)
    assert "\n" not in str(said.value) and scores(derby) == [1.0]
    derby.ask("ALTER TABLE recommendations DROP CONSTRAINT small")
    too_long = spark.createDataFrame([("secret" * 100, 1, "i", 1.0)], SCHEMA)
    with pytest.raises(ValueError, match="VARCHAR") as said:
        jdbc.deliver(delivery(too_long, KEY), sink)
    assert "secret" not in str(said.value) and "\n" not in str(said.value) and scores(derby) == [1.0]
    derby.ask(
        'CREATE TRIGGER thins AFTER INSERT ON recommendations FOR EACH STATEMENT DELETE FROM recommendations WHERE "rank" = 3'
    )
    with pytest.raises(ValueError, match="120 rows were sent, 80 would be there; nothing was changed"):
        jdbc.deliver(delivery(lists(spark, 2), KEY), sink)
    assert scores(derby) == [1.0]


def test_values_that_do_not_arrive_as_they_are_are_named(spark, derby):
    rows = spark.createDataFrame([("a", 1, "i", 0.123456789), ("b", 1, "i", 0.5)], SCHEMA)
    with pytest.raises(ValueError, match=r"does not hold score as it was sent; nothing was changed: .*types: \{score: "):
        jdbc.deliver(delivery(rows), derby.sink(types={"score": "DECIMAL(5, 2)"}))
    # What somebody else made may round, and that is known when it is compared.
    derby.ask('CREATE TABLE theirs (USER_ID VARCHAR(20), "rank" INT, "item_id" VARCHAR(20), "score" DECIMAL(5, 2))')
    sink = derby.sink(table="theirs")
    jdbc.deliver(delivery(rows), sink)
    assert sorted(derby.ask('SELECT user_id, "score" FROM theirs')) == [("a", "0.12"), ("b", "0.50")]
    assert jdbc.check(delivery(rows), sink) is None


def test_two_exports_at_once_are_refused(spark, delivered):
    derby, sink = delivered, delivered.sink()
    other = derby.connect()
    other.setAutoCommit(False)
    derby.ask("UPDATE wherewhen_deliveries SET row_count = row_count WHERE table_name = 'recommendations'", other)
    derby.ask("CALL SYSCS_UTIL.SYSCS_SET_DATABASE_PROPERTY('derby.locks.waitTimeout', '1')")
    with pytest.raises(ValueError, match="no claim on recommendations, as when another export into it is under way"):
        jdbc.deliver(delivery(lists(spark, 2), KEY), sink)
    other.rollback()
    assert jdbc.deliver(delivery(lists(spark, 2), KEY), sink).rows == 120


def test_columns_that_were_announced_come_and_go(spark, delivered):
    derby, sink = delivered, delivered.sink()
    wider = lists(spark, 2).selectExpr("user_id", "rank", "score", "'why' AS reason")
    with pytest.raises(ValueError, match=r"with reason string, without item_id; .* contract: 2"):
        jdbc.deliver(delivery(wider, KEY), sink)
    assert jdbc.deliver(delivery(wider, KEY, contract=2), sink).how == "everything"
    assert jdbc.check(delivery(wider, KEY, contract=2), sink) is None
    joined = "sys.syscolumns c JOIN sys.systables t ON t.tableid = c.referenceid"
    query = f"SELECT columnname FROM {joined} WHERE t.tablename = 'RECOMMENDATIONS'"
    names = {name for (name,) in derby.ask(query)}
    assert names == {"user_id", "rank", "score", "reason", "item_id"}
    assert derby.ask('SELECT DISTINCT "item_id" FROM recommendations') == [(None,)]
    other = wider.selectExpr("user_id", "CAST(rank AS string) AS rank", "score", "reason")
    with pytest.raises(ValueError, match="rank is to be of another type: drop the table"):
        jdbc.deliver(delivery(other, KEY, contract=3), sink)
    derby.ask('CREATE TABLE narrow ("user_id" VARCHAR(20))')
    with pytest.raises(ValueError, match=r"table narrow lacks the column\(s\) rank, item_id, score"):
        jdbc.deliver(delivery(lists(spark, 1), KEY), derby.sink(table="narrow"))


def test_a_person_is_handed_out_and_erased(spark, delivered):
    derby, sink = delivered, delivered.sink()
    assert {row["score"] for row in jdbc.rows_of(sink, Person.of("u1"))} == {1.0} and jdbc.rows_of(
        sink, Person.of("it's")
    ) == []
    derby.ask("CREATE TABLE recommendations_ww_s (left_by VARCHAR(20))")
    assert jdbc.erase(sink, Person.of("u1")) == 3 and jdbc.rows_of(sink, Person.of("u1")) == []
    assert derby.ask("SELECT COUNT(*) FROM recommendations") == [("117",)]
    assert jdbc.manifest(sink) is not None, "the table still holds that night"
    with pytest.raises(Py4JJavaError):
        derby.ask("SELECT * FROM recommendations_ww_s")
    assert jdbc.erase(derby.sink(table="missing"), Person.of("u1")) == 0
    # Rows that name nobody in a column: of an entity, and lines that could not be read.
    frame = spark.createDataFrame(
        [
            ("user", "u1", None),
            ("item", "u1", None),
            ("user", "u2", '{"user_id": "u1", "100%_'),
            ("user", "u2", '{"user_id": "u10"'),
        ],
        "entity_type string, entity_id string, broken string",
    )
    other = derby.sink(table="others")
    jdbc.deliver(delivery(frame, by=()), other)
    assert len(jdbc.rows_of(other, Person.of("u1"))) == 2
    assert jdbc.erase(other, Person.of("u1")) == 2
    assert sorted(derby.ask('SELECT "entity_type", "entity_id" FROM others')) == [("item", "u1"), ("user", "u2")]


def test_passwords_come_from_the_environment_and_are_never_told(spark, derby, monkeypatch, tmp_path):
    sink = derby.sink(password_env="SHOP_PASSWORD", user="recs")
    with pytest.raises(ValueError, match="set SHOP_PASSWORD"):
        jdbc.deliver(delivery(lists(spark, 1)), sink)
    monkeypatch.setenv("SHOP_PASSWORD", "hush-4471")
    gone = sink.model_copy(update={"url": "jdbc:derby:/nowhere/at/all;bootPassword=hush-4471"})
    with pytest.raises(ValueError, match=r"database at jdbc:derby:/nowhere/at/all: .*see that it runs") as said:
        jdbc.deliver(delivery(lists(spark, 1)), gone)
    assert "hush" not in str(said.value)
    with pytest.raises(ValueError, match="mend the sink's url, driver and jars"):
        jdbc.manifest(Jdbc(kind="jdbc", url="jdbc:nobody://host/db"))
    for url, told in {
        "mysql://me:hush@host:3306/shop?password=hush": "mysql://host:3306/shop",
        "mysql://me:hu/s@h@host/shop": "mysql://host/shop",
        "mysql://address=(host=h)(password=hush)/shop": "mysql://address=",
        "oracle:thin:scott/hush@//host:1521/x": "oracle://host:1521/x",
        "db2://host:50000/shop:password=hush;": "db2://host:50000/shop",
        "derby:memory:x;create=true": "derby:memory:x",
    }.items():
        assert server_of(f"jdbc:{url}") == f"database at jdbc:{told}"
    with pytest.raises(SettingsError, match="url"):
        load_settings(overrides=["sinks.shop={kind: jdbc, url: mysql://host/shop}"])
    given = {"sinks": {"shop": sink.model_copy(update={"jars": [str(tmp_path / "driver.jar")]})}}
    settings = load_settings().model_copy(update=given)
    assert "is no file" in {check.name: check.problem for check in checks(settings)}["sink: shop"]
    assert "driver.jar" not in session._options(settings, "local[1]").get("spark.driver.extraClassPath", "")
    with ZipFile(tmp_path / "driver.jar", "w") as jar:
        jar.writestr("META-INF/services/java.sql.Driver", "org.example.Driver\n")
    assert Database.of(settings.sinks["shop"]).options["driver"] == "org.example.Driver"
    options = session._options(settings, "local[1]")
    assert (
        "driver.jar" in options["spark.driver.extraClassPath"]
        and "timezone=UTC" in options["spark.executor.defaultJavaOptions"]
    )
    assert "(not called)" in {check.name: check.found for check in checks(settings)}["sink: shop"]


DELIVERS = """
import sys
from conf.settings import Jdbc, load_settings
from jobs.lake import session
from jobs.sinks import jdbc
from tests.jobs.delivering import delivery, lists
spark = session.start(load_settings(overrides=["spark.driver_memory=1g", "spark.master=local[2]"]))
sink = Jdbc(kind="jdbc", url=f"jdbc:derby:{sys.argv[1]};create=true")
for night in sys.argv[2:]:
    jdbc.deliver(delivery(lists(spark, int(night)), ("user_id", "rank")), sink)
"""


@pytest.mark.parametrize(("kill_at", "left"), [pytest.param("3", 1.0, marks=pytest.mark.soak, id="before"), ("4", 2.0)])
def test_killed_before_or_after_the_commit_a_delivery_leaves_one_night_or_the_next(spark, utc, tmp_path, kill_at, left):
    """Another process's database, found again after it was killed. (What fails before it commits is in the tests above.)"""
    place = tmp_path / "db"
    command = [sys.executable, "-c", DELIVERS, str(place), "1", "2"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, commits.KILL_AT: kill_at}, capture_output=True, text=True, check=False
    )
    assert done.returncode == -9 and "the JDBC sink" in done.stderr, done.stderr
    derby = Derby.__new__(Derby)
    derby.url, derby.jvm = f"jdbc:derby:{place}", spark._jvm
    derby.connection = derby.connect()
    assert scores(derby) == [left]
    assert derby.ask("SELECT COUNT(*) FROM recommendations") == [("120",)]
    sink = derby.sink()
    jdbc.deliver(delivery(lists(spark, 3), KEY), sink)
    assert scores(derby) == [3.0]
    with pytest.raises(Py4JJavaError):  # Derby says so when it has shut a database down
        derby.jvm.java.sql.DriverManager.getConnection(f"jdbc:derby:{place};shutdown=true")
