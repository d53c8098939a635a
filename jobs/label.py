"""label: weighs each user's categories over long and short times, and labels interests and events.

A weight is a sum over events: w * 2^(-(time from the event to the end of the day) / half-life).
Between days it only decays, so one night adds its arrivals to the aged state. Many days are done
at once by a cumulative sum: with x the worth of a day's arrivals at the end of that day n, and any
fixed day r,

    weight(n) = 2^(-(n - r) / h) * sum over m <= n of x(m) * 2^((m - r) / h).

All terms are of one sign (but for events that count against), so next to nothing cancels, but
2^(n / h) leaves the doubles (2^1024) after 1,024 half-lives. A range of days is therefore cut into
stretches of at most 1,000 half-lives with r in the middle, which keeps every factor within 2^500
and leaves room below for late events; each stretch starts from the state at the end of the one
before, as a night does. At a half-life of a week a stretch is 19 years: there is nearly always one.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from functools import reduce

from pyspark.sql import Column, DataFrame, Window, WindowSpec
from pyspark.sql import functions as F

from conf.settings import Label
from conf.tables import TABLES
from jobs.lake.context import Context
from jobs.lake.store import Days, newest

STRETCH_HALF_LIVES = 1000
GAP_DAYS = 28  # an interest returns after so many days without an event; conf/tables/interests.py says the same of `trend`
SECONDS_PER_DAY = 86_400
SPANS = ("long", "short")
# What a row of `weighed` is: the state before the range, a day's arrivals in a category, or a category on a user's active day.
START, ARRIVAL, ACTIVE = "start", "arrival", "active"


def run(context: Context) -> None:
    settings = context.settings.label
    events = context.arrivals("events").where(F.col("category").isNotNull())
    labels, interests = advance(context.before("user_interests"), events, context.days, settings)
    context.write("event_labels", labels)
    context.write("user_interests", interests)


def advance(before: DataFrame, events: DataFrame, days: Days, settings: Label) -> tuple[DataFrame, DataFrame]:
    """Rows of event_labels and user_interests for every day of the range, from the state before it.

    `events` have a category and arrived within `days`.
    """
    labels, interests = [], []
    for stretch in stretches(days, settings):
        daily = daily_worth(events.where(stretch.where()), settings).persist()
        rows = with_active_days(start(before, daily, stretch), daily)
        moments = weighed(rows, stretch, settings).persist()
        labels.append(event_labels(moments, settings))
        interests.append(user_interests(moments, settings))
        if stretch.last < days.last:
            aged = before.withColumns({"gone": F.lit(False), "day": F.col("changed_on")})
            before = newest(aged.unionByName(interests[-1].select(*aged.columns)), ("user_id",))
    return reduce(DataFrame.unionByName, labels), reduce(DataFrame.unionByName, interests)


def stretches(days: Days, settings: Label) -> Iterator[Days]:
    """The range cut so that no factor of the cumulative sums leaves the doubles."""
    shortest = min(half_life(span, settings) for span in SPANS)
    length = timedelta(days=max(1, int(STRETCH_HALF_LIVES * shortest)))
    first = days.first
    while first <= days.last:
        last = min(days.last, first + length - timedelta(days=1))
        yield Days(first=first, last=last)
        first = last + timedelta(days=1)


def half_life(span: str, settings: Label) -> float:
    return settings.long_half_life_days if span == "long" else settings.short_half_life_days


def event_weight(event_type: Column, settings: Label) -> Column:
    weight = F.lit(1.0)
    for name, value in sorted(settings.event_weights.items()):
        weight = F.when(event_type == F.lit(name), F.lit(float(value))).otherwise(weight)
    return weight


def age_days(n: Column, timestamp: Column) -> Column:
    """Days from a moment to the end of day `n` (days since 1970)."""
    return (n + 1).cast("double") - F.unix_micros(timestamp) / F.lit(1e6 * SECONDS_PER_DAY)


def daily_worth(events: DataFrame, settings: Label) -> DataFrame:
    """Per user, category and day `n` of arrival (days since 1970): what arrived, weighed at the day's end."""
    days = events.withColumn("n", F.unix_date("day")).groupBy("user_id", "category", "n")
    return days.agg(
        *worth(event_weight(F.col("event_type"), settings), settings), F.collect_list("event_id").alias("event_ids")
    )


