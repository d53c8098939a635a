"""The verdict on every raw row, by the rules on a row itself and by those that compare rows."""

from __future__ import annotations

from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.mapping import Mapping
from conf.settings import Settings
from jobs.clean.comparing import Compared, compared, owner, thin, views
from jobs.clean.ranges import is_extreme, with_range
from jobs.clean.rules import parsed, reasons, rules

# Up to so many rows a join with what was found of them is made without moving all others.
_BROADCAST_ROWS = 2_000_000


def verdicts(
    raw: DataFrame,
    earlier: DataFrame,
    mapping: Mapping,
    settings: Settings,
    *,
    first_day: date,
    ranges: DataFrame | None,
    partitions: int,
) -> Compared:
    """What is wrong with any of `raw`.

    earlier: raw rows that arrived in the lookback before `first_day`, which is the first of `raw`.
    ranges: see `jobs.clean.ranges`; None: no value is too extreme.
    """
    clean, lookback_days = settings.clean, settings.ingest.lookback_days
    found = rules(mapping, lookback_days, clean)
    whole, before = parsed(raw, mapping), parsed(earlier, mapping)
    if ranges is not None:
        whole = with_range(whole, ranges)
        found["extreme_value"] = is_extreme(clean.value_deviations, clean.value_min_rows)

    def thinned(rows: DataFrame, why: Column) -> DataFrame:
        return thin(rows.withColumn("reasons", why), clean, has_times=mapping.has_times)

    both = views(thinned(whole, reasons(found)), thinned(before, F.array().cast("array<string>")), first_day, lookback_days)
    has_places = {"latitude", "longitude"} <= set(mapping.events.columns)
    spread = both.repartition(partitions, "owner")
    made = compared(spread, clean, has_times=mapping.has_times, has_places=has_places)
    return Compared(rows=made.rows.persist(), bots=made.bots.persist())


def with_verdicts(raw: DataFrame, found: Compared) -> DataFrame:
    """`raw` without the copies too many, with `reasons` (null for a good row)."""
    total = found.rows.agg(F.count("*").alias("rows"), F.sum("duplicates").alias("copies")).first()
    assert total is not None
    small = total["rows"] <= _BROADCAST_ROWS
    known = found.rows.withColumnRenamed("reasons", "_row_reasons")
    rows = raw.join(F.broadcast(known) if small else known, on=["day", "row_hash"], how="left")
    why = F.col("_row_reasons")
    if not found.bots.isEmpty():
        bots = F.broadcast(found.bots.withColumnRenamed("reasons", "_bot_reasons"))
        rows = rows.withColumn("owner", owner()).join(bots, on=["owner", "day"], how="left").drop("owner")
        both = F.flatten(F.array_compact(F.array("_row_reasons", "_bot_reasons")))
        why = F.when(F.size(both) > 0, both)
    once = rows.where(F.coalesce("duplicates", F.lit(0)) == 0)
    if total.copies:
        # Equal rows cannot be told apart, so any one of them stays.
        again = rows.where((F.col("duplicates") > 0) & F.col("survives")).dropDuplicates(["day", "row_hash"])
        once = once.unionByName(again)
    return once.withColumn("reasons", why)
