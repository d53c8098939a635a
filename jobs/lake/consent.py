"""What users allow, and what of their events may be used for it.

An event may be used for a purpose on a day when its user allows the purpose as of that day, and has
allowed it without a break since the event arrived: who withdraws and allows again begins anew.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf.contracts import Table
from jobs.lake.schema import spark_schema

CONSENTS = "consents"
LOCATION = "location"
# What says where an event was, in events and in sequences.
WHERE = ("latitude", "longitude", "cell", "region", "time_zone", "position_source", "position_precision_m")
# Stands in no pseudonym.
_MARK = "#"


def since(purposes: Sequence[str], notice_versions: Sequence[str]) -> Column:
    """Of a row of `consents`: the day since which all purposes are allowed without a break; null where one is not.

    `notice_versions`: those under which a consent counts; none: any.
    """
    days = [F.try_element_at(F.col("since"), F.lit(purpose)) for purpose in purposes]
    counts = F.coalesce(F.col("notice_version").isin(*notice_versions), F.lit(False)) if notice_versions else F.lit(True)
    for day in days:
        counts = counts & day.isNotNull()
    return F.when(counts, F.greatest(*days) if len(days) > 1 else days[0])


def allowed_now(consents: DataFrame, purposes: Sequence[str], notice_versions: Sequence[str]) -> DataFrame:
    """Who allows the purposes: `user_id, allowed_from, allowed_until` (null), from the state of `consents`."""
    known = consents.select("user_id", since(purposes, notice_versions).alias("allowed_from"))
    return known.where(F.col("allowed_from").isNotNull()).withColumn("allowed_until", F.lit(None).cast("date"))


def allowed_spans(changes: DataFrame, purposes: Sequence[str], notice_versions: Sequence[str]) -> DataFrame:
    """Who allowed the purposes when: `user_id, allowed_from, allowed_until` (excluded; null: to this day).

    `changes`: rows of `consents` for every day on which a user's changed.
    """
    by_user = Window.partitionBy("user_id").orderBy("day")
    days = changes.select("user_id", "day", since(purposes, notice_versions).alias("allowed_from"))
    followed = days.withColumns(
        {"allowed_until": F.lead("day").over(by_user), "_next_from": F.lead("allowed_from").over(by_user)}
    )
    ends = F.col("allowed_until").isNull() | ~F.col("_next_from").eqNullSafe(F.col("allowed_from"))
    return followed.where(F.col("allowed_from").isNotNull() & ends).select("user_id", "allowed_from", "allowed_until")


def usable(rows: DataFrame, spans: DataFrame, day: str = "day") -> DataFrame:
    """The rows that arrived (`day`) within a span of their user, with `allowed_from` and `allowed_until` of it."""
    held = spans.withColumnRenamed("user_id", "_user")
    within = (F.col(day) >= F.col("allowed_from")) & (F.col("allowed_until").isNull() | (F.col(day) < F.col("allowed_until")))
    return rows.join(held, on=(F.col("user_id") == F.col("_user")) & within, how="inner").drop("_user")


def without_withdrawn_places(rows: DataFrame, located: DataFrame) -> DataFrame:
    """Events (with `day`) whose user no longer allows their location, or only again, without it. `located`: `allowed_now`."""
    known = located.select("user_id", F.col("allowed_from").alias("_located_from"))
    is_allowed = F.coalesce(F.col("day") >= F.col("_located_from"), F.lit(False))
    hidden = {name: F.when(is_allowed, F.col(name)) for name in WHERE if name in rows.columns}
    return rows.join(known, on="user_id", how="left").withColumns(hidden).drop("_located_from")


def usable_sequences(sequences: DataFrame, allowed: DataFrame | None, located: DataFrame) -> DataFrame:
    """`user_sequences` with the events that may be used, those with a place that may not without it.

    allowed, located: `allowed_now` for the step's purposes (None: it has none) and for location.
    """
    columns = sequences.columns
    if allowed is not None:
        sequences = sequences.join(allowed.select("user_id", "allowed_from"), on="user_id", how="inner")
        own = F.filter("events", lambda event: event["arrived_on"] >= F.col("allowed_from"))
        sequences = sequences.withColumn("events", own).where(F.size("events") > 0)
    known = located.select("user_id", F.col("allowed_from").alias("_located_from"))
    joined = sequences.join(known, on="user_id", how="left")
    fields = [field.name for field in joined.schema["events"].dataType.elementType]  # type: ignore[attr-defined]

    def shown(event: Column) -> Column:
        is_allowed = F.coalesce(event["arrived_on"] >= F.col("_located_from"), F.lit(False))
        return F.struct(*[(F.when(is_allowed, event[name]) if name in WHERE else event[name]).alias(name) for name in fields])

    return joined.withColumn("events", F.transform("events", shown)).select(*columns)


def apart(events: DataFrame, spans: DataFrame) -> DataFrame:
    """The events that may be used, under one user id per span: what is folded per user then begins anew with each."""
    found = usable(events, spans).select(*events.columns, "allowed_from")
    return found.withColumn("user_id", _in_span(F.col("user_id"))).drop("allowed_from")


def together(rows: DataFrame) -> DataFrame:
    """`rows` under the users' own ids again."""
    return rows.withColumn("user_id", F.substring_index("user_id", _MARK, 1))


def withdrawn(rows: DataFrame, spans: DataFrame) -> DataFrame:
    """`user_id, day`: users whom a withdrawal leaves without state. `rows`: state rows of many days under ids of `apart`."""
    last = rows.groupBy("user_id").agg(F.max(F.struct("day", (~F.col("gone")).alias("is_there"))).alias("last"))
    ended = spans.where(F.col("allowed_until").isNotNull())
    ended = ended.select(_in_span(F.col("user_id")).alias("user_id"), F.col("allowed_until").alias("day"))
    return together(ended.join(last.where("last.is_there").select("user_id"), on="user_id", how="left_semi"))


def gone(owners: DataFrame, contract: Table) -> DataFrame:
    """The rows that say that these users (`user_id, day`) have no state any more; they hold nothing else of them."""
    given = {"user_id": F.col("user_id"), "gone": F.lit(True), "changed_on": F.col("day"), "day": F.col("day")}
    given |= {name: F.expr(value) for name, value in contract.nothing.items()}
    columns = []
    for field in spark_schema(contract):
        value = given.get(field.name, F.lit(None) if field.nullable else _empty(field.dataType.simpleString()))
        columns.append(value.cast(field.dataType).alias(field.name))
    return owners.select(*columns)


def _in_span(user_id: Column) -> Column:
    return F.concat(user_id, F.lit(_MARK), F.col("allowed_from").cast("string"))


def _empty(kind: str) -> Column:
    if kind == "date":
        return F.col("day")
    if kind.startswith(("array", "map")):
        return F.expr(f"cast({kind.partition('<')[0]}() AS {kind})")
    return F.lit("") if kind == "string" else F.lit(0)
