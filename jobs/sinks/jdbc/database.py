"""A database by its JDBC driver: connections of the session's JVM, statements, names and types as Spark's dialect has them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import (
    BooleanType,
    DataType,
    DateType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    StringType,
    StructType,
    TimestampType,
    VarcharType,
)  # fmt: skip

from conf.settings import Jdbc
from jobs.sinks import tasks

# Of names and keys: databases compare no long texts.
KEY_LENGTH = 255
_SQL = "org.apache.spark.sql.execution.datasources.jdbc"
# Type of ours -> types of java.sql.Types that hold it unchanged.
_CHARS, _WHOLE = {-16, -15, -9, -1, 1, 12, 2005, 2011}, {-6, -5, 4, 5, 2, 3}
_HOLD: dict[type[DataType], set[int]] = {
    StringType: _CHARS, IntegerType: _WHOLE, LongType: _WHOLE - {-6, 4, 5}, FloatType: {6, 7, 8}, DoubleType: {6, 8},
    BooleanType: {-7, 16}, DateType: {91}, TimestampType: {93, 2014},
}  # fmt: skip
LONG_TEXTS = {-16, -1, 2005, 2011}
_MICROSECONDS, _READ_COMMITTED = 6, 2
# What databases call a table, or schema, that is not there.
_MISSING, _MISSING_IN_ORACLE = {"42X05", "42Y07", "42S02", "42P01", "3F000", "S0002", "42704"}, 942
# Where MySQL's own default would lose something: parts of seconds; what tells two ids apart.
_MYSQL: dict[type[DataType], str] = {
    TimestampType: "DATETIME(6)",
    VarcharType: f"VARCHAR({KEY_LENGTH}) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
}
# Lower-case name of a column -> its name, number of java.sql.Types, and scale.
Columns = dict[str, tuple[str, int, int]]


@dataclass(frozen=True, kw_only=True)
class Database:
    """Where a sink's table is, and how it is reached from the session's JVM."""

    sink: Jdbc
    server: str
    password: str | None = field(repr=False)

    @staticmethod
    def of(sink: Jdbc) -> Database:
        """
        Raises:
            ValueError: the variable that is to hold the password is not set, or a driver's jar is not there.
        """
        server = server_of(sink.url)
        if lacking := [jar for jar in sink.jars if not Path(jar).is_file()]:
            raise ValueError(f"{server}: {lacking[0]} is no file: put the driver's jar there, or correct the sink's jars")
        return Database(sink=sink, server=server, password=tasks.password(sink.password_env, server))

    @property
    def url(self) -> str:
        """MariaDB's under the name by which Spark knows how MySQL writes names and types."""
        scheme, rest = "jdbc:mariadb:", self.sink.url.removeprefix("jdbc:mariadb:")
        if not self.sink.url.startswith(scheme):
            return self.sink.url
        return f"jdbc:mysql:{rest}{'&' if '?' in rest else '?'}permitMysqlScheme"

    @property
    def options(self) -> dict[str, str]:
        """As Spark's reader and writer take them."""
        sink = self.sink
        given = {"url": self.url, "driver": sink.driver or _driver_in(sink.jars), "user": sink.user, "password": self.password}
        return {key: value for key, value in given.items() if value is not None}

    @property
    def dialect(self) -> Any:
        return _jvm().org.apache.spark.sql.jdbc.JdbcDialects.get(self.url)

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """A java.sql.Connection of its own, without autocommit; what is not committed in the body is rolled back.

        Raises:
            ValueError: it cannot be reached, or refuses; one line, without password or contents.
        """
        jvm = _jvm()
        given = jvm.PythonUtils.toScalaMap(self.options)
        try:
            options = getattr(jvm, f"{_SQL}.JDBCOptions")(self.url, self.sink.table, given)
            connection = self.dialect.createConnectionFactory(options).apply(-1)
        except (Py4JJavaError, PySparkException) as error:
            said = f"{self._said(error)}; see that it runs and lets this user in, or mend the sink's url, driver and jars"
            raise ValueError(said) from None
        try:
            with self.told():
                if not connection.getMetaData().supportsTransactions():
                    raise ValueError(f"{self.server} knows no transactions: its readers would see half a night")
                connection.setAutoCommit(False)
                connection.setTransactionIsolation(_READ_COMMITTED)  # what others' connections make meanwhile is seen
                yield connection
        finally:
            for end in (connection.rollback, connection.close):
                with suppress(Py4JJavaError):  # it is gone; what went wrong was said
                    end()

    @contextmanager
    def told(self) -> Iterator[None]:
        """What the database, or Spark about it, says as one line."""
        try:
            yield
        except (Py4JJavaError, PySparkException) as error:
            raise ValueError(self._said(error)) from None

    def _said(self, error: Exception) -> str:
        if not isinstance(error, Py4JJavaError):
            return self._blotted(f"{self.server}: {_of_a_task(str(error))}")
        cause = error.java_exception
        while cause.getCause() is not None:
            cause = cause.getCause()
        return self._blotted(f"{self.server}: {cause.getMessage() or cause.getClass().getSimpleName()}")

    def _blotted(self, said: str) -> str:
        """In one line; a driver may repeat the password, and what is in quotes or brackets may be a row's."""
        line = " ".join(said.split())
        for secret, shown in ((self.url, self.server), (self.sink.url, self.server), (self.password, "***")):
            line = line.replace(secret, shown) if secret else line
        return re.sub(r"'.*'|\(.*\)", "…", line)

    def quoted(self, name: str) -> str:
        return str(self.dialect.quoteIdentifier(name))

    @staticmethod
    def same(one: str, other: str) -> str:
        """Of texts, blanks at their end included: many databases compare as if the shorter one went on in blanks."""
        return f"{one} = {other} AND {{fn CONCAT({one}, '.')}} = {{fn CONCAT({other}, '.')}}"

    def type_of(self, name: str, kind: DataType) -> str:
        """As a table that is made here has it; `name`: whether the settings say otherwise of it."""
        if name in self.sink.types:
            return self.sink.types[name]
        if self.url.startswith("jdbc:mysql:") and type(kind) in _MYSQL:
            return _MYSQL[type(kind)]
        jvm = _jvm()
        described = jvm.org.apache.spark.sql.types.DataType.fromJson(kind.json())
        return str(getattr(jvm, f"{_SQL}.JdbcUtils").getJdbcType(described, self.dialect).databaseTypeDefinition())

    def key_type(self, name: str, kind: DataType) -> str:
        """Of a column by which rows are found."""
        if name not in self.sink.types and isinstance(kind, StringType):
            return self.type_of("", VarcharType(KEY_LENGTH))
        return self.type_of(name, kind)

    def frame(self, table: str, parts: int = 1, part: str | None = None) -> DataFrame:
        """A table as Spark reads it. part: a column of numbers below `parts`, by which several tasks share them."""
        spark = SparkSession.active()
        reader = spark.read.format("jdbc").options(**self.options, dbtable=table, fetchsize="10000")
        tasks = min(parts, spark.sparkContext.defaultParallelism)
        if part is not None and tasks > 1:
            reader = reader.options(partitionColumn=part, lowerBound="0", upperBound=f"{parts}", numPartitions=f"{tasks}")
        return reader.load()


