"""Measures how far the day's events, the scores and the lists have moved from what they were.

Events are held against those of the same weekday in the weeks before (a Sunday has other hours and other categories
than a Monday, and nothing has drifted), by their category, type, slot, region and value; scores and lists against those
of the day before. What comes to the driver are counts by bin: bounded by the catalogue, the map and a grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import Row as SparkRow
from pyspark.sql import functions as F

from conf.tables import TABLES
from jobs.bounds import CHANGED_USERS, KL, LISTS_OF_NEW, NEW_ITEMS, PSI, judged
from jobs.drift import measures
from jobs.drift.measures import ABSENT, Pair
from jobs.lake.context import Context
from jobs.lake.publications import in_force
from jobs.lake.schema import spark_schema
from jobs.score.blending import NEW_BELOW

NAMED, NUMBERS = ("category", "event_type", "slot", "region"), ("value",)
SCORE, LISTS = "score", "lists"
_USERS = "users"  # a subject of its own: how many there are on either side
Row = dict[str, Any]
# Subject -> bin -> rows; now and before.
Counts = dict[str, dict[str, int]]


def run(context: Context) -> None:
    day, settings = context.days.last, context.settings.drift
    served = in_force(context.log_rows("publications"), before=day + timedelta(days=1))
    new = context.state("user_sequences").where(F.col("events_total") < NEW_BELOW).select("user_id")
    lists = context.before("recommendations"), context.state("recommendations")
    rows = [*event_rows(_events(context)), *list_rows(*lists, new)]
    same = {"model_version": None if served is None else served["model_version"], "day": day}
    schema = spark_schema(TABLES["drift"])
    table = context.spark.createDataFrame([tuple((row | same)[name] for name in schema.names) for row in rows], schema)
    context.write("drift", table)
    past = [finding for finding in judged(rows, settings) if finding.is_past]
    for finding in past:
        context.log.warning("drift of %s: %s", day, finding)
    context.note(drift=[asdict(finding) for finding in past])


def _events(context: Context) -> DataFrame:
    """Events of the day and of the days that they are held against: `is_now`, and the columns that are looked at."""
    day, weeks = context.days.last, context.settings.drift.weeks
    days = [day - timedelta(weeks=number) for number in range(weeks + 1)]
    events = context.history("events", lookback_days=7 * weeks + 1).where(F.col("day").isin(days))
    return events.select("user_id", (F.col("day") == F.lit(day)).alias("is_now"), *NAMED, *map(F.col, NUMBERS))


def event_rows(events: DataFrame) -> list[Row]:
    """Rows of `drift` about the events; `events` as `_events` has them."""
    steps = {name: grid(F.col(name)) for name in NUMBERS}
    before, now = counted(events.withColumns(steps), (*NAMED, *NUMBERS))
    found = []
    for subject in (*NAMED, *NUMBERS):
        found += _stability(subject, before, now, measures.numbers if subject in NUMBERS else measures.named)
    return found


def list_rows(before: DataFrame, now: DataFrame, new: DataFrame) -> list[Row]:
    """Rows of `drift` about lists and their scores, from the states of `recommendations` of two days; `new`: new users' ids."""
    columns = ("user_id", "slot", "rank", "item_id", SCORE)
    entries = before.select(*columns, F.lit(False).alias("is_now")).unionByName(
        now.select(*columns, F.lit(True).alias("is_now"))
    )
    scores = counted(entries.withColumn(SCORE, grid(F.col(SCORE))), (SCORE,))
    changes = {row["is_new"]: row for row in list_change(entries, new).collect()}
    # What is known of all, the new ones among them, and of these alone, whose lists a single event may turn over.
    told = [
        {"subject": subject, "measure": measure, "bins": None, "chance": None} | _pooled(some, measure)
        for subject, some in ((LISTS, list(changes.values())), (LISTS_OF_NEW, [changes[True]] if True in changes else []))
        for measure in (NEW_ITEMS, CHANGED_USERS)
    ]
    return [*_stability(SCORE, *scores, measures.numbers), *told]


def _pooled(changes: Sequence[SparkRow], measure: str) -> Row:
    users, lists = (sum(row[name] for row in changes) for name in ("users", "lists"))
    value = sum(row["users"] * row[measure] for row in changes) / users if users else None
    return {"value": value, "rows": lists, "users": users, "reference_rows": lists, "reference_users": users}


