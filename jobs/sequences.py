"""Keeps each user's last events in order."""

from __future__ import annotations

from datetime import date

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf.contracts import Table
from conf.tables import TABLES
from jobs.lake.context import Context
from jobs.lake.schema import parse_type

SEQUENCES = "user_sequences"


def event_columns(contract: Table = TABLES[SEQUENCES]) -> tuple[str, ...]:
    """The names of the fields of an event in a sequence, in the contract's order.

    >>> event_columns()[0], event_columns()[-1]
    ('event_id', 'arrived_on')
    """
    return tuple(field["name"] for field in parse_type(contract.column("events").type)["elementType"]["fields"])


def run(context: Context) -> None:
    mapping = context.mapping
    targets = () if mapping.repeats else mapping.target_events
    keep_from = context._kept_from(TABLES[SEQUENCES].keep_keyframes or 1)
    arrived = context.arrivals("events").withColumn("arrived_on", F.col("day"))
    rows = sequences(
        arrived, context.before(SEQUENCES), length=context.settings.sequences.length, keep_from=keep_from, targets=targets
    )
    context.write(SEQUENCES, rows)


def sequences(arrived: DataFrame, before: DataFrame, *, length: int, keep_from: date, targets: tuple[str, ...]) -> DataFrame:
    """Each user's state at the end of every day with arrivals: the last `length` events of all known so far.

    Days before `keep_from` are thrown away by the keyframes, so of these only each user's last
    one is made. `targets`: the event types whose items are kept in `seen`; none: `seen` is null.
    """
    bucket = F.when(F.col("day") >= F.lit(keep_from), F.col("day")).otherwise(F.lit("0001-01-01").cast("date"))
    shared = arrived.withColumn("_bucket", bucket).repartition("user_id")
    by_bucket = Window.partitionBy("user_id", "_bucket")
    newest_first = by_bucket.orderBy(F.desc("event_timestamp"), F.desc("event_id"))
    # Of one day, and of all thrown-away days together, no more than the last `length` can stay.
    ranked = shared.withColumns(
        {
            "_age": F.row_number().over(newest_first),
            "_as_of": F.max("day").over(by_bucket),
            "_count": F.count("*").over(by_bucket),
        }
    ).where(F.col("_age") <= length)
    event = F.struct("event_timestamp", *[name for name in event_columns() if name != "event_timestamp"])
    users = ranked.groupBy("user_id").agg(
        F.collect_list(event).alias("arrived"),
        F.collect_set(F.struct(F.col("_as_of").alias("day"), F.col("_count").alias("count"))).alias("days"),
    )
    if targets:
        taken = shared.where(F.col("event_type").isin(*targets) & F.col("item_id").isNotNull())
        items = taken.groupBy("user_id").agg(F.collect_set(F.struct("item_id", "day")).alias("taken"))
        users = users.join(items, on="user_id", how="left")
    return _by_day(users.join(before.drop("changed_on"), on="user_id", how="left"), length, bool(targets))


def _by_day(users: DataFrame, length: int, with_seen: bool) -> DataFrame:
    """users: user_id, `arrived` and `days` of the run, `taken`, and the state before (events, seen, events_total)."""
    order = ["event_timestamp", *[name for name in event_columns() if name != "event_timestamp"]]
    old = F.transform("events", lambda event: F.struct(*[event[name].alias(name) for name in order]))
    known = F.sort_array(F.concat(F.coalesce(old, F.array()), F.col("arrived")))
    days = users.withColumn("known", known).withColumn("_day", F.explode("days.day"))
    own = F.filter("known", lambda event: event["arrived_on"] <= F.col("_day"))
    last = F.slice(own, F.greatest(F.lit(1), F.size(own) - F.lit(length - 1)), length)
    counts = F.transform(F.filter("days", lambda day: day["day"] <= F.col("_day")), lambda day: day["count"])
    total = F.aggregate(counts, F.coalesce("events_total", F.lit(0).cast("bigint")), lambda sum_, count: sum_ + count)
    return days.select(
        "user_id",
        F.transform(last, lambda event: F.struct(*[event[name].alias(name) for name in event_columns()])).alias("events"),
        (_seen() if with_seen else F.lit(None).cast("array<string>")).alias("seen"),
        total.alias("events_total"),
        F.lit(False).alias("gone"),
        F.col("_day").alias("changed_on"),
        F.col("_day").alias("day"),
    )


def _seen() -> Column:
    until = F.filter("taken", lambda item: item["day"] <= F.col("_day"))
    items = F.transform(until, lambda item: item["item_id"])
    empty = F.array().cast("array<string>")
    return F.array_sort(F.array_distinct(F.concat(F.coalesce("seen", empty), F.coalesce(items, empty))))


def events_by_user(context: Context) -> DataFrame:
    """What a fold over each active user's last events needs: those of the state before, and the arrivals.

    One row per event: user_id, the fields of an event in a sequence (with `arrived_on`), `cell`
    (null for events out of the state). The last N events as of the end of day d are the last N by
    (event_timestamp, event_id) of the user's rows with `arrived_on` <= d. Only users with arrivals.
    """
    names = event_columns()
    arrived = context.arrivals("events").withColumn("arrived_on", F.col("day")).select("user_id", *names, "cell")
    before = context.before(SEQUENCES)
    active = arrived.select("user_id").distinct()
    old = before.join(active, on="user_id", how="left_semi").select("user_id", F.explode("events").alias("event"))
    flat = old.select(
        "user_id", *[F.col(f"event.{name}").alias(name) for name in names], F.lit(None).cast("string").alias("cell")
    )
    return flat.unionByName(arrived)
