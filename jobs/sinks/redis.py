"""Redis: lists under keys of a version, which readers are switched to when all of it is there.

    GET PREFIX:current                   the version to read
    GET PREFIX:VERSION:anna:any          a JSON array of rows, in the order of the table's key

A key names all of the table's key but its last column (of a key of one column, that; of a segment, `user_id`); `%` and `:` in
a part are written %25 and %3A. The version before stays for readers who are in it; what is older, or was left by a killed
delivery, is removed. Every key expires, so that nothing outlives the nights that renew it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from typing import Any

import pyarrow as pa
import redis
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.settings import Redis
from jobs.lake import commits
from jobs.lake.person import Person, owns
from jobs.sinks import tasks

Client = Any  # the library's own type does not know that answers are text here
_AT_ONCE = 1000
_GLOB = re.compile(r"([*?\[\]\\])")


@dataclass(frozen=True, kw_only=True)
class Login:
    """How to connect; made on the driver, as its environment holds the password, and used by every task."""

    url: str = field(repr=False)
    password: str | None = field(repr=False)
    server: str
    timeout_s: float

    def connect(self) -> Client:
        """
        Raises:
            ValueError: the server cannot be reached or refuses; names it, never the password.
        """
        given: dict[str, Any] = {} if self.password is None else {"password": self.password}
        client = redis.Redis.from_url(
            self.url,
            decode_responses=True,
            protocol=2,  # which every server speaks, and in which it says what is wrong with a login
            socket_timeout=self.timeout_s,
            socket_connect_timeout=min(self.timeout_s, 10.0),
            **given,
        )
        try:
            client.ping()
        except redis.RedisError as error:
            raise ValueError(
                f"{refused(self, error)}; see that it runs and lets this host in, or mend the sink's url"
            ) from None
        return client


def login(sink: Redis) -> Login:
    """
    Raises:
        ValueError: the url is none of Redis, or the variable that is to hold the password is not set.
    """
    try:
        given = redis.connection.parse_url(sink.url)
    except ValueError:
        # The library's message would repeat the url, a password in it included.
        raise ValueError("the sink's url is neither redis://host:port/db nor rediss://... (TLS) nor unix:///path") from None
    server = given.get("path") or f"{given.get('host', 'localhost')}:{given.get('port', 6379)}, database {given.get('db', 0)}"
    password = tasks.password(sink.password_env, f"Redis at {server}")
    return Login(url=sink.url, password=password, server=server, timeout_s=sink.timeout_s)


def refused(how: Login, error: redis.RedisError) -> str:
    """The server's words in one line."""
    return f"Redis at {how.server}: {' '.join(str(error).split()) or type(error).__name__}"


def deliver(rows: DataFrame, sink: Redis, key: tuple[str, ...], day: date, run_id: str) -> int:
    """Make the current version hold exactly `rows`; gives how many there are.

    Raises:
        ValueError: the server cannot be reached, refuses, is full or dropped keys; one line, without the contents of any row.
    """
    how = login(sink)
    client = how.connect()
    version = f"{day}-{run_id}"
    try:
        client.sadd(_name(sink, "versions"), version)
        evicted = _evicted(client)
        sent = _send(listed(rows, key), how, sink, version)
        if _evicted(client) > evicted:
            raise ValueError(f"Redis at {how.server} dropped keys while it was filled: raise its maxmemory, or send it less")
        described = {"day": str(day), "table": sink.source, "keys": sent[0], "rows": sent[1]}
        with commits.delivery("the Redis sink"), client.pipeline(transaction=True) as all_at_once:
            before = client.get(_name(sink, "current"))
            all_at_once.set(_name(sink, version), json.dumps(described), ex=_seconds(sink))
            if before is not None:
                all_at_once.set(_name(sink, "previous"), before)
            all_at_once.set(_name(sink, "current"), version)
            all_at_once.execute()
        _clear(client, sink, keep={version, before})
    except redis.RedisError as error:
        raise ValueError(refused(how, error)) from None
    return sent[1]


def listed(rows: DataFrame, key: tuple[str, ...]) -> DataFrame:
    """`name, value, rows`: the part of a key behind the version, a JSON array, and how many rows are in it."""
    by, last = (key[:-1], key[-1]) if len(key) > 1 else (key or ("user_id",), None)
    text = F.to_json(F.struct(*rows.columns), {"ignoreNullFields": "false"})
    place = F.col(last) if last is not None else text
    grouped = rows.select(
        F.concat_ws(":", *[_written(F.col(name)) for name in by]).alias("name"),
        F.struct(place.alias("at"), text.alias("row")).alias("one"),
    ).groupBy("name")
    ordered = grouped.agg(F.array_sort(F.collect_list("one"))["row"].alias("texts"))
    value = F.concat(F.lit("["), F.array_join("texts", ","), F.lit("]"))
    return ordered.select("name", value.alias("value"), F.size("texts").cast("bigint").alias("rows"))


