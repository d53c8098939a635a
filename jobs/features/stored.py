"""The lake's stored rows in a DuckDB session: the files of pinned versions, read as they are asked for."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date

import deltalake
import duckdb
import pyarrow.dataset as ds
from deltalake.fs import DeltaStorageHandler
from pyarrow import fs

from conf.contracts import Table
from jobs.lake import files
from jobs.lake.logs import table_path
from jobs.lake.schema import arrow_schema, differences
from jobs.lake.store import Days
from jobs.seeing.reading import literal


@contextmanager
def session(memory: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database in memory, whose times are UTC; what it cannot hold goes to a folder that is gone with it.

    memory: as Spark's settings have it: `2g`.

    Raises:
        ValueError: DuckDB could not do what it was asked to.
    """
    with tempfile.TemporaryDirectory(prefix="wherewhen-") as scratch, duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        database.execute("SET enable_progress_bar = false")
        database.execute(f"SET temp_directory = {literal(scratch)}")
        database.execute(f"SET memory_limit = {literal(memory.lower().rstrip('b') + 'ib')}")
        try:
            yield database
        except duckdb.Error as error:
            raise ValueError(f"the features could not be joined: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What it says, without the lines that DuckDB adds, which may hold what is no concern of a log."""
    return " ".join(str(error).split("\n", maxsplit=1)[0].split())


def quoted(name: str) -> str:
    """As a name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def open_table(
    database: duckdb.DuckDBPyConnection, root: str, contract: Table, version: int | None, days: Days, where: str = "true"
) -> None:
    """Make a table's stored rows in the partitions of `days` a table of the session; it has none where there is no version.

    where: SQL, of which rows.

    Raises:
        ValueError: it was written under another contract.
    """
    schema, path = arrow_schema(contract), table_path(root, contract.name)
    days_of = {} if version is None else _days_of(root, contract, version, days)
    store = fs.PyFileSystem(DeltaStorageHandler(path)) if "://" in path else fs.SubTreeFileSystem(path, fs.LocalFileSystem())
    # Arrow reads whatever store a lake is on; DuckDB's own reader knows files, and would load others over the network.
    rows = ds.FileSystemDataset.from_paths(
        list(days_of),
        schema=schema,
        format=ds.ParquetFileFormat(),
        filesystem=store,
        partitions=[ds.field("day") == day for day in days_of.values()],
    )
    database.register("stored", rows.scanner().to_reader())
    database.execute(f"CREATE TEMP TABLE {quoted(contract.name)} AS SELECT * FROM stored WHERE {where}")
    database.unregister("stored")


def keep_allowed(database: duckdb.DuckDBPyConnection, contract: Table, notice_versions: Sequence[str]) -> None:
    """Take out of a purpose's own table the rows that may not be used now, by the session's tables of it and of `consents`.

    As `jobs.lake.consent` has it: of users who do not allow the purpose, and from before they allowed it anew.
    """
    counts = ""
    if notice_versions:
        counts = f" AND notice_version IN ({', '.join(literal(version) for version in notice_versions)})"
    since = f"map_extract_value(since, {literal(str(contract.purpose))})"
    database.execute(
        f"DELETE FROM {quoted(contract.name)} AS held WHERE NOT EXISTS (SELECT 1 FROM "
        f"(SELECT *, {since} AS allowed_from FROM consents QUALIFY day = max(day) OVER (PARTITION BY user_id)) AS now "
        f"WHERE now.user_id = held.user_id AND NOT now.gone AND held.changed_on >= allowed_from{counts})"
    )


def _days_of(root: str, contract: Table, version: int, days: Days) -> dict[str, date]:
    """The files that hold the rows, each with its day."""
    table = deltalake.DeltaTable(table_path(root, contract.name), version=version)
    if found := differences(contract, table):
        raise ValueError(
            f"{contract.name} in {root} was written under another contract: {'; '.join(found)}; "
            f"run `wherewhen rebuild {contract.name}`"
        )
    listed = files.listed(table)
    of_paths = {path: listed[path].day for path in files.paths(table, days.where())}
    return {path: date.fromisoformat(day) for path, day in of_paths.items() if day is not None}
