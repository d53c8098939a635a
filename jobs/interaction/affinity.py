"""How much a user turns to each category in each part of the week."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.contracts import ANY_SLOT
from jobs.lake.store import Days

# A weight below this is dropped for good, so that old habits do not fill the table: an event ages to it in 20 half-lives.
SMALLEST_WEIGHT = 1e-6
_AFFINITY = "user_id string, day date, slot string, category string, weight double, affinity double"


def decay(days: Column, half_life_days: float) -> Column:
    """What is left of a weight after so many days."""
    return F.pow(F.lit(0.5), days / F.lit(half_life_days))


def slot_weights(events: DataFrame, half_life_days: float) -> DataFrame:
    """What each day's arrivals weigh at the end of that day, per user, slot and category.

    An event counts its `weight` by its own time: one that arrives late has decayed already. Events
    without a slot or a category, and those of weight 0, count for nothing.

    Returns: user_id, day, slot, category, weight.
    """
    end_of_day = F.date_add("day", 1).cast("timestamp")
    age_days = (F.unix_micros(end_of_day) - F.unix_micros("event_timestamp")) / F.lit(86_400e6)
    counted = F.col("slot").isNotNull() & F.col("category").isNotNull() & (F.col("weight") > 0)
    return (
        events.where(counted)
        .withColumn("weight", F.col("weight") * decay(age_days, half_life_days))
        .groupBy("user_id", "day", "slot", "category")
        .agg(F.sum("weight").alias("weight"))
    )


def user_slot_affinity(gained: DataFrame, before: DataFrame, days: Days, prior: tuple[float, float]) -> DataFrame:
    """`user_slot_affinity` of every day of the run on which a user gained weight.

    weight(d) = weight(c) * 0.5^((d - c) / half_life) + gained(d), c the user's active day before d.
    So a state row is nothing but weight gained on the day it describes. affinity = (weight of the
    category in the slot + shrinkage * the category's share over all slots) / (weight of the slot +
    shrinkage).

    Args:
        gained: see `slot_weights`.
        before: user_slot_affinity before the first day.
        days: the run's days.
        prior: half_life_days and shrinkage, the latter in events.
    """
    half_life_days, _ = prior
    columns = ("user_id", "day", "slot", "category", "weight")
    known = before.withColumn("day", F.col("changed_on")).select(*columns)
    active = gained.select("user_id").distinct()
    known = known.join(active, on="user_id", how="left_semi")
    folded = gained.select(*columns).unionByName(known).groupBy("user_id").applyInArrow(_fold_of_user(days, prior), _AFFINITY)
    return folded.select(
        "user_id",
        F.coalesce("slot", F.lit(ANY_SLOT)).alias("slot"),
        F.coalesce("category", F.lit("")).alias("category"),
        F.coalesce("weight", F.lit(0.0)).alias("weight"),
        F.lit(float(half_life_days)).alias("half_life_days"),
        F.coalesce("affinity", F.lit(0.0)).alias("affinity"),
        F.col("weight").isNull().alias("gone"),
        F.col("day").alias("changed_on"),
        "day",
    )


@dataclass(frozen=True, kw_only=True)
class _Gains:
    """Weight gained per (day, pair of slot and category); `day` and `pair` index `days` and the pairs."""

    days: npt.NDArray[np.int64]
    day: npt.NDArray[np.int64]
    pair: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float64]


def _fold_of_user(days: Days, prior: tuple[float, float]) -> Callable[[pa.Table], pa.Table]:
    half_life_days, shrinkage = prior
    first = int(np.datetime64(days.first, "D").astype(np.int64))

    def fold(rows: pa.Table) -> pa.Table:
        on, at = np.unique(rows["day"].cast(pa.int32()).to_numpy().astype(np.int64), return_inverse=True)
        slots, slot = np.unique(rows["slot"].to_numpy(), return_inverse=True)
        categories, category = np.unique(rows["category"].to_numpy(), return_inverse=True)
        pairs, pair = np.unique(slot * len(categories) + category, return_inverse=True)
        weight_DP = _folded(_Gains(days=on, day=at, pair=pair, weight=rows["weight"].to_numpy()), half_life_days)
        weight_DP, on = weight_DP[on >= first], on[on >= first]
        of_pair = np.divmod(pairs, len(categories))
        affinity_DP = _affinity(weight_DP, of_pair, shrinkage)
        day, alive = np.nonzero(weight_DP)
        gone = np.flatnonzero(~weight_DP.any(axis=1))
        nothing = pa.nulls(len(gone))
        return pa.table(
            {
                "user_id": pa.array([rows["user_id"][0].as_py()] * (len(day) + len(gone))),
                "day": pa.array(on[np.concatenate([day, gone])].astype(np.int32)).cast(pa.date32()),
                "slot": _and(slots[of_pair[0][alive]], nothing, pa.string()),
                "category": _and(categories[of_pair[1][alive]], nothing, pa.string()),
                "weight": _and(weight_DP[day, alive], nothing, pa.float64()),
                "affinity": _and(affinity_DP[day, alive], nothing, pa.float64()),
            }
        )

    return fold


def _folded(gains: _Gains, half_life_days: float) -> npt.NDArray[np.float64]:
    """Weights at the end of each day, (D, P). Step by step: no power of two grows with the length of the history."""
    weight_DP = np.zeros((len(gains.days), int(gains.pair.max()) + 1))
    np.add.at(weight_DP, (gains.day, gains.pair), gains.weight)
    kept = 0.5 ** (np.diff(gains.days) / half_life_days)
    weight_DP[0][weight_DP[0] < SMALLEST_WEIGHT] = 0.0
    for day, share in enumerate(kept, start=1):
        weight_DP[day] += weight_DP[day - 1] * share
        weight_DP[day][weight_DP[day] < SMALLEST_WEIGHT] = 0.0
    return weight_DP


def _affinity(
    weight_DP: npt.NDArray[np.float64],
    of_pair: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    shrinkage: float,
) -> npt.NDArray[np.float64]:
    """Share of each pair's category in its slot, shrunk to its share over all slots, (D, P)."""
    slot, category = of_pair
    in_slot = weight_DP @ (slot[:, None] == np.arange(slot.max() + 1))
    in_category = weight_DP @ (category[:, None] == np.arange(category.max() + 1))
    whole = weight_DP.sum(axis=1, keepdims=True)
    overall = np.divide(in_category, whole, out=np.zeros_like(in_category), where=whole > 0)[:, category]
    below = in_slot[:, slot] + shrinkage
    shrunk = np.divide(weight_DP + shrinkage * overall, below, out=np.zeros_like(weight_DP), where=below > 0)
    # Rounding may put a share of all a hair above 1.
    return np.minimum(shrunk, 1.0)


def _and(values: npt.NDArray[np.generic], nothing: pa.Array, kind: pa.DataType) -> pa.Array:
    """Values, then a null for each day that left the user with nothing."""
    return pa.concat_arrays([pa.array(values, kind), nothing.cast(kind)])
