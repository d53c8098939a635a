"""Redis: lists under keys of a version, which readers are switched to when all of it is there.

    GET PREFIX:current                   the version to read
    HGET PREFIX:VERSION:anna any         a JSON array of rows, in the order of the table's key

A key names an owner, whose rows change together (of a segment the user; of a table without owners all of its key but the last
column), and is a hash. A field is what is left of the table's key without its last column, `rows` where nothing is; `%` and
`:` in a part are written %25 and %3A. Where the server holds an earlier night, only owners that changed are sent, to keys
aside, and all exchanged at once, in the version that readers are in: whoever reads many keys as of one moment reads them in
one MULTI. Else a new version is filled and switched to; the one before stays for readers who are in it; what is older, or was
left by a killed delivery, is removed. Every key expires, so that nothing outlives the nights that renew it.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
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
from jobs.sinks.delivery import CHANGES, EVERYTHING, NOTHING, Changes, Delivery, Manifest, Sent

Client = Any  # the library's own type does not know that answers are text here
_AT_ONCE = 1000
_GLOB = re.compile(r"([*?\[\]\\])")
# Names of owners that were sent, and of those left with nothing, in the set that tells what an exchange is to do.
_THERE, _GONE = "+", "-"
_EXCHANGE = """
if redis.call('GET', ARGV[3]) == ARGV[4] then
    return 0
end
local members = redis.call('SMEMBERS', KEYS[1])
if #members ~= tonumber(ARGV[5]) then
    return redis.error_reply('of the names that were sent some are not there any more: nothing was exchanged')
end
for _, member in ipairs(members) do
    if member:sub(1, 1) == '+' and redis.call('EXISTS', ARGV[1] .. member:sub(2)) == 0 then
        return redis.error_reply('keys that were sent are not there any more: nothing was exchanged')
    end
end
for _, member in ipairs(members) do
    local name = member:sub(2)
    if member:sub(1, 1) == '+' then
        redis.call('RENAME', ARGV[1] .. name, ARGV[2] .. name)
    else
        redis.call('UNLINK', ARGV[2] .. name)
    end
