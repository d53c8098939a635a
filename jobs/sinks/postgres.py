"""PostgreSQL: a table whose contents are exchanged in one transaction.

Every Spark partition is copied into a staging table of the same schema; then, in one transaction,
rows that differ or are no longer there are deleted and the missing ones inserted. The table itself
stays: its views, grants, indexes and triggers keep working, and a reader sees the old contents or
the new, under any isolation level (which TRUNCATE and a rename do not give).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from conf.settings import Postgres
from jobs.lake import commits
from jobs.lake.person import Person, owns
from jobs.sinks import tasks

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_CONNECT_SECONDS = 10
_NAME_BYTES = 63
_TYPES = {
    "string": "text", "int": "integer", "bigint": "bigint", "double": "double precision", "float": "real",
    "boolean": "boolean", "date": "date", "timestamp": "timestamptz",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Login:
    """How to connect; made on the driver, as its environment holds the password, and used by every task."""

    dsn: str = field(repr=False)
    password: str | None = field(repr=False)
    server: str

    def connect(self) -> psycopg.Connection:
        """A new connection in autocommit mode.

        Raises:
            ValueError: the server cannot be reached; names host and database, never the password.
        """
        given: dict[str, Any] = {"fallback_application_name": "wherewhen", "connect_timeout": _CONNECT_SECONDS}
        given |= conninfo_to_dict(self.dsn)
        if self.password is not None:
            given["password"] = self.password
        try:
            return psycopg.connect(**given, autocommit=True)
        except psycopg.Error as error:
            said = " ".join(str(error).split())
            remedy = "see that it runs and lets this host and user in, or mend the sink's dsn"
            raise ValueError(f"PostgreSQL at {self.server} cannot be reached: {said}; {remedy}") from None


def login(sink: Postgres) -> Login:
    """The sink's connection parameters.

    Raises:
        ValueError: the dsn is none, or the variable that is to hold the password is not set.
    """
    try:
        given = conninfo_to_dict(sink.dsn)
    except psycopg.Error:
        # psycopg's message would repeat the dsn, a password in it included.
        raise ValueError("the sink's dsn is neither postgresql://user@host:port/database nor host=... dbname=...") from None
    host = given.get("host") or os.environ.get("PGHOST") or "localhost"
    port = given.get("port") or os.environ.get("PGPORT") or 5432
    name = given.get("dbname") or os.environ.get("PGDATABASE") or given.get("user") or "of the user"
    server = f"{host}:{port}, database {name}"
    password = tasks.password(sink.password_env, f"PostgreSQL at {server}")
    return Login(dsn=sink.dsn, password=password, server=server)


def deliver(rows: DataFrame, sink: Postgres, key: tuple[str, ...], comment: str) -> int:
    """Make the table hold exactly `rows` (plain columns only); gives the rows that the database then counts.

    The table is created where it is missing, with `key` (may be empty) as its primary key.

    Raises:
        ValueError: the server cannot be reached, or refuses; one line, without the contents of any row.
    """
    how = login(sink)
    table = _Table.of(sink.table)
    try:
        with how.connect() as connection:
            _claim(connection, table)
            _create(connection, table, rows, key, comment)
            _stage(connection, table, rows.columns)
            try:
                sent = _copy_partitions(rows, how, table)
                with commits.delivery("the PostgreSQL sink"):
                    count = _exchange(connection, table, rows.columns, key, sent)
            finally:
                connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table.staging))
            # Makes the space of the deleted rows the next night's.
            connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(table.name))
            return count
    except psycopg.Error as error:
        raise ValueError(_refused(how, error)) from None


def erase(sink: Postgres, person: Person, text_hashes: frozenset[str] = frozenset()) -> int:
    """Delete the person's rows; gives how many. What the server's own logs, replicas and backups keep is its owner's.

    Raises:
        ValueError: as `deliver`.
    """
    how, table = login(sink), _Table.of(sink.table)
    try:
        with how.connect() as connection:
            if not (where := _owned(connection, table)):
                return 0
            _claim(connection, table)
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table.staging))
            values = _values(connection, table, person, text_hashes)
            deleted = connection.execute(sql.SQL("DELETE FROM {} WHERE {}").format(table.name, where), values).rowcount
            # The rows' bytes stay in the table's file until their space is given to others.
            connection.execute(sql.SQL("VACUUM (FULL, ANALYZE) {}").format(table.name))
            return deleted
    except psycopg.Error as error:
        raise ValueError(_refused(how, error)) from None


def rows_of(sink: Postgres, person: Person) -> list[dict[str, Any]]:
    """What the table holds of the person.

    Raises:
        ValueError: as `deliver`.
    """
    how, table = login(sink), _Table.of(sink.table)
    try:
        with how.connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
            if not (where := _owned(connection, table)):
                return []
            values = _values(connection, table, person, frozenset())
            return cursor.execute(sql.SQL("SELECT * FROM {} WHERE {}").format(table.name, where), values).fetchall()
    except psycopg.Error as error:
        raise ValueError(_refused(how, error)) from None


def _columns(connection: psycopg.Connection, table: _Table) -> set[str]:
    """None where there is no such table."""
    found = connection.execute("SELECT to_regclass(%s)", [table.name.as_string(connection)]).fetchone()
    if found is None or found[0] is None:
        return set()
    return {
        column.name for column in connection.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(table.name)).description or ()
    }


def _owned(connection: psycopg.Connection, table: _Table) -> sql.Composable | None:
    """The condition of a person's rows, over the names of `_values`; None where the table can hold none."""
    present = _columns(connection, table)
    terms: list[sql.Composable] = []
    if "user_id" in present:
        terms.append(sql.SQL("user_id::text = %(id)s"))
    if {"entity_type", "entity_id"} <= present:
        terms.append(sql.SQL("(entity_type = 'user' AND entity_id = %(id)s)"))
    judged = [name for name in ("broken", "row", "text_hash") if name in present]
    terms += [sql.SQL("{} = ANY({})").format(sql.Identifier(name), sql.Placeholder(name)) for name in judged]
    return sql.SQL(" OR ").join(terms) if terms else None


