"""A table's files: rows checked against the contract and written by Spark, committed to Delta's log by delta-rs.

Delta's own writer for Spark costs 1.3 s per small table (the write and the first read of it; six Spark
jobs), this 0.3 s: on a night of thirty tables that is most of the time. Any Delta reader reads the result.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from typing import Any

import deltalake
import pyarrow.fs
import pyarrow.parquet
from deltalake.exceptions import CommitFailedError
from deltalake.fs import DeltaStorageHandler
from deltalake.schema import Schema
from deltalake.transaction import AddAction, CommitProperties, RemoveAction
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.contracts import Table
from jobs.lake.schema import declare_checks, schema_json

BROKEN_CONTRACT = "BROKEN_CONTRACT"
_FOOTERS_AT_ONCE = 8
# Of a table that is read by ranges of a column.
FILE_ROWS = 16_384
# Bytes of a row group of sorted rows: who asks for one owner reads one of each file.
_ROW_GROUP = 4 << 20


@dataclass(frozen=True, kw_only=True)
class File:
    """A Parquet file of a table; `path` is relative to the table, `day` its partition (None: not partitioned)."""

    path: str
    size: int
    rows: int
    changed_at_ms: int
    day: str | None


def assured(rows: DataFrame, contract: Table, where: str | None) -> DataFrame:
    """`rows`, whose evaluation fails at the first that breaks a CHECK, is null where it may not be, or is not in `where`.

    A CHECK that is null is broken too, as with Delta's own writers.
    """
    rules = {f"{column.name} is null": F.col(column.name).isNull() for column in contract.columns if not column.nullable}
    rules |= {f"CHECK {name} ({rule}) is broken": ~_holds(rule) for name, rule in contract.checks.items()}
    if where is not None:
        rules[f"the row is outside the days written ({where})"] = ~_holds(where)
    # The rows are judged first, and the error made in one place: with one for each rule the compiled code outgrows what
    # Java turns into machine code.
    said = reduce(lambda found, rule: found.when(rule[1], F.lit(rule[0])), rules.items(), F.when(F.lit(False), ""))
    row = F.substring(F.to_json(F.struct(*contract.key)) if contract.key else F.lit("a row"), 1, 200)
    error = F.raise_error(F.concat(F.lit(f"{BROKEN_CONTRACT}: "), F.col("_said"), F.lit(" in "), row))
    # In a column that is always needed: a filter could be pushed below a join, to rows that the join drops.
    last = contract.columns[-1]
    judged = F.when(F.col("_said").isNotNull(), error.cast(last.type)).otherwise(F.col(last.name))
    return rows.withColumn("_said", said).withColumn(last.name, judged).drop("_said")


def _holds(rule: str) -> Column:
    return F.coalesce(F.expr(rule), F.lit(False))


def broken_contract(error: Exception) -> str | None:
    """What `assured` found, if that is the error."""
    found = re.search(rf"{BROKEN_CONTRACT}: (.*)", str(error))
    return None if found is None else found[1].strip()


def write(rows: DataFrame, root: str, contract: Table) -> list[File]:
    """Write Parquet files into a fresh folder of the table. Nobody sees them before they are committed."""
    batch = f"batch={uuid.uuid4().hex}"
    # Few files of a good size for each day, whatever the number of tasks.
    even = rows.hint("rebalance", "day") if contract.partitioned else rows.hint("rebalance")
    writer = even.write
    if contract.files_by is not None:
        writer = even.sortWithinPartitions("day", contract.files_by).write.option("maxRecordsPerFile", FILE_ROWS)
    elif order := contract.owner or contract.sorted_by:
        writer = even.sortWithinPartitions("day", *order).write.option("parquet.block.size", _ROW_GROUP)
    (writer.partitionBy("day") if contract.partitioned else writer).parquet(f"{root}/{batch}")
    return written(root, batch)


def written(root: str, batch: str) -> list[File]:
    """The files of a table's folder that hold rows, as they say themselves: rows are counted in their footers."""
    store = pyarrow.fs.PyFileSystem(DeltaStorageHandler(root))

    def described(found: Any) -> File:
        day = re.search(r"/day=([^/]+)/", found.path)
        with store.open_input_file(found.path) as file:
            rows = pyarrow.parquet.read_metadata(file).num_rows
        changed_at_ms = found.mtime_ns // 1_000_000
        return File(path=found.path, size=found.size, rows=rows, changed_at_ms=changed_at_ms, day=day and day[1])

    listed = store.get_file_info(pyarrow.fs.FileSelector(batch, recursive=True))
    # Spark writes checksums, and whether it succeeded, into files of other names.
    data = [found for found in listed if found.is_file and found.base_name.startswith("part-")]
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
        return [file for file in pool.map(described, data) if file.rows]


