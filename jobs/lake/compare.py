"""Are two versions of a table equal? Row by row, as DESIGN defines equality."""

from __future__ import annotations

from dataclasses import dataclass, field

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, DoubleType, FloatType

from conf import contracts


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`missing` rows are in the first only, `added` in the second only, `differing` counts rows by column."""

    rows: int
    missing: int
    added: int
    differing: dict[str, int] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        return not (self.missing or self.added or self.differing)

    def __str__(self) -> str:
        if self.equal:
            return f"equal, {self.rows} rows"
        columns = ", ".join(f"{name} in {count} rows" for name, count in self.differing.items())
        return f"{self.missing} rows missing, {self.added} added; differing: {columns or 'none'} ({self.rows} rows in all)"


def compare(one: DataFrame, other: DataFrame, contract: contracts.Table) -> Comparison:
    """Compare as multisets over the contract's columns, but for those it calls unequal; one Spark job.

    Rows are paired by key and day; among rows of one key (exact duplicates, say) in the order of all exact columns.
    """
    key = [name for name in dict.fromkeys((*contract.key, "day")) if name in contract.names]
    compared = [name for name in contract.names if name not in key and name not in contract.unequal]
    types = {item.name: item.dataType for item in one.schema}
    exact = [name for name in compared if not _is_float(types[name])]
    pairs = (
        _numbered(one, key, exact, types)
        .alias("one")
        .join(
            _numbered(other, key, exact, types).alias("other"),
            on=[F.col(f"one.{name}").eqNullSafe(F.col(f"other.{name}")) for name in (*key, "_n")],
            how="full_outer",
        )
    )
    both = F.col("one._n").isNotNull() & F.col("other._n").isNotNull()
    counts = [
        F.count_if(F.col("other._n").isNull()).alias("_missing"),
        F.count_if(F.col("one._n").isNull()).alias("_added"),
        F.count(F.lit(1)).alias("_rows"),
        *[F.count_if(both & ~_equal(contract.column(name), types[name])).alias(name) for name in compared],
    ]
    found = pairs.agg(*counts).first()
    assert found is not None
    differing = {name: found[name] for name in compared if found[name]}
    return Comparison(rows=found["_rows"], missing=found["_missing"], added=found["_added"], differing=differing)


def _numbered(rows: DataFrame, key: list[str], exact: list[str], types: dict[str, DataType]) -> DataFrame:
    """Maps and structs as JSON, and a number among the rows of one key."""
    shown = rows.select(*[_comparable(name, types[name]).alias(name) for name in rows.columns])
    order = Window.partitionBy(*key).orderBy(*(exact or key))
    return shown.withColumn("_n", F.row_number().over(order))


def _comparable(name: str, kind: DataType) -> Column:
    text = kind.simpleString()
    if text.startswith("map<"):
        return F.to_json(F.array_sort(F.map_entries(name)))
    if "struct<" in text:
        return F.to_json(F.col(name))
    return F.col(name)


def _is_float(kind: DataType) -> bool:
    element = kind.elementType if isinstance(kind, ArrayType) else kind
    return isinstance(element, DoubleType | FloatType)


def _equal(column: contracts.Column, kind: DataType) -> Column:
    one, other = F.col(f"one.{column.name}"), F.col(f"other.{column.name}")
    if not _is_float(kind):
        return one.eqNullSafe(other)
    if isinstance(kind, ArrayType):
        near = F.forall(
            # Not-a-number is no distance away from itself, but equal to it.
            F.zip_with(one, other, lambda a, b: a.eqNullSafe(b) | F.coalesce(F.abs(a - b) <= column.tolerance, F.lit(False))),
            lambda ok: ok,
        )
        return F.coalesce(near, one.isNull() & other.isNull())
    allowed = F.greatest(column.tolerance * F.greatest(F.abs(one), F.abs(other)), F.lit(column.margin))
    near = F.abs(one - other) <= allowed
    return one.eqNullSafe(other) | F.coalesce(near, F.lit(False))
