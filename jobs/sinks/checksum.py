"""A number that many rows have in common whatever their order, computed alike by Spark and by PostgreSQL.

Of each row's text the first 60 bits of its MD5, summed. In the text nulls are told from empty ones, times are microseconds,
floats stand as multiples of 2 to the -20, so that no two ways to print them are told apart.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
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
)  # fmt: skip

_BETWEEN, _NULL = "\x1f", "\x1e"
_FINEST, _LARGEST = 2.0**20, 2.0**40
_BITS60 = 15  # hexadecimal digits


def measures(schema: StructType, compared: Sequence[str], *, empty_is_null: bool = False) -> list[Column]:
    """Aggregates `rows` and `checksum` over some columns of rows with the schema.

    empty_is_null: for what does not tell an empty text from none.
    """

    def text(name: str) -> Column:
        said = _text(F.col(name), schema[name].dataType)
        return F.coalesce(F.nullif(said, F.lit("")) if empty_is_null else said, F.lit(_NULL))

    number = F.conv(F.substring(F.md5(F.concat_ws(_BETWEEN, *map(text, compared))), 1, _BITS60), 16, 10)
    total = F.coalesce(F.sum(number.cast("decimal(20,0)")), F.lit(0)).cast("string")
    return [F.count(F.lit(1)).alias("rows"), total.alias("checksum")]


def of(rows: DataFrame, compared: Sequence[str], *, empty_is_null: bool = False) -> tuple[int, str]:
    """Rows and checksum of a DataFrame."""
    found = rows.agg(*measures(rows.schema, compared, empty_is_null=empty_is_null)).first()
    assert found is not None
    return found["rows"], found["checksum"]


def _text(value: Column, kind: DataType) -> Column:
    if isinstance(kind, FloatType | DoubleType):
        exact = F.floor(value.cast("double") * _FINEST).cast("string")
        return F.when(F.abs(value) < _LARGEST, exact).when(value.isNotNull(), "beyond")
    if isinstance(kind, DateType | TimestampType):
        return (F.unix_date(value) if isinstance(kind, DateType) else F.unix_micros(value)).cast("string")
    if isinstance(kind, BooleanType):
        return F.when(value, "t").when(~value, "f")
    if isinstance(kind, StringType):
        return F.replace(value, F.lit("\x00"), F.lit("\ufffd"))
    return value.cast("string") if isinstance(kind, IntegerType | LongType) else F.to_json(value)


# Type of ours -> types of PostgreSQL's that hold it unchanged, and its text there.
_POSTGRES = {
    StringType: (("text", "varchar"), "{0}::text"),
    IntegerType: (("int2", "int4", "int8", "numeric"), "{0}::bigint::text"),
    LongType: (("int8", "numeric"), "{0}::bigint::text"),
    FloatType: (("float4", "float8"), None),
    DoubleType: (("float8",), None),
    BooleanType: (("bool",), "CASE WHEN {0} THEN 't' WHEN NOT {0} THEN 'f' END"),
    DateType: (("date",), "({0} - DATE '1970-01-01')::text"),
    TimestampType: (("timestamptz", "timestamp"), "(extract(epoch FROM {0}) * 1000000)::bigint::text"),
}
_FLOAT = (
    f"CASE WHEN abs({{0}}::float8) < {_LARGEST:.0f} THEN floor({{0}}::float8 * {_FINEST:.0f})::bigint::text "
    "WHEN {0} IS NOT NULL THEN 'beyond' END"
)


def held_alike(kind: DataType, postgres_type: str) -> bool:
    """Whether a column of that type in PostgreSQL holds our values as they are."""
    return postgres_type in _POSTGRES[type(kind)][0]


def postgres_measures(columns: Sequence[tuple[str, DataType]]) -> str:
    """`measures` in PostgreSQL's SQL, over quoted column names and our types: two expressions."""
    texts = [f"coalesce({(_POSTGRES[type(kind)][1] or _FLOAT).format(name)}, E'\\x1e')" for name, kind in columns]
    text = f"concat_ws(E'\\x1f', {', '.join(texts)})" if texts else "''"
    number = f"('x0' || substr(md5(convert_to({text}, 'UTF8')), 1, {_BITS60}))::bit(64)::bigint"
    return f"count(*), coalesce(sum({number}), 0)::text"
