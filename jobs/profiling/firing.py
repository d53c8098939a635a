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
from jobs.clean import marked
from jobs.clean.rules import broken, parsed, rules
from jobs.ingest import raw_events
from jobs.ingest.landing import Landing, absolute
from jobs.ingest.sources import Feeding, with_day

_NO_DAY = date(2000, 1, 1)


@dataclass(frozen=True, kw_only=True)
class Firing:
    """Rows judged, exact duplicates among them, rows without a reason, and rule -> rows that break it."""

    rows: int
    duplicates: int
    good: int
    rules: dict[str, int]


def firing(spark: SparkSession, path: Path, mapping: Mapping, rows: int, lookback_days: int) -> Firing:
    """Judge the first rows under the mapping.

    Raises:
        ValueError: the file cannot be read as the mapping says.
    """
    raw = marked(_raw(spark, path, mapping, rows), _raw(spark, path, mapping, 0), lookback_days)
    is_first = ~F.col("is_duplicate")
    # Nothing is known of a line that could not be read.
    fires = {"broken": broken()} | {
        name: ~broken() & F.coalesce(rule, F.lit(False)) for name, rule in rules(mapping, lookback_days).items()
    }
    judged = parsed(raw, mapping).select("is_duplicate", *[(is_first & rule).alias(name) for name, rule in fires.items()])
    is_refused = F.greatest(F.col("is_duplicate"), *[F.col(name) for name in fires])
    counts = judged.agg(
        F.count("*").alias("_rows"),
        F.count_if("is_duplicate").alias("_duplicates"),
        F.count_if(~is_refused).alias("_good"),
        *[F.count_if(F.col(name)).alias(name) for name in fires],
    ).first()
    assert counts is not None
    return Firing(
        rows=counts["_rows"],
        duplicates=counts["_duplicates"],
        good=counts["_good"],
        rules={name: counts[name] for name in fires},
    )


def _raw(spark: SparkSession, path: Path, mapping: Mapping, rows: int) -> DataFrame:
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
    return raw_events(dated, mapping.events, secrets.token_bytes(32))
