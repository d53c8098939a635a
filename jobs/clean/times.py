"""Times as written become UTC timestamps; UTC timestamps become local time and slots."""

from __future__ import annotations

import re
from datetime import datetime

from pyspark.sql import Column
from pyspark.sql import functions as F

from conf.mapping import Events, Feedback, Surroundings

ORDER_BEGINS = datetime(2000, 1, 1)
# Strict: a cast alone would take "12:30" for a time of today and "2024" for New Year.
_CLOCK = r"\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?"
_OFFSET = r"\s*(Z|z|UTC|GMT|[+-]\d{2}(:?\d{2})?)"
_ISO = rf"^\d{{4}}-\d{{2}}-\d{{2}}([Tt ]{_CLOCK}({_OFFSET})?)?$"
_WITH_OFFSET = rf"{_CLOCK}{_OFFSET}$"
_AS_SPARK_READS_IT = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(\.\d{1,6})?Z?$"
_WEEKDAY = r"^\p{L}+\.?,?\s*"
_LAST_SECOND = 253_402_300_799  # of the year 9999
_ZONE_LETTERS = re.compile(r"[VzOXxZ]")


def event_timestamp(written: Column, feed: Events | Surroundings | Feedback) -> Column:
    """The time, UTC; null where it cannot be read. Never raises: one bad row must not stop the good ones."""
    text = F.trim(written)
    if feed.time_format == "iso":
        return _from_iso(text, feed.time_zone)
    if feed.time_format == "epoch_seconds":
        return _from_epoch(text, per_second=1)
    if feed.time_format == "epoch_millis":
        return _from_epoch(text, per_second=1000)
    if feed.time_format == "position":
        return _from_position(text)
    # Spark does not read names of weekdays, which say nothing that the date does not.
    moment = F.try_to_timestamp(
        F.regexp_replace(text, _WEEKDAY, "") if feed.time_format.startswith("E") else text,
        F.lit(re.sub(r"^E+,?\s*", "", feed.time_format)),
    )
    unquoted = re.sub(r"'[^']*'", "", feed.time_format)
    return moment if _ZONE_LETTERS.search(unquoted) else _as_utc(moment, feed.time_zone)


def _from_iso(text: Column, time_zone: str) -> Column:
    """ISO 8601 to the day, the minute, the second or below; without an offset it is a time of `time_zone`."""
    plain = F.translate(F.when(text.rlike(_ISO), text), "tz,", "TZ.")
    # Spark reads 10:11:00+05:30, not 10:11+05:30, +0530 or +05.
    seconds = F.regexp_replace(plain, r"([T ]\d{2}:\d{2})(\s*[^\d:\s].*)$", "$1:00$2")
    hours = F.regexp_replace(seconds, r"(:\d{2}(?:\.\d+)?\s*[+-]\d{2})$", "$1:00")
    rewritten = F.try_to_timestamp(F.regexp_replace(hours, r"([+-]\d{2})(\d{2})$", "$1:$2"))
    # Nearly all rows of most logs: one regular expression in place of five is a third of the time.
    moment = F.when(text.rlike(_AS_SPARK_READS_IT), F.try_to_timestamp(text)).otherwise(rewritten)
    return moment if time_zone == "UTC" else F.when(text.rlike(_WITH_OFFSET), moment).otherwise(_as_utc(moment, time_zone))


def _as_utc(wall_clock: Column, time_zone: str) -> Column:
    return wall_clock if time_zone == "UTC" else F.to_utc_timestamp(wall_clock, F.lit(time_zone))


def _from_epoch(text: Column, *, per_second: int) -> Column:
    """Whole or broken numbers since 1970, from 1970 on."""
    seconds = text.try_cast("decimal(30,6)") / F.lit(per_second)
    micros = F.when(seconds.between(0, _LAST_SECOND), (seconds * F.lit(1_000_000)).cast("bigint"))
    return F.timestamp_micros(micros)


def _from_position(text: Column) -> Column:
    """An order, as seconds after 2000-01-01."""
    position = text.try_cast("bigint")
    return F.timestamp_seconds(F.when(position.between(0, _LAST_SECOND // 2), position) + F.lit(_seconds(ORDER_BEGINS)))


def _seconds(moment: datetime) -> int:
    return int((moment - datetime(1970, 1, 1)).total_seconds())


def slot_of(local_timestamp: Column) -> Column:
    """The part of the week of a local wall clock time: `conf.contracts.SLOTS`.

    Half open: night 22-06 (of the day it begins), morning 06-12, afternoon 12-18, evening 18-22.
    """
    # Six hours earlier, each day with the night after it is one calendar day.
    shifted = local_timestamp - F.expr("INTERVAL '6' HOUR")
    hour = F.hour(shifted)
    is_weekend = F.dayofweek(shifted).isin(1, 7)
    part = F.when(hour < 6, "morning").when(hour < 12, "afternoon").when(hour < 16, "evening").otherwise("night")
    slot = F.concat(F.when(is_weekend, "weekend").otherwise("weekday"), F.lit("_"), part)
    return F.when(local_timestamp.isNotNull(), slot)
