"""A table that is delivered into: its names, the claim on it, what it is told of what it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyspark.sql.types import LongType, StringType, StructType

from jobs.sinks.delivery import Delivery, Manifest
from jobs.sinks.jdbc.database import KEY_LENGTH, Columns, Database, asked, execute, held

CLAIM_SECONDS = 30
_LOOKED_AT, _TRIED = 1000, 20
OWNER = "ww_owner"


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Names as the settings have them: the database folds their letters as it does."""

    name: str
    staging: str
    owners: str
    manifests: str

    @staticmethod
    def of(name: str) -> Tables:
        schema = f"{name.rpartition('.')[0]}." if "." in name else ""
        return Tables(
            name=name, staging=f"{name}_ww_s", owners=f"{name}_ww_o", manifests=f"{schema}wherewhen_deliveries"
        )  # fmt: skip

    @property
    def known_as(self) -> str:
        return self.name.lower()


def claim(connection: Any, database: Database, tables: Tables) -> None:
    """The table's row is written, and so is locked until the transaction ends: one export into the table at a time.

    Raises:
        ValueError: another export has it.
    """
    try:
        with database.told():
            _make_manifests(database, tables)
            claim_again(connection, tables)
    except ValueError as error:
        said = f"no claim on {tables.name}, as when another export into it is under way; let it end, then run this one again"
        raise ValueError(f"{said} ({error})") from None


def claim_again(connection: Any, tables: Tables) -> None:
    """After a commit or rollback, which lets go of it."""
    written = f"UPDATE {tables.manifests} SET row_count = row_count WHERE table_name = ?"
    execute(connection, written, [tables.known_as], CLAIM_SECONDS)


def _make_manifests(database: Database, tables: Tables) -> None:
    """With the table's row. Tables are made by connections of their own: in some databases that commits of itself."""
    text, key, number = (
        database.type_of("", StringType()),
        database.key_type("", StringType()),
        database.type_of("", LongType()),
    )
    columns = f"table_name {key} NOT NULL PRIMARY KEY, row_count {number} NOT NULL, run_id {key}, manifest {text}"
    with database.connected() as connection:
        if not held(connection, tables.manifests):
            execute(connection, f"CREATE TABLE {tables.manifests} ({columns})")
            connection.commit()
        there = f"SELECT table_name FROM {tables.manifests} WHERE table_name = ?"
        if not asked(connection, there, [tables.known_as]):
            execute(connection, f"INSERT INTO {tables.manifests} (table_name, row_count) VALUES (?, -1)", [tables.known_as])
            connection.commit()


def manifest(connection: Any, database: Database, tables: Tables) -> Manifest | None:
    """What the table holds; None where there is none, or it has another number of rows: others wrote it, or made it anew.

    The connection is to have the claim, or nothing. It does not read the table, which would keep others from altering it.
    """
    with database.connected() as other:
        rows = count(other, tables.name) if held(other, tables.name) else None
    query = f"SELECT row_count, manifest FROM {tables.manifests} WHERE table_name = ?"
    found = [list(row.values()) for row in asked(connection, query, [tables.known_as])]
    return Manifest.read(found[0][1]) if found and found[0][0] == rows else None


def tell(connection: Any, tables: Tables, delivery: Delivery, rows: int) -> None:
    """Write the manifest, within the transaction that makes it true."""
    query = f"UPDATE {tables.manifests} SET row_count = ?, run_id = ?, manifest = ? WHERE table_name = ?"
    execute(connection, query, [rows, delivery.run_id[:KEY_LENGTH], delivery.manifest.text(), tables.known_as])


def count(connection: Any, of: str) -> int:
    return int(next(iter(asked(connection, f"SELECT COUNT(*) AS n FROM {of}")[0].values())))


def drop_staged(database: Database, tables: Tables) -> None:
    with database.connected() as connection:
        for staged in (tables.staging, tables.owners):
            if held(connection, staged):
                execute(connection, f"DROP TABLE {staged}", seconds=CLAIM_SECONDS)
                connection.commit()


def tells_apart(database: Database, tables: Tables, name: str) -> bool:
    """Whether a text column of the table tells `a` from `A`. Some do not: there one user's rows would go with another's."""
    with database.connected() as connection:
        column = database.quoted(held(connection, tables.name)[name.lower()][0])
        texts = {
            text for row in asked(connection, f"SELECT {column} FROM {tables.name}", most=_LOOKED_AT) for text in row.values()
        }
        other = sorted({text.swapcase() for text in texts if text and text.swapcase() not in (text, *texts)})[:_TRIED]
        if not other:
            return True  # digits alone, as it seems
        query = f"SELECT {column} FROM {tables.name} WHERE {column} IN ({', '.join('?' * len(other))})"
        return all(text in other for row in asked(connection, query, other, most=_LOOKED_AT) for text in row.values())


def all_there(tables: Tables, schema: StructType, columns: Columns) -> None:
    """
    Raises:
        ValueError: the table lacks columns.
    """
    if missing := [name for name in schema.names if name.lower() not in columns]:
        raise ValueError(f"table {tables.name} lacks the column(s) {', '.join(missing)}: add them, or drop the table")
