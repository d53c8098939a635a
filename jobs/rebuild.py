"""A table made again for the whole history, and all that is made of it."""

from __future__ import annotations

import json
import logging
from datetime import date

from pyspark.sql import SparkSession

from conf.settings import Settings, SettingsError
from conf.tables import TABLES
from jobs.ingest.landing import Landing
from jobs.ingest.sources import EVENTS, feedings
from jobs.lake import logs
from jobs.lake.context import Refused
from jobs.lake.maintenance import refuse_dropped
from jobs.pipeline import STEPS, Step, downstream
from jobs.query.statement import nearest
from jobs.runner import Outcome, Watcher, run

log = logging.getLogger("wherewhen")


def steps_of(table: str) -> tuple[Step, ...]:
    """The step that writes the table and all that depend on it, in order.

    Raises:
        SettingsError: there is no such table; says what is near.
        ValueError: a log: what it records happened once.
    """
    if table not in TABLES:
        raise SettingsError(f"there is no table {table}{nearest(table, TABLES)}; `wherewhen tables` lists them")
    if TABLES[table].kind == "log":
        raise ValueError(f"{table} is a log: what it records happened once and is not made again")
    return downstream(next(step.name for step in STEPS if table in step.writes))


def rebuild(spark: SparkSession, settings: Settings, table: str, watch: Watcher) -> Outcome:
    """Run the steps of `table` as a bootstrap up to the newest day that they finished, from what is stored.

    Each table is replaced in one commit, under today's contract. Readers see the new rows when the night
    is closed again; stopped before, the same command starts anew.

    Raises:
        SettingsError, ValueError: see `steps_of`; or nothing is finished yet.
        Refused: raw rows would have to be read again whose landing folders are gone, or retention has removed what is needed.
    """
    steps = steps_of(table)
    names = {step.name for step in steps}
    done = logs.read(settings.lake, "runs", "status = 'done'")
    finished = [row["day"] for row in done if row["step"] in names]
    if not finished:
        raise ValueError(f"nothing is finished in {settings.lake}: run a night first (wherewhen run --day D)")
    read = {name for step in steps for name in step.tables_read} - {name for step in steps for name in step.writes}
    refuse_dropped(settings.lake, read, min(row["first_day"] for row in done if row["step"] == "ingest"))
    if "ingest" in names:
        _refuse_archived(spark, settings)
    log.info("rebuild of %s up to %s: %s", table, max(finished), ", ".join(step.name for step in steps))
    return run(spark, settings, max(finished), steps=steps, bootstrap=True, watch=watch)


def _refuse_archived(spark: SparkSession, settings: Settings) -> None:
    place = feedings(Landing(spark), settings)[EVENTS].place
    if place is None or place.days is None or not settings.mapping.has_times:
        return
    rows = logs.read(settings.lake, "runs", "step = 'ingest' AND status = 'done'")
    prints = {day: values for row in rows for day, values in json.loads(row["details"]).get("fingerprints", {}).items()}
    gone = sorted(day for day, values in prints.items() if values["rows"] and date.fromisoformat(day) not in place.days)
    if gone:
        raise Refused(
            f"{len(gone)} landing folders are gone, {gone[0]} the first: their rows are in raw_events alone and would be lost; "
            "put them back, or rebuild from what is stored: `wherewhen rebuild events`"
        )
