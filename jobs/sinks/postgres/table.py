"""A table that is delivered into: its names, how it is made, what it is told of what it holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql
from pyspark.sql.types import StructType

from jobs.sinks import checksum
from jobs.sinks.delivery import Delivery, Manifest

_NAME_BYTES = 63
_TYPES = {
    "string": "text", "int": "integer", "bigint": "bigint", "double": "double precision", "float": "real",
    "boolean": "boolean", "date": "date", "timestamp": "timestamptz",
}  # fmt: skip
_MANIFESTS = """CREATE TABLE IF NOT EXISTS {manifests} (
    table_name text PRIMARY KEY, oid oid NOT NULL, source text NOT NULL, day date NOT NULL, contract integer NOT NULL,
    manifest text NOT NULL, run_id text NOT NULL, delivered_at timestamptz NOT NULL
)"""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Names as the server quotes them; `text` as the settings have it."""

    text: str
    name: sql.Identifier
    staging: sql.Identifier
    owners: sql.Identifier
    manifests: sql.Identifier

    @staticmethod
    def of(text: str) -> Table:
        *schema, name = text.split(".")

        def beside(what: str) -> sql.Identifier:
            return sql.Identifier(*schema, f"_{what}_{name}".encode()[:_NAME_BYTES].decode(errors="ignore"))

        return Table(
            text=text,
            name=sql.Identifier(*schema, name),
            staging=beside("staging"),
            owners=beside("owners"),
            manifests=sql.Identifier(*schema, "wherewhen_deliveries"),
        )

    def drop_staged(self, connection: psycopg.Connection) -> None:
        for staged in (self.staging, self.owners):
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(staged))


def claim(connection: psycopg.Connection, table: Table) -> None:
    """One export into a table at a time; the server lets go of the claim when the connection ends, however it ends."""
    claimed = connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [f"wherewhen {table.text}"]).fetchone()
    if claimed is None or not claimed[0]:
        raise ValueError(f"another export into {table.text} is under way; let it end, then run this one again")


def oid(connection: psycopg.Connection, name: sql.Identifier) -> int | None:
    """None where there is no such table."""
    found = connection.execute("SELECT to_regclass(%s)::oid", [name.as_string(connection)]).fetchone()
    return None if found is None else found[0]


def manifest(connection: psycopg.Connection, table: Table) -> Manifest | None:
    """What the table holds, as it was told; None where nothing was delivered, or another table is of that name now."""
    there = oid(connection, table.name)
    if there is None or oid(connection, table.manifests) is None:
        return None
    query = sql.SQL("SELECT manifest FROM {} WHERE table_name = %s AND oid = %s").format(table.manifests)
    found = connection.execute(query, [table.text, there]).fetchone()
    return None if found is None else Manifest.read(found[0])


def tell(connection: psycopg.Connection, table: Table, delivery: Delivery) -> None:
    """Write the manifest, within the transaction that makes it true."""
    told = delivery.manifest
    query = sql.SQL(
        "INSERT INTO {} VALUES (%s, %s, %s, %s, %s, %s, %s, now()) ON CONFLICT (table_name) DO UPDATE SET oid = excluded.oid, "
        "source = excluded.source, day = excluded.day, contract = excluded.contract, manifest = excluded.manifest, "
        "run_id = excluded.run_id, delivered_at = excluded.delivered_at"
    ).format(table.manifests)
    values = [table.text, oid(connection, table.name), told.source, told.day, told.contract, told.text(), delivery.run_id]
    connection.execute(query, values)


def make(
    connection: psycopg.Connection, table: Table, schema: StructType, delivery: Delivery, announced: Manifest | None = None
) -> None:
    """The table and that of the manifests, where they are missing; one that is there must have the columns.

    Raises:
        ValueError: it lacks some that were not announced.
    """
    connection.execute(sql.SQL(_MANIFESTS).format(manifests=table.manifests))
    if oid(connection, table.name) is not None:
        present = {*_types(connection, table.name), *_changed(announced, schema)}
        if missing := [name for name in schema.names if name not in present]:
            raise ValueError(f"table {table.text} lacks the column(s) {', '.join(missing)}: add them, or drop the table")
        return
    columns = _columns(schema)
    if delivery.key:
        columns.append(sql.SQL("PRIMARY KEY ({})").format(listed(delivery.key)))
    with connection.transaction():
        connection.execute(sql.SQL("CREATE TABLE {} ({})").format(table.name, sql.SQL(", ").join(columns)))
        connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(table.name, sql.Literal(delivery.comment)))
        _comment(connection, table, schema, delivery)


