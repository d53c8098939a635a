"""feedback: what was done to entries of lists, matched to the entries as they were.

Nothing that comes back is believed because it says so: it counts if the user was given that list, at most so many days ago, and
the item stood at that rank of it; and once for each day on which it was done, however often it is told. What cannot be matched
is kept with the reason.
"""

from __future__ import annotations

from datetime import timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf.contracts import AGAINST, ANY_SLOT, IMPRESSION
from conf.mapping import Feedback
from conf.tables import TABLES
from jobs.clean.times import event_timestamp
from jobs.clean.wording import single_spaced
from jobs.lake.context import Context, Skipped
from jobs.lake.store import Days, keyframe_before

TABLE, RAW, LISTS = "feedback", "raw_feedback", "recommendations"
# Of what was understood, why no entry was found.
MISPLACED = ("too_old", "no_entry", "other_item", "other_version")
_OF_ENTRY = ("source", "model_version", "policy_version", "propensity", "policy_context")


def run(context: Context) -> None:
    feed = context.settings.feedback
    if feed is None:
        raise Skipped("the log maps no feedback: nothing tells how lists did")
    if not context.mapping.has_times:
        raise Skipped("the log has no times, so its lists are made once and nothing answers them")
    if context.bootstrap:
        raise Skipped("a history taken at once has no lists that anybody answered; what is stored of those that were stays")
    days, reach = context.settings.policy.answer_days, context.days.last
    told = parsed(context.arrivals(RAW), feed, [IMPRESSION, *AGAINST, *context.settings.policy.rewards])
    # A list of so many days ago may have been made at the keyframe before it.
    since = keyframe_before(max(context.first_day, context.days.first - timedelta(days=days)), context.first_day)
    lists = context.stored(LISTS, Days(first=since, last=max(since, reach - timedelta(days=1))))
    found = matched(told, lists, days)
    earlier = context.before(TABLE, lookback_days=days + 1).select("feedback_id")
    context.write(TABLE, once(found).join(earlier, on="feedback_id", how="left_anti"))
    _count(context)


def dismissed(context: Context, days: Days) -> DataFrame:
    """`user_id, item_id, day` of what users turned against in the days: the item counts, whatever entry they named."""
    told = context.over(days).arrivals(TABLE)
    is_understood = F.col("unmatched").isNull() | F.col("unmatched").isin(*MISPLACED)
    return told.where(F.col("event_type").isin(*AGAINST) & is_understood).select("user_id", "item_id", "day")


def earns(rewards: dict[str, float]) -> Column:
    """What something that was done to an entry is worth."""
    worth = F.create_map(*[part for name, value in rewards.items() for part in (F.lit(name), F.lit(value))])
    return F.coalesce(F.try_element_at(worth, F.col("event_type")), F.lit(0.0)) if rewards else F.lit(0.0)


def parsed(raw: DataFrame, feed: Feedback, known: list[str]) -> DataFrame:
    """Rows of `raw_feedback` as values; `unmatched` of those that say nothing that could be looked up."""
    written = single_spaced(F.col("event_type"))
    event_type = written
    for theirs, ours in feed.event_types.items():
        event_type = F.when(written == theirs, F.lit(ours)).otherwise(event_type)
    at, rank = event_timestamp(F.col("event_time"), feed), F.col("rank").try_cast("int")
    told_day = F.col("list_day").try_cast("date")
    # Beyond them no list was made, and not every reader has such dates.
    list_day = F.when(told_day.between(F.lit("1990-01-01").cast("date"), F.lit("9999-12-30").cast("date")), told_day)
    is_unreadable = at.isNull() | rank.isNull() | list_day.isNull() | F.col("user_id").isNull() | F.col("item_id").isNull()
    why = (
        F.when(F.col("broken").isNotNull(), "broken")
        .when(is_unreadable, "unreadable")
        .when(event_type.isNull() | ~event_type.isin(*known), "unknown_type")
        .when(F.to_date(at) > F.col("day"), "future")
        .when(F.to_date(at) < list_day, "before_its_list")
    )
    return raw.select(
        "row_hash",
        "user_id",
        event_type.alias("event_type"),
        at.alias("event_timestamp"),
        "item_id",
        list_day.alias("told_day"),
        F.coalesce(single_spaced(F.col("slot")), F.lit(ANY_SLOT)).alias("slot"),
        rank.alias("rank"),
        F.col("model_version").alias("told_version"),
        why.alias("unmatched"),
        "day",
    )