def worth(weight: Column, settings: Label) -> list[Column]:
    """Sums over events of a day `n`: what they weigh at its end, `long` and `short`, and how many count."""
    age = age_days(F.col("n"), F.col("event_timestamp"))
    counts = weight != 0  # one that speaks against is known of, too: what comes later is weighed against it
    sums = [F.sum(weight * F.pow(F.lit(2.0), -age / F.lit(half_life(span, settings)))).alias(span) for span in SPANS]
    return [*sums, F.count_if(counts).alias("events")]


def start(before: DataFrame, daily: DataFrame, days: Days) -> DataFrame:
    """The state of the users who arrive, aged to the end of the day before the range."""
    eve = F.lit(number(days.first) - 1)
    known = before.join(daily.select("user_id"), on="user_id", how="left_semi")
    return known.select(
        "user_id",
        "category",
        eve.alias("n"),
        F.lit(START).alias("role"),
        *weights_on(eve),
        "events",
        F.col("active_weeks").alias("weeks"),
        "active_days",
        "squared_gaps",
        F.unix_date("first_on").alias("first_n"),
        F.unix_date("last_on").alias("last_n"),
        (F.unix_date("changed_on") - F.col("returned_days")).alias("returned_n"),
        F.lit(None).cast("array<string>").alias("event_ids"),
    )


def weights_on(n: Column) -> list[Column]:
    """The weights of a row of state, `long` and `short`, at the end of day `n`."""
    since = n - F.unix_date("changed_on")
    return [
        (F.col(f"{span}_weight") * F.pow(F.lit(0.5), since / F.col(f"{span}_half_life_days"))).alias(span) for span in SPANS
    ]


def with_active_days(started: DataFrame, daily: DataFrame) -> DataFrame:
    """Start and arrivals, and for every active day of a user one empty row per category that ever has events."""
    counted = F.when(F.col("events") > 0, F.col("n"))
    arrivals = daily.select(
        "user_id",
        "category",
        "n",
        F.lit(ARRIVAL).alias("role"),
        *SPANS,
        "events",
        F.lit(None).cast("int").alias("weeks"),
        F.lit(None).cast("int").alias("active_days"),
        F.lit(None).cast("bigint").alias("squared_gaps"),
        counted.alias("first_n"),
        counted.alias("last_n"),
        F.lit(None).cast("int").alias("returned_n"),
        "event_ids",
    )
    rows = started.unionByName(arrivals)
    days = F.collect_set(F.when(F.col("role") == ARRIVAL, F.col("n"))).alias("days")
    users = rows.where("events > 0").groupBy("user_id").agg(F.collect_set("category").alias("categories"), days)
    empty = users.select("user_id", "categories", F.explode("days").alias("n")).select(
        "user_id", F.explode("categories").alias("category"), "n", F.lit(ACTIVE).alias("role")
    )
    return rows.unionByName(empty, allowMissingColumns=True)


def weighed(rows: DataFrame, days: Days, settings: Label) -> DataFrame:
    """Per row what is known at the end of its day and, in a struct `before`, at the end of the day before it.

    Fields are those of user_interests up to `known_days`, dates as days since 1970.
    """
    by_category = Window.partitionBy("user_id", "category").orderBy("n")
    earlier = by_category.rangeBetween(Window.unboundedPreceding, -1)
    until_now = by_category.rangeBetween(Window.unboundedPreceding, Window.currentRow)
    middle = (number(days.first) + number(days.last)) / 2
    previous = F.max("last_n").over(earlier)
    is_new_week = previous.isNull() | (_week(previous) != _week(F.col("n")))
    is_return = F.col("n") - 1 - previous >= GAP_DAYS
    is_counted = (F.col("role") == ARRIVAL) & (F.col("events") > 0)
    marked = rows.repartition("user_id").withColumns(
        {
            "weeks": F.when(is_counted, is_new_week.cast("int")).otherwise(F.col("weeks")),
            "active_days": F.when(is_counted, F.lit(1)).otherwise(F.col("active_days")),
            "squared_gaps": F.when(is_counted, F.pow(F.col("n") - previous, F.lit(2)).cast("bigint")).otherwise(
                F.col("squared_gaps")
            ),
            "returned_n": F.when(is_counted & is_return, F.col("n")).otherwise(F.col("returned_n")),
            **{span: F.col(span) * _power_of_two(F.col("n") - middle, span, settings) for span in SPANS},
            "user_n": F.min("first_n").over(Window.partitionBy("user_id")),
        }
    )

    def known(frame: WindowSpec, n: Column) -> list[Column]:
        return [
            *[(F.sum(span).over(frame) * _power_of_two(middle - n, span, settings)).alias(f"{span}_weight") for span in SPANS],
            F.sum("events").over(frame).alias("events"),
            F.sum("weeks").over(frame).cast("int").alias("active_weeks"),
            F.sum("active_days").over(frame).cast("int").alias("active_days"),
            F.coalesce(F.sum("squared_gaps").over(frame), F.lit(0)).alias("squared_gaps"),
            F.min("first_n").over(frame).alias("first_n"),
            F.max("last_n").over(frame).alias("last_n"),
            (n - F.max("last_n").over(frame)).alias("idle_days"),
            (n - F.max("returned_n").over(frame)).alias("returned_days"),
            (n - F.col("user_n")).alias("known_days"),
        ]

    now = known(until_now, F.col("n"))
    before = F.struct(*known(earlier, F.col("n") - 1)).alias("before")
    is_known = (F.col("role") == ARRIVAL) | ((F.col("role") == ACTIVE) & (F.col("events") > 0))
    return marked.select("user_id", "category", "n", "role", "event_ids", *now, before).where(is_known)


