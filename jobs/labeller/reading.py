"""What the labeller reads: the log's clock, a bounded past to learn from, and the interests of the newest day."""

from __future__ import annotations

from datetime import date, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.labeller.moments import READ, moments, past
from jobs.lake.context import Context
from jobs.lake.store import Days, keyframe_before, newest
from models.labeller import Past
from models.lasting import Clock

_LABELS, _INTERESTS = "event_labels", "user_interests"
_PARTS = 1_000_000  # by which users are sampled


def number(day: date) -> int:
    """Days since 1970."""
    return (day - date(1970, 1, 1)).days


def clock(context: Context) -> Clock | None:
    """By how many labelled events arrived on each day before the last; None where none did. No Spark job."""
    arrived = context.rows_by_day(_LABELS, _before(context))
    return Clock.of({number(day): rows for day, rows in arrived.items()}) if arrived else None


def lessons(context: Context, by: Clock) -> Past:
    """All moments before the last day of the users who may teach, or of a sample of these that holds about `max_moments`."""
    days = _before(context)
    rows = context.stored(_INTERESTS, days).where("NOT gone AND changed_on = day")
    if (allowed := context.allowing("labels", "training")) is not None:
        # What was made of any event before the consent must not teach: the user's first is the earliest that counts.
        rows = rows.join(allowed.select("user_id", "allowed_from"), on="user_id", how="inner")
        rows = rows.where(F.date_sub("day", F.col("known_days")) >= F.col("allowed_from"))
    sampled = rows.select(*READ).where(F.pmod(F.xxhash64("user_id", F.lit("taught")), F.lit(_PARTS)) < _share(context, rows))
    found = moments(sampled).withColumn("user", F.xxhash64("user_id")).drop("user_id", "label").toArrow()
    return past(found, by, until=number(context.days.last))


def _share(context: Context, rows: DataFrame) -> int:
    """How many of `_PARTS`. Events are at least as many as moments, and counted by themselves."""
    most = context.settings.labeller.max_moments
    if sum(context.rows_by_day(_LABELS, _before(context)).values()) <= most:
        return _PARTS
    return min(_PARTS, int(_PARTS * most / max(rows.where("last_on = day").count(), 1)))


def of_day(context: Context) -> DataFrame:
    """The moments of the last day, as `jobs.labeller.moments.moments` has them."""
    day, eve = context.days.last, context.days.last - timedelta(days=1)
    rows = context.stored(_INTERESTS, Days(first=keyframe_before(eve, context.first_day), last=day))
    is_today = F.col("day") == F.lit(day)
    today = rows.where(is_today & (F.col("changed_on") == F.col("day")) & ~F.col("gone"))
    active = today.select("user_id").distinct()
    before = newest(rows.where(~is_today).join(active, on="user_id", how="left_semi"), ("user_id",))
    known = before.withColumn("day", F.col("changed_on")).select(*READ).unionByName(today.select(*READ))
    return moments(known).where(F.col("n") == number(day))


def _before(context: Context) -> Days:
    return Days(first=context.first_day, last=context.days.last - timedelta(days=1))
