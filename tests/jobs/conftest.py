"""A lake written without Spark, for what reads without a JVM."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import deltalake
import pyarrow as pa
import pytest

from conf.settings import load_settings
from conf.tables import TABLES
from jobs.lake import logs
from jobs.lake.schema import create
from jobs.query import answer, render
from tests.jobs.feeding import fed_at_once, fed_by_night, feeds
from tests.jobs.texts import first_night, read_at_once, read_by_another, read_by_night

__all__ = ["fed_at_once", "fed_by_night", "feeds", "first_night", "read_at_once", "read_by_another", "read_by_night"]

FIRST = date(2024, 1, 30)
SIMPLE = {
    "string": "x",
    "double": 1.0,
    "bigint": 1,
    "int": 1,
    "boolean": False,
    "date": FIRST,
    "timestamp": datetime(2024, 1, 30, tzinfo=UTC),
}
RUN = {
    "status": "done",
    "settings_hash": "s",
    "code_version": "c",
    "inputs": {},
    "rows_out": {},
    "details": "{}",
    "seconds": 1.0,
}
ALLOWED = {"label": "long", "trend": "stable", "slot": "any", "role": "home"}


class SmallLake:
    """A lake written without Spark: rows of any table, and records of what is finished."""

    def __init__(self, root):
        self.root = str(root)
        self.settings = load_settings(overrides=[f"lake={root}"])
        self._clock = 0

    def write(self, name, *changes):
        """Append valid rows that differ in the given fields; the version."""
        contract = TABLES[name]
        path = f"{self.root}/{name}"
        if not deltalake.DeltaTable.is_deltatable(path):
            create(path, contract)
        valid = {
            column.name: ALLOWED.get(column.name, SIMPLE.get(column.type, []))
            for column in contract.columns
            if not column.nullable
        }
        rows = [{**valid, **change} for change in changes]
        for row in rows:
            if "changed_on" in row and "changed_on" not in changes[rows.index(row)]:
                row["changed_on"] = row["day"]
        schema = pa.schema(deltalake.DeltaTable(path).schema().to_arrow())
        deltalake.write_deltalake(path, pa.Table.from_pylist(rows, schema=schema), mode="append")
        return deltalake.DeltaTable(path).version()

    def finish(self, day, outputs, *, step="label", run_id="run1", **more):
        self._clock += 1
        at = datetime(2024, 3, 1, 0, 0, self._clock, tzinfo=UTC)
        row = {
            **RUN,
            "run_id": run_id,
            "step": step,
            "day": day,
            "first_day": FIRST,
            "outputs": outputs,
            "finished_at": at,
            **more,
        }
        logs.append(self.root, "runs", [row])

    def rows(self, sql, **more):
        return json.loads(render(answer(self.settings, sql, **more), "json"))


@pytest.fixture
def small_lake(tmp_path):
    return SmallLake(tmp_path / "lake")
