"""Rows as they are stored, read without Spark: in no time, and beside its session. Lakes held against each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import deltalake
from pyspark.sql import SparkSession

from conf.settings import Settings
from conf.tables import TABLES
from jobs.lake import logs
from jobs.lake.compare import compare
from jobs.lake.runs import newest_night, pins
from jobs.lake.store import Lake
from jobs.pipeline import Step


def difference(spark: SparkSession, name: str, one: Settings, other: Settings, where: str = "TRUE") -> str:
    """How the table differs between two lakes, as their runs left it; nothing where it does not."""
    versions = [pins(settings.lake).get(name) for settings in (one, other)]
    ours, theirs = (
        [] if version is None else rows_of(settings, name, version, where)
        for settings, version in zip((one, other), versions, strict=True)
    )
    if ours == theirs:
        return ""
    # Perhaps sums in another order.
    read = (Lake(spark, settings.lake).read for settings in (one, other))
    comparison = compare(*[rows(name, version, where) for rows, version in zip(read, versions, strict=True)], TABLES[name])
    return "" if comparison.equal else str(comparison)


def rows_of(settings: Settings, name: str, version: int, where: str = "TRUE") -> list[str]:
    """The rows of a version, sorted, without what may differ from run to run."""
    names = [column for column in TABLES[name].names if column not in TABLES[name].unequal]
    wanted = ", ".join(f'"{column}"' for column in names)
    answer = _answer(settings, name, version, f"SELECT {wanted} FROM t WHERE {where}")
    return sorted(map(repr, zip(*[answer.column(column).to_pylist() for column in names], strict=True)))


def told(settings: Settings, name: str, where: str = "TRUE", order: str = "day") -> list[dict[str, Any]]:
    """The rows of a table, as runs left it; where none wrote it, of its newest version."""
    answer = _answer(settings, name, pins(settings.lake).get(name), f"SELECT * FROM t WHERE {where} ORDER BY {order}")
    columns = [answer.column(column).to_pylist() for column in answer.schema.names]
    return [dict(zip(answer.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def _answer(settings: Settings, name: str, version: int | None, query: str) -> Any:
    table = deltalake.DeltaTable(Path(settings.lake) / name, version=version)
    return deltalake.QueryBuilder().register("t", table).execute(query).read_all()


def differences(
    spark: SparkSession, settings: Settings, other: Settings, steps: Sequence[Step], *, whole: bool
) -> dict[str, str]:
    """Where what the steps wrote differs from what they did in the other lake. `whole`: they are all, and a night is done."""
    found, written = {}, pins(other.lake)
    for name in [name for step in steps for name in step.writes if name in written]:
        if TABLES[name].kind != "log" and (differs := difference(spark, name, settings, other)):
            found[name] = differs
    told = {"the vault": in_vault, **({"the registry": registered, "the rest": delivered} if whole else {})}
    return found | {
        name: f"{look(settings)}, not {look(other)}" for name, look in told.items() if look(settings) != look(other)
    }


def in_vault(settings: Settings) -> list[str]:
    """Nobody is there twice."""
    return sorted(row["user_id"] for row in logs.read(settings.lake, "vault"))


def registered(settings: Settings) -> dict[str, object]:
    """What of the other logs must not depend on kills: each version once, the decisions, the night."""
    decided = sorted(logs.read(settings.lake, "publications"), key=lambda row: row["decided_at"])
    newest = {row["day"]: (row["decision"], row["model_version"], row["candidate"]) for row in decided}
    night = newest_night(settings.lake)
    return {
        "versions": sorted(row["model_version"] for row in logs.read(settings.lake, "model_versions")),
        "decisions": newest,
        "night": (night.day, night.versions == pins(settings.lake)) if night is not None else None,
    }


def delivered(settings: Settings) -> tuple[list[str], bool]:
    lists = Path(settings.sinks["files"].path)
    return sorted(line for path in lists.glob("*.csv") for line in path.open()), Path(settings.report.path).is_file()
