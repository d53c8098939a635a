"""Rows as they are stored, read without Spark: in no time, and beside its session."""

from __future__ import annotations

from pathlib import Path

import deltalake

from conf.settings import Settings
from conf.tables import TABLES


def rows_of(settings: Settings, name: str, version: int) -> list[str]:
    """The rows of a version, sorted, without what may differ from run to run."""
    table = deltalake.DeltaTable(Path(settings.lake) / name, version=version)
    names = [column for column in TABLES[name].names if column not in TABLES[name].unequal]
    wanted = ", ".join(f'"{column}"' for column in names)
    answer = deltalake.QueryBuilder().register("t", table).execute(f"SELECT {wanted} FROM t").read_all()
    return sorted(map(repr, zip(*[answer.column(column).to_pylist() for column in names], strict=True)))
