"""The sources that the settings name: what each is mapped to, where it lies, on which day its rows arrived."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.mapping import FEEDS, Events, Feed, Mapping, load_mapping
from conf.settings import Settings, find
from jobs.clean.times import event_timestamp
from jobs.ingest.landing import File, Landing, Place
from jobs.ingest.reading import FILE, Source, has_files, read
from jobs.lake.context import NO_TIMES_DAY

EVENTS = "events"
# A clock that was reset says 1970 or 1980: such a date is no day on which a row arrived.
EARLIEST_DAY = date(1990, 1, 1)


@dataclass(frozen=True, kw_only=True)
class Feeding:
    """One source. `place` is None where the format has no files (a database, a Delta table)."""

    name: str
    feed: Feed
    path: str | None
    place: Place | None
    pattern: str

    @property
    def dated(self) -> bool:
        return self.place is not None and self.place.days is not None

    def files(self, landing: Landing, days: Collection[date]) -> tuple[File, ...]:
        """Its files in these days' folders; all of them where there are no folders."""
        if self.place is None or self.place.days is None:
            return self.place.files if self.place is not None else ()
        return landing.files(self.place, self.pattern, days)

    @property
    def where(self) -> str:
        return f"sources.{self.name}"

    def source(self, files: tuple[File, ...]) -> Source:
        """What is to be read, whatever the types of its columns."""
        return Source(
            feed=self.feed, where=self.where, path=self.path, files=None if self.place is None else files, accept=True
        )

    def read(self, spark: SparkSession, files: tuple[File, ...]) -> DataFrame:
        return read(spark, self.source(files))


def feedings(landing: Landing, settings: Settings) -> dict[str, Feeding]:
    """Events, and what else the log has: from its own path, else from beside the events.

    Raises:
        ValueError: a path is not set, missing or unreadable, or a source's mapping does not say how to read it.
    """
    mapping = settings.mapping
    events = _at(landing, EVENTS, mapping.events, settings.sources["events"].path)
    found = {EVENTS: events}
    for name in FEEDS:
        own = settings.sources.get(name)  # type: ignore[call-overload]
        feed = mapping.feeds[name] if own is None else load_mapping(find(own.mapping)).feeds[name] or mapping.feeds[name]
        if feed is None:
            if own is not None:
                raise ValueError(f"sources.{name}: {own.mapping} maps no {name}; add a section `{name}:` to it")
            continue
        if own is not None and own.path is not None:
            found[name] = _at(landing, name, feed, own.path)
        elif events.place is not None and has_files(feed):
            place = events.place
            if place.days is None:
                place = Place(root=place.root, files=landing.files(place, feed.files))
            found[name] = Feeding(name=name, feed=feed, path=events.path, place=place, pattern=feed.files)
    return found


def _at(landing: Landing, name: str, feed: Feed, path: str | None) -> Feeding:
    key = f"sources.{name}.path"
    if not has_files(feed):
        return Feeding(name=name, feed=feed, path=path, place=None, pattern="")
    if path is None:
        raise ValueError(f"{key} is not set: say where the log lies, for example --set {key}=data/landing")
    return Feeding(name=name, feed=feed, path=path, place=landing.find(path, key), pattern=feed.files)


def with_day(rows: DataFrame, feeding: Feeding, mapping: Mapping, *, first_day: date, undated_day: date) -> DataFrame:
    """`rows` with their arrival `day`: the landing folder's date, else (assumed) the event's own UTC date.

    Events without a readable date of their own belong to the first day; other sources without
    dates to `undated_day`, the day of the run that first saw them.
    """
    if not mapping.has_times:
        return rows.withColumn("day", F.lit(NO_TIMES_DAY))
    if feeding.place is not None and feeding.place.days is not None:
        return rows.withColumn("day", _folder_day(feeding.place.depth))
    if isinstance(feeding.feed, Events):
        return rows.withColumn("day", F.coalesce(own_day(feeding.feed), F.lit(first_day)))
    return rows.withColumn("day", F.lit(undated_day))


def own_day(feed: Events) -> Column:
    """The event's UTC date; null where it is unreadable or cannot be true."""
    day = F.to_date(event_timestamp(F.col("event_time"), feed))
    return F.when(day >= F.lit(EARLIEST_DAY), day)


def _folder_day(depth: int) -> Column:
    """The date of the landing folder, which is part number `depth` (from 0) of the file's URL behind the scheme."""
    # Nothing with a lambda: Spark interprets that, and the threads around a Python function may share its state.
    behind = rf"^(?:[a-zA-Z][a-zA-Z0-9+.-]*:)?/*(?:[^/]+/+){{{depth}}}([^/]+)"
    return F.to_date(F.regexp_extract(FILE, behind, 1))


def first_day(spark: SparkSession, settings: Settings, last: date) -> date:
    """The log's first day: its first landing folder, or the earliest readable date of a log without folders.

    Raises:
        ValueError: there is nothing up to `last`.
    """
    landing = Landing(spark)
    events = feedings(landing, settings)[EVENTS]
    if events.place is not None and events.place.days is not None:
        if events.place.days[0] > last:
            raise ValueError(f"{events.path} begins with {events.place.days[0]}, after --day {last}")
        return events.place.days[0]
    rows = events.read(spark, events.files(landing, ()))
    assert isinstance(events.feed, Events)
    found = rows.select(own_day(events.feed).alias("day")).agg(F.min("day").alias("first"), F.count("*").alias("rows")).first()
    assert found is not None
    if found.rows == 0:
        raise ValueError(f"{events.path or 'sources.events'} holds no rows")
    if found.first is None:
        raise ValueError(
            f"{events.path or 'sources.events'}: none of its {found.rows} rows has a readable time; "
            f"the mapping says time_format: {events.feed.time_format}"
        )
    if found.first > last:
        raise ValueError(f"{events.path or 'sources.events'} begins with {found.first}, after --day {last}")
    return found.first