def judged(rows: DataFrame, settings: Label) -> DataFrame:
    """Adds half-lives, thresholds, label and trend, by the expressions with which readers age them."""
    contract = TABLES["user_interests"]
    constants = {f"{span}_half_life_days": half_life(span, settings) for span in SPANS}
    constants |= {name: getattr(settings, name) for name in ("long_min_weeks", "long_min_weight", "short_min_weight")}
    ready = rows.withColumns({**{name: F.lit(value) for name, value in constants.items()}, "age_days": F.lit(0)})
    return ready.withColumns({name: F.expr(str(contract.column(name).aged)) for name in ("label", "trend")}).drop("age_days")


def with_label_until(rows: DataFrame) -> DataFrame:
    """Rows of `judged`, of which `changed_on` is known, with the day from which on they have another label."""
    until = F.expr(str(TABLES["user_interests"].column("label_until").aged))
    return rows.withColumn("age_days", F.lit(0)).withColumn("label_until", until).drop("age_days")


def burstiness(active_days: Column, span_days: Column, squared_gaps: Column) -> Column:
    """Of the gaps between active days: -1 for an even pace, 0 at random, towards 1 for bursts; null with fewer than two.

    As time_series_features has it (Kim and Jo, 2016, for series of any length).
    """
    gaps = active_days - 1
    # The gaps add up to the span.
    ratio = F.sqrt(gaps * squared_gaps - span_days * span_days) / span_days
    root_up, root_down = F.sqrt(gaps + 1), F.sqrt(gaps - 1)
    return F.when(gaps > 1, (root_up * ratio - root_down) / ((root_up - 2) * ratio + root_down))


def user_interests(moments: DataFrame, settings: Label) -> DataFrame:
    """Each user's whole state on each of the user's active days."""
    contract = TABLES["user_interests"]
    span = F.col("last_n") - F.col("first_n")
    rows = moments.where(F.col("role") == ACTIVE).withColumns(
        {
            "first_on": F.date_from_unix_date("first_n"),
            "last_on": F.date_from_unix_date("last_n"),
            "span_days": span,
            "burstiness": burstiness(F.col("active_days"), span, F.col("squared_gaps")),
            "gone": F.lit(False),
            "day": F.date_from_unix_date("n"),
        }
    )
    return with_label_until(judged(rows.withColumn("changed_on", F.col("day")), settings)).select(*contract.names)


def event_labels(moments: DataFrame, settings: Label) -> DataFrame:
    """Each event with what was known of its category for its user when the day before its arrival ended."""
    was_known = F.coalesce(F.col("before.events") > 0, F.lit(False)).alias("was_known")
    arrivals = moments.where(F.col("role") == ARRIVAL)
    return judged(arrivals.select("user_id", "category", "n", "event_ids", was_known, "before.*"), settings).select(
        F.explode("event_ids").alias("event_id"),
        "user_id",
        "category",
        F.when(F.col("was_known"), F.col("label")).otherwise("none").alias("label"),
        F.when(F.col("was_known"), F.col("trend")).alias("trend"),
        *[F.coalesce(f"{span}_weight", F.lit(0.0)).alias(f"{span}_weight") for span in SPANS],
        F.date_from_unix_date("n").alias("day"),
    )


def number(day: date) -> int:
    """Days since 1970."""
    return (day - date(1970, 1, 1)).days


def _week(n: Column) -> Column:
    """Number of the week, Monday to Sunday; 1970-01-01 was a Thursday."""
    return F.floor((n + 3) / 7)


def _power_of_two(days: Column, span: str, settings: Label) -> Column:
    return F.pow(F.lit(2.0), days / F.lit(half_life(span, settings)))
