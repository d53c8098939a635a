"""The moments that a judgement asks about: a day's, a hold-out's, each user's last."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.evaluate import moments
from jobs.lake.context import Context


@dataclass(frozen=True, kw_only=True)
class Exam:
    """Moments to be asked about (`rows`, see `moments`), and the target events that baselines may be fitted on."""

    rows: DataFrame
    fitted_on: DataFrame


def is_target(context: Context) -> Column:
    return F.col("event_type").isin(*context.mapping.target_events) & F.col("item_id").isNotNull()


def day_exam(context: Context) -> Exam:
    """The target events that arrived on the last day; known is what arrived before."""
    asks, earlier = is_target(context), context.earlier("events")
    arrived = context.arrivals("events").where(F.col("day") == F.lit(context.days.last))
    users = arrived.where(asks).select("user_id").distinct()
    if context.bootstrap:
        known = _newest_rows(context, earlier.join(users, on="user_id", how="left_semi"))
    else:
        known = moments.sequence_rows(context.before("user_sequences").join(users, on="user_id", how="left_semi"))
    told = moments.new_rows(arrived.join(users, on="user_id", how="left_semi"), F.when(asks, F.lit(0)))
    return Exam(rows=moments.together(known, told), fitted_on=earlier.where(asks))


def holdout_exam(context: Context, cut: date, until: date | None = None) -> Exam:
    """All target events that arrived from the cut on, each with all that came before it, the held out included.

    `until`: as if nothing had arrived from that day on.
    """
    events = context.history("events")
    if until is not None:
        events = events.where(F.col("day") < F.lit(until))
    return later_exam(context, events, cut, F.lit(0))


def later_exam(context: Context, events: DataFrame, cut: date, row: Column) -> Exam:
    """The same of given events; `row` names the moment of each."""
    asks, is_later = is_target(context), F.col("day") >= F.lit(cut)
    users = events.where(is_later & asks).select("user_id").distinct()
    theirs = events.join(users, on="user_id", how="left_semi")
    known = _newest_rows(context, theirs.where(~is_later))
    told = moments.new_rows(theirs.where(is_later), F.when(asks, row))
    return Exam(rows=moments.together(known, told), fitted_on=events.where(asks & ~is_later))


def last_events_exam(context: Context, before_last: int = 0) -> Exam:
    """Each user's last target event; known is what is before it in the user's order.

    `before_last`: the one so many before it, as if nothing came after.
    """
    by_user = Window.partitionBy("user_id")
    at, events = F.struct("event_timestamp", "event_id"), context.history("events")
    for _ in range(before_last):
        last = F.max(F.when(is_target(context), at)).over(by_user)
        events = events.withColumn("_last", last).where(at < F.col("_last")).drop("_last")
    marked = events.withColumn("_last", F.max(F.when(is_target(context), at)).over(by_user))
    asks = (F.col("_last.event_id") == F.col("event_id")) & (F.col("_last.event_timestamp") == F.col("event_timestamp"))
    known = _newest_rows(context, marked.where(F.col("event_timestamp") < F.col("_last.event_timestamp")))
    told = moments.new_rows(marked.where(asks), F.lit(0))
    return Exam(rows=moments.together(known, told), fitted_on=marked.where(is_target(context) & ~asks))


def _newest_rows(context: Context, events: DataFrame) -> DataFrame:
    mapping = context.mapping
    return moments.newest_rows(events, context.settings.sequences.length, mapping.target_events, mapping.repeats)
