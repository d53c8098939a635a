"""What is chosen in a region and slot more, or less, often than elsewhere."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from scipy.stats import hypergeom

from conf.contracts import ANY_SLOT
from jobs.spatial.clusters import Ints
from jobs.spatial.sphere import Floats

_LIFT = "region string, slot string, category string, events bigint, lift double, z double, q_value double, day date"


def region_slot_lift(cells: DataFrame, shrinkage: float) -> DataFrame:
    """`region_slot_lift` of each `snapshot_day`.

    lift = (n + k p) / ((N_rs + k) p): n events of the category in region and slot, N_rs events in
    region and slot, p the category's share of all events, k = shrinkage. z is that of two
    proportions, pooled: the category's share in region and slot against its share elsewhere; 0
    where there is no elsewhere, or no other category. q_value: the exact p value (`two_sided`) after
    Benjamini and Hochberg over every region, slot and category of the snapshot, those without an
    event together included: rows of q <= 0.05 hold no more than 5% chance finds, where events are
    independent.

    Args:
        cells: cell_daily with snapshot_day.
    """
    known = (F.col("category") != "") & F.col("region").isNotNull() & (F.col("slot") != ANY_SLOT)
    counts = cells.where(known).groupBy("snapshot_day", "region", "slot", "category").agg(F.sum("events").alias("events"))
    whole = Window.partitionBy("snapshot_day")
    totals = (
        counts.groupBy("snapshot_day", "category")
        .agg(F.sum("events").alias("of_category"))
        .withColumn("of_all", F.sum("of_category").over(whole))
    )
    here = Window.partitionBy("snapshot_day", "region", "slot")
    joined = counts.withColumn("here", F.sum("events").over(here)).join(
        F.broadcast(totals), on=["snapshot_day", "category"], how="inner"
    )
    share = F.col("of_category") / F.col("of_all")
    elsewhere = F.col("of_all") - F.col("here")
    share_elsewhere = (F.col("of_category") - F.col("events")) / elsewhere
    variance = share * (1 - share) * (1 / F.col("here") + 1 / elsewhere)
    comparable = (elsewhere > 0) & (F.col("of_category") < F.col("of_all"))
    z = F.when(comparable, (F.col("events") / F.col("here") - share_elsewhere) / F.sqrt(variance)).otherwise(F.lit(0.0))
    lift = (F.col("events") + shrinkage * share) / ((F.col("here") + F.lit(float(shrinkage))) * share)
    measured = joined.select(
        "region", "slot", "category", "events", lift.alias("lift"), z.alias("z"), "here", "of_category", "of_all",
        F.col("snapshot_day").alias("day"),
    )  # fmt: skip
    return measured.groupBy("day").applyInArrow(_with_q_values, _LIFT)


def two_sided(events: Ints, here: Ints, of_category: Ints, of_all: Ints) -> Floats:
    """Fisher's exact p value of as many events of a category in a region and slot, or fewer: twice the smaller tail.

    Of `of_all` events `of_category` are of the category and `here` in the region and slot.
    """
    more = hypergeom.sf(events - 1, of_all, of_category, here)
    fewer = hypergeom.cdf(events, of_all, of_category, here)
    return np.minimum(2 * np.minimum(more, fewer), 1.0)


def adjusted(p: Floats, tests: int) -> Floats:
    """Benjamini and Hochberg's (1995) adjusted p values, (n,), of `tests` in all: those that are not given count as 1."""
    descending = np.argsort(-p, kind="stable")
    rank = np.arange(len(p), 0, -1)
    found = np.empty(len(p))
    found[descending] = np.minimum.accumulate(np.minimum(p[descending] * tests / rank, 1.0))
    return found


def _with_q_values(rows: pa.Table) -> pa.Table:
    """The rows of one snapshot, which the map and the catalogue bound."""
    events, here, of_category, of_all = (rows[name].to_numpy() for name in ("events", "here", "of_category", "of_all"))
    groups = rows.select(["region", "slot"]).group_by(["region", "slot"]).aggregate([]).num_rows
    tests = groups * len(rows["category"].unique())
    q_value = adjusted(two_sided(events, here, of_category, of_all), tests)
    made = rows.drop(["here", "of_category", "of_all", "day"]).append_column("q_value", pa.array(q_value))
    return made.append_column("day", rows["day"])
