"""Parquet, CSV and JSON lines, as sinks of files write them and read them back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.lake import records
from jobs.sinks import checksum, tasks
from jobs.sinks.delivery import Delivery
from jobs.sinks.plain import flat

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# RFC 4180: a quote is doubled, spaces are kept, an empty text is "", a missing one is nothing.
_CSV = {"header": "true", "quote": '"', "escape": '"', "emptyValue": '""', "nullValue": ""}
_CSV |= {"ignoreLeadingWhiteSpace": "false", "ignoreTrailingWhiteSpace": "false"}
_CSV |= {"timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX"}
_JSON = {"ignoreNullFields": "false", "timestampFormat": _CSV["timestampFormat"]}
# Spark's, by format: to write with, and to read back with. Of a reader `emptyValue` is what an empty text becomes.
WRITING: dict[str, dict[str, str]] = {"parquet": {}, "csv": _CSV, "json": _JSON}
READING = {**WRITING, "csv": {**_CSV, "multiLine": "true", "emptyValue": ""}}
CSV = records.Csv(multiline=True)
FORMS: dict[str, records.Form] = {"csv": CSV, "json": records.JsonLines()}


def formed(delivery: Delivery, kind: str) -> DataFrame:
    """What is delivered, sorted within its partitions, as a file of the format has it."""
    ordered = delivery.rows.sortWithinPartitions(*(delivery.key or delivery.by or delivery.rows.columns[:1]))
    return flat(ordered) if kind == "csv" else ordered


def measured(rows: DataFrame, kind: str) -> tuple[int, str]:
    """Rows and checksum; a CSV file does not tell an empty text from none.

    Raises:
        ValueError: a task that reads them from S3 failed; one line.
    """
    [found] = tasks.collected(rows.agg(*checksum.in_spark(rows.schema, empty_is_null=kind == "csv")), "S3")
    return found["rows"], found["checksum"]
