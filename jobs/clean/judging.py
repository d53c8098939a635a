"""The verdict on every raw row, by the rules on a row itself and by those that compare rows."""

from __future__ import annotations

from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.mapping import Mapping
from conf.settings import Settings
from jobs.clean.comparing import bots_of, compared, owner, rows_of, thin, views
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
) -> DataFrame:
    """What is wrong with any of `raw`, as `comparing.compared` says it; kept until the cache is cleared.

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
    return compared(spread, clean, has_times=mapping.has_times, has_places=has_places).persist()


def with_verdicts(raw: DataFrame, found: DataFrame) -> DataFrame:
    """`raw` without the copies too many, with `reasons` (null for a good row). `found`: see `verdicts`."""
    copies = F.aggregate("rows", F.lit(0), lambda n, row: n + row["is_duplicate"].cast("int"))
    count = found.agg(F.sum(F.size("rows")), F.sum(copies), F.count_if(F.size("bot") > 0)).first()
    assert count is not None
    rows, copies_left_out, bots = (n or 0 for n in count)
    known = rows_of(found).withColumnRenamed("reasons", "_row_reasons")
    judged = raw.join(F.broadcast(known) if rows <= _BROADCAST_ROWS else known, on=["day", "row_hash"], how="left")
    why = F.col("_row_reasons")
    if bots:
        named = F.broadcast(bots_of(found).withColumnRenamed("reasons", "_bot_reasons"))
        judged = judged.withColumn("owner", owner()).join(named, on=["owner", "day"], how="left").drop("owner")
        both = F.flatten(F.array_compact(F.array("_row_reasons", "_bot_reasons")))
        why = F.when(F.size(both) > 0, both)
    once = judged.where(F.coalesce("duplicates", F.lit(0)) == 0)
    if copies_left_out:
        # Equal rows cannot be told apart, so any one of them stays.
        again = judged.where((F.col("duplicates") > 0) & F.col("survives")).dropDuplicates(["day", "row_hash"])
        once = once.unionByName(again)
    return once.withColumn("reasons", why)
