"""Files of rows: what is asked about, read; what is answered, written in its order, as one file."""

from __future__ import annotations

import csv
import gzip
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.features.stored import quoted
from jobs.seeing.reading import literal

_FORMATS = (".csv", ".parquet")
_NESTED = ("list", "map", "struct", "array")
# Everything is said, so that nothing is guessed: neither a comment sign nor what a row is.
_CSV = (
    "read_csv(?, header = true, auto_detect = false, columns = {}, delim = ',', quote = '\"', escape = '\"', comment = '', "
    "null_padding = true, parallel = false, hive_partitioning = false)"
)


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
            names, source = pq.read_schema(path).names, "read_parquet(?, hive_partitioning = false)"
        else:
            names = _header(path)
            columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names)
            source = _CSV.format(f"{{{columns}}}")
        check_names(names)
        # Under a name in which DuckDB looks for no patterns.
        with tempfile.TemporaryDirectory(prefix="wherewhen-") as scratch:
            link = Path(scratch) / f"entities{''.join(kinds)}"
            link.symlink_to(path.absolute())
            database.execute(f"CREATE TEMP TABLE given AS SELECT * FROM {source}", [str(link)])
    except (duckdb.Error, pa.ArrowException, OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"--entities {path} cannot be read: {_in_a_line(str(error))}") from None


def _header(path: Path) -> list[str]:
    with (
        gzip.open(path, "rt", encoding="utf-8-sig", newline="")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8-sig", newline="") as file
    ):
        names = next(csv.reader(file), [])
    if not names:
        raise ValueError(f"--entities {path} is empty: its first line must name the columns")
    return names


def _in_a_line(said: str) -> str:
    """DuckDB's reason without the line that it quotes, which may hold what is no concern of a log."""
    line = re.search(r"Line: (\d+)", said)
    reason = re.search(
        r"(Expected Number of Columns: \d+ Found: \d+|Invalid unicode[^\n.]*|unterminated quote[^\n.]*)", said, re.I
    )
    if line is not None and reason is not None:
        return f"line {line[1]}: {reason[1]}"
    return " ".join(said.split("\n", maxsplit=1)[0].split())


def check_names(names: Sequence[str]) -> None:
    """Raises ValueError where columns meet that SQL does not tell apart, or one has a name that is taken."""
    count = Counter(name.lower() for name in names)
    if meet := [name for name in names if count[name.lower()] > 1]:
        raise ValueError(f"the entities have two columns called {meet[0]} (capitals do not count): rename one of them")
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
    return f"{column}::TIMESTAMP AS {column}" if "WITH TIME ZONE" in type_ else column
