"""Files of rows: what is asked about, read; what is answered, written in its order, as one file."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.features.stored import first_line, quoted

_FORMATS = (".csv", ".parquet")
_NESTED = ("list", "map", "struct", "array")
_AT_ONCE = 65_536


def read_entities(database: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Make a CSV (with a header, all columns strings) or Parquet file the table `given` of the session, in its order.

    Raises:
        ValueError: there is no such file, it is of another kind, or it cannot be read.
    """
    kinds = path.suffixes[-2:]
    if not path.is_file():
        raise ValueError(f"--entities {path} is no file")
    if ".parquet" not in kinds and ".csv" not in kinds:
        raise ValueError(f"--entities {path}: name a file that ends in .csv, .csv.gz or .parquet")
    try:
        if ".parquet" in kinds:
            with pq.ParquetFile(path) as file:
                check_names(file.schema_arrow.names)
                keep(database, pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches()))
        else:
            for batch in _csv_batches(path):
                database.register("batch", batch)
                known = database.execute("FROM duckdb_tables() WHERE table_name = 'given'").fetchone()
                database.execute("INSERT INTO given FROM batch" if known else "CREATE TEMP TABLE given AS FROM batch")
                database.unregister("batch")
    except (duckdb.Error, pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"--entities {path} cannot be read: {first_line(error)}") from None


def keep(database: duckdb.DuckDBPyConnection, rows: pa.Table | pa.RecordBatchReader) -> None:
    """Make Arrow rows the table `given` of the session."""
    database.register("arrow", rows)
    database.execute("CREATE TEMP TABLE given AS FROM arrow")
    database.unregister("arrow")


def _csv_batches(path: Path) -> Iterator[pa.Table]:
    """Rows of strings, null where nothing stands: one batch at least, lines that are empty left out.

    By Python's own reader: those of DuckDB and Arrow take what follows a quote that is never closed for a value.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, strict=True)
        rows, began = [], 1
        names: list[str] | None = None
        try:
            for row in lines:
                if names is None:
                    if row:
                        check_names(names := row)
                elif row:
                    if len(row) != len(names):
                        raise ValueError(
                            f"--entities {path}, line {began}: {len(row)} values, where the header names {len(names)}"
                        )
                    rows.append(row)
                    if len(rows) == _AT_ONCE:
                        yield _as_table(names, rows)
                        rows = []
                began = lines.line_num + 1
        except csv.Error as error:
            raise ValueError(f"--entities {path}: the row that begins in line {began} cannot be read: {error}") from None
    if names is None:
        raise ValueError(f"--entities {path} is empty: its first line must name the columns")
    yield _as_table(names, rows)


def _as_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return pa.table([pa.array([value or None for value in column], pa.string()) for column in columns], names=list(names))


def check_names(names: Sequence[str]) -> None:
    """Raises ValueError where columns meet that SQL does not tell apart, or one has a name that is taken."""
    count = Counter(name.lower() for name in names)
    if meet := [name for name in names if count[name.lower()] > 1]:
        raise ValueError(f"the entities have two columns called {meet[0]} (capitals do not count): rename one of them")
    if "" in names:
        raise ValueError(f"column {list(names).index('') + 1} of the entities has no name: give it one, or leave it out")
    if taken := [name for name in names if name.lower() == "rowid"]:
        raise ValueError(f"the entities have a column {taken[0]}, a name that is taken: rename it")


def check_output(path: Path) -> None:
    """Raises ValueError where the ending of `path` says no format."""
    if path.suffix not in _FORMATS:
        raise ValueError(f"--output {path}: name a file that ends in {' or '.join(_FORMATS)}")


def write_rows(rows: duckdb.DuckDBPyRelation, path: Path, kind: str) -> None:
    """Write the rows in their order; `kind`: .csv (lists as JSON) or .parquet."""
    if kind == ".parquet":
        rows.write_parquet(str(path))
        return
    shown = [_as_text(name, str(type_)) for name, type_ in zip(rows.columns, rows.types, strict=True)]
    rows.project(", ".join(shown)).write_csv(str(path), header=True, na_rep="")


def _as_text(name: str, type_: str) -> str:
    column = quoted(name)
    if type_.endswith("]") or type_.lower().startswith(_NESTED):
        return f"to_json({column})::VARCHAR AS {column}"
    # Without an offset, as all times here are UTC.
    return f"{column}::TIMESTAMP AS {column}" if type_ == "TIMESTAMP WITH TIME ZONE" else column
