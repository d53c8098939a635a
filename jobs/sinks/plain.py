"""Rows for what knows no nested columns."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, MapType, StructType


def flat(rows: DataFrame) -> DataFrame:
    """Nested columns as JSON text."""
    return rows.select(
        *[
            F.to_json(field.name).alias(field.name)
            if isinstance(field.dataType, ArrayType | MapType | StructType)
            else F.col(field.name)
            for field in rows.schema
        ]
    )