end
redis.call('SET', ARGV[3], ARGV[4], 'KEEPTTL')
redis.call('DEL', KEYS[1])
"""


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


def manifest(sink: Redis) -> Manifest | None:
    """What the current version holds; None: nothing, or it is to be renewed before it expires.

    Raises:
        ValueError: as `deliver`.
    """
    how = login(sink)
    try:
        current = _Current.of(how.connect(), sink)
        return current.manifest if current.is_fresh else None
    except redis.RedisError as error:
        raise ValueError(refused(how, error)) from None


def deliver(delivery: Delivery, sink: Redis) -> Sent:
    """Make the current version hold what is delivered.

    Raises:
        ValueError: the server cannot be reached, refuses, is full or dropped keys; one line, without the contents of any row.
    """
    how = login(sink)
    client = how.connect()
    try:
        current = _Current.of(client, sink)
        delivery.check_announced(current.manifest)
        before = current.manifest if current.is_fresh else None
        if delivery.is_there(before):
            return Sent(rows=0, how=NOTHING)
        changes = delivery.changes(before)
        _clear(client, sink)
        # A name that no other delivery has: by it is known what this one leaves if it is killed.
        version = f"{delivery.manifest.day}-{delivery.run_id}-{uuid.uuid4().hex[:6]}"
        client.sadd(_name(sink, "versions"), version)
        evicted = _evicted(client)
        until = int((time.time() + sink.expire_days * 86_400) * 1000) if changes is None else current.expires_at
        owners, rows = _send(_to_send(delivery, changes), how, sink, version, until, changes is not None)
        if _evicted(client) > evicted:
            raise ValueError(f"Redis at {how.server} dropped keys while it was filled: raise its maxmemory, or send it less")
        described = json.dumps(
            {
                "day": str(delivery.manifest.day),
                "table": delivery.manifest.source,
                "expires_at_ms": until,
                "evicted": evicted,
                "manifest": delivery.manifest.text(),
            }
        )
        with commits.delivery("the Redis sink"):
            if changes is None:
                _switch(client, sink, version, described, until)
            else:
                _exchange(client, sink, version, current.version, described, owners)
        _clear(client, sink)
    except redis.RedisError as error:
        raise ValueError(refused(how, error)) from None
    return Sent(rows=rows, how=EVERYTHING if changes is None else CHANGES)


@dataclass(frozen=True, kw_only=True)
class _Current:
    """The version that readers are in, if any."""

    version: str = ""
    manifest: Manifest | None = None
    expires_at: int = 0  # milliseconds since 1970
    is_fresh: bool = False  # more than half of its time is left, and the server has dropped no key since

    @staticmethod
    def of(client: Client, sink: Redis) -> _Current:
        version = client.get(_name(sink, "current")) or ""
        described = json.loads(client.get(_name(sink, version)) or "{}")
        expires_at = int(described.get("expires_at_ms", 0))
        return _Current(
            version=version,
            manifest=Manifest.read(described.get("manifest")),
            expires_at=expires_at,
            is_fresh=expires_at / 1000 - time.time() > sink.expire_days * 86_400 / 2
            and _evicted(client) <= described.get("evicted", 0),
        )


def _to_send(delivery: Delivery, changes: Changes | None) -> DataFrame:
    """`listed`; of changes with a row of nulls for each owner that is left with nothing."""
    if changes is None:
        return listed(delivery.rows, delivery)
    owners = changes.owners.select(_written(delivery.by).alias("name"))
    return owners.join(listed(changes.rows, delivery), on="name", how="left")


def listed(rows: DataFrame, delivery: Delivery) -> DataFrame:
    """`name, fields, values, rows`: the part of a key behind the version, its fields, a JSON array each, and how many rows."""
    key = delivery.key
    by = delivery.by or key[:-1] or key or ("user_id",)
    inner = [name for name in key[:-1] if name not in by]
    text = F.to_json(F.struct(*rows.columns), {"ignoreNullFields": "false"})
    place = F.col(key[-1]) if key and key[-1] not in by else text
    single = rows.select(
        _written(by).alias("name"),
        (_written(inner) if inner else F.lit("rows")).alias("field"),
        F.struct(place.alias("at"), text.alias("row")).alias("one"),
    )
    # Spread by owner once; both groupings keep it.
    in_order = (
        single.repartition("name").groupBy("name", "field").agg(F.array_sort(F.collect_list("one"))["row"].alias("texts"))
    )
    value = F.concat(F.lit("["), F.array_join("texts", ","), F.lit("]"))
    together = in_order.groupBy("name").agg(
        F.collect_list(F.struct("field", value.alias("value"))).alias("pairs"), F.sum(F.size("texts")).alias("rows")
    )
    return together.select("name", F.col("pairs.field").alias("fields"), F.col("pairs.value").alias("values"), "rows")


def _written(parts: Sequence[str]) -> Column:
    texts = [F.replace(F.col(part).cast("string"), F.lit("%"), F.lit("%25")) for part in parts]
    return F.concat_ws(":", *[F.replace(text, F.lit(":"), F.lit("%3A")) for text in texts])


def _name(sink: Redis, *parts: str) -> str:
    return ":".join([sink.prefix, *parts])


def _evicted(client: Client) -> int:
    return int(client.info("stats").get("evicted_keys", 0))


def _send(lists: DataFrame, how: Login, sink: Redis, version: str, until: int, is_aside: bool) -> tuple[int, int]:
    """Owners and rows that the server has been sent. `is_aside`: to be exchanged for what is in the version of readers."""

    def sent(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        client, owners, rows = how.connect(), 0, 0
        try:
            for batch in batches:
                for start in range(0, batch.num_rows, _AT_ONCE):
                    part = batch.slice(start, _AT_ONCE).to_pydict()
                    _set(client, how, sink, version, part, until, is_aside)
                    owners, rows = owners + len(part["name"]), rows + sum(count or 0 for count in part["rows"])
        except redis.RedisError as error:
            raise ValueError(refused(how, error)) from None
        yield pa.RecordBatch.from_pydict({"owners": pa.array([owners], pa.int64()), "rows": pa.array([rows], pa.int64())})

    found = tasks.collected(lists.mapInArrow(sent, "owners bigint, rows bigint"), "Redis")
    return sum(row["owners"] for row in found), sum(row["rows"] for row in found)


def _set(
    client: Client, how: Login, sink: Redis, version: str, lists: dict[str, list[Any]], until: int, is_aside: bool
) -> None:
    """Some keys at once, and whether the server then has as many fields, and bytes of each."""
    wanted = []
    with client.pipeline(transaction=False) as at_once:
        for name, fields, values in zip(lists["name"], lists["fields"], lists["values"], strict=True):
            if fields is not None:
                key, encoded = _name(sink, version, name), [value.encode() for value in values]
                at_once.delete(key)  # another attempt of the task may have been here
                at_once.hset(key, mapping=dict(zip(fields, encoded, strict=True)))
                at_once.pexpireat(key, until)
                for field in fields:
                    at_once.hstrlen(key, field)
                wanted += [None, len(fields), 1, *map(len, encoded)]
        if is_aside:
            pairs = zip(lists["name"], lists["fields"], strict=True)
            marked = [f"{_GONE if fields is None else _THERE}{name}" for name, fields in pairs]
            at_once.sadd(_name(sink, version), *marked)
            at_once.pexpireat(_name(sink, version), until)
            wanted += [None, None]
        answers = at_once.execute()
    if any(right is not None and right != answer for right, answer in zip(wanted, answers, strict=True)):
        raise ValueError(f"Redis at {how.server} does not hold what it was sent: nothing was switched")


def _switch(client: Client, sink: Redis, version: str, described: str, until: int) -> None:
    with client.pipeline(transaction=True) as all_at_once:
        before = client.get(_name(sink, "current"))
        all_at_once.set(_name(sink, version), described, pxat=until)
        if before is not None:
            all_at_once.set(_name(sink, "previous"), before)
        all_at_once.set(_name(sink, "current"), version)
        all_at_once.execute()


def _exchange(client: Client, sink: Redis, aside: str, current: str, described: str, owners: int) -> None:
    """What lies aside becomes the current version's, at once; the server does it, so that no names come here."""
    names = (_name(sink, aside), _name(sink, aside, ""), _name(sink, current, ""), _name(sink, current))
    client.eval(_EXCHANGE, 1, *names, described, owners)


