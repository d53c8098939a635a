"""For planners: trips between regions, stays in them, and what people turn to there; never of few people.

All three are made of the events of a trailing window, per part of the week and for all together
(`any`). Groups of fewer than `planning_min_users` distinct users are left out.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf.settings import Spatial
from jobs.spatial.sphere import EARTH_RADIUS_M
from jobs.spatial.windows import by_slot

_SECONDS_AN_HOUR = 3600


def region_flows(events: DataFrame, settings: Spatial) -> DataFrame:
    """`region_flows` of each `snapshot_day`: trips by region of origin and destination, and slot of the departure.

    A trip is two consecutive events of a user at most `planning_max_gap_hours` apart, in two
    regions, or `place_radius_m` apart or more: what is done at one place is no trip.

    Args:
        events: snapshot_day, user_id, event_id, event_timestamp, region, slot, latitude, longitude.
    """
    moved = (F.col("region") != F.col("next_region")) | (_distance_m() >= settings.place_radius_m)
    trips = _followed(events, settings).where(F.col("next_region").isNotNull() & moved)
    return _of_groups(
        trips.withColumnsRenamed({"region": "origin", "next_region": "destination"}),
        ("origin", "destination"),
        settings,
        F.count(F.lit(1)).alias("trips"),
        F.median("seconds").alias("median_duration_s"),
        F.median(_distance_m()).alias("median_distance_m"),
    )


def region_stays(events: DataFrame, settings: Spatial) -> DataFrame:
    """`region_stays` of each `snapshot_day`: how long people are active in a region, by the slot in which that begins.

    A stay is a run of a user's consecutive events in one region, none more than
    `planning_max_gap_hours` after the one before; its duration reaches from the first to the last.
    Of a single event the duration is not known.
    """
    in_time = Window.partitionBy("snapshot_day", "user_id").orderBy("event_timestamp", "event_id")
    goes_on = F.lag(F.col("next_region") == F.col("region")).over(in_time)
    upto = in_time.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    numbered = _followed(events, settings).withColumn("stay", F.sum(F.when(goes_on, 0).otherwise(1)).over(upto))
    stays = numbered.groupBy("snapshot_day", "user_id", "stay").agg(
        F.min_by("region", F.struct("event_timestamp", "event_id")).alias("region"),
        F.min_by("slot", F.struct("event_timestamp", "event_id")).alias("slot"),
        F.count(F.lit(1)).alias("events"),
        (F.unix_micros(F.max("event_timestamp")) - F.unix_micros(F.min("event_timestamp"))).alias("micros"),
    )
    known = F.when(F.col("events") > 1, F.col("micros") / F.lit(1e6))
    return _of_groups(
        stays, ("region",), settings, F.count(F.lit(1)).alias("stays"), F.median(known).alias("median_duration_s")
    )


def region_interests(events: DataFrame, settings: Spatial) -> DataFrame:
    """`region_interests` of each `snapshot_day`: events and users by region, slot and category, and the category's share.

    The share is that of all events of the region and slot with a category, those of groups left out included.
    """
    here = Window.partitionBy("snapshot_day", "region", "slot")
    known = by_slot(events.where(F.col("region").isNotNull() & F.col("category").isNotNull()))
    counts = known.groupBy("snapshot_day", "region", "category", "slot").agg(
        F.count(F.lit(1)).alias("events"), F.count_distinct("user_id").alias("users")
    )
    shares = counts.withColumn("share", F.col("events") / F.sum("events").over(here))
    return shares.where(F.col("users") >= settings.planning_min_users).withColumn("day", F.col("snapshot_day"))


def _followed(events: DataFrame, settings: Spatial) -> DataFrame:
    """Events in a region, each with the user's next one, where that is near enough in time (else null)."""
    in_time = Window.partitionBy("snapshot_day", "user_id").orderBy("event_timestamp", "event_id")
    nexts = {name: F.lead(name).over(in_time) for name in ("region", "latitude", "longitude", "event_timestamp")}
    followed = events.where(F.col("region").isNotNull()).withColumns({f"next_{name}": one for name, one in nexts.items()})
    seconds = (F.unix_micros("next_event_timestamp") - F.unix_micros("event_timestamp")) / F.lit(1e6)
    is_near = seconds <= settings.planning_max_gap_hours * _SECONDS_AN_HOUR
    return followed.withColumn("seconds", seconds).withColumn("next_region", F.when(is_near, F.col("next_region")))


def _distance_m() -> Column:
    """Great-circle distance to the next event, by the haversine formula; null where a position is not known."""
    north, east = F.radians(F.col("next_latitude") - F.col("latitude")), F.radians(F.col("next_longitude") - F.col("longitude"))
    both = F.cos(F.radians("latitude")) * F.cos(F.radians("next_latitude"))
    half = F.pow(F.sin(north / 2), 2) + both * F.pow(F.sin(east / 2), 2)
    # Not `least`, which would take 1 for what is not known.
    return 2 * EARTH_RADIUS_M * F.asin(F.sqrt(F.when(half > 1, F.lit(1.0)).otherwise(half)))


def _of_groups(rows: DataFrame, by: tuple[str, ...], settings: Spatial, *measures: Column) -> DataFrame:
    grouped = by_slot(rows).groupBy(F.col("snapshot_day").alias("day"), *by, "slot")
    counted = grouped.agg(F.count_distinct("user_id").alias("users"), *measures)
    return counted.where(F.col("users") >= settings.planning_min_users)
