"""Baselines fitted by Spark: what is brought to the driver is bounded by the catalogue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from conf.baselines import Als, Baselines, ItemCf
from models.baselines import Baseline, baseline
from models.counts import SUCCESSORS, Counts, count
from models.queries import Vocabulary

_SEED = 1


def successors(targets: DataFrame) -> DataFrame:
    """Of each item its target events, how many were followed by another of the user, and the most frequent next items.

    `targets`: `user_id, item_id, event_timestamp, event_id`. Gives `item_id, next_item_id` (null where
    the event was the user's last), `times, events, moves`: at most `SUCCESSORS` + 1 rows an item.
    """
    by_user = Window.partitionBy("user_id").orderBy("event_timestamp", "event_id")
    by_item = Window.partitionBy("item_id")
    followed = F.col("next_item_id").isNotNull()
    pairs = (
        targets.where(F.col("item_id").isNotNull())
        .select("item_id", F.lead("item_id").over(by_user).alias("next_item_id"))
        .groupBy("item_id", "next_item_id")
        .agg(F.count("*").alias("times"))
    )
    return (
        pairs.withColumn("events", F.sum("times").over(by_item))
        .withColumn("moves", F.sum(F.when(followed, F.col("times")).otherwise(0)).over(by_item))
        .withColumn("place", F.row_number().over(by_item.orderBy(followed, F.desc("times"), "next_item_id")))
        .where(F.col("place") <= SUCCESSORS + 1)
        .select("item_id", "next_item_id", "times", "events", "moves")
    )


def fit(targets: DataFrame, target_types: tuple[str, ...], vocabulary: Vocabulary | None = None) -> Counts:
    """Counts for the baselines, over the given catalogue or over every item among the targets, by name."""
    rows = successors(targets).toArrow()
    once = rows.group_by("item_id").aggregate([("events", "max"), ("moves", "max")])
    if vocabulary is None:
        items = tuple(sorted(once["item_id"].to_pylist()))
        vocabulary = Vocabulary(items=items, item_categories=("",) * len(items), categories=(), event_types=target_types)
    moves = rows.filter(pc.is_valid(rows["next_item_id"]))
    return count(
        vocabulary,
        target_types,
        (once["item_id"], _numbers(once["events_max"]), _numbers(once["moves_max"])),
        (moves["item_id"], moves["next_item_id"], _numbers(moves["times"])),
    )


def _numbers(column: pa.ChunkedArray) -> object:
    return column.to_numpy().astype("float64")


def baselines(names: Sequence[str], targets: DataFrame, counts: Counts, given: Baselines) -> dict[str, Baseline]:
    """The named baselines over the catalogue of the counts, fitted to the same target events."""
    arrays: dict[str, np.ndarray] = {}
    if {"item_cf", "als"} & set(names):
        taken = _taken(targets, counts.vocabulary)
        size = len(counts.vocabulary.items)
        if "item_cf" in names:
            arrays["neighbour_VK"], arrays["likeness_VK"] = _table(neighbours(taken, given.item_cf).toArrow(), size)
        if "als" in names:
            arrays["factors_VR"] = factors(taken, size, given.als)
    return {name: baseline(name, counts, given, arrays) for name in names}


def _taken(targets: DataFrame, vocabulary: Vocabulary) -> DataFrame:
    """`user_id, place, times, at` per user and item of the catalogue: how often taken, and when last."""
    size = len(vocabulary.items)
    names = pa.table({"item_id": pa.array(vocabulary.items, pa.string()), "place": pa.array(range(size), pa.int32())})
    places = targets.sparkSession.createDataFrame(names)
    taken = targets.groupBy("user_id", "item_id").agg(
        F.count("*").alias("times"), F.max(F.struct("event_timestamp", "event_id")).alias("at")
    )
    return taken.join(F.broadcast(places), on="item_id", how="inner").select("user_id", "place", "times", "at")


def neighbours(taken: DataFrame, given: ItemCf) -> DataFrame:
    """Of each item those that the same users took among their newest: `place, other, likeness`, the likest first.

    Likeness is the cosine of the two items' users, shrunk by n / (n + shrinkage) where n users took both.
    """
    newest = F.slice(F.reverse(F.array_sort(F.collect_list(F.struct("at", "place")))), 1, given.last)["place"]
    mine = taken.groupBy("user_id").agg(newest.alias("places")).select(F.explode("places").alias("place"), "places")
    pairs = mine.select("place", F.explode("places").alias("other")).groupBy("place", "other").agg(F.count("*").alias("both"))
    users = pairs.where(F.col("place") == F.col("other")).select("place", F.col("both").alias("users"))
    others = users.select(F.col("place").alias("other"), F.col("users").alias("other_users"))
    cosine = F.col("both") / F.sqrt(F.col("users") * F.col("other_users"))
    likely = (
        pairs.where(F.col("place") != F.col("other"))
        .join(F.broadcast(users), on="place", how="inner")
        .join(F.broadcast(others), on="other", how="inner")
        .withColumn("likeness", cosine * F.col("both") / (F.col("both") + F.lit(given.shrinkage)))
    )
    by_item = Window.partitionBy("place").orderBy(F.desc("likeness"), "other")
    kept = likely.withColumn("number", F.row_number().over(by_item) - 1).where(F.col("number") < given.neighbours)
    return kept.select("place", "number", "other", "likeness")


def _table(rows: pa.Table, size: int) -> tuple[np.ndarray, np.ndarray]:
    place, number, other = (rows[name].to_numpy().astype(np.int64) for name in ("place", "number", "other"))
    neighbour_VK = np.full((size, int(number.max(initial=-1)) + 1), -1, dtype=np.int32)
    likeness_VK = np.zeros(neighbour_VK.shape)
    neighbour_VK[place, number], likeness_VK[place, number] = other, rows["likeness"].to_numpy()
    return neighbour_VK, likeness_VK


def factors(taken: DataFrame, size: int, given: Als) -> np.ndarray:
    """Factors of the items by Spark's own alternating least squares on implicit feedback, (V, R) float64; zeros for others."""
    from pyspark.ml.recommendation import ALS

    found = np.zeros((size, given.factors))
    rows = taken.select(F.hash("user_id").alias("user"), "place", F.col("times").cast("float").alias("times"))
    if size == 0 or rows.isEmpty():
        return found
    fit_ = ALS(
        rank=given.factors, maxIter=given.iterations, regParam=given.regularisation, alpha=given.confidence,
        implicitPrefs=True, userCol="user", itemCol="place", ratingCol="times", seed=_SEED, checkpointInterval=-1,
    ).fit(rows)  # fmt: skip
    learnt = fit_.itemFactors.toArrow()
    found[learnt["id"].to_numpy()] = np.array(learnt["features"].to_pylist(), dtype=np.float64).reshape(-1, given.factors)
    return found
