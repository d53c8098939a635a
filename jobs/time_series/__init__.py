"""time_series: counts activity per user, item, category, region and slot, and describes its shape over time."""

from __future__ import annotations

from datetime import date

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf.contracts import ENTITIES, SERIES_DAYS
from conf.tables import TABLES
from jobs.lake.context import Context, Skipped
from jobs.time_series.features import DESCRIBED, HOUR_BITS, LOW_HALF, NO_HOUR, describing


def run(context: Context) -> None:
    """Write activity_daily and time_series_features."""
    if not context.mapping.has_times:
        raise Skipped("the log has no times, so there is no activity over time to describe")
    activity = activity_daily(context.arrivals("events")).persist()
    context.write("activity_daily", activity)
    arrived = with_entity(activity)
    # An increment arrives on its own date or later: none of an earlier partition is in the window.
    known = with_entity(context.before("activity_daily", lookback_days=SERIES_DAYS - 1))
    active = arrived.select("entity").distinct()
    increments = arrived.unionByName(known.join(active, on="entity", how="left_semi"))
    described = time_series_features(increments, context.days.first, context.first_day).persist()
    rate = context.settings.time_series.false_discovery_rate
    context.write("time_series_features", with_discoveries(described, rate))


def activity_daily(events: DataFrame) -> DataFrame:
    """Increments per entity, event type, own date and local hour, of the events that arrived."""
    entities = F.array(*[F.struct(F.lit(name).alias("type"), _id(columns).alias("id")) for name, columns in ENTITIES.items()])
    return (
        events.select("event_type", "event_date", "local_hour", "day", F.explode(entities).alias("entity"))
        .where(F.col("entity.id").isNotNull())
        .groupBy(
            F.col("entity.type").alias("entity_type"),
            F.col("entity.id").alias("entity_id"),
            "event_type",
            "event_date",
            "local_hour",
            "day",
        )
        .agg(F.count(F.lit(1)).alias("events"))
        .select(*TABLES["activity_daily"].names)
    )


def _id(columns: tuple[str, ...]) -> Column:
    """Of several columns, all of which must be known, the values with ` | ` between them."""
    return F.concat(*[part for name in columns for part in (F.lit(" | "), F.col(name))][1:])


def with_entity(activity: DataFrame) -> DataFrame:
    return activity.withColumn("entity", F.concat_ws(":", "entity_type", "entity_id"))


def time_series_features(increments: DataFrame, first_run: date, first_day: date) -> DataFrame:
    """Rows for each entity and each day from `first_run` on, on which something of it arrived; without `is_anomaly`.

    Args:
        increments: activity_daily with `entity`: all that arrived up to each day and is dated within
            its window; more does not matter.
        first_day: the lake's first day; what was before it nobody has seen.
    """
    # A row per series before anything is shuffled twice, sorted or handed to Python, whose cost is by the row. The two lists
    # of a group are made in one pass, hence in one order.
    arrived, dated = F.unix_date("day").cast("bigint"), F.unix_date("event_date").cast("bigint")
    dates = F.shiftleft(arrived, 32).bitwiseOR(dated.bitwiseAND(F.lit(LOW_HALF)))
    counts = F.shiftleft("events", HOUR_BITS) + F.coalesce("local_hour", F.lit(NO_HOUR))
    series = increments.groupBy("entity", "event_type").agg(
        F.collect_list(dates).alias("dates"), F.collect_list(counts).alias("counts")
    )
    # Sorted by entity and streamed: memory holds one batch, or one entity where that is longer. By a hash
    # first, since names alike in their first letters are slow to compare.
    series = series.repartition("entity").sortWithinPartitions(F.xxhash64("entity"), "entity", "event_type")
    epoch = date(1970, 1, 1)
    described = series.mapInArrow(describing((first_run - epoch).days, (first_day - epoch).days), DESCRIBED)
    kind = F.substring_index("entity", ":", 1)
    named = {"entity_type": kind, "entity_id": F.expr("substring(entity, length(substring_index(entity, ':', 1)) + 2)")}
    return described.withColumns(named | {"day": F.date_from_unix_date("n")}).drop("n")


def with_discoveries(described: DataFrame, rate: float) -> DataFrame:
    """`time_series_features`: with those days marked that are unlikely among all series of the same day and entity type.

    Benjamini and Hochberg (1995): p is a discovery if some p' >= p has p' <= rate * #(p <= p') / m. Only
    values of at most `rate` can be, which are few; equal ones are counted together.
    """
    family = ("day", "entity_type")
    looked_at = described.groupBy(*family).agg(F.count("anomaly_p").alias("m"))
    upto = Window.partitionBy(*family).orderBy("anomaly_p").rowsBetween(Window.unboundedPreceding, Window.currentRow)
    bound = (
        described.where(F.col("anomaly_p") <= rate)
        .groupBy(*family, "anomaly_p")
        .agg(F.count(F.lit(1)).alias("equal"))
        .withColumn("smaller", F.sum("equal").over(upto))
        .join(F.broadcast(looked_at), on=list(family), how="inner")
        .where(F.col("anomaly_p") * F.col("m") <= F.lit(rate) * F.col("smaller"))
        .groupBy(*family)
        .agg(F.max("anomaly_p").alias("bound"))
    )
    is_anomaly = F.coalesce(F.col("anomaly_p") <= F.col("bound"), F.lit(False))
    return (
        described.join(F.broadcast(bound), on=list(family), how="left")
        .withColumn("is_anomaly", is_anomaly)
        .withColumn("changed_on", F.col("day"))
        .select(*TABLES["time_series_features"].names)
    )