def stage(
    connection: psycopg.Connection, table: Table, schema: StructType, announced: Manifest | None, by: Sequence[str]
) -> None:
    """Empty staging tables, of rows and (where `by` names columns) of owners, with the table's own types and the number of
    the Spark partition; a killed run's are dropped."""
    table.drop_staged(connection)
    asked = (
        "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
    )
    own: dict[str, str] = dict(connection.execute(asked, [table.name.as_string(connection)]).fetchall())
    changed = _changed(announced, schema)
    types = {
        field.name: _type(field.name, field.dataType.simpleString()) if field.name in changed else own[field.name]
        for field in schema
    }
    for staged, names in ((table.staging, schema.names), (table.owners, by)):
        if names:
            columns = [sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(types[name])) for name in names]
            create = sql.SQL("CREATE UNLOGGED TABLE {} ({}, _part integer)").format(staged, sql.SQL(", ").join(columns))
            connection.execute(create)


def announce(connection: psycopg.Connection, table: Table, schema: StructType, before: Manifest, delivery: Delivery) -> None:
    """Bring the table under columns that were announced, within the transaction that fills it; views of lost ones forbid it."""
    changed = _changed(before, schema)
    for name in [*changed, *[name for name in before.columns if name not in schema.names]]:
        connection.execute(sql.SQL("ALTER TABLE {} DROP COLUMN IF EXISTS {}").format(table.name, sql.Identifier(name)))
    for column, field in zip(_columns(schema), schema, strict=True):
        if field.name in changed:
            connection.execute(sql.SQL("ALTER TABLE {} ADD COLUMN {}").format(table.name, column))
    _comment(connection, table, schema, delivery)


def _changed(before: Manifest | None, schema: StructType) -> list[str]:
    """Columns that are new, or of another type than in a manifest."""
    if before is None:
        return []
    # Nested columns are text here.
    plain = {
        name: "string" if kind.startswith(("array<", "map<", "struct<")) else kind for name, kind in before.columns.items()
    }
    return [field.name for field in schema if plain.get(field.name) != field.dataType.simpleString()]


def _comment(connection: psycopg.Connection, table: Table, schema: StructType, delivery: Delivery) -> None:
    for name in schema.names:
        if comment := delivery.comments.get(name):
            query = sql.SQL("COMMENT ON COLUMN {}.{} IS {}")
            connection.execute(query.format(table.name, sql.Identifier(name), sql.Literal(comment)))


def _columns(schema: StructType) -> list[sql.Composable]:
    return [
        sql.SQL("{} {}").format(sql.Identifier(field.name), sql.SQL(_type(field.name, field.dataType.simpleString())))
        for field in schema
    ]


def _type(name: str, spark_type: str) -> str:
    # Wall clock times are kept as if UTC: with a zone they would name another moment.
    return "timestamp" if name.startswith("local_") and spark_type == "timestamp" else _TYPES[spark_type]


def _types(connection: psycopg.Connection, name: sql.Identifier) -> dict[str, str]:
    """Column -> type, as the server calls them."""
    query = (
        "SELECT a.attname::text, t.typname::text FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
        "WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped"
    )
    return dict(connection.execute(query, [name.as_string(connection)]).fetchall())


def compared(connection: psycopg.Connection, table: Table, schema: StructType, announced: Manifest | None = None) -> list[str]:
    """The columns whose values the table holds, or will hold, as they are sent: one made by somebody else may round, say."""
    present, changed = _types(connection, table.name), _changed(announced, schema)
    return [
        field.name
        for field in schema
        if field.name in changed or checksum.held_alike(field.dataType, present.get(field.name, ""))
    ]


def is_unique(connection: psycopg.Connection, table: Table, key: Sequence[str]) -> bool:
    """Whether the table has a unique index on exactly the key (a table made by somebody else may not)."""
    found = connection.execute(
        "SELECT array_agg(a.attname::text) FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid "
        "AND a.attnum = ANY(i.indkey) WHERE i.indrelid = %s::regclass AND i.indisunique AND i.indpred IS NULL "
        "GROUP BY i.indexrelid",
        [table.name.as_string(connection)],
    )
    return any(set(columns) == set(key) for (columns,) in found)


def listed(columns: Iterable[str], alias: str | None = None) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(*filter(None, [alias, name])) for name in columns)


def stored_text(text: str) -> str:
    """PostgreSQL stores no NUL characters: one in a title must not stop the night."""
    return text.replace("\x00", "\ufffd")
