"""Rows of a lake's tables put there and read without Spark, of whose jobs each costs more than such a table."""

import deltalake
import pyarrow as pa

from conf.tables import TABLES
from jobs.lake.schema import arrow_schema, create
from jobs.lake.store import keyframes


def plant(lake, name, rows, days=()):
    """Append rows to a table, made where there is none; what a row does not say is null.

    days: all that a lake is of, from its first: on the keyframes among them a state holds every owner.
    """
    contract, path = TABLES[name], f"{lake}/{name}"
    if not deltalake.DeltaTable.is_deltatable(path):
        create(path, contract)
    if contract.kind == "state" and days:
        rows = [*rows, *_copies(rows, contract.owner, keyframes(days, min(days)))]
    whole = [{column: row.get(column) for column in contract.names} for row in rows]
    deltalake.write_deltalake(path, pa.Table.from_pylist(whole, schema=arrow_schema(contract)), mode="append")


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


def told(settings, name, where="TRUE", order="day"):
    """The rows of a table."""
    table = deltalake.DeltaTable(f"{settings.lake}/{name}")
    query = f"SELECT * FROM t WHERE {where} ORDER BY {order}"
    answer = deltalake.QueryBuilder().register("t", table).execute(query).read_all()
    columns = [answer.column(column).to_pylist() for column in answer.schema.names]
    return [dict(zip(answer.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]
