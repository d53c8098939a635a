"""A webhook: owners that changed, posted in batches to a URL of yours, and at the end what makes them count.

    POST  {"event": "begin", "delivery": ID, "everything": false, "table": ..., "day": ..., "columns": {...}}
    POST  lines of {"key": "anna", "value": [row, ...]}; value null: the owner has no rows any more
    POST  {"event": "commit", "delivery": ID, "owners": N, "rows": N}

Each carries the headers `Wherewhen-Delivery: ID` and `Idempotency-Key`: what is sent again after a failure has the same one, so
a receiver passes over what it knows, and shows nothing before `commit`. `everything`: owners that are not named have no rows. A
delivery that was not committed is to be forgotten when another begins. It cannot be asked what it holds: that is taken from
`export_log`. The URL is a secret (whoever has it may post): it comes from the environment, and no message names it.
"""

from __future__ import annotations

import hashlib
import json
import os
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.settings import Webhook
from conf.tables import TABLES
from jobs.lake import commits
from jobs.lake.person import Person
from jobs.posting import posted
from jobs.sinks import tasks
from jobs.sinks.delivery import CHANGES, EVERYTHING, NOTHING, Changes, Delivery, Sent

_AT_ONCE = 500  # owners in one request


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """Whom to post to; made on the driver, as its environment holds the URL, and used by every task."""

    url: str = field(repr=False)
    token: str | None = field(repr=False)
    name: str  # the variable that holds the URL
    timeout_s: float
    attempts: int

    def post(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Post, again where that may help.

        Raises:
            ValueError: it was not taken; names the variable, never the URL.
        """
        more = {"User-Agent": "wherewhen", **headers}
        if self.token is not None:
            more["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(self.url, body, more, method="POST")
        if (problem := posted(request, self.timeout_s, self.attempts)) is not None:
            raise ValueError(f"Webhook at the URL in {self.name}: {problem}")


def receiver(sink: Webhook) -> Receiver:
    """
    Raises:
        ValueError: a variable that is to hold the URL or the token is not set, or holds none.
    """
    url = os.environ.get(sink.url_env, "")
    if not url:
        raise ValueError(f"set {sink.url_env}, the variable that is to hold the webhook's URL")
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # its message would repeat the URL
        is_one = False
    if not is_one or not url.isascii() or any(character.isspace() for character in url):
        raise ValueError(f"{sink.url_env} holds no URL that begins with https:// or http://")
    token = tasks.password(sink.token_env, "the webhook")
    if token is not None and not ((token := token.strip()).isascii() and token.isprintable() and " " not in token):
        raise ValueError(f"{sink.token_env} holds no token: it has spaces, or what is no ASCII")
    return Receiver(url=url, token=token, name=sink.url_env, timeout_s=sink.timeout_s, attempts=sink.attempts)


def deliver(delivery: Delivery, sink: Webhook) -> Sent:
    """Post what the receiver lacks.

    Raises:
        ValueError: the receiver cannot be reached, or refuses; one line, without the URL and the contents of any row.
    """
    to = receiver(sink)
    if delivery.is_there(delivery.known):
        return Sent(rows=0, how=NOTHING)
    changes = delivery.changes(delivery.known)
    told = delivery.manifest
    # The same for the same rows, so that a run again after a failure is known as such; not where all is asked for again.
    whole = changes is None
    of = [
        told.text(),
        "" if delivery.known is None else delivery.known.text(),
        whole,
        delivery.run_id if delivery.whole else "",
    ]
    run = _id(of)
    begin = {"event": "begin", "everything": whole, "table": told.source, "day": str(told.day), "columns": dict(told.columns)}
    _tell(to, run, begin | {"contract": told.contract})
    owners, rows = _send(_messages(delivery, changes), to, run)
    with commits.delivery("the webhook sink"):
        _tell(to, run, {"event": "commit", "owners": owners, "rows": rows})
    return Sent(rows=rows, how=EVERYTHING if whole else CHANGES)


def _id(of: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(of).encode()).hexdigest()[:16]


def _tell(to: Receiver, run: str, said: Mapping[str, Any]) -> None:
    headers = {"Content-Type": "application/json", "Wherewhen-Delivery": run, "Idempotency-Key": f"{run}-{said['event']}"}
    to.post(json.dumps({**said, "delivery": run}).encode(), headers)


def _messages(delivery: Delivery, changes: Changes | None) -> DataFrame:
    """`key, value, rows`: an owner, its rows as JSON, or null, and how many."""
    rows = delivery.rows if changes is None else changes.rows
    by = list(delivery.by or delivery.key or rows.columns[:1])
    key = F.col(by[0]).cast("string") if len(by) == 1 else F.to_json(F.struct(*by))
    text = F.to_json(F.struct(*rows.columns), {"ignoreNullFields": "false"})
    place = F.struct(*[name for name in delivery.key if name not in by]) if set(delivery.key) - set(by) else F.lit(0)
    single = rows.select(key.alias("key"), F.struct(place.alias("at"), text.alias("row")).alias("one"))
    texts = single.groupBy("key").agg(F.array_sort(F.collect_list("one"))["row"].alias("texts"))
    value = F.concat(F.lit("["), F.array_join("texts", ","), F.lit("]"))
    listed = texts.select("key", value.alias("value"), F.size("texts").cast("bigint").alias("rows"))
    if changes is None:
        return listed
    return changes.owners.select(key.alias("key")).join(listed, on="key", how="left")


def _send(messages: DataFrame, to: Receiver, run: str) -> tuple[int, int]:
    """Owners and rows that the receiver took."""

    def sent(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        owners = rows = 0
        for batch in batches:
            for start in range(0, batch.num_rows, _AT_ONCE):
                part = batch.slice(start, _AT_ONCE).to_pydict()
                pairs = zip(part["key"], part["value"], strict=True)
                body = "".join(f'{{"key":{json.dumps(key)},"value":{value or "null"}}}\n' for key, value in pairs).encode()
                digest = hashlib.sha256(body).hexdigest()[:16]
                headers = {"Content-Type": "application/x-ndjson", "Wherewhen-Delivery": run}
                to.post(body, {**headers, "Idempotency-Key": f"{run}-{digest}"})
                owners, rows = owners + len(part["key"]), rows + sum(count or 0 for count in part["rows"])
        yield pa.RecordBatch.from_pydict({"owners": pa.array([owners], pa.int64()), "rows": pa.array([rows], pa.int64())})

    found = tasks.collected(messages.mapInArrow(sent, "owners bigint, rows bigint"), "Webhook")
    return sum(row["owners"] for row in found), sum(row["rows"] for row in found)


def check(delivery: Delivery, sink: Webhook) -> str | None:
    """
    Raises:
        ValueError: always; a receiver can be told, not asked.
    """
    raise ValueError("a webhook cannot be asked what it holds; `export --whole` posts everything again")


def erase(sink: Webhook, person: Person, text_hashes: frozenset[str] = frozenset()) -> int:
    """Post that the person has no rows any more; how many there were is not known here.

    Raises:
        ValueError: as `deliver`.
    """
    to = receiver(sink)
    owner = TABLES[sink.source].owner if sink.source in TABLES else ("user_id",)
    by_owner: dict[tuple[str, ...], list[str]] = {
        ("user_id",): [person.raw_id],
        ("entity",): [f"user:{person.raw_id}"],
        ("text_hash",): sorted(text_hashes),
    }
    if not (keys := by_owner.get(owner)):
        return 0
    run = _id(["erase", sink.source, *keys])
    _tell(to, run, {"event": "begin", "everything": False, "table": sink.source})
    body = "".join(json.dumps({"key": key, "value": None}) + "\n" for key in keys).encode()
    headers = {"Content-Type": "application/x-ndjson", "Wherewhen-Delivery": run, "Idempotency-Key": f"{run}-erase"}
    to.post(body, headers)
    _tell(to, run, {"event": "commit", "owners": len(keys), "rows": 0})
    return 0


def rows_of(sink: Webhook, person: Person) -> list[dict[str, Any]]:
    """None: what a receiver holds, it holds itself."""
    return []
