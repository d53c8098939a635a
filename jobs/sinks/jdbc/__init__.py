"""Any database with a JDBC driver and transactions: a table whose rows are exchanged in one, all or the changed owners'.

Spark's own writer fills a staging table, which is read back and must have the checksums of what was sent; then in one
transaction the database moves the rows over and is told in `wherewhen_deliveries` what the table holds. That transaction has
begun by writing the table's row there, so that another export waits or is refused, and a killed one lets go of it with its
connection. The table itself stays as it is, with all that hangs on it, columns that are delivered no more included. In
databases that keep no old versions of rows (Derby, SQL Server as it comes) readers wait while rows are moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, DoubleType, FloatType, StructType, TimestampType

from conf.settings import Jdbc
from jobs.lake import commits
from jobs.sinks import checksum
from jobs.sinks.delivery import CHANGES, EVERYTHING, NOTHING, Changes, Delivery, Manifest, Sent
from jobs.sinks.jdbc.database import Database, asked, execute, held, holds_alike
from jobs.sinks.jdbc.person import erase, rows_of
from jobs.sinks.jdbc.table import (
    CLAIM_SECONDS,
    OWNER,
    Tables,
    all_there,
    claim,
    claim_again,
    count,
    drop_staged,
    tell,
    tells_apart,
)
from jobs.sinks.jdbc.table import manifest as manifest_of
from jobs.sinks.plain import flat

__all__ = ["check", "deliver", "erase", "manifest", "rows_of"]

_PART, _ROWS = "ww_part", "ww_rows"


def manifest(sink: Jdbc) -> Manifest | None:
    """What the table holds; None: nothing, or nobody knows.

    Raises:
        ValueError: as `deliver`.
    """
    database, tables = Database.of(sink), Tables.of(sink.table)
    with database.connected() as connection:
        return manifest_of(connection, database, tables) if held(connection, tables.manifests) else None


def deliver(delivery: Delivery, sink: Jdbc) -> Sent:
    """Make the table hold what is delivered, plain columns, others as JSON; it is made where it is missing.

    Raises:
        ValueError: the database cannot be reached, or refuses, or does not hold values as they are sent; one line, without the
            contents of any row.
    """
    database, tables = Database.of(sink), Tables.of(sink.table)
    with database.connected() as connection:
        claim(connection, database, tables)
        before = manifest_of(connection, database, tables)
        if delivery.is_there(before):
            return Sent(rows=0, how=NOTHING)
        changes = delivery.changes(before)
        drop_staged(database, tables)
        try:
            return _Exchange(database, tables, delivery, changes, before).run(connection)
        finally:
            with suppress(ValueError), database.told():  # an error that is on its way says more; the next one drops them first
                connection.rollback()  # what it has read it may hold
                claim_again(connection, tables)
                drop_staged(database, tables)


def check(delivery: Delivery, sink: Jdbc) -> str | None:
    """How the table differs from what is to be delivered; None: not at all.

    Raises:
        ValueError: as `deliver`.
    """
    database, tables, rows = Database.of(sink), Tables.of(sink.table), flat(delivery.rows)
    with database.connected() as connection:
        if not (columns := held(connection, tables.name)):
            return f"there is no table {tables.name}"
    delivery.check_announced(manifest(sink))
    all_there(tables, rows.schema, columns)
    alike = holds_alike(rows.schema, columns)
    with database.told():
        found = _measured(_as_sent(database.frame(tables.name), rows.schema), alike)
    wanted = _measured(rows, alike)
    if found[_ROWS] != wanted[_ROWS]:
        return f"it holds {found[_ROWS]:,} rows, {wanted[_ROWS]:,} are here"
    other = [name for name in alike if found[name] != wanted[name]]
    return f"it holds other values in {', '.join(other)}" if other else None


class _Exchange:
    """One delivery that has something to send; `before`: the manifest of what is there."""

    def __init__(
        self, database: Database, tables: Tables, delivery: Delivery, changes: Changes | None, before: Manifest | None
    ) -> None:
        self.database, self.tables, self.delivery, self.before = database, tables, delivery, before
        if changes is not None and not all(tells_apart(database, tables, name) for name in delivery.by):
            changes = None
        self.changes = changes
        self.rows = flat(delivery.rows if changes is None else changes.rows)
        # Owner's column -> its name in the table of owners, which no other table has.
        self.owners = {name: f"{OWNER}_{number}" for number, name in enumerate(delivery.by)}

    def run(self, connection: Any) -> Sent:
        columns = self._made()
        self._stage()
        wanted = self._sent(self.rows, self.tables.staging)
        if self.changes is not None:
            named = [F.col(name).alias(owner) for name, owner in self.owners.items()]
            self._sent(self.changes.owners.select(*named), self.tables.owners)
        with commits.delivery("the JDBC sink"):
            tell(connection, self.tables, self.delivery, self._exchange(connection, columns, wanted))
            connection.commit()
        total = sum(value for name, value in wanted.items() if name != _ROWS)
        return Sent(rows=wanted[_ROWS], how=EVERYTHING if self.changes is None else CHANGES, checksum=str(total))

    def _made(self) -> dict[str, str]:
        """Our name of a column -> that of the table, quoted. It is made if it is missing, and given what was announced.

        Raises:
            ValueError: it lacks columns that were not announced, or one is to be of another type.
        """
        database, tables, schema = self.database, self.tables, self.rows.schema
        with database.connected() as other:
            if not (found := held(other, tables.name)):
                execute(other, f"CREATE TABLE {tables.name} ({self._columns(schema)})")
                other.commit()
                return {name: database.quoted(name) for name in schema.names}
            if self.before is not None:
                kinds = {name: "string" if "<" in kind else kind for name, kind in self.before.columns.items()}
                now = {one.name: one.dataType.simpleString() for one in schema}
                if retyped := [name for name, kind in now.items() if kinds.get(name, kind) != kind]:
                    said = f"{database.server}, table {tables.name}: {', '.join(retyped)} is to be of another type"
                    raise ValueError(f"{said}: drop the table, it is then made anew")
                for one in schema:
                    if one.name not in kinds and one.name.lower() not in found:
                        kind = self._type(one.name, one.dataType)
                        execute(other, database.dialect.getAddColumnQuery(tables.name, one.name, kind), seconds=CLAIM_SECONDS)
                        other.commit()
                found = held(other, tables.name)
        all_there(tables, schema, found)
        return {name: database.quoted(found[name.lower()][0]) for name in schema.names}

    def _stage(self) -> None:
        """Empty staging tables, with the number of the Spark partition, by which they are read back."""
        part = f"{self.database.quoted(_PART)} INTEGER"
        with self.database.connected() as other:
            execute(other, f"CREATE TABLE {self.tables.staging} ({self._columns(self.rows.schema)}, {part})")
            if self.changes is not None:
                kinds = self.changes.owners.schema
                named = [
                    f"{self.database.quoted(owner)} {self._type(name, kinds[name].dataType)} NOT NULL"
                    for name, owner in self.owners.items()
                ]
                key = f"PRIMARY KEY ({', '.join(map(self.database.quoted, self.owners.values()))})"
                execute(other, f"CREATE TABLE {self.tables.owners} ({', '.join([*named, part, key])})")
            other.commit()

    def _columns(self, schema: StructType) -> str:
        return ", ".join(f"{self.database.quoted(one.name)} {self._type(one.name, one.dataType)}" for one in schema)

    def _type(self, name: str, kind: DataType) -> str:
        finds = name in (*self.delivery.key, *self.delivery.by) or name.endswith("_id")
        return self.database.key_type(name, kind) if finds else self.database.type_of(name, kind)

    def _sent(self, rows: DataFrame, staged: str) -> dict[str, int]:
        """Spark's writer fills the table, which is read back: rows and checksums by column.

        Raises:
            ValueError: what is there is not what was sent.
        """
        database, observed = self.database, Observation()
        numbered = rows.observe(observed, *_measures(rows.schema, rows.columns)).withColumn(_PART, F.spark_partition_id())
        numbered.write.format("jdbc").mode("append").options(**database.options, dbtable=staged).save()
        wanted = {name: int(value or 0) for name, value in observed.get.items()}
        with database.connected() as other:
            [newest] = asked(other, f"SELECT MAX({database.quoted(_PART)}) AS newest FROM {staged}")
        parts = 1 + int(next(iter(newest.values())) or 0)
        found = _measured(_as_sent(database.frame(staged, parts, _PART), rows.schema), rows.columns)
        if found[_ROWS] != wanted[_ROWS]:
            said = f"of {wanted[_ROWS]} rows {found[_ROWS]} arrived"
            raise ValueError(f"{database.server}: {said}; nothing was changed: run it again")
        if other_values := [name for name in rows.columns if found[name] != wanted[name]]:
            said = f"{database.server} does not hold {', '.join(other_values)} as it was sent; nothing was changed"
            raise ValueError(f"{said}: name a type that does in the sink's types, as in types: {{{other_values[0]}: ...}}")
        return wanted

    def _exchange(self, connection: Any, columns: dict[str, str], wanted: dict[str, int]) -> int:
        """Old rows out, staged ones in; the number of rows that are there now."""
        tables, quoted, where = self.tables, self.database.quoted, ""
        if self.changes is not None:
            same = " AND ".join(self.database.same(quoted(owner), columns[name]) for name, owner in self.owners.items())
            where = f" WHERE EXISTS (SELECT 1 FROM {tables.owners} WHERE {same})"
        execute(connection, f"DELETE FROM {tables.name}{where}")
        into, listed = ", ".join(columns.values()), ", ".join(map(quoted, columns))
        execute(connection, f"INSERT INTO {tables.name} ({into}) SELECT {listed} FROM {tables.staging}")
        replaced = count(connection, f"{tables.name}{where}")
        if replaced != wanted[_ROWS]:
            said = f"{wanted[_ROWS]} rows were sent, {replaced} would be there; nothing was changed"
            raise ValueError(f"{self.database.server}, table {tables.name}: {said}: does a trigger change rows?")
        return replaced if self.changes is None else count(connection, tables.name)


def _measures(schema: StructType, compared: Sequence[str]) -> list[Column]:
    """Rows, and of each column the sum of its values' hashes."""

    def total(name: str) -> Column:
        hashed = F.xxhash64(_exact(F.col(name), schema[name].dataType), F.col(name).isNull())
        return F.sum(hashed.cast("decimal(20,0)")).alias(name)

    return [F.count(F.lit(1)).alias(_ROWS), *map(total, compared)]


def _exact(value: Column, kind: DataType) -> Column:
    """As it can be compared: of floats multiples of 2 to the -20, as in `jobs.sinks.checksum`."""
    if isinstance(kind, FloatType | DoubleType):
        double = value.cast("double")
        return F.when(F.abs(double) < checksum.LARGEST, F.floor(double * checksum.FINEST)).otherwise(F.lit(2**62))
    return F.unix_micros(value) if isinstance(kind, TimestampType) else value


def _measured(rows: DataFrame, compared: Sequence[str]) -> dict[str, int]:
    [found] = rows.agg(*_measures(rows.schema, compared)).collect()
    return {name: int(value or 0) for name, value in found.asDict().items()}


def _as_sent(there: DataFrame, schema: StructType) -> DataFrame:
    """Of the columns of a table those with the schema's names, of its types."""
    names = {name.lower(): name for name in there.columns}
    return there.select(*[F.col(f"`{names[one.name.lower()]}`").cast(one.dataType).alias(one.name) for one in schema])
