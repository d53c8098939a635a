"""Parses, checks and places every row; quarantines what is wrong, with the reasons."""

from __future__ import annotations

from datetime import date

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf.mapping import Mapping
from conf.tables import TABLES
from jobs.clean.comparing import rows_of
from jobs.clean.counting import check, conservation
from jobs.clean.filling import known_positions, own_positions, with_item_positions
from jobs.clean.judging import verdicts, with_verdicts
from jobs.clean.places import geography, java_zones, with_gazetteer
from jobs.clean.ranges import value_ranges
from jobs.clean.rules import parsed, set_flags, text_types
from jobs.clean.times import slot_of
from jobs.clean.wording import normalised, single_spaced
from jobs.lake.consent import CONSENTS, LOCATION
from jobs.lake.context import Context

__all__ = ["run", "slot_of"]

_ROWS_PER_PARTITION = 1_000_000


def run(context: Context) -> None:
    """Each arrived row becomes events, a quarantined row or a duplicate, and all are counted.

    Raises:
        Refused: the counts do not add up.
    """
    mapping = context.mapping
    raw = context.arrivals("raw_events")
    arrived = context.rows_by_day("raw_events")
    found = judged(context, raw, rows=sum(arrived.values()))
    standing = with_verdicts(raw, found)
    good = with_consents(parsed(standing.where(F.col("reasons").isNull()), mapping), known_consents(context))
    placed = typed(good, mapping)
    precision_m = context.settings.spatial.max_precision_m
    if mapping.has_places:
        own = own_positions(where_allowed(placed), is_precise(precision_m))
        placed = with_item_positions(placed, known_positions(context, own))
    context.write("events", events(placed, known_categories(context), mapping, java_zones(context.spark), precision_m))
    context.write("events_quarantine", quarantined(standing.where(F.col("reasons").isNotNull())))
    counted = conservation(arrived, rows_of(found), _accepted(context), context.arrivals("events_quarantine"))
    context.rows_in = sum(day["rows"] for day in counted.values())
    context.note(conservation=counted)
    check(counted)