def server_of(url: str) -> str:
    """A database's url without what may be a secret: a login before the host, and parameters."""
    kind, rest = re.match(r"(jdbc:\w+:)(.*)", url).groups()  # type: ignore[union-attr]
    place = re.split(r"[?;,(]|:\w+=", rest.rpartition("@")[2], maxsplit=1)[0]
    return f"database at {kind}//{place.lstrip('/')}" if "//" in rest else f"database at {kind}{place}"


def _driver_in(jars: list[str]) -> str | None:
    """The class that a driver's jar names: without it none is found but on the class path that the JVM began with."""
    for jar in jars:
        with ZipFile(jar) as content, suppress(KeyError):
            return content.read("META-INF/services/java.sql.Driver").decode().split()[0]
    return None


def _jvm() -> Any:
    return SparkSession.active()._jvm


def _of_a_task(said: str) -> str:
    """Of a page of stack traces the line that names the last cause."""
    causes = re.findall(r"(?:Caused by: |: )((?:[a-z]\w*\.)+\w*(?:Exception|Error)): ([^\n]*)", said)
    return causes[-1][1] if causes else said.strip().splitlines()[0]


def execute(connection: Any, statement: str, values: Sequence[Any] = (), seconds: int = 0) -> int:
    """A statement without an answer; gives the number of rows that it touched. seconds: given up after so many; 0: never."""
    prepared = _prepared(connection, statement, values)
    try:
        prepared.setQueryTimeout(seconds)
        return int(prepared.executeUpdate())
    finally:
        prepared.close()


def asked(connection: Any, statement: str, values: Sequence[Any] = (), most: int = 0) -> list[dict[str, Any]]:
    """The rows of an answer, which must be few, or the first `most`; values as text, numbers as such."""
    prepared = _prepared(connection, statement, values)
    try:
        prepared.setMaxRows(most)
        answer = prepared.executeQuery()
        meta = answer.getMetaData()
        names = [str(meta.getColumnLabel(number)) for number in range(1, meta.getColumnCount() + 1)]
        found = []
        while answer.next():
            found.append({name: _value(answer, meta, number) for number, name in enumerate(names, start=1)})
        return found
    finally:
        prepared.close()


def _prepared(connection: Any, statement: str, values: Sequence[Any]) -> Any:
    prepared = connection.prepareStatement(statement)
    for number, value in enumerate(values, start=1):
        if isinstance(value, int):
            prepared.setLong(number, value)
        else:
            prepared.setString(number, value)
    return prepared


def _value(answer: Any, meta: Any, number: int) -> Any:
    kind = int(meta.getColumnType(number))
    if kind in _WHOLE and meta.getScale(number) <= 0:
        found: Any = answer.getLong(number)
    elif kind in (*_HOLD[FloatType], 2, 3):
        found = answer.getDouble(number)
    elif kind in _HOLD[BooleanType]:
        found = answer.getBoolean(number)
    else:
        return answer.getString(number)
    return None if answer.wasNull() else found


def held(connection: Any, table: str) -> Columns:
    """Of a table; none where there is no such table. What the connection has not committed may be lost."""
    statement = connection.createStatement()
    try:
        meta = statement.executeQuery(f"SELECT * FROM {table} WHERE 1 = 0").getMetaData()
        columns = [
            (str(meta.getColumnName(number)), int(meta.getColumnType(number)), int(meta.getScale(number)))
            for number in range(1, meta.getColumnCount() + 1)
        ]
    except Py4JJavaError as error:
        connection.rollback()
        said = error.java_exception
        if said.getSQLState() in _MISSING or said.getErrorCode() == _MISSING_IN_ORACLE:
            return {}
        raise
    finally:
        statement.close()
    return {name.lower(): (name, kind, scale) for name, kind, scale in columns}


def holds_alike(schema: StructType, columns: Columns) -> list[str]:
    """The columns whose values a table holds as they are: one made by somebody else may round, say."""
    alike = []
    for one in schema:
        _, kind, scale = columns[one.name.lower()]
        exact = kind in _HOLD.get(type(one.dataType), set()) and not (kind in (2, 3) and scale > 0)
        if exact and (not isinstance(one.dataType, TimestampType) or scale >= _MICROSECONDS):
            alike.append(one.name)
    return alike
