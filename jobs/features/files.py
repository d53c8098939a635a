"""Files of rows: what is asked about, read; what is answered, written in its order, as one file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.features.asof import MOMENT

_FORMATS = (".csv", ".parquet")
_NESTED = ("array", "map", "struct")


def read_entities(spark: SparkSession, path: Path) -> DataFrame:
    """A CSV (with a header, all columns strings but the moment) or Parquet file.

    Raises:
        ValueError: there is no such file, or it is of another kind.
    """
    kinds = path.suffixes[-2:]
    if not path.is_file():
        raise ValueError(f"--entities {path} is no file")
    if ".parquet" in kinds:
        return spark.read.parquet(str(path.absolute()))
    if ".csv" not in kinds:
        raise ValueError(f"--entities {path}: name a file that ends in .csv, .csv.gz or .parquet")
    rows = spark.read.csv(str(path.absolute()), header=True, escape='"', multiLine=True)
    if MOMENT not in rows.columns:
        return rows
    return rows.withColumn(MOMENT, F.try_to_timestamp(F.col(MOMENT)))


def check_output(path: Path) -> None:
    """Raises ValueError where the ending of `path` says no format."""
    if path.suffix not in _FORMATS:
        raise ValueError(f"--output {path}: name a file that ends in {' or '.join(_FORMATS)}")


def write_rows(rows: DataFrame, path: Path, kind: str) -> None:
    """Write the rows in their order; `kind`: .csv (lists as JSON) or .parquet."""
    folder = path.with_name(f"{path.name}.d")
    try:
        if kind == ".csv":
            _as_text(rows).write.csv(str(folder), escape='"', emptyValue="", timestampFormat="yyyy-MM-dd HH:mm:ss[.SSSSSS]")
            _joined_lines(sorted(folder.glob("part-*")), path, rows.columns)
        else:
            rows.write.parquet(str(folder))
            _joined_groups(sorted(folder.glob("part-*")), path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _as_text(rows: DataFrame) -> DataFrame:
    nested = [field.name for field in rows.schema if field.dataType.simpleString().startswith(_NESTED)]
    return rows.withColumns({name: F.to_json(name) for name in nested})


def _joined_lines(parts: list[Path], path: Path, columns: list[str]) -> None:
    with path.open("wb") as file:
        file.write((",".join(_quoted(name) for name in columns) + "\n").encode())
        for part in parts:
            with part.open("rb") as lines:
                shutil.copyfileobj(lines, file)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if set(name) & set(',"\n\r') else name


def _joined_groups(parts: list[Path], path: Path) -> None:
    """Row group by row group, so that no more than one is in memory."""
    with pq.ParquetWriter(path, pq.read_schema(parts[0])) as writer:
        for part in parts:
            file = pq.ParquetFile(part)
            for group in range(file.num_row_groups):
                writer.write_table(file.read_row_group(group))
