"""A person's records taken out of the source files, and what ingest remembers of these files set right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.mapping import Feed
from conf.settings import Settings
from jobs.ingest.landing import Landing
from jobs.ingest.sources import EVENTS, Feeding, feedings, with_day
from jobs.ingest.survey import ERASED, Fingerprint, marked, recorded, survey
from jobs.lake import logs, parquet, records
from jobs.lake.identities import load_key
from jobs.lake.person import Person
from jobs.lake.runs import ERASE
from jobs.lake.tombstones import Tombstones

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_WIDE = ("utf-16", "utf-32")


@dataclass(frozen=True, kw_only=True)
class LandingFile:
    """A source file, and how its records are read. `column` holds the caller's id."""

    path: Path
    form: records.Form | None  # None: Parquet
    column: str

    def take_out(self, person: Person) -> int:
        """Gives the records removed.

        Raises:
            ValueError: the file cannot be read.
        """
        if self.form is None:
            import pyarrow.compute as pc

            return parquet.take_out(
                self.path,
                lambda rows: pc.fill_null(pc.equal(pc.cast(rows.column(self.column), "string"), person.raw_id), False),
            )
        return records.take_out(self.path, self.form, person, partial(_has, self.column, person.raw_id))

    def holds(self, person: Person) -> bool:
        if self.form is None:
            return any(person.raw_id in map(str, rows.column(self.column).to_pylist()) for rows in parquet.groups(self.path))
        return any(records.read(self.path, self.form, person, partial(_has, self.column, person.raw_id)))


def _has(column: str, value: str, record: Mapping[str, str | None]) -> bool:
    return record.get(column) == value


def landing_files(spark: SparkSession, settings: Settings) -> list[LandingFile]:
    """Every file that holds users: of the events, and of the users' feed.

    Raises:
        ValueError: a source that has files which cannot be written anew; says why.
    """
    landing, found = Landing(spark), []
    for name, source in feedings(landing, settings).items():
        column = source.feed.columns.get("user_id")
        if source.place is None or column is None:
            continue
        if not isinstance(column, str):
            raise ValueError(
                f"sources.{name}: user_id is made by an expression, so its records cannot be taken out of the files here: "
                "set privacy.erase_landing=false and remove them yourself"
            )
        for file in source.files(landing, source.place.days or ()):
            if not file.path.startswith("file:"):
                raise ValueError(f"{file.path} is not on this machine: set privacy.erase_landing=false and remove it yourself")
            path = Path("/" + file.path.removeprefix("file:").lstrip("/"))
            if file.size:
                found.append(LandingFile(path=path, form=_form(source.feed, name), column=column))
    return found


def _form(feed: Feed, name: str) -> records.Form | None:
    options = {key.lower(): value for key, value in feed.options.items()}
    encoding = options.get("encoding", options.get("charset", "utf-8"))
    multiline = options.get("multiline", "false").lower() == "true"
    wide = encoding.lower().startswith(_WIDE)
    if feed.format == "parquet":
        return None
    if feed.format == "csv" and not wide and "linesep" not in options:
        return records.Csv(
            separator=options.get("sep", options.get("delimiter", ",")),
            quote=options.get("quote", '"'),
            escape=options.get("escape", '"'),
            header=options.get("header", "false").lower() == "true",
            multiline=multiline,
            comment=options.get("comment"),
            encoding=encoding,
        )
    if feed.format == "json" and not multiline and not wide and "linesep" not in options:
        return records.JsonLines(encoding=encoding)
    raise ValueError(
        f"sources.{name}: records cannot be taken out of {feed.format} files with these options here: "
        "set privacy.erase_landing=false and remove them yourself"
    )


def prints_without(spark: SparkSession, settings: Settings, only: Tombstones, first_day: date) -> dict[str, dict[str, Any]]:
    """The recorded fingerprint of each day, less what the person's rows add to it; of the days that have such rows.

    What else changed in a folder since stays a difference, which the next night refuses as before.
    """
    landing, feeds, counted = Landing(spark), {}, []
    for name, source in feedings(landing, settings).items():
        if "user_id" not in source.feed.columns:
            continue
        rows = marked(_rows(spark, landing, source, settings, first_day), only)
        feeds[name] = rows.where(ERASED)
        counted += [name] if name == EVENTS or source.dated else []
    mine = survey(feeds, load_key(), counted).prints
    done = logs.read(settings.lake, "runs", f"step IN ('ingest', '{ERASE}') AND status = 'done'")
    known = recorded(sorted(done, key=lambda row: row["finished_at"]))
    return {str(day): asdict(_less(known[day], less)) for day, less in sorted(mine.items()) if day in known}


def _rows(spark: SparkSession, landing: Landing, source: Feeding, settings: Settings, first_day: date) -> Any:
    files = source.files(landing, source.place.days or ()) if source.place is not None else ()
    rows = source.read(spark, files)
    return with_day(rows, source, settings.mapping, first_day=first_day, undated_day=first_day)


def _less(whole: Fingerprint, part: Fingerprint) -> Fingerprint:
    # No listing: the next night looks at the folder once, and notes what it is then.
    return Fingerprint(
        rows=whole.rows - part.rows,
        checksum=str(int(whole.checksum) - int(part.checksum)),
        erased=max(whole.erased - part.erased, 0),
    )
