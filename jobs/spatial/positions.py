"""Where items are: the running mean of the positions of their events, and its spread.

Sums are kept in the frame (east, north, up) of an anchor, the item's first placed event, on the
unit sphere. So nothing jumps at 180 degrees, and neither many events nor few metres cost digits:
sums of the points themselves would leave only noise of a spread of metres.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.spatial.sphere import EARTH_RADIUS_M

_ANCHOR = ("anchor_latitude", "anchor_longitude")
_SUMS = ("sum_east", "sum_north", "sum_up")


def offsets(latitude: Column, longitude: Column, anchor_latitude: Column, anchor_longitude: Column) -> dict[str, Column]:
    """A point less the anchor, both on the unit sphere, in the anchor's frame; without cancellation."""
    point, anchor = F.radians(latitude), F.radians(anchor_latitude)
    east = F.radians(longitude - anchor_longitude)
    # 1 - cos, by the half angle.
    short_of_one = F.lit(2.0) * F.pow(F.sin(east / 2), F.lit(2.0))
    return {
        "sum_east": F.cos(point) * F.sin(east),
        "sum_north": F.sin(point - anchor) + F.sin(anchor) * F.cos(point) * short_of_one,
        "sum_up": F.lit(-2.0) * F.pow(F.sin((point - anchor) / 2), F.lit(2.0)) - F.cos(anchor) * F.cos(point) * short_of_one,
    }


def item_positions(placed: DataFrame, before: DataFrame) -> DataFrame:
    """`item_positions` of every day on which an item had a placed event.

    Args:
        placed: events with item and position: item_id, event_id, event_timestamp, latitude, longitude, day.
        before: item_positions before the first day.
    """
    known = before.select(
        "item_id", *_ANCHOR, F.col("events").alias("known_events"), *[F.col(name).alias(f"known_{name}") for name in _SUMS]
    )
    arrived = Window.partitionBy("item_id").orderBy("day", "event_timestamp", "event_id")
    anchored = placed.join(known, on="item_id", how="left").select(
        "item_id",
        "day",
        F.coalesce("anchor_latitude", F.first("latitude").over(arrived)).alias("anchor_latitude"),
        F.coalesce("anchor_longitude", F.first("longitude").over(arrived)).alias("anchor_longitude"),
        "latitude",
        "longitude",
        *[F.coalesce(f"known_{name}", F.lit(0.0)).alias(f"known_{name}") for name in _SUMS],
        F.coalesce("known_events", F.lit(0)).alias("known_events"),
    )
    offset = offsets(F.col("latitude"), F.col("longitude"), F.col("anchor_latitude"), F.col("anchor_longitude"))
    of_day = anchored.groupBy("item_id", "day").agg(
        *[F.first(name).alias(name) for name in (*_ANCHOR, "known_events", *[f"known_{name}" for name in _SUMS])],
        F.count(F.lit(1)).alias("events"),
        *[F.sum(offset[name]).alias(name) for name in _SUMS],
    )
    so_far = Window.partitionBy("item_id").orderBy("day").rowsBetween(Window.unboundedPreceding, Window.currentRow)
    folded = of_day.select(
        "item_id",
        "day",
        *_ANCHOR,
        *[(F.col(f"known_{name}") + F.sum(name).over(so_far)).alias(name) for name in ("events", *_SUMS)],
    )
    return _described(folded)


def _described(folded: DataFrame) -> DataFrame:
    """Mean and spread from the sums: the mean's frame is turned back from the anchor's."""
    anchor = F.radians("anchor_latitude")
    mean = folded.select(
        "*",
        (F.col("sum_east") / F.col("events")).alias("_e"),
        (F.col("sum_north") / F.col("events")).alias("_n"),
        (F.col("sum_up") / F.col("events")).alias("_u"),
    ).select(
        "*",
        ((1 + F.col("_u")) * F.cos(anchor) - F.col("_n") * F.sin(anchor)).alias("_x"),
        (F.col("_n") * F.cos(anchor) + (1 + F.col("_u")) * F.sin(anchor)).alias("_z"),
    )
    east_of_anchor = F.degrees(F.atan2("_e", "_x"))
    latitude = F.degrees(F.atan2(F.col("_z"), F.hypot("_e", "_x")))
    longitude = F.col("anchor_longitude") + east_of_anchor
    # 1 - |mean| without cancellation: -q = 1 - |mean|^2 is the mean square offset less the squared mean offset.
    q = F.col("_e") * F.col("_e") + F.col("_n") * F.col("_n") + F.col("_u") * F.col("_u") + 2 * F.col("_u")
    chord = F.sqrt(F.greatest(F.lit(0.0), -2 * q / (1 + F.sqrt(F.greatest(F.lit(0.0), 1 + q)))))
    return mean.select(
        "item_id",
        F.greatest(F.lit(-90.0), F.least(F.lit(90.0), latitude)).alias("latitude"),
        F.when(longitude > 180, longitude - 360)
        .when(longitude < -180, longitude + 360)
        .otherwise(longitude)
        .alias("longitude"),
        "events",
        (F.lit(2 * EARTH_RADIUS_M) * F.asin(F.least(F.lit(1.0), chord / 2))).alias("spread_m"),
        *_ANCHOR,
        *_SUMS,
        F.lit(False).alias("gone"),
        F.col("day").alias("changed_on"),
        "day",
    )