def check(delivery: Delivery, sink: Redis) -> str | None:
    """How the current version differs from what is to be delivered; None: not at all.

    Raises:
        ValueError: as `deliver`.
    """
    how = login(sink)
    client = how.connect()
    try:
        current = _Current.of(client, sink)
        if current.manifest is None:
            return "nothing was delivered"
        delivery.check_announced(current.manifest)
        held = sum(len(names) for names in _keys(client, sink, current.version))
    except redis.RedisError as error:
        raise ValueError(refused(how, error)) from None

    def compared(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        reader = how.connect()
        for batch in batches:
            for start in range(0, batch.num_rows, _AT_ONCE):
                part = batch.slice(start, _AT_ONCE).to_pydict()
                with reader.pipeline(transaction=False) as at_once:
                    for name in part["name"]:
                        at_once.hgetall(_name(sink, current.version, name))
                    found = at_once.execute()
                wanted = [dict(zip(*one, strict=True)) for one in zip(part["fields"], part["values"], strict=True)]
                other = sum(one != right for one, right in zip(found, wanted, strict=True))
                yield pa.RecordBatch.from_pydict({"keys": pa.array([len(wanted)]), "other": pa.array([other])})

    told = listed(delivery.rows, delivery).mapInArrow(compared, "keys bigint, other bigint")
    counts = tasks.collected(told, "Redis")
    keys, other = sum(row["keys"] for row in counts), sum(row["other"] for row in counts)
    if other == 0 and keys == held:
        return None
    return f"it holds {held:,} keys, {keys:,} are here, of which {other:,} are not there or hold something else"


def _clear(client: Client, sink: Redis) -> None:
    """Remove all versions but that of readers and the one before, those of killed deliveries included."""
    keep = {client.get(_name(sink, "current")), client.get(_name(sink, "previous"))}
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
        _clear(client, sink)
        current = client.get(_name(sink, "current"))
        for version in client.smembers(_name(sink, "versions")):
            for name, field, rows in _held(client, sink, version):
                left = [row for row in rows if not owns(person, row) and row.get("text_hash") not in text_hashes]
                if len(left) == len(rows):
                    continue
                gone += len(rows) - len(left) if version == current else 0
                if left:
                    client.hset(name, field, json.dumps(left, ensure_ascii=False, separators=(",", ":")))
                else:
                    client.hdel(name, field)
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
        return [row for _, _, rows in _held(client, sink, current) for row in rows if owns(person, row)]
    except redis.RedisError as error:
        raise ValueError(refused(how, error)) from None


def _held(client: Client, sink: Redis, version: str) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """Key, field and rows."""
    for names in _keys(client, sink, version):
        with client.pipeline(transaction=False) as at_once:
            for name in names:
                at_once.hgetall(name)
            found = at_once.execute()
        for name, fields in zip(names, found, strict=True):
            for one, value in fields.items():
                yield name, one, json.loads(value)
