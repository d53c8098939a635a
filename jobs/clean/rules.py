"""The rules that refuse a row, one named function each: Columns in, true where the row breaks it.

Rules see the raw columns and what was parsed of them: `timestamp`, `latitude_`, `longitude_`,
`value_` (null where unreadable) and the arrival `day`. With an optional rule off (settings.clean.disabled) what it
would refuse is kept without the value in question.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.mapping import Mapping
from conf.settings import Clean
from jobs.clean.times import event_timestamp

# The words of the design for what a user can do; a mapping's own types come on top.
EVENT_TYPES = frozenset(
    (
        "view", "click", "cart", "purchase", "check_in", "rating", "review", "search", "like", "dislike", "comment", "share",
        "follow", "play", "transaction", "impression", "dismiss",
    )
)  # fmt: skip
SEARCH = "search"
# Beyond it squares and sums are no longer finite; NaN is larger than all.
_LARGEST = 1e100
YES, NO = ("1", "true", "yes", "y", "t"), ("0", "false", "no", "n", "f")


def parsed(raw: DataFrame, mapping: Mapping) -> DataFrame:
    """Raw rows with `timestamp`, `event_date`, `latitude_`, `longitude_`, `value_`; null where unreadable."""
    number = F.col("value").try_cast("double")
    latitude, longitude = F.col("latitude").try_cast("double"), F.col("longitude").try_cast("double")
    # At 0,0 is what has no fix.
    is_position = latitude.between(-90, 90) & longitude.between(-180, 180) & ~((latitude == 0) & (longitude == 0))
    return raw.withColumns(
        {
            "timestamp": event_timestamp(F.col("event_time"), mapping.events),
            "latitude_": F.when(is_position, latitude),
            "longitude_": F.when(is_position, longitude),
            "value_": F.when(F.abs(number) <= _LARGEST, number),
        }
    ).withColumn("event_date", F.to_date("timestamp"))


def broken() -> Column:
    """The line could not be read at all; then nothing else is known of it."""
    return F.col("broken").isNotNull()


def no_user() -> Column:
    return F.col("user_id").isNull()


def no_item() -> Column:
    """A search is for words, all else is done to an item."""
    return F.col("item_id").isNull() & ~F.col("event_type").eqNullSafe(SEARCH)


def no_time() -> Column:
    return F.col("event_time").isNull()


def bad_time() -> Column:
    return F.col("event_time").isNotNull() & F.col("timestamp").isNull()


def future() -> Column:
    """Dated after the day on which it reached us."""
    return F.col("event_date") > F.col("day")


def clock_skew(hours: float) -> Column:
    """From the future by so little that a clock or a time zone is wrong, not the date."""
    ahead = F.unix_micros("timestamp") - F.unix_micros(F.date_add("day", 1).cast("timestamp"))
    return future() & (ahead <= F.lit(hours * 3600e6))


def before_source(began: date) -> Column:
    """Dated before there was a source."""
    return F.col("event_date") < F.lit(began)


def too_late(lookback_days: int) -> Column:
    return F.col("event_date") < F.date_sub("day", lookback_days)


def bad_event_type(mapping: Mapping) -> Column:
    feed = mapping.events
    known = set(feed.event_types.values()) if feed.event_types is not None else EVENT_TYPES
    known = {*known, *mapping.target_events, *([feed.event_type] if feed.event_type is not None else [])}
    return F.col("event_type").isNull() | ~F.col("event_type").isin(*sorted(known))


def bad_coordinates() -> Column:
    """One without the other, no number, outside the globe, or 0,0."""
    return (F.col("latitude").isNotNull() | F.col("longitude").isNotNull()) & F.col("latitude_").isNull()


def bad_value() -> Column:
    return F.col("value").isNotNull() & F.col("value_").isNull()


def bad_flag(mapping: Mapping) -> Column:
    """A wide row says of one of its event types neither yes nor no."""
    flags = [flag for name, flag in _flags(mapping).items() if name not in text_types(mapping)]
    known = [F.coalesce(F.lower(F.trim(flag)).isin(*YES, *NO, ""), F.lit(True)) for flag in flags]
    return ~all_of(known)


def no_event(mapping: Mapping) -> Column:
    """A wide row in which nothing happened, of a log that does not count what was only seen."""
    if mapping.events.seen is not None:
        return F.lit(False)
    return all_of([~flag for flag in set_flags(mapping).values()])


def set_flags(mapping: Mapping) -> dict[str, Column]:
    """Event type -> whether a wide row has it. A type whose flag is the row's text has it where there are words."""
    words = text_types(mapping)
    return {
        name: F.coalesce((F.trim(flag) != "") if name in words else F.lower(F.trim(flag)).isin(*YES), F.lit(False))
        for name, flag in _flags(mapping).items()
    }


def text_types(mapping: Mapping) -> set[str]:
    """The types of a wide log that are made of the text itself (a review column, say)."""
    return {name for name, column in mapping.events.wide.items() if column == mapping.events.columns.get("text")}


def _flags(mapping: Mapping) -> dict[str, Column]:
    return {name: F.try_element_at(F.col("flags"), F.lit(name)) for name in sorted(mapping.events.wide)}


def all_of(conditions: list[Column]) -> Column:
    together = F.lit(True)
    for condition in conditions:
        together = together & condition
    return together


def rules(mapping: Mapping, lookback_days: int, clean: Clean) -> dict[str, Column]:
    """Name -> condition under which it refuses a row, in the order in which reasons are given."""
    named: list[Callable[[], Column]] = [no_user, no_item, no_time, bad_time, bad_coordinates, bad_value]
    found = {rule.__name__: rule() for rule in named}
    if mapping.has_times:
        found |= {"future": future(), "clock_skew": clock_skew(clean.clock_skew_hours), "too_late": too_late(lookback_days)}
        if clean.source_began is not None:
            found["before_source"] = before_source(clean.source_began)
    if mapping.events.wide:
        found |= {"bad_flag": bad_flag(mapping), "no_event": no_event(mapping)}
    else:
        found["bad_event_type"] = bad_event_type(mapping)
    return {name: rule for name, rule in found.items() if name not in clean.disabled}


def reasons(found: dict[str, Column]) -> Column:
    """The names of all rules that a row breaks, in order; an empty array for a good row."""
    names = F.array(*[F.when(condition, F.lit(name)) for name, condition in found.items()])
    return F.when(broken(), F.array(F.lit("broken"))).otherwise(F.array_compact(names))