def _values(connection: psycopg.Connection, table: _Table, person: Person, text_hashes: frozenset[str]) -> dict[str, Any]:
    """Unreadable lines are judged here, one by one: they are few."""
    values: dict[str, Any] = {"id": _stored(person.raw_id), "text_hash": sorted(text_hashes)}
    present = _columns(connection, table)
    for name in ("broken", "row"):
        values[name] = []
        if name in present:
            query = sql.SQL("SELECT DISTINCT {0} FROM {1} WHERE {0} IS NOT NULL").format(sql.Identifier(name), table.name)
            lines = (line for (line,) in connection.execute(query))
            values[name] = [line for line in lines if owns(person, {name: line})]
    return values


def _refused(how: Login, error: psycopg.Error) -> str:
    """The server's words without their detail, which quotes rows."""
    said = error.diag.message_primary or " ".join(str(error).split())
    return f"PostgreSQL at {how.server}: {said}"


@dataclass(frozen=True, kw_only=True)
class _Table:
    """Names as the server quotes them; `text` as the settings have it."""

    text: str
    name: sql.Identifier
    staging: sql.Identifier

    @staticmethod
    def of(text: str) -> _Table:
        *schema, name = text.split(".")
        staging = f"_staging_{name}".encode()[:_NAME_BYTES].decode(errors="ignore")
        return _Table(text=text, name=sql.Identifier(*schema, name), staging=sql.Identifier(*schema, staging))


def _claim(connection: psycopg.Connection, table: _Table) -> None:
    """One export into a table at a time; the server lets go of the claim when the connection ends, however it ends."""
    claim = connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [f"wherewhen {table.text}"]).fetchone()
    if claim is None or not claim[0]:
        raise ValueError(f"another export into {table.text} is under way; let it end, then run this one again")


def _create(connection: psycopg.Connection, table: _Table, rows: DataFrame, key: tuple[str, ...], comment: str) -> None:
    """The table, if it is not there; one that is there must have the columns."""
    found = connection.execute("SELECT to_regclass(%s)", [table.name.as_string(connection)]).fetchone()
    if found is not None and found[0] is not None:
        sample = connection.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(table.name))
        present = {column.name for column in sample.description or ()}
        if missing := [name for name in rows.columns if name not in present]:
            raise ValueError(f"table {table.text} lacks the column(s) {', '.join(missing)}: add them, or drop the table")
        return
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(_type(column.name, column.dataType.simpleString())))
        for column in rows.schema
    ]
    if key:
        columns.append(sql.SQL("PRIMARY KEY ({})").format(_list(key)))
    connection.execute(sql.SQL("CREATE TABLE {} ({})").format(table.name, sql.SQL(", ").join(columns)))
    connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(table.name, sql.Literal(comment)))


def _type(name: str, spark_type: str) -> str:
    # Wall clock times are kept as if UTC: with a zone they would name another moment.
    return "timestamp" if name.startswith("local_") and spark_type == "timestamp" else _TYPES[spark_type]


def _stage(connection: psycopg.Connection, table: _Table, columns: list[str]) -> None:
    """An empty staging table with the table's own types and the number of the Spark partition; a killed run's is dropped."""
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table.staging))
    connection.execute(
        sql.SQL("CREATE UNLOGGED TABLE {} AS SELECT {}, 0 AS _part FROM {} WITH NO DATA").format(
            table.staging, _list(columns), table.name
        )
    )


