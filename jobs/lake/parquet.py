"""Parquet files read and written anew by row groups, without Spark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.lake.records import put_in_place

File: TypeAlias = Path | pa.NativeFile


def groups(path: File, columns: tuple[str, ...] | None = None) -> Iterator[pa.Table]:
    """The row groups of a file, one by one; of the columns given those that it has."""
    with pq.ParquetFile(path) as file:
        names = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, columns=names)


def write_changed(old: File, new: File, change: Callable[[pa.Table], pa.Table]) -> int:
    """Write a file's row groups as `change` makes them; gives the rows written."""
    rows = 0
    with pq.ParquetFile(old) as file:
        compression = file.metadata.row_group(0).column(0).compression if file.num_row_groups else "SNAPPY"
        with pq.ParquetWriter(new, file.schema_arrow, compression=compression) as writer:
            for group in groups(old):
                left = change(group)
                rows += left.num_rows
                writer.write_table(left)
    return rows


def count(path: File, mine: Callable[[pa.Table], pa.Array], columns: tuple[str, ...] | None = None) -> int:
    """How many rows of a file `mine` marks."""
    return sum(pc.sum(mine(rows)).as_py() or 0 for rows in groups(path, columns))


def take_out(path: Path, mine: Callable[[pa.Table], pa.Array]) -> int:
    """Write the file anew without the rows that `mine` marks, in one rename, its dates kept; gives how many there were."""
    removed = count(path, mine)
    if removed:
        beside = path.with_name(f".{path.name}.erasing")
        write_changed(path, beside, lambda rows: rows.filter(pc.invert(mine(rows))))
        put_in_place(beside, path)
    return removed