def matched(told: DataFrame, lists: DataFrame, answer_days: int) -> DataFrame:
    """`told` with the entry that stood there, or why there is none.

    lists: rows of `recommendations` as they are stored; a user's list of a day is the newest made up to it.
    """
    asked = told.where(F.col("unmatched").isNull()).select("user_id", "told_day").distinct()
    own = lists.join(asked.select("user_id").distinct(), on="user_id", how="left_semi")
    made = own.select("user_id", F.col("day").alias("made_on")).distinct()
    newest = (
        asked.join(made, on="user_id", how="inner")
        .where(F.col("made_on") <= F.col("told_day"))
        .groupBy("user_id", "told_day")
        .agg(F.max("made_on").alias("made_on"))
    )
    entries = own.where(~F.col("gone")).select(
        "user_id",
        "slot",
        "rank",
        F.col("day").alias("made_on"),
        F.col("changed_on").alias("list_day"),
        F.col("item_id").alias("listed_item"),
        *_OF_ENTRY,
    )
    joined = told.join(newest, on=["user_id", "told_day"], how="left").join(
        entries, on=["user_id", "made_on", "slot", "rank"], how="left"
    )
    too_old, no_entry, other_item, other_version = MISPLACED
    is_other = F.col("told_version").isNotNull() & (F.col("told_version") != F.col("model_version"))
    why = (
        F.when(F.col("unmatched").isNotNull(), F.col("unmatched"))
        .when(F.col("told_day") >= F.col("day"), "not_yet")  # the lists of a day are made when it is over
        .when(F.col("told_day") < F.date_sub("day", answer_days), too_old)
        .when(F.col("made_on").isNull() | F.col("listed_item").isNull(), no_entry)
        .when(F.col("listed_item") != F.col("item_id"), other_item)
        .when(is_other, other_version)
    )
    return _as_contract(joined.withColumn("why", why))


def _as_contract(joined: DataFrame) -> DataFrame:
    is_there = F.col("why").isNull()
    made = {
        "feedback_id": _id(F.when(is_there, F.col("list_day")).otherwise(F.col("told_day"))),
        "list_day": F.when(is_there, F.col("list_day")).otherwise(F.col("told_day")),
        "unmatched": F.col("why"),
        **{name: F.when(is_there, F.col(name)) for name in _OF_ENTRY},
    }
    columns = TABLES[TABLE].columns
    return joined.select(*[made.get(one.name, F.col(one.name)).cast(one.type).alias(one.name) for one in columns], "row_hash")


def _id(list_day: Column) -> Column:
    """Of one thing done to one entry on one day the same, however often it is told; of what cannot be read by its content."""
    of_entry = [list_day, F.to_date("event_timestamp"), *map(F.col, ("user_id", "slot", "rank", "item_id"))]
    said = [F.coalesce(one.cast("string"), F.lit("")) for one in of_entry]
    whole = F.concat_ws("\x1f", *said, F.coalesce("event_type", F.lit("")), F.coalesce("why", F.lit("")))
    is_nothing = F.col("why").isin("broken", "unreadable")
    return F.substring(F.sha2(F.when(is_nothing, F.col("row_hash")).otherwise(whole), 256), 1, 32)


def once(rows: DataFrame) -> DataFrame:
    """Of rows that tell the same the earliest."""
    first = Window.partitionBy("feedback_id").orderBy("day", F.col("event_timestamp").asc_nulls_last(), "row_hash")
    return rows.withColumn("_place", F.row_number().over(first)).where(F.col("_place") == 1).drop("_place", "row_hash")


def _count(context: Context) -> None:
    """How much came, and what became of it; what was told again is the difference."""
    arrived = sum(context.rows_by_day(RAW).values())
    kept = context.arrivals(TABLE).groupBy("unmatched").count().collect()
    by_reason = {row["unmatched"] or "matched": row["count"] for row in kept}
    repeated = arrived - sum(by_reason.values())
    context.rows_in = arrived
    kept_rows = arrived - repeated
    share = 1.0 - by_reason.get("matched", 0) / kept_rows if kept_rows else 0.0
    context.note(feedback={**by_reason, "told_again": repeated}, unmatched_share=round(share, 4))
    if share > 0:
        said = ", ".join(f"{reason} {count}" for reason, count in sorted(by_reason.items()) if reason != "matched")
        context.log.warning("feedback: %.1f%% could not be matched: %s", 100 * share, said)
