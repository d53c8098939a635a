"""What holds at some time and place, day by day: holidays, weather, events in town, as their feed told them."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.mapping import CONTEXT_COLUMNS, Feed, Surroundings
from jobs.clean.times import event_timestamp
from jobs.clean.wording import single_spaced
from jobs.ingest.attributes import changes_of

CONTEXT = "context"
# An event's cell has resolution 9: what holds in a finer one would hold for no event.
_CELL = "^8[0-9][0-9a-f]{13}$"


def told(rows: DataFrame, feed: Feed) -> DataFrame:
    """The feed's rows, parsed: context_id, name, value, valid_from, valid_until, cell, region, day; `reason` of those refused.

    `context_id` is made of name, start and place: a row that differs in value or end is a change of what was told.
    A row without a value, where the feed has values, takes that back (`is_told` false).
    """
    assert isinstance(feed, Surroundings)
    text = {name: single_spaced(F.col(name)) if name in rows.columns else F.lit(None) for name in CONTEXT_COLUMNS}
    begin = event_timestamp(text["valid_from"], feed)
    end = F.coalesce(
        event_timestamp(text["valid_until"], feed),
        F.timestamp_micros(F.unix_micros(begin) + F.lit(round(feed.lasts_hours * 3_600_000_000))),
    )
    parsed = rows.select(
        text["name"].cast("string").alias("name"),
        text["value"].cast("string").alias("value"),
        begin.alias("valid_from"),
        end.alias("valid_until"),
        F.lower(text["cell"]).alias("cell"),
        text["region"].cast("string").alias("region"),
        (text["value"].isNotNull() if "value" in rows.columns else F.lit(True)).alias("is_told"),
        _reason(text, begin, event_timestamp(text["valid_until"], feed)).alias("reason"),
        "broken",
        "day",
    )
    key = [F.coalesce(F.col(name).cast("string"), F.lit("")) for name in ("name", "valid_from", "cell", "region")]
    reason = F.when(F.col("broken").isNotNull(), F.lit("broken")).otherwise(F.col("reason"))
    known = parsed.withColumn("reason", reason).drop("broken")
    return known.withColumn("context_id", F.substring(F.sha2(F.concat_ws("\x1f", *key), 256), 1, 32))


def refused(rows: DataFrame) -> dict[str, int]:
    """How many rows of a feed were refused, by `reason`."""
    counted = rows.where(F.col("reason").isNotNull()).groupBy("reason").count()
    return {row["reason"]: row["count"] for row in counted.orderBy("reason").collect()}


def context_by_day(rows: DataFrame, before: DataFrame) -> DataFrame:
    """`context` at the end of each day on which something in it changed.

    Of several rows of a day that tell the same the greatest by end and value holds; one that takes
    it back holds where no other does.

    Args:
        rows: `told`; the refused are left out.
        before: the state that this starts from.
    """
    fields = ("is_told", "valid_until", "value")
    names = ("context_id", "name", "valid_from", "cell", "region")
    good = rows.where(F.col("reason").isNull())
    days = good.groupBy(*names, "day").agg(F.max(F.struct(*fields)).alias("known"))
    old = before.select("context_id", F.struct(F.lit(True).alias("is_told"), "valid_until", "value").alias("old"))
    changes = changes_of(days.join(old, on="context_id", how="left"), "context_id", "known")
    # What was never told cannot be taken back.
    meant = changes.where(F.col("known.is_told") | F.col("_previous").isNotNull())
    return meant.select(
        "context_id",
        "name",
        F.col("known.value").alias("value"),
        F.col("known.value").try_cast("double").alias("number"),
        "valid_from",
        F.col("known.valid_until").alias("valid_until"),
        "cell",
        "region",
        (~F.col("known.is_told")).alias("gone"),
        F.col("day").alias("changed_on"),
        "day",
    )


def _reason(text: dict[str, Column], begin: Column, until: Column) -> Column:
    """Why a row cannot be understood; null where it can."""
    return (
        F.when(text["name"].isNull(), F.lit("no_name"))
        .when(text["valid_from"].isNull(), F.lit("no_time"))
        .when(begin.isNull() | (text["valid_until"].isNotNull() & until.isNull()), F.lit("bad_time"))
        .when(until <= begin, F.lit("ends_before_it_begins"))
        .when(text["cell"].isNotNull() & ~F.lower(text["cell"]).rlike(_CELL), F.lit("bad_cell"))
    )
