"""The append-only log tables, written and read without a JVM."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import deltalake
from deltalake.exceptions import TableNotFoundError

from conf.tables import TABLES
from jobs.lake import commits
from jobs.lake.disk import named_when_full
from jobs.lake.schema import arrow_schema, create, gained, migrate

Row = dict[str, Any]


def now() -> datetime:
    return datetime.now(UTC)


def table_path(root: str, name: str) -> str:
    """Absolute, as Spark would else resolve it against its own working directory."""
    base = root if "://" in root else str(Path(root).absolute())
    return f"{base.rstrip('/')}/{name}"


def append(root: str, name: str, rows: list[Row]) -> int:
    """Append rows to a log table in one commit; makes the table on first use. Returns the version.

    Concurrent appends do not conflict; delta-rs retries the commit itself.
    """
    contract = TABLES[name]
    assert contract.kind == "log", f"{name} is not a log"
    path = table_path(root, name)
    if not deltalake.DeltaTable.is_deltatable(path):
        with commits.commit(root, f"the empty table {name}"):
            create(path, contract)
    migrate(deltalake.DeltaTable(path), contract)
    # Here only: `query` reads logs and has no time to import pyarrow.
    import pyarrow as pa

    named = [{name: row.get(name) for name in contract.names} for row in rows]
    arrow = pa.Table.from_pylist(named, schema=arrow_schema(contract))
    with named_when_full(path), commits.commit(root, name):
        deltalake.write_deltalake(path, arrow, mode="append")
        return deltalake.DeltaTable(path).version()


def read(root: str, name: str, where: str = "true", version: int | None = None) -> list[Row]:
    """Rows of a log table (of its newest version); none where it was never written. `where` is SQL (DataFusion)."""
    try:
        table = deltalake.DeltaTable(table_path(root, name), version=version)
    except TableNotFoundError:
        return []
    new = gained(TABLES[name], table)
    names = ", ".join(f'NULL AS "{column}"' if column in new else f'"{column}"' for column in TABLES[name].names)
    answer = deltalake.QueryBuilder().register(name, table).execute(f"SELECT {names} FROM {name} WHERE {where}").read_all()
    columns = {column: [_plain(value) for value in answer.column(column).to_pylist()] for column in TABLES[name].names}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _plain(value: Any) -> Any:
    """Maps come as lists of pairs."""
    if isinstance(value, list) and all(isinstance(pair, tuple) for pair in value):
        return dict(value)
    return value
