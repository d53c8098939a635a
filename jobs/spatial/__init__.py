"""Where: users' places and mobility, items' positions, counts per cell, and hotspots."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.lake.context import Context, Skipped
from jobs.sequences import events_by_user
from jobs.spatial.cells import cell_daily
from jobs.spatial.hotspots import hotspots
from jobs.spatial.positions import item_positions
from jobs.spatial.stays import stays, user_mobility, user_places
from jobs.spatial.windows import in_windows, snapshot_days


def run(context: Context) -> None:
    """Write user_places, user_mobility, item_positions, cell_daily and, weekly, hotspots."""
    if not context.mapping.has_places:
        raise Skipped("the log has no places (its mapping names neither coordinates nor a gazetteer)")
    if not context.mapping.has_times:
        context.note(left_out="roles and slots of places, hotspots by slot: the log has no times")
    events = context.arrivals("events")
    settings = context.settings.spatial
    length = context.settings.sequences.length
    # Kept, as two tables are made of it and keyframes read them again.
    dwelt = stays(events_by_user(context), context.days, length, settings.place_radius_m, settings.place_min_visits).persist()
    context.write("user_places", user_places(dwelt))
    context.write("user_mobility", user_mobility(dwelt))
    is_placed = F.col("item_id").isNotNull() & F.col("latitude").isNotNull() & F.col("longitude").isNotNull()
    # What was filled in from an item's position says nothing of it.
    is_own = ~F.col("position_source").eqNullSafe("item")
    context.write("item_positions", item_positions(events.where(is_placed & is_own), context.before("item_positions")))
    context.write("cell_daily", cell_daily(events))
    context.write("hotspots", _hotspots(context))


def _hotspots(context: Context) -> DataFrame:
    settings = context.settings.spatial
    snapshots = snapshot_days(context.days, context.first_day)
    if not snapshots:
        return context.lake.read("hotspots", None)
    reach = (context.days.last - snapshots[0]).days + settings.hotspot_window_days
    events = context.events_until_withdrawn(reach).select("day", "cell", "region", "slot", "user_id", "allowed_until")
    return hotspots(in_windows(events, snapshots, settings.hotspot_window_days), settings)