def _copy_partitions(rows: DataFrame, how: Login, table: _Table) -> int:
    """COPY every partition into the staging table, in parallel; gives the number of rows sent."""
    columns = rows.columns

    def copied(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        task = TaskContext.get()
        assert task is not None
        try:
            count = _copy(batches, how, table, columns, task.partitionId())
        except psycopg.Error as error:
            raise ValueError(_refused(how, error)) from None
        yield pa.RecordBatch.from_pydict({"rows": pa.array([count], pa.int64())})

    return sum(row["rows"] for row in tasks.collected(rows.mapInArrow(copied, "rows bigint"), "PostgreSQL"))


def _copy(batches: Iterable[pa.RecordBatch], how: Login, table: _Table, columns: list[str], part: int) -> int:
    """One partition, one transaction. What another attempt at the partition left is replaced, never added to."""
    count = 0
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")
    command = sql.SQL("COPY {} ({}, _part) FROM STDIN (FORMAT csv)").format(table.staging, _list(columns))
    with how.connect() as connection, connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s), %s)", [f"wherewhen {table.text}", part])
        connection.execute(sql.SQL("DELETE FROM {} WHERE _part = %s").format(table.staging), [part])
        with connection.cursor().copy(command) as copy:
            for batch in batches:
                numbered = [_storable(column) for column in batch.columns] + [pa.array([part] * batch.num_rows, pa.int32())]
                buffer = io.BytesIO()
                pyarrow.csv.write_csv(pa.RecordBatch.from_arrays(numbered, names=[*columns, "_part"]), buffer, options)
                copy.write(buffer.getbuffer())
                count += batch.num_rows
    return count


def _stored(text: str) -> str:
    """PostgreSQL stores no NUL characters: one in a title must not stop the night."""
    return text.replace("\x00", "\ufffd")


def _storable(column: pa.Array) -> pa.Array:
    """`_stored` on a column."""
    return pc.replace_substring(column, pattern="\x00", replacement="\ufffd") if pa.types.is_string(column.type) else column


def _exchange(connection: psycopg.Connection, table: _Table, columns: list[str], key: tuple[str, ...], sent: int) -> int:
    """Old contents out, staged ones in, in one transaction; what is equal is not touched."""
    connection.execute(sql.SQL("ANALYZE {}").format(table.staging))
    names = {"table": table.name, "staging": table.staging, "columns": _list(columns)}
    if key and _is_unique(connection, table, key):
        rest = [name for name in columns if name not in key]
        same_key = sql.SQL(" AND ").join(sql.SQL("s.{0} = t.{0}").format(sql.Identifier(name)) for name in key)
        same_rest = sql.SQL("ROW({}) IS NOT DISTINCT FROM ROW({})").format(_list(rest, "s"), _list(rest, "t"))
        names |= {"same_key": same_key, "same": same_key + sql.SQL(" AND ") + same_rest if rest else same_key}
        delete = "DELETE FROM {table} t WHERE NOT EXISTS (SELECT FROM {staging} s WHERE {same})"
        insert = (
            "INSERT INTO {table} ({columns}) SELECT {columns} FROM {staging} s "
            "WHERE NOT EXISTS (SELECT FROM {table} t WHERE {same_key})"
        )
    else:
        delete = "DELETE FROM {table}"
        insert = "INSERT INTO {table} ({columns}) SELECT {columns} FROM {staging}"
    with connection.transaction():
        # Other writers wait, readers do not.
        connection.execute(sql.SQL("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE").format(**names))
        connection.execute(sql.SQL(delete).format(**names))
        connection.execute(sql.SQL(insert).format(**names))
        counted = connection.execute(sql.SQL("SELECT count(*) FROM {table}").format(**names)).fetchone()
        count = int(counted[0]) if counted is not None else 0
        if count != sent:
            raise ValueError(
                f"PostgreSQL at {connection.info.host}, table {table.text}: {sent} rows were sent, {count} would be there; "
                "nothing was changed: does a trigger or a rule drop rows?"
            )
    return count


def _is_unique(connection: psycopg.Connection, table: _Table, key: tuple[str, ...]) -> bool:
    """Whether the table has a unique index on exactly the key (a table made by somebody else may not)."""
    found = connection.execute(
        "SELECT array_agg(a.attname::text) FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid "
        "AND a.attnum = ANY(i.indkey) WHERE i.indrelid = %s::regclass AND i.indisunique AND i.indpred IS NULL "
        "GROUP BY i.indexrelid",
        [table.name.as_string(connection)],
    )
    return any(set(columns) == set(key) for (columns,) in found)


def _list(columns: Iterable[str], alias: str | None = None) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(*filter(None, [alias, name])) for name in columns)
