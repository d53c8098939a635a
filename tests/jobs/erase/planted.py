"""A lake without Spark: every table under its contract, with rows of two people and of nobody."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf.contracts import Table
from conf.settings import Settings, load_settings
from conf.tables import TABLES
from jobs.lake import files, identities, logs, runs
from jobs.lake.logs import table_path
from jobs.lake.person import identifying
from jobs.lake.runs import NIGHT
from jobs.lake.schema import arrow_schema
from tests.planting import table_of, written

DAYS = (date(2024, 1, 30), date(2024, 1, 31))
AT = datetime(2024, 1, 30, 12, tzinfo=UTC)


def value(kind: pa.DataType, name: str, number: int):
    """Some value of a type."""
    if pa.types.is_map(kind):
        return [("a", value(kind.item_type, name, number))]
    if pa.types.is_list(kind):
        return [value(kind.value_type, name, number), value(kind.value_type, name, number + 1)]
    if pa.types.is_struct(kind):
        return {field.name: value(field.type, field.name, number) for field in kind}
    plain = {
        pa.string(): f"{name} {number}",
        pa.binary(): bytes([number % 256, 1, 2]),
        pa.bool_(): False,
        pa.date32(): DAYS[0],
        pa.timestamp("us", "UTC"): AT,
    }
    return plain.get(kind, float(number) / 4 if pa.types.is_floating(kind) else number)


@dataclass
class Planted:
    """`rows`: table -> the rows that are not the person's, as they were written; `mine`: how many are."""

    settings: Settings
    user: str
    rows: dict[str, list[dict]]
    mine: dict[str, int]

    @property
    def root(self) -> str:
        return self.settings.lake

    @property
    def pseudonym(self) -> str:
        return identities.pseudonym(self.user, identities.load_key())

    def stored(self, name: str, version: int | None = None) -> list[dict]:
        table = deltalake.DeltaTable(table_path(self.root, name), version=version)
        found = []
        for file in files.listed(table).values():
            rows = pq.ParquetFile(Path(table_path(self.root, name)) / file.path).read().to_pylist()
            assert len(rows) == file.rows
            found += [row | ({} if file.day is None else {"day": date.fromisoformat(file.day)}) for row in rows]
        return sorted(found, key=repr)

    def commit(self, name: str, rows: list[dict], *, replace: bool = False) -> int:
        """One file a day, as Spark would write them."""
        contract, root = TABLES[name], table_path(self.root, name)
        table = table_of(root, contract)
        added = written(root, contract, rows, row_group_size=3)
        return files.exchanged(table, added, files.paths(table) if replace else [])


def row(contract: Table, number: int, day: date) -> dict:
    made = {field.name: value(field.type, field.name, number) for field in arrow_schema(contract)}
    return made | ({"day": day} if contract.partitioned else {})


def as_of(contract: Table, one: dict, user: str) -> dict:
    """The row as a user's."""
    name = identities.pseudonym(user, identities.load_key())
    changed = {"user_id": name, "entity_type": "user", "entity_id": name, "entity": f"user:{name}"}
    changed |= {"broken": None, "row": json.dumps({"user_id": name})}
    changed |= {"sealed": identities.seal(user, identities.load_key())} if contract.name == "vault" else {}
    return {key: changed.get(key, old) for key, old in one.items()}


def done(step: str, outputs: dict[str, int], day: date, run_id: str = "r") -> dict:
    return runs.row(run_id, step, day, first_day=DAYS[0], outputs=outputs)


@pytest.fixture(scope="session")
def planted_once(tmp_path_factory):
    """planted_once(user): a lake with a finished night, made the first time that it is asked for; not to be changed."""

    @cache
    def planted(user: str) -> Planted:
        settings = load_settings(overrides=[f"lake={tmp_path_factory.mktemp('planted') / 'lake'}"])
        lake = Planted(settings=settings, user=user, rows={}, mine={})
        night: dict[str, int] = {}
        for name, contract in TABLES.items():
            if name in ("runs", "erasures"):
                continue
            kinds = (user, "somebody", None) if identifying(contract) else (None,)
            if "user_id" in contract.names and not contract.column("user_id").nullable:
                kinds = kinds[:2]
            made = [(kind, row(contract, n, day)) for n, day in enumerate([*DAYS, DAYS[0]]) for kind in kinds]
            rows = [(kind, one if kind is None else as_of(contract, one, kind)) for kind, one in made]
            rows = [(kind, nobodys(one) if kind is None else one) for kind, one in rows]
            night[name] = lake.commit(name, [one for _, one in rows])
            lake.rows[name] = sorted((one for kind, one in rows if kind != user), key=repr)
            lake.mine[name] = sum(kind == user for kind, _ in rows)
        _plant_texts(lake, night)
        logs.append(lake.root, "runs", [done("ingest", night, DAYS[0]), done(NIGHT, night, DAYS[1], "night")])
        return lake

    return planted


@pytest.fixture
def plant(planted_once, make_settings):
    """plant(user): a copy of such a lake."""

    def copied(user: str = "u000012") -> Planted:
        made, settings = planted_once(user), make_settings()
        shutil.copytree(made.settings.lake, settings.lake)
        return replace(made, settings=settings, rows={name: [*rows] for name, rows in made.rows.items()}, mine={**made.mine})

    return copied


def nobodys(one: dict) -> dict:
    """Nothing in the row says user."""
    quiet = {"user_id": None, "entity_type": "item", "broken": None, "row": "{}"}
    return {key: quiet.get(key, old) for key, old in one.items()}


def _plant_texts(lake: Planted, night: dict[str, int]) -> None:
    """The person's own text, one that another wrote as well, and an item's."""
    import hashlib

    contract = TABLES["events"]
    mine, both, of_item = ("mine only", "  both\tof us ", "the item's")
    wrote = [(lake.user, mine), (lake.user, both), ("somebody", "both of\nus"), (lake.user, of_item)]
    rows = [as_of(contract, row(contract, n, DAYS[1]), user) | {"text": text} for n, (user, text) in enumerate(wrote)]
    night["events"] = lake.commit("events", rows)
    lake.rows["events"] = sorted([*lake.rows["events"], rows[2]], key=repr)
    lake.mine["events"] += 3
    texts = TABLES["text_semantics"]
    plain = [mine, "both of us", of_item]
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in plain]
    rows = [
        row(texts, n, DAYS[1]) | {"text_hash": one, "text": text}
        for n, (one, text) in enumerate(zip(hashes, plain, strict=True))
    ]
    night["text_semantics"] = lake.commit("text_semantics", rows, replace=True)
    lake.rows["text_semantics"], lake.mine["text_semantics"] = sorted(rows[1:], key=repr), 1
    mentions = TABLES["text_mentions"]
    rows = [row(mentions, n, DAYS[1]) | {"text_hash": hashes[n // 2]} for n in range(6)]
    night["text_mentions"] = lake.commit("text_mentions", rows, replace=True)
    lake.rows["text_mentions"], lake.mine["text_mentions"] = sorted(rows[2:], key=repr), 2
    items = TABLES["item_texts"]
    rows = [row(items, 1, DAYS[0]) | {"text_hash": hashes[2]}]
    night["item_texts"] = lake.commit("item_texts", rows)
    lake.rows["item_texts"] = sorted([*lake.rows["item_texts"], *rows], key=repr)
