"""Rows written without Spark, whose every job is some tenths of a second: for tests that only need them there."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq

from conf.contracts import Table
from conf.tables import TABLES
from jobs.lake import files
from jobs.lake.context import Context
from jobs.lake.schema import arrow_schema, create, spark_schema
from jobs.lake.store import keyframes


def table_of(root: str, contract: Table) -> deltalake.DeltaTable:
    """The table, made where there is none yet."""
    if not deltalake.DeltaTable.is_deltatable(root):
        create(root, contract)
    return deltalake.DeltaTable(root)


def written(root: str, contract: Table, rows: list[dict[str, Any]], row_group_size: int | None = None) -> list[files.File]:
    """One file a day, as Spark would write them; of no version yet."""
    schema, added = arrow_schema(contract), []
    maps = [field.name for field in schema if pa.types.is_map(field.type)]
    rows = [{**row, **{name: list(row[name].items()) for name in maps if isinstance(row.get(name), dict)}} for row in rows]
    for day in sorted({row["day"] for row in rows}) if contract.partitioned else [None]:
        of_day = [row for row in rows if day is None or row["day"] == day]
        kept = schema if day is None else schema.remove(schema.get_field_index("day"))
        path = f"batch={uuid.uuid4().hex}/" + ("" if day is None else f"day={day}/") + "part-00000.snappy.parquet"
        place = Path(root) / path
        place.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(of_day, schema=kept), place, row_group_size=row_group_size)
        size, of = place.stat().st_size, None if day is None else str(day)
        added.append(files.File(path=path, size=size, rows=len(of_day), changed_at_ms=1, day=of))
    return added


def write(context: Context, name: str, rows: list[dict[str, Any]]) -> None:
    """As the context writes them, but that no check of the contract is made; on a keyframe day, which copies, it does."""
    contract = TABLES[name]
    if contract.kind == "state" and keyframes(context.days, context.first_day):
        values = [tuple(row[column] for column in contract.names) for row in rows]
        return context.write(name, context.spark.createDataFrame(values, spark_schema(contract)))
    root = context.lake.path(name)
    table = table_of(root, contract)
    version = files.committed(table, written(root, contract, rows), context.replaced(name))
    context.outputs[name] = context.pins[name] = version
    context.rows_out[name] = context.rows_out.get(name, 0) + len(rows)


def plant(lake, name, rows, days=()):
    """Append rows to a table, made where there is none; what a row does not say is null.

    days: all that a lake is of, from its first: on the keyframes among them a state holds every owner.
    """
    contract = TABLES[name]
    if contract.kind == "state" and days:
        rows = [*rows, *_copies(rows, contract.owner, keyframes(days, min(days)))]
    whole = [{column: row.get(column) for column in contract.names} for row in rows]
    deltalake.write_deltalake(
        table_of(f"{lake}/{name}", contract), pa.Table.from_pylist(whole, schema=arrow_schema(contract)), mode="append"
    )


def _copies(rows, owner, frames):
    for frame in frames:
        newest = {}
        for row in rows:
            of_owner = newest.setdefault(tuple(row[name] for name in owner), {})
            if row["day"] <= frame:
                of_owner.setdefault(row["day"], []).append(row)
        for of_owner in newest.values():
            if of_owner and max(of_owner) < frame:
                yield from ({**row, "day": frame} for row in of_owner[max(of_owner)] if not row["gone"])