def _written(part: Column) -> Column:
    text = F.replace(part.cast("string"), F.lit("%"), F.lit("%25"))
    return F.replace(text, F.lit(":"), F.lit("%3A"))


def _name(sink: Redis, *parts: str) -> str:
    return ":".join([sink.prefix, *parts])


def _seconds(sink: Redis) -> int:
    return max(1, round(sink.expire_days * 86_400))


def _evicted(client: Client) -> int:
    return int(client.info("stats").get("evicted_keys", 0))


def _send(lists: DataFrame, how: Login, sink: Redis, version: str) -> tuple[int, int]:
    """Keys and rows, as the server has them."""

    def sent(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        client, keys, rows = how.connect(), 0, 0
        try:
            for batch in batches:
                for start in range(0, batch.num_rows, _AT_ONCE):
                    part = batch.slice(start, _AT_ONCE)
                    _set(client, how, sink, version, part)
                    keys, rows = keys + part.num_rows, rows + sum(part.column("rows").to_pylist())
        except redis.RedisError as error:
            raise ValueError(refused(how, error)) from None
        yield pa.RecordBatch.from_pydict({"keys": pa.array([keys], pa.int64()), "rows": pa.array([rows], pa.int64())})

    found = tasks.collected(lists.mapInArrow(sent, "keys bigint, rows bigint"), "Redis")
    return sum(row["keys"] for row in found), sum(row["rows"] for row in found)


def _set(client: Client, how: Login, sink: Redis, version: str, lists: pa.RecordBatch) -> None:
    """Some keys at once, and whether the server then has as many bytes of each."""
    names = [_name(sink, version, name) for name in lists.column("name").to_pylist()]
    values = [value.encode() for value in lists.column("value").to_pylist()]
    with client.pipeline(transaction=False) as at_once:
        for name, value in zip(names, values, strict=True):
            at_once.set(name, value, ex=_seconds(sink))
        for name in names:
            at_once.strlen(name)
        answers = at_once.execute()
    if answers[len(names) :] != [len(value) for value in values]:
        raise ValueError(f"Redis at {how.server} does not hold what it was sent: nothing was switched")


def _clear(client: Client, sink: Redis, keep: set[str | None]) -> None:
    """Remove other versions, those of killed deliveries included."""
    for version in client.smembers(_name(sink, "versions")) - keep:
        for names in _keys(client, sink, version):
            client.unlink(*names)
        client.unlink(_name(sink, version))
        client.srem(_name(sink, "versions"), version)


def _keys(client: Client, sink: Redis, version: str) -> Iterator[list[str]]:
    """The keys of a version, some at a time."""
    pattern = _GLOB.sub(r"\\\1", _name(sink, version)) + ":*"
    found = client.scan_iter(match=pattern, count=10 * _AT_ONCE)
    while some := list(islice(found, _AT_ONCE)):
        yield some


def erase(sink: Redis, person: Person, text_hashes: frozenset[str] = frozenset()) -> int:
    """Take the person out of every version that is there; gives the rows that went from the current one.

    What the server's own files and replicas keep is its owner's.

    Raises:
        ValueError: as `deliver`.
    """
    how = login(sink)
    client, gone = how.connect(), 0
    try:
        current = client.get(_name(sink, "current"))
        for version in client.smembers(_name(sink, "versions")):
            for name, rows in _held(client, sink, version):
                left = [row for row in rows if not owns(person, row) and row.get("text_hash") not in text_hashes]
                if len(left) == len(rows):
                    continue
                gone += len(rows) - len(left) if version == current else 0
                if left:
                    client.set(name, json.dumps(left, ensure_ascii=False, separators=(",", ":")), keepttl=True)
                else:
                    client.delete(name)
    except redis.RedisError as error:
        raise ValueError(refused(how, error)) from None
    return gone


def rows_of(sink: Redis, person: Person) -> list[dict[str, Any]]:
    """What the current version holds of the person.

    Raises:
        ValueError: as `deliver`.
    """
    how = login(sink)
    client = how.connect()
    try:
        if (current := client.get(_name(sink, "current"))) is None:
            return []
        return [row for _, rows in _held(client, sink, current) for row in rows if owns(person, row)]
    except redis.RedisError as error:
        raise ValueError(refused(how, error)) from None


def _held(client: Client, sink: Redis, version: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for names in _keys(client, sink, version):
        for name, value in zip(names, client.mget(names), strict=True):
            if value is not None:
                yield name, json.loads(value)
