"""How often each cleaning rule would fire on a file's first rows, read and judged as a night reads and judges them."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.mapping import Mapping
from conf.settings import Privacy, Settings
from jobs.clean.comparing import BOT_RULES, PAIR_RULES, rows_of
from jobs.clean.judging import verdicts, with_verdicts
from jobs.clean.rules import rules
from jobs.ingest import raw_events
from jobs.ingest.landing import Landing, absolute
from jobs.ingest.sources import Feeding, with_day

_NO_DAY = date(2000, 1, 1)
COMPARING = (*PAIR_RULES, *BOT_RULES)


@dataclass(frozen=True, kw_only=True)
class Firing:
    """Rows judged, exact duplicates among them, rows without a reason, and rule -> rows that break it."""

    rows: int
    duplicates: int
    good: int
    rules: dict[str, int]


def firing(spark: SparkSession, path: Path, mapping: Mapping, settings: Settings, rows: int) -> Firing:
    """Judge the first rows under the mapping; a range of values needs more than a sample.

    Raises:
        ValueError: the file cannot be read as the mapping says.
    """
    raw = _raw(spark, path, mapping, settings.privacy, rows).persist()
    arrived = raw.agg(F.count("*").alias("rows"), F.min("day").alias("first")).first()
    assert arrived is not None
    nothing, first_day = raw.where(F.lit(False)), arrived["first"] or _NO_DAY
    partitions = settings.spark.shuffle_partitions
    found = verdicts(raw, nothing, mapping, settings, first_day=first_day, ranges=None, partitions=partitions)
    copies = rows_of(found).agg(F.sum("duplicates")).first()
    reasons = with_verdicts(raw, found).groupBy("reasons").count().collect()
    fires = dict.fromkeys(["broken", *rules(mapping, settings.ingest.lookback_days, settings.clean), *COMPARING], 0)
    for row in reasons:
        for name in row.reasons or ():
            fires[name] += row["count"]
    return Firing(
        rows=arrived["rows"],
        duplicates=copies[0] or 0 if copies is not None else 0,
        good=sum(row["count"] for row in reasons if row.reasons is None),
        rules={name: rows for name, rows in fires.items() if name not in settings.clean.disabled},
    )


def _raw(spark: SparkSession, path: Path, mapping: Mapping, privacy: Privacy, rows: int) -> DataFrame:
    """The file's first rows as ingest would store them; it arrived on its folder's day, if that is a date."""
    landing = Landing(spark)
    where, is_dated = absolute(str(path)), re.fullmatch(r"\d{4}-\d{2}-\d{2}", path.absolute().parent.name)
    place = landing.find(str(path.absolute().parents[1]) if is_dated else where, "FILE")
    source = Feeding(name="events", feed=mapping.events, path=where, place=place, pattern=path.name)
    files = source.files(landing, place.days or ())
    wanted = tuple(file for file in files if place.days is None or f"{file.day}" == path.absolute().parent.name)
    read = source.read(spark, wanted).limit(rows)
    dated = with_day(read, source, mapping, first_day=_NO_DAY, undated_day=_NO_DAY)
    # Nothing is kept, so any key will do; nobody's own is made for a look at a file.
    return raw_events(dated, mapping.events, secrets.token_bytes(32), privacy)
