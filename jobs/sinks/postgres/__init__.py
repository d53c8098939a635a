"""PostgreSQL: a table whose contents are exchanged in one transaction, all of them or those of the owners that changed.

Every Spark partition is copied into a staging table of the same schema; then, in one transaction, rows that differ or are no
longer there are deleted, the missing ones inserted, and `wherewhen_deliveries` is told as of which day the table is. The table
itself stays: its views, grants, indexes and triggers keep working, and a reader sees the old contents or the new, under any
isolation level (which TRUNCATE and a rename do not give).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from psycopg import sql
from pyspark.sql import DataFrame
from pyspark.sql.types import StructType

from conf.settings import Postgres
from jobs.lake import commits
from jobs.sinks import checksum, tasks
from jobs.sinks.delivery import CHANGES, EVERYTHING, NOTHING, Changes, Delivery, Manifest, Sent
from jobs.sinks.plain import flat
from jobs.sinks.postgres.login import Login, login, refused
from jobs.sinks.postgres.person import erase, rows_of
from jobs.sinks.postgres.table import Table, announce, claim, compared, is_unique, listed, make, oid, stage, tell
from jobs.sinks.postgres.table import manifest as manifest_of

__all__ = ["check", "deliver", "erase", "manifest", "rows_of"]

ALL = sql.SQL("TRUE")


def manifest(sink: Postgres) -> Manifest | None:
    """What the table holds; None: nothing, or nobody knows.

    Raises:
        ValueError: as `deliver`.
    """
    how = login(sink)
    try:
        with how.connect() as connection:
            return manifest_of(connection, Table.of(sink.table))
    except psycopg.Error as error:
        raise ValueError(refused(how, error)) from None


def deliver(delivery: Delivery, sink: Postgres) -> Sent:
    """Make the table hold what is delivered, plain columns, others as JSON; it is made where it is missing.

    Raises:
        ValueError: the server cannot be reached, or refuses; one line, without the contents of any row.
    """
    how, table = login(sink), Table.of(sink.table)
    try:
        with how.connect() as connection:
            claim(connection, table)
            before = manifest_of(connection, table)
            if delivery.is_there(before):
                return Sent(rows=0, how=NOTHING)
            changes = delivery.changes(before)
            is_announced = before is not None and before.columns != delivery.manifest.columns
            exchange = _Exchange(how, table, delivery, changes, before if is_announced else None)
            try:
                sent = exchange.run(connection)
            finally:
                table.drop_staged(connection)
            # Makes the space of the deleted rows the next night's.
            connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(table.name))
            return sent
    except psycopg.Error as error:
        raise ValueError(refused(how, error)) from None


def check(delivery: Delivery, sink: Postgres) -> str | None:
    """How the table differs from what is to be delivered; None: not at all.

    Raises:
        ValueError: as `deliver`.
    """
    how, table, rows = login(sink), Table.of(sink.table), flat(delivery.rows)
    try:
        with how.connect() as connection:
            if oid(connection, table.name) is None:
                return f"there is no table {table.text}"
            delivery.check_announced(manifest_of(connection, table))
            same = compared(connection, table, rows.schema)
            held = _held(connection, table, rows.schema, same)
    except psycopg.Error as error:
        raise ValueError(refused(how, error)) from None
    wanted = _measured(rows, same)
    return None if held == wanted else f"it holds {held[0]:,} rows with checksum {held[1]}, {wanted[0]:,} with {wanted[1]} here"


class _Exchange:
    """One delivery that has something to send. `announced`: the manifest before, where the columns are to change."""

    def __init__(
        self, how: Login, table: Table, delivery: Delivery, changes: Changes | None, announced: Manifest | None
    ) -> None:
        self.how, self.table, self.delivery, self.changes, self.announced = how, table, delivery, changes, announced
        self.rows = flat(delivery.rows if changes is None else changes.rows)

    def run(self, connection: psycopg.Connection) -> Sent:
        table, rows = self.table, self.rows
        make(connection, table, rows.schema, self.delivery, self.announced)
        stage(connection, table, rows.schema, self.announced, self.delivery.by if self.changes is not None else ())
        if self.changes is not None:
            _copy_partitions(self.changes.owners.select(*self.delivery.by), self.how, table, table.owners)
        # Floats and the like are compared where the table holds them unchanged.
        same = compared(connection, table, rows.schema, self.announced)
        wanted = _copy_partitions(rows, self.how, table, table.staging, same)
        with commits.delivery("the PostgreSQL sink"), connection.transaction():
            self._exchange(connection)
            tell(connection, table, self.delivery)
            held = _held(connection, table, rows.schema, same, ALL if self.changes is None else self._of_owners())
            if held != wanted:
                raise ValueError(_not_alike(self.how, table, wanted, held))
        return Sent(rows=wanted[0], how=EVERYTHING if self.changes is None else CHANGES, checksum=wanted[1])

    def _exchange(self, connection: psycopg.Connection) -> None:
        """Old contents out, staged ones in; what is equal is not touched."""
        table, key, columns = self.table, self.delivery.key, self.rows.columns
        for staged in (table.staging, *([table.owners] if self.changes is not None else [])):
            connection.execute(sql.SQL("ANALYZE {}").format(staged))
        # Other writers wait, readers do not.
        connection.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(table.name))
        if self.announced is not None:
            announce(connection, table, self.rows.schema, self.announced, self.delivery)
        names = {"table": table.name, "staging": table.staging, "columns": listed(columns)}
        names["replaced"] = ALL if self.changes is None else self._of_owners()
        delete = "DELETE FROM {table} t WHERE {replaced}"
        insert = "INSERT INTO {table} ({columns}) SELECT {columns} FROM {staging} s"
        if key and is_unique(connection, table, key):
            rest = [name for name in columns if name not in key]
            same_key = sql.SQL(" AND ").join(sql.SQL("s.{0} = t.{0}").format(sql.Identifier(name)) for name in key)
            same_rest = sql.SQL("ROW({}) IS NOT DISTINCT FROM ROW({})").format(listed(rest, "s"), listed(rest, "t"))
            names |= {"same_key": same_key, "same": same_key + sql.SQL(" AND ") + same_rest if rest else same_key}
            delete += " AND NOT EXISTS (SELECT FROM {staging} s WHERE {same})"
            insert += " WHERE NOT EXISTS (SELECT FROM {table} t WHERE {same_key})"
        connection.execute(sql.SQL(delete).format(**names))
        if self.changes is None and not connection.execute(sql.SQL("SELECT FROM {table} LIMIT 1").format(**names)).rowcount:
            insert = insert.partition(" WHERE NOT EXISTS")[0]  # nothing stayed: to look for it would take as long again
        connection.execute(sql.SQL(insert).format(**names))

    def _of_owners(self) -> sql.Composed:
        same = sql.SQL(" AND ").join(sql.SQL("o.{0} = t.{0}").format(sql.Identifier(name)) for name in self.delivery.by)
        return sql.SQL("EXISTS (SELECT FROM {} o WHERE {})").format(self.table.owners, same)


def _held(
    connection: psycopg.Connection, table: Table, schema: StructType, same: Sequence[str], where: sql.Composable = ALL
) -> tuple[int, str]:
    """Rows and checksum of the table as it is."""
    columns = [(sql.Identifier("t", name).as_string(connection), schema[name].dataType) for name in same]
    measures = sql.SQL(checksum.in_postgres(columns))  # type: ignore[arg-type]
    found = connection.execute(sql.SQL("SELECT {} FROM {} t WHERE {}").format(measures, table.name, where)).fetchone()
    assert found is not None
    return int(found[0]), str(found[1])


def _not_alike(how: Login, table: Table, wanted: tuple[int, str], held: tuple[int, str]) -> str:
    said = f"{wanted[0]} rows were sent, {held[0]} would be there"
    if wanted[0] == held[0]:
        said = f"the {wanted[0]} rows sent and those that would be there have other checksums"
    return f"PostgreSQL at {how.server}, table {table.text}: {said}; nothing was changed: does a trigger or a rule change rows?"


def _copy_partitions(
    rows: DataFrame, how: Login, table: Table, staged: sql.Identifier, same: Sequence[str] = ()
) -> tuple[int, str]:
    """COPY every partition into a staging table, in parallel; gives the number of rows sent, and their checksum over `same`."""
    columns = rows.columns

    def copied(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        task = TaskContext.get()
        assert task is not None
        try:
            count, total = _copy(batches, how, table, staged, columns, task.partitionId(), same)
        except psycopg.Error as error:
            raise ValueError(refused(how, error)) from None
        yield pa.RecordBatch.from_pydict({"rows": pa.array([count], pa.int64()), "checksum": pa.array([str(total)])})

    found = tasks.collected(rows.mapInArrow(copied, "rows bigint, checksum string"), "PostgreSQL")
    return sum(row["rows"] for row in found), str(sum(int(row["checksum"]) for row in found))


def _copy(
    batches: Iterable[pa.RecordBatch],
    how: Login,
    table: Table,
    staged: sql.Identifier,
    columns: list[str],
    part: int,
    same: Sequence[str] = (),
) -> tuple[int, int]:
    """One partition, one transaction. What another attempt at the partition left is replaced, never added to."""
    count = total = 0
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")
    command = sql.SQL("COPY {} ({}, _part) FROM STDIN (FORMAT csv)").format(staged, listed(columns))
    with how.connect() as connection, connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s), %s)", [f"wherewhen {table.text}", part])
        connection.execute(sql.SQL("DELETE FROM {} WHERE _part = %s").format(staged), [part])
        with connection.cursor().copy(command) as copy:
            for batch in batches:
                stored = pa.RecordBatch.from_arrays([_storable(column) for column in batch.columns], names=columns)
                numbers = pa.array(np.full(batch.num_rows, part, np.int32))
                buffer = io.BytesIO()
                numbered = pa.RecordBatch.from_arrays([*stored.columns, numbers], names=[*columns, "_part"])
                pyarrow.csv.write_csv(numbered, buffer, options)
                copy.write(buffer.getbuffer())
                count, total = count + batch.num_rows, total + checksum.of_batch(stored, same)
    return count, total


def _storable(column: pa.Array) -> pa.Array:
    """`stored_text` on a column."""
    return pc.replace_substring(column, pattern="\x00", replacement="\ufffd") if pa.types.is_string(column.type) else column


def _measured(rows: DataFrame, same: Sequence[str]) -> tuple[int, str]:
    """Rows and checksum, without sending any."""

    def measured(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        count = total = 0
        for batch in batches:
            stored = pa.RecordBatch.from_arrays([_storable(column) for column in batch.columns], names=batch.schema.names)
            count, total = count + batch.num_rows, total + checksum.of_batch(stored, same)
        yield pa.RecordBatch.from_pydict({"rows": pa.array([count], pa.int64()), "checksum": pa.array([str(total)])})

    found = rows.mapInArrow(measured, "rows bigint, checksum string").collect()
    return sum(row["rows"] for row in found), str(sum(int(row["checksum"]) for row in found))
