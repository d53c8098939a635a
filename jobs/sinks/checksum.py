"""Numbers that many rows have in common whatever their order: of rows on their way to PostgreSQL, and of rows in Spark.

For PostgreSQL: of each row's text the first 60 bits of its MD5, summed, computed alike on Arrow batches and by the server. In
the text nulls are told from empty ones, times are microseconds, floats stand as multiples of 2 to the -20, so that no two ways
to print them are told apart. In Spark alone (files that are read back) it is the sum of its 64-bit hashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import md5

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DateType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    MapType,
    StringType,
    StructType,
    TimestampType,
)  # fmt: skip

_BETWEEN, _NULL = "\x1f", "\x1e"
FINEST, LARGEST = 2.0**20, 2.0**40
_BITS60 = 15  # hexadecimal digits


def of_batch(batch: pa.RecordBatch, compared: Sequence[str]) -> int:
    """Of plain columns, text without NUL."""
    if not compared:
        return batch.num_rows * _number(b"")
    texts = [pc.fill_null(_text(batch.column(name)), _NULL) for name in compared]
    rows = pc.binary_join_element_wise(*texts, _BETWEEN).cast(pa.binary())
    return sum(_number(row) for row in rows.to_pylist())


def _number(text: bytes) -> int:
    return int.from_bytes(md5(text, usedforsecurity=False).digest()[:8], "big") >> 4


def _text(values: pa.Array) -> pa.Array:
    kind = values.type
    if pa.types.is_floating(kind):
        given = values.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
        with np.errstate(invalid="ignore", over="ignore"):
            is_within = np.abs(given) < LARGEST
            whole = pa.array(np.where(is_within, np.floor(given * FINEST), 0).astype(np.int64)).cast(pa.string())
        return pc.if_else(values.is_valid(), pc.if_else(pa.array(is_within), whole, "beyond"), pa.scalar(None, pa.string()))
    if pa.types.is_boolean(kind):
        return pc.if_else(values, "t", "f")
    if pa.types.is_date(kind):
        return values.cast(pa.int32()).cast(pa.string())
    if pa.types.is_timestamp(kind):
        return values.cast(pa.int64()).cast(pa.string())
    return values.cast(pa.string())


# Type of ours -> types of PostgreSQL's that hold it unchanged, and its text there.
_FLOAT = (
    f"CASE WHEN abs({{0}}::float8) < {LARGEST:.0f} THEN floor({{0}}::float8 * {FINEST:.0f})::bigint::text "
    "WHEN {0} IS NOT NULL THEN 'beyond' END"
)
_POSTGRES: dict[type[DataType], tuple[tuple[str, ...], str]] = {
    StringType: (("text", "varchar"), "{0}::text"),
    IntegerType: (("int2", "int4", "int8", "numeric"), "{0}::bigint::text"),
    LongType: (("int8", "numeric"), "{0}::bigint::text"),
    FloatType: (("float4", "float8"), _FLOAT),
    DoubleType: (("float8",), _FLOAT),
    BooleanType: (("bool",), "CASE WHEN {0} THEN 't' WHEN NOT {0} THEN 'f' END"),
    DateType: (("date",), "({0} - DATE '1970-01-01')::text"),
    TimestampType: (("timestamptz", "timestamp"), "(extract(epoch FROM {0}) * 1000000)::bigint::text"),
}


def held_alike(kind: DataType, postgres_type: str) -> bool:
    """Whether a column of that type in PostgreSQL holds our values as they are."""
    return postgres_type in _POSTGRES[type(kind)][0]


def in_postgres(columns: Sequence[tuple[str, DataType]]) -> str:
    """The same in PostgreSQL's SQL, over quoted column names and our types: two expressions, rows and checksum."""
    texts = [f"coalesce({_POSTGRES[type(kind)][1].format(name)}, E'\\x1e')" for name, kind in columns]
    text = f"concat_ws(E'\\x1f', {', '.join(texts)})" if texts else "''"
    number = f"('x0' || substr(md5(convert_to({text}, 'UTF8')), 1, {_BITS60}))::bit(64)::bigint"
    return f"count(*), coalesce(sum({number}), 0)::text"


def in_spark(schema: StructType, *, empty_is_null: bool = False) -> list[Column]:
    """Aggregates `rows` and `checksum` of rows with the schema.

    empty_is_null: for what does not tell an empty text from none.
    """
    columns = [_plain(F.col(field.name), field.dataType, empty_is_null) for field in schema]
    hashed = F.xxhash64(*[part for column in columns for part in (column, column.isNull())])
    total = F.coalesce(F.sum(hashed.cast("decimal(20,0)")), F.lit(0)).cast("string")
    return [F.count(F.lit(1)).alias("rows"), total.alias("checksum")]


def _plain(value: Column, kind: DataType, empty_is_null: bool) -> Column:
    if isinstance(kind, ArrayType | MapType | StructType):
        return F.to_json(value)
    return F.nullif(value, F.lit("")) if empty_is_null and isinstance(kind, StringType) else value