def committed(table: deltalake.DeltaTable, added: Iterable[File], where: str | None) -> int:
    """Add files to the table, and take away those of the partitions in `where`, in one commit; the new version.

    Raises:
        ValueError: another process wrote the table since `table` was loaded.
    """
    return exchanged(table, added, [] if where is None else paths(table, where))


def exchanged(table: deltalake.DeltaTable, added: Iterable[File], removed: Iterable[str]) -> int:
    """Add files to the table, and take away those at the paths `removed`, in one commit; the new version.

    Raises:
        ValueError: another process wrote the table since `table` was loaded.
    """
    now = int(time.time() * 1000)
    actions = [*_adds(added), *(RemoveAction(path, True, now) for path in removed)]
    return _commit(table, actions, "append", table.schema()) if actions else table.version()


def recreated(table: deltalake.DeltaTable, added: Iterable[File], contract: Table) -> int:
    """Replace all of the table, its columns and checks included; the version that holds the rows, in one commit.

    Raises:
        ValueError: another process wrote the table since `table` was loaded.
    """
    version = _commit(table, _adds(added), "overwrite", Schema.from_json(schema_json(contract)))
    declare_checks(deltalake.DeltaTable(table.table_uri), contract)
    return version


def _commit(table: deltalake.DeltaTable, actions: list[AddAction | RemoveAction], mode: str, schema: Schema) -> int:
    loaded = table.version()
    try:
        table.create_write_transaction(
            actions,
            mode=mode,
            schema=schema,
            partition_by=table.metadata().partition_columns,
            # A second try would add to what another process wrote in between.
            commit_properties=CommitProperties(max_commit_retries=0),
        )
    except CommitFailedError as error:
        raise ValueError(f"{table.table_uri} was written by another process meanwhile; run the day again") from error
    return loaded + 1


def _adds(added: Iterable[File]) -> list[AddAction | RemoveAction]:
    return [
        AddAction(
            path=file.path,
            size=file.size,
            partition_values={} if file.day is None else {"day": file.day},
            modification_time=file.changed_at_ms,
            data_change=True,
            # No least and greatest values: those of user ids would outlive the rows in the log.
            stats=json.dumps({"numRecords": file.rows}),
        )
        for file in added
    ]


def listed(table: deltalake.DeltaTable) -> dict[str, File]:
    """The files of the version that is loaded, by path."""
    actions = table.get_add_actions(flatten=True)
    # An empty table has no columns for its partitions here.
    columns = {name: actions.column(name).to_pylist() for name in actions.schema.names}
    days = columns.get("partition.day", [None] * len(columns["path"]))
    files = zip(columns["path"], columns["size_bytes"], columns["num_records"], columns["modification_time"], days, strict=True)
    return {
        path: File(path=path, size=size, rows=rows, changed_at_ms=_in_ms(changed_at), day=None if day is None else str(day))
        for path, size, rows, changed_at, day in files
    }


def _in_ms(moment: Any) -> int:
    return moment if isinstance(moment, int) else int(moment.timestamp() * 1000)


def paths(table: deltalake.DeltaTable, where: str | None = None) -> list[str]:
    """The table's files, relative to it; of the partitions in `where` only."""
    uris = table.file_uris() if where is None else table.file_uris(file_pruning_predicate=where)
    root = table.table_uri.removeprefix("file://").rstrip("/")
    return [uri.removeprefix("file://").removeprefix(root).lstrip("/") for uri in uris]
