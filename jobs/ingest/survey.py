"""What arrived on which day, counted before anything is written; and whether finished days still hold what they held."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date, timedelta
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.ingest.columns import Types
from jobs.ingest.reading import BROKEN, CONTENT
from jobs.ingest.sources import EVENTS
from jobs.lake.context import Context, Refused
from jobs.lake.runs import ERASE
from jobs.lake.tombstones import Tombstones, is_erased

ERASED = "_erased"
_HALF = 32  # bits of a hash
_SUMS = ("rows", "upper", "lower", "erased")


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What a day held: rows of the main log, a checksum of all feeds' rows in any order, a digest of its folder.

    Rows of erased persons count, as long as they stand in the source: `erased` of the `rows` were left out.
    """

    rows: int = 0
    checksum: str = "0"
    listing: str = ""
    erased: int = 0


NOTHING = Fingerprint()


@dataclass(frozen=True, kw_only=True)
class Past:
    """What earlier runs of this step recorded of the days before the run's first.

    `undated`: source name -> digest of its files, for sources without landing folders. `columns`:
    source name -> the columns ever found in it, each with its type.
    """

    days: tuple[date, ...] = ()
    newest: date | None = None
    prints: Mapping[date, Fingerprint] = field(default_factory=dict)
    undated: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, Types] = field(default_factory=dict)

    @staticmethod
    def of(context: Context, *, dated: bool) -> Past:
        """A whole history starts from nothing. A log with folders is watched as far back as late rows are taken."""
        records = [] if context.bootstrap else context.log_rows("runs", f"step IN ('ingest', '{ERASE}') AND status = 'done'")
        records.sort(key=lambda row: row["finished_at"])
        rows = [row for row in records if row["step"] == "ingest"]
        if not rows:
            return Past()
        begin = context.first_day
        if dated:
            begin = max(begin, context.days.first - timedelta(days=context.settings.ingest.lookback_days))
        days = tuple(begin + timedelta(days=n) for n in range((context.days.first - begin).days))
        earlier = [json.loads(row["details"]) for row in rows if row["day"] < context.days.first]
        return Past(
            days=days,
            newest=max(row["day"] for row in rows),
            prints=recorded(records),
            undated=earlier[-1].get("listings", {}) if earlier else {},
            columns=json.loads(rows[-1]["details"]).get("columns", {}),
        )

    def changed_folders(self, listings: Mapping[date, str]) -> tuple[date, ...]:
        """The finished days whose folders are no longer listed as they were.

        A folder that is gone was archived: its rows are in the lake, and a backfill would lose them.
        """
        return tuple(day for day in self.days if listings.get(day, "") not in ("", self.prints.get(day, NOTHING).listing))


def recorded(rows: Iterable[dict[str, Any]]) -> dict[date, Fingerprint]:
    """The newest fingerprint of each day, as ingest found it or an erasure left it.

    Rows come oldest first; a whole history replaces all up to its day.
    """
    found: dict[date, Fingerprint] = {}
    for row in rows:
        if row["first_day"] != row["day"]:
            found = {day: known for day, known in found.items() if day > row["day"]}
        prints = json.loads(row["details"]).get("fingerprints", {})
        found |= {date.fromisoformat(day): Fingerprint(**values) for day, values in prints.items()}
    return found


def marked(frame: DataFrame, known: Tombstones | None) -> DataFrame:
    """`frame` with `ERASED`: whether the row is that of a person who was erased."""
    if known is None or "user_id" not in frame.columns:
        return frame.withColumn(ERASED, F.lit(False))
    return frame.withColumn(ERASED, is_erased(F.col("user_id"), F.col(BROKEN), known))


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What the sources hold.

    `prints`: of each day with rows. `user_ids`: day, feed and user_id as the caller writes it, without those of erased persons.
    """

    prints: dict[date, Fingerprint]
    user_ids: DataFrame


def survey(feeds: Mapping[str, DataFrame], key: bytes, counted: Collection[str]) -> Survey:
    """Read every feed in one job, and sum up those `counted` by `day`.

    `feeds`: rows as `reading.read` gives them, with `day` and `ERASED`. Items and users without days are read but
    not counted: they are not read again with the day.
    """
    # Salted: a sum over a day of one row would else be an unkeyed hash of its user.
    salt = hmac.new(key, b"wherewhen survey", hashlib.sha256).hexdigest()
    rows = [
        frame.select(
            "day", ERASED, F.lit(name).alias("feed"), _user(frame).alias("user_id"), _hash(frame, name, salt).alias("hash")
        )
        for name, frame in feeds.items()
    ]
    # By user, and kept: so the ids are known without reading the files again. In two halves: sums of whole numbers that fit.
    of_users = (
        reduce(DataFrame.unionByName, rows)
        .groupBy("day", "feed", "user_id")
        .agg(
            F.count("*").alias("rows"),
            F.sum(F.shiftright("hash", _HALF)).alias("upper"),
            F.sum(F.col("hash").bitwiseAND((1 << _HALF) - 1)).alias("lower"),
            F.count_if(ERASED).alias("erased"),
        )
        .persist()
    )
    found: dict[date, Fingerprint] = {}
    for row in of_users.groupBy("day", "feed").agg(*[F.sum(name).alias(name) for name in _SUMS]).collect():
        if row.feed not in counted:
            continue
        known = found.get(row.day, NOTHING)
        found[row.day] = Fingerprint(
            rows=known.rows + (row["rows"] if row.feed == EVENTS else 0),
            # Summed: order does not count, but equal rows do.
            checksum=str(int(known.checksum) + (row.upper << _HALF) + row.lower),
            erased=known.erased + (row.erased if row.feed == EVENTS else 0),
        )
    has_id = F.col("user_id").isNotNull() & (F.col("erased") == 0)
    return Survey(prints=found, user_ids=of_users.where(has_id).select("day", "feed", "user_id"))


def _hash(frame: DataFrame, feed: str, salt: str) -> Column:
    return F.xxhash64(F.lit(salt), F.lit(feed), _user(frame), F.col(CONTENT), F.col(BROKEN))


def _user(frame: DataFrame) -> Column:
    return F.col("user_id") if "user_id" in frame.columns else F.lit(None).cast("string")


def refuse_changed(past: Past, now: Mapping[date, Fingerprint], days: Iterable[date]) -> None:
    """Stop where a finished day no longer holds the rows that it was finished with.

    Raises:
        Refused: names the first such day and the backfill.
    """
    for day in sorted(days):
        before, after = past.prints.get(day, NOTHING), now.get(day, NOTHING)
        if (before.rows, before.checksum) != (after.rows, after.checksum):
            raise Refused(
                f"the source rows of {day} changed after that day was finished ({before.rows} events then, {after.rows} now): "
                f"run `backfill --start {day} --end {past.newest}`"
            )


def as_details(prints: Mapping[date, Fingerprint], listings: Mapping[date, str]) -> dict[str, dict[str, Any]]:
    """For the run record; days that hold nothing are left out, so that its size follows the log."""
    days = sorted({*prints, *(day for day, digest in listings.items() if digest)})
    return {str(day): asdict(replace(prints.get(day, NOTHING), listing=listings.get(day, ""))) for day in days}
