"""What items, and tags, have to do with tags, day by day, as their feed told it: a knowledge graph, or rules."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.clean.wording import single_spaced
from jobs.ingest.attributes import changes_of

RELATIONS, ITEM_RELATIONS = "relations", "item_relations"
_HEAVIEST = 100.0


def related(rows: DataFrame) -> DataFrame:
    """The feed's rows, parsed: relation_id, subject, relation, object, weight, day; `reason` of those refused.

    A row that differs in its weight alone is a change of what was told. One without a weight, where the feed has
    weights, takes that back (`is_told` false). The subject stays as written: it may be an item's id.
    """
    names = {
        "subject": F.col("subject"),
        "relation": single_spaced(F.col("relation")),
        "object": single_spaced(F.col("object")),
    }
    weighs = "weight" in rows.columns
    written = F.col("weight") if weighs else F.lit("1")
    weight = written.try_cast("double")
    key = F.concat_ws("\x1f", *[F.coalesce(name, F.lit("")) for name in names.values()])
    return rows.select(
        F.substring(F.sha2(key, 256), 1, 32).alias("relation_id"),
        *[name.alias(given) for given, name in names.items()],
        weight.alias("weight"),
        written.isNotNull().alias("is_told"),
        _reason(names, written, weight).alias("reason"),
        "day",
    )


def relations_by_day(rows: DataFrame, before: DataFrame) -> DataFrame:
    """`item_relations` at the end of each day on which something in it changed.

    Of several rows of a day that tell the same the heaviest holds; one that takes it back holds where no other does.

    Args:
        rows: `related`; the refused are left out.
        before: the state that this starts from.
    """
    names = ("relation_id", "subject", "relation", "object")
    good = rows.where(F.col("reason").isNull())
    days = good.groupBy(*names, "day").agg(F.max(F.struct("is_told", "weight")).alias("known"))
    old = before.select("relation_id", F.struct(F.lit(True).alias("is_told"), "weight").alias("old"))
    changes = changes_of(days.join(old, on="relation_id", how="left"), "relation_id", "known")
    # What was never told cannot be taken back.
    meant = changes.where(F.col("known.is_told") | F.col("_previous").isNotNull())
    return meant.select(
        *names,
        F.coalesce("known.weight", F.lit(0.0)).alias("weight"),
        (~F.col("known.is_told")).alias("gone"),
        F.col("day").alias("changed_on"),
        "day",
    )


def _reason(names: dict[str, Column], written: Column, weight: Column) -> Column:
    """Why a row cannot be understood; null where it can."""
    is_weight = F.coalesce((weight > 0) & (weight <= _HEAVIEST), F.lit(False))
    found = F.when(F.col("broken").isNotNull(), F.lit("broken"))
    for given, name in names.items():
        found = found.when(name.isNull(), F.lit(f"no_{given}"))
    return found.when(written.isNotNull() & ~is_weight, F.lit("bad_weight"))