def _stability(subject: str, before: Counts, now: Counts, binned: Callable[[Mapping, Mapping], Pair]) -> list[Row]:
    """Both measures of one subject; without rows on either side there is nothing to compare."""
    users, reference_users = now[_USERS].get(ABSENT, 0), before[_USERS].get(ABSENT, 0)
    pair = binned(now[subject], before[subject])
    sizes = {"bins": pair.bins, "rows": int(pair.now_B.sum()), "users": users}
    sizes |= {"reference_rows": int(pair.before_B.sum()), "reference_users": reference_users}
    if not users or not reference_users:
        return [{"subject": subject, "measure": measure, "value": None, "chance": None, **sizes} for measure in (PSI, KL)]
    chance = measures.chance(pair.bins, users, reference_users)
    return [
        {"subject": subject, "measure": PSI, "value": pair.psi(), "chance": chance, **sizes},
        {"subject": subject, "measure": KL, "value": pair.kl(), "chance": chance / 2, **sizes},
    ]


def grid(number: Column) -> Column:
    """The step of a logarithmic grid, 32 steps a doubling, on which a number lies; as text, in the order of the numbers.

    Exact quantiles would bring a row per user to one place, and approximate ones differ from run to run.
    """
    step = (F.floor(F.log2(F.abs(number)) * 32) + 40_000) * F.signum(number).cast("int")
    # The logarithm of 0 is null.
    return F.when(number.isNotNull() & ~F.isnan(number), F.coalesce(step, F.lit(0))).cast("string")


def counted(rows: DataFrame, subjects: Sequence[str]) -> tuple[Counts, Counts]:
    """How many rows each bin of each subject has, before and now, and how many users there are; one Spark job."""
    bins = [F.struct(F.lit(name).alias("subject"), F.coalesce(name, F.lit(ABSENT)).alias("bin")) for name in subjects]
    by_bin = rows.select("is_now", F.explode(F.array(*bins)).alias("at")).groupBy("is_now", "at.subject", "at.bin")
    users = rows.groupBy("is_now", F.lit(_USERS).alias("subject"), F.lit(ABSENT).alias("bin"))
    every = by_bin.agg(F.count("*").alias("rows")).unionByName(users.agg(F.count_distinct("user_id").alias("rows")))
    sides: tuple[Counts, Counts] = tuple({name: {} for name in (*subjects, _USERS)} for _ in range(2))  # type: ignore[assignment]
    for row in every.collect():
        sides[row["is_now"]][row["subject"]][row["bin"]] = row["rows"]
    return sides


def list_change(entries: DataFrame, new: DataFrame) -> DataFrame:
    """One row of the users who have a list on both days and are new, and one of others: `is_new, users, lists`, what changed.

    `new_items` is the share of a list's items that were not on it before, as a mean over a user's lists and then over
    users; `changed_users` the share of users of whom a list holds other items, or in another order.
    """
    entry = F.struct("rank", "item_id")

    def items(of: Column) -> Column:
        return F.array_sort(F.collect_list(F.when(of, entry)))["item_id"]

    by_list = entries.groupBy("user_id", "slot").agg(
        items(~F.col("is_now")).alias("before"), items(F.col("is_now")).alias("now")
    )
    in_both = (F.size("before") > 0) & (F.size("now") > 0)
    by_user = (
        by_list.where(in_both)
        .groupBy("user_id")
        .agg(
            F.count("*").alias("lists"),
            F.avg(F.size(F.array_except("now", "before")) / F.size("now")).alias(NEW_ITEMS),
            F.max(F.col("now") != F.col("before")).alias(CHANGED_USERS),
        )
    )
    marked = by_user.join(new.withColumn("_new", F.lit(True)), on="user_id", how="left")
    return marked.groupBy(F.coalesce("_new", F.lit(False)).alias("is_new")).agg(
        F.count("*").alias("users"),
        F.sum("lists").alias("lists"),
        F.avg(NEW_ITEMS).alias(NEW_ITEMS),
        F.avg(F.col(CHANGED_USERS).cast("double")).alias(CHANGED_USERS),
    )
