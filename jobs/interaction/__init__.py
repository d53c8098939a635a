"""When and where together: categories by part of the week, and what follows on what."""

from __future__ import annotations

from pyspark.sql import functions as F

from jobs.interaction.affinity import slot_weights, user_slot_affinity
from jobs.interaction.lift import region_slot_lift
from jobs.interaction.transitions import CATEGORY, ITEM, REGION, followed, transitions
from jobs.label import event_weight
from jobs.lake.context import Context, Skipped
from jobs.sequences import events_by_user
from jobs.spatial.windows import in_windows, snapshot_days


def run(context: Context) -> None:
    """Write user_slot_affinity, transitions and, weekly, region_slot_lift."""
    if not context.mapping.has_times:
        raise Skipped("the log has no times, so nothing happened in any part of the week")
    settings = context.settings.interaction
    # A share of what a user wants: what counts against a category is no part of it.
    weight = F.greatest(event_weight(F.col("event_type"), context.settings.label), F.lit(0.0))
    gained = slot_weights(context.arrivals("events").withColumn("weight", weight), settings.half_life_days)
    affinity = user_slot_affinity(
        gained, context.before("user_slot_affinity"), context.days, (settings.half_life_days, settings.shrinkage)
    )
    # Kept, as a keyframe reads the rows twice.
    context.write("user_slot_affinity", affinity.persist())
    pairs = followed(
        events_by_user(context).withColumn("is_target", F.col("event_type").isin(*context.mapping.target_events)),
        context.days,
        length=context.settings.sequences.length,
        longest_gap_hours=settings.transition_max_gap_hours,
    )
    has_places = context.mapping.has_places
    # Where events have places, items are what they take place at.
    context.write("transitions", transitions(pairs, (CATEGORY, REGION, ITEM) if has_places else (CATEGORY,)))
    if has_places:
        _write_lift(context)
    else:
        context.note(left_out="region_slot_lift, transitions between regions and between places: the log has no places")


def _write_lift(context: Context) -> None:
    settings = context.settings.interaction
    snapshots = snapshot_days(context.days, context.first_day)
    if not snapshots:
        context.clear("region_slot_lift")
        return
    reach = (context.days.last - snapshots[0]).days + settings.lift_window_days
    cells = context.history("cell_daily", lookback_days=reach)
    context.write(
        "region_slot_lift", region_slot_lift(in_windows(cells, snapshots, settings.lift_window_days), settings.shrinkage)
    )
