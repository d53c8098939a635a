"""Where: users' places and mobility, items' positions, counts per cell, and hotspots."""

from __future__ import annotations

from functools import partial

from pyspark.sql import functions as F

from conf.tables import TABLES
from jobs.lake.context import Context, Skipped
from jobs.sequences import events_by_user
from jobs.spatial.areas import hotspot_areas
from jobs.spatial.cells import cell_daily
from jobs.spatial.hotspots import hotspots
from jobs.spatial.planning import region_flows, region_interests, region_stays
from jobs.spatial.positions import item_positions
from jobs.spatial.presence import Habits
from jobs.spatial.stays import Dwelling, stays, user_mobility, user_places, user_slot_places
from jobs.spatial.trends import TREND_WEEKS, WEEK_DAYS, hotspot_trends
from jobs.spatial.windows import in_windows, snapshot_days

_SNAPSHOT_COLUMNS = (
    "day", "event_id", "event_timestamp", "user_id", "category", "cell", "region", "slot", "latitude", "longitude",
    "allowed_until",
)  # fmt: skip


def run(context: Context) -> None:
    """Write users' places, presence and mobility, items' positions, counts per cell, and what is made weekly."""
    if not context.mapping.has_places:
        raise Skipped("the log has no places (its mapping names neither coordinates nor a gazetteer)")
    if not context.mapping.has_times:
        context.note(left_out="roles and slots of places, hotspots by slot, flows and stays: the log has no times")
    events = context.arrivals("events")
    settings = context.settings.spatial
    length = context.settings.sequences.length
    habits = Habits(
        half_life_days=settings.habit_half_life_days, shrinkage=settings.habit_shrinkage, elsewhere=settings.habit_elsewhere
    )
    dwelling = Dwelling(radius_m=settings.place_radius_m, min_visits=settings.place_min_visits, habits=habits)
    # Kept, as three tables are made of it and keyframes read them again.
    dwelt = stays(events_by_user(context), context.days, length, dwelling).persist()
    context.write("user_places", user_places(dwelt))
    context.write("user_slot_places", user_slot_places(dwelt))
    context.write("user_mobility", user_mobility(dwelt))
    is_placed = F.col("item_id").isNotNull() & F.col("latitude").isNotNull() & F.col("longitude").isNotNull()
    # What was filled in from an item's position says nothing of it.
    is_own = ~F.col("position_source").eqNullSafe("item")
    context.write("item_positions", item_positions(events.where(is_placed & is_own), context.before("item_positions")))
    context.write("cell_daily", cell_daily(events))
    _write_snapshots(context)


def _write_snapshots(context: Context) -> None:
    """What is made weekly, each of the events of its own trailing window; nothing on other days."""
    settings = context.settings.spatial
    snapshots = snapshot_days(context.days, context.first_day)
    for name, window_days, made in (
        ("hotspots", settings.hotspot_window_days, hotspots),
        ("hotspot_trends", TREND_WEEKS * WEEK_DAYS, partial(hotspot_trends, context.first_day)),
        ("hotspot_areas", settings.hotspot_window_days, hotspot_areas),
        ("region_flows", settings.planning_window_days, region_flows),
        ("region_stays", settings.planning_window_days, region_stays),
        ("region_interests", settings.planning_window_days, region_interests),
    ):
        if not snapshots or (made in (region_flows, region_stays) and not context.mapping.has_times):
            context.clear(name)
            continue
        reach = (context.days.last - snapshots[0]).days + window_days
        events = context.events_until_withdrawn(reach).select(*_SNAPSHOT_COLUMNS).withColumn("arrived_on", F.col("day"))
        rows = made(events=in_windows(events, snapshots, window_days), settings=settings)
        context.write(name, rows.select(*TABLES[name].names))
