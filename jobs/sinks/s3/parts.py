"""The files of a delivery on S3: written by tasks, each its own, and read back by tasks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import TaskContext
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from jobs.sinks import tasks
from jobs.sinks.formats import CSV, READING, WRITING
from jobs.sinks.s3.bucket import Bucket
from jobs.sinks.s3.current import Part

_GROUP_BYTES = 32 << 20  # of a row group as Arrow holds it
_LINES_BYTES = 4 << 20
_TYPES = {"parquet": "application/vnd.apache.parquet", "csv": "text/csv", "json": "application/x-ndjson"}


def write(rows: DataFrame, bucket: Bucket, folder: str, kind: str) -> list[Part]:
    """Write rows, as `formed` has them, below a folder; the files of the attempts that count.

    A task that is tried again, or twice at once, writes another file, so that none is written by two; of each the
    attempt whose answer Spark takes is named here.

    Raises:
        ValueError: the server cannot be reached, or refuses; one line.
    """
    header = _header(rows.columns) if kind == "csv" else b""

    def written(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        task = TaskContext.get()
        assert task is not None
        filled = (batch for batch in batches if batch.num_rows)
        if (first := next(filled, None)) is None:
            return
        name = f"{folder}/part-{task.partitionId():05}-{task.taskAttemptId()}.{kind}"
        count = _write_one(chain([first], filled), bucket, name, header, first.schema)
        yield pa.RecordBatch.from_pydict({"path": [name], "rows": pa.array([count], pa.int64())})

    shown = rows if kind == "parquet" else rows.select(_line(kind).alias("line"))
    found = tasks.collected(shown.mapInArrow(written, "path string, rows bigint"), "S3")
    if not found:  # readers find the columns all the same
        name = f"{folder}/part-00000.{kind}"
        return [Part(path=name, rows=_write_one([], bucket, name, header, to_arrow_schema(rows.schema)))]
    return sorted((Part(path=row["path"], rows=row["rows"]) for row in found), key=lambda part: part.path)


def _line(kind: str) -> Column:
    return (F.to_csv if kind == "csv" else F.to_json)(F.struct("*"), WRITING[kind])


def _header(names: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(names)
    return text.getvalue().encode()


def _write_one(batches: Iterable[pa.RecordBatch], bucket: Bucket, name: str, header: bytes, schema: pa.Schema) -> int:
    """The rows of a file that is there when this returns: an upload that does not end well raises when it is closed.

    schema: of Parquet.
    """
    count, kind = 0, name.rpartition(".")[2]
    with (
        bucket.asked() as files,
        files.open_output_stream(bucket.path(name), metadata={"Content-Type": _TYPES[kind]}) as stream,
    ):
        if kind == "parquet":
            with pq.ParquetWriter(stream, schema) as writer:
                for table in _grouped(batches):
                    writer.write_table(table)
                    count += table.num_rows
            return count
        stream.write(header)
        for batch in batches:
            stream.write("".join(f"{line}\n" for line in batch.column(0).to_pylist()).encode())
            count += batch.num_rows
    return count


def _grouped(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(one.nbytes for one in held) >= _GROUP_BYTES:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def read(spark: SparkSession, bucket: Bucket, parts: Sequence[Part], schema: StructType, kind: str) -> DataFrame:
    """The rows of the files, as `formed` had them. What cannot be read as such a row comes as nulls.

    A task raises ValueError: the server cannot be reached or refuses, or a file cannot be read.
    """
    paths = spark.createDataFrame([(part.path,) for part in parts], "path string")

    def found(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for name in batch.column(0).to_pylist():
                yield from _read_one(bucket, name)

    if kind == "parquet":
        return paths.mapInArrow(found, schema)
    lines = paths.mapInArrow(found, "line string")
    row = F.from_csv("line", schema.toDDL(), READING[kind]) if kind == "csv" else F.from_json("line", schema, READING[kind])
    return lines.select(row.alias("row")).select("row.*")


def _read_one(bucket: Bucket, name: str) -> Iterator[pa.RecordBatch]:
    """Rows of Parquet; of CSV and JSON the records' text."""
    kind = name.rpartition(".")[2]
    with bucket.asked() as files:
        try:
            if kind == "parquet":
                with files.open_input_file(bucket.path(name)) as file, pq.ParquetFile(file) as rows:
                    yield from rows.iter_batches()
            else:
                with lines_of(files.open_input_stream(bucket.path(name))) as lines:
                    yield from _texts(lines, kind)
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise ValueError(bucket.refused(f"{name} cannot be read as {kind} any more: {error}")) from None


def lines_of(stream: pa.NativeFile) -> io.BufferedReader:
    """A stream of Arrow's has no lines."""
    return io.BufferedReader(stream, _LINES_BYTES)


def _texts(lines: Iterable[bytes], kind: str) -> Iterator[pa.RecordBatch]:
    records = iter(CSV.records(lines) if kind == "csv" else lines)
    if kind == "csv":
        next(records, None)
    held, size = [], 0
    for record in records:
        held.append(record.removesuffix(b"\n").decode())
        size += len(record)
        if size >= _LINES_BYTES:
            yield pa.RecordBatch.from_pydict({"line": held})
            held, size = [], 0
    if held:
        yield pa.RecordBatch.from_pydict({"line": held})