def judged(context: Context, raw: DataFrame, rows: int) -> DataFrame:
    """What is wrong with any of `raw` (see `judging.verdicts`); `rows`: how many there are."""
    settings = context.settings
    has_ranges = "value" in context.mapping.events.columns and "extreme_value" not in settings.clean.disabled
    return verdicts(
        raw,
        context.before("raw_events", settings.ingest.lookback_days),
        context.mapping,
        settings,
        first_day=context.days.first,
        ranges=_ranges(context) if has_ranges else None,
        partitions=max(settings.spark.shuffle_partitions, rows // _ROWS_PER_PARTITION),
    )


def _ranges(context: Context) -> DataFrame:
    """The ranges known before each day: made on the first day and on the first of a month, of the rows up to it."""
    fits = [day for day in context.days if day.day == 1 or day == context.first_day]
    lookback_days = context.settings.ingest.lookback_days
    before = context.before("value_ranges")
    if not fits:
        return before
    rows = parsed(context.history("raw_events", lookback_days + len(list(context.days))), context.mapping)
    context.write("value_ranges", value_ranges(rows, fits, lookback_days))
    return before.unionByName(context.arrivals("value_ranges"))


def _accepted(context: Context) -> dict[date, tuple[int, int]]:
    """Day -> rows that were accepted, and the events they became: several, if the log is wide."""
    events = context.rows_by_day("events")
    if not context.mapping.events.wide:
        return {day: (count, count) for day, count in events.items()}
    rows = context.arrivals("events").groupBy("day").agg(F.count_distinct("row_hash").alias("rows"))
    return {row.day: (row["rows"], events[row.day]) for row in rows.collect()}


def known_categories(context: Context) -> DataFrame:
    """item_id, `item_category`, and the arrival days [`since`, `until`) for which the item had it."""
    if not context.bootstrap:
        items = context.state("items")
        return items.select("item_id", F.col("category").alias("item_category"), F.col("changed_on").alias("since"), _no_day())
    until = F.lead("day").over(Window.partitionBy("item_id").orderBy("day")).alias("until")
    return context.changed("items").select(
        "item_id", F.col("category").alias("item_category"), F.col("day").alias("since"), until
    )


def _no_day() -> Column:
    return F.lit(None).cast("date").alias("until")


def known_consents(context: Context) -> DataFrame | None:
    """user_id, `consents`, and the arrival days [`since`, `until`) for which they held; None: the log asks for none."""
    if not context.settings.asks_consent:
        return None
    if not context.bootstrap:
        return consents_as_of(context, None)
    until = F.lead("day").over(Window.partitionBy("user_id").orderBy("day")).alias("until")
    changes = context.changed(CONSENTS)
    return changes.select("user_id", F.col("purposes").alias("consents"), F.col("day").alias("since"), until)


def consents_as_of(context: Context, since: date | None) -> DataFrame | None:
    """`known_consents` as of the last day, as if they had held from `since` on (None: from when they did)."""
    if not context.settings.asks_consent:
        return None
    begin = F.col("changed_on") if since is None else F.lit(since)
    known = context.state(CONSENTS)
    return known.select("user_id", F.col("purposes").alias("consents"), begin.alias("since"), _no_day())


def with_consents(rows: DataFrame, known: DataFrame | None) -> DataFrame:
    """`rows` with `consents` as of their arrival day: empty for who has said nothing, null where nobody is asked."""
    if known is None:
        return rows.withColumn("consents", F.lit(None).cast("array<string>"))
    held = known.withColumnRenamed("user_id", "_user")
    joined = rows.join(held, on=(F.col("user_id") == F.col("_user")) & _holds(), how="left").drop("_user", "since", "until")
    return joined.withColumn("consents", F.coalesce("consents", F.array().cast("array<string>")))


def _holds() -> Column:
    """Whether a row arrived in [`since`, `until`)."""
    return (F.col("day") >= F.col("since")) & (F.col("until").isNull() | (F.col("day") < F.col("until")))


def where_allowed(rows: DataFrame) -> DataFrame:
    """`rows` without the positions of users who do not allow their location."""
    is_allowed = F.col("consents").isNull() | F.array_contains("consents", LOCATION)
    names = ("latitude_", "longitude_", "position_source", "position_precision_m")
    return rows.withColumns({name: F.when(is_allowed, F.col(name)) for name in names})


def typed(good: DataFrame, mapping: Mapping) -> DataFrame:
    """Accepted rows: one for each event, or as many as a wide row's flags say; where places are names, with positions."""
    return with_gazetteer(fan_out(good, mapping), mapping.events.place_gazetteer)


def is_precise(max_precision_m: float) -> Column:
    return F.col("position_precision_m").isNull() | (F.col("position_precision_m") <= max_precision_m)


def events(
    typed_rows: DataFrame, categories: DataFrame, mapping: Mapping, zones: frozenset[str], max_precision_m: float
) -> DataFrame:
    """`typed` rows as events in local time and space.

    A position less precise than `max_precision_m` gives a time zone and a region, but is no place.
    """
    allowed, is_fix = where_allowed(typed_rows), is_precise(max_precision_m)
    at = geography(F.col("latitude_"), F.col("longitude_"), zones) if mapping.has_places else F.lit(None).cast(_GEOGRAPHY)
    placed = allowed.withColumn("at", at)
    zone = F.coalesce(F.col("at.time_zone"), F.lit(mapping.events.time_zone))
    local = F.from_utc_timestamp("timestamp", zone) if mapping.has_times else F.lit(None).cast("timestamp")
    timed = placed.withColumn("local_timestamp", local)
    held = categories.withColumnRenamed("item_id", "_item")
    made = {
        "event_id": F.substring(F.sha2(F.concat_ws("\x1e", "row_hash", "event_type"), 256), 1, 32),
        "event_timestamp": F.col("timestamp"),
        "local_date": F.to_date("local_timestamp"),
        "local_hour": F.hour("local_timestamp"),
        "slot": slot_of(F.col("local_timestamp")),
        "latitude": F.when(is_fix, F.col("latitude_")),
        "longitude": F.when(is_fix, F.col("longitude_")),
        "time_zone": F.col("at.time_zone"),
        "cell": F.when(is_fix, F.col("at.cell")),
        "region": F.col("at.region"),
        "category": F.coalesce(single_spaced(F.col("category")), "item_category"),
        "value": F.col("value_"),
        "text": normalised(F.col("text")) if "text" in mapping.events.columns else F.lit(None),
    }
    joined = timed.join(held, on=(F.col("item_id") == F.col("_item")) & _holds(), how="left")
    columns = TABLES["events"].columns
    return joined.select(*[made.get(one.name, F.col(one.name)).cast(one.type).alias(one.name) for one in columns])


_GEOGRAPHY = "struct<cell:string,time_zone:string,region:string>"


def fan_out(good: DataFrame, mapping: Mapping) -> DataFrame:
    """Wide rows become one event per flag that is set, and the one that every row is besides."""
    if not mapping.events.wide:
        return good
    types = [F.when(is_set, F.lit(name)) for name, is_set in set_flags(mapping).items()]
    types += [F.lit(mapping.events.seen)] if mapping.events.seen is not None else []
    taken = good.withColumn("event_type", F.explode(F.array_distinct(F.array_compact(F.array(*types)))))
    words = sorted(text_types(mapping))
    # Words that make a review belong to the review, not to the click beside it.
    return taken.withColumn("text", F.when(F.col("event_type").isin(*words), F.col("text"))) if words else taken


def quarantined(bad: DataFrame) -> DataFrame:
    """The refused rows whole, as JSON, with the names of the rules they broke."""
    raw = [column.name for column in TABLES["raw_events"].columns if column.name not in ("row_hash", "day")]
    return bad.select("row_hash", "reasons", "user_id", F.to_json(F.struct(*raw)).alias("row"), "day")
