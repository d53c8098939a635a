"""Quarantined rows judged again, after a rule was mended."""

from __future__ import annotations

import json
import logging
from datetime import date

import deltalake
from pyspark.sql import SparkSession

from conf.settings import Settings
from jobs import backfill
from jobs.lake import logs, runs
from jobs.lake.runs import pins
from jobs.pipeline import choose
from jobs.query.statement import nearest
from jobs.runner import Watcher

log = logging.getLogger("wherewhen")

STEP = "requarantine"
FROM_STEP = "clean"
_QUARANTINE = "events_quarantine"


def requarantine(spark: SparkSession, settings: Settings, reason: str, start: date, watch: Watcher) -> tuple[int, int]:
    """Run clean and what follows again, from the first day since `start` with a row quarantined for `reason`.

    Gives back how many rows since then had the reason before, and have it now. Stopped, the same command
    goes on: days that are mended already no longer show where it began, so that is recorded.

    Raises:
        ValueError: no such row; says which reasons there are.
        Refused: see `backfill.run_days`.
    """
    counts = quarantined(settings.lake, start)
    begun = _begun(settings.lake, reason)
    days = [day for (name, day) in counts if name == reason] + ([] if begun is None else [begun["first_day"]])
    if not days:
        raise ValueError(_none(counts, reason, start))
    first = min(days)
    finished = [row["day"] for row in logs.read(settings.lake, "runs", "status = 'done'")]
    before = _total(counts, reason) if begun is None else json.loads(begun["details"])["before"]
    _record(settings, "started", reason, (first, max(finished)), before)
    log.info("%d rows since %s are quarantined for %s: from %s on again", before, start, reason, first)
    backfill.run_days(spark, settings, first, max(finished), steps=choose(from_step=FROM_STEP), watch=watch)
    _record(settings, "done", reason, (first, max(finished)), before)
    return before, _total(quarantined(settings.lake, first), reason)


def quarantined(root: str, start: date) -> dict[tuple[str, date], int]:
    """(reason, day) -> rows, from `start` on; a row with several reasons counts for each."""
    version = pins(root).get(_QUARANTINE)
    if version is None:
        return {}
    table = deltalake.DeltaTable(logs.table_path(root, _QUARANTINE), version=version)
    sql = (
        f"SELECT reason, day, count(*) AS n FROM (SELECT unnest(reasons) AS reason, day FROM q WHERE day >= DATE '{start}') "
        "AS each GROUP BY reason, day"
    )
    found = deltalake.QueryBuilder().register("q", table).execute(sql).read_all()
    columns = [found.column(name).to_pylist() for name in ("reason", "day", "n")]
    return {(reason, day): n for reason, day, n in zip(*columns, strict=True)}


def _total(counts: dict[tuple[str, date], int], reason: str) -> int:
    return sum(n for (name, _), n in counts.items() if name == reason)


def _none(counts: dict[tuple[str, date], int], reason: str, start: date) -> str:
    names = sorted({name for name, _ in counts})
    there = ", ".join(f"{name} ({_total(counts, name)} rows)" for name in names)
    said = f"no row since {start} is quarantined for {reason}{nearest(reason, names)}"
    return f"{said}; the reasons there are {there}" if there else f"{said}, or for anything else"


def _begun(root: str, reason: str) -> logs.Row | None:
    """The record of an earlier call that did not come to its end."""
    rows = sorted(logs.read(root, "runs", f"step = '{STEP}'"), key=lambda row: row["finished_at"])
    rows = [row for row in rows if row["run_id"] == f"{STEP}/{reason}"]
    return rows[-1] if rows and rows[-1]["status"] == "started" else None


def _record(settings: Settings, status: str, reason: str, days: tuple[date, date], before: int) -> None:
    details = json.dumps({"reason": reason, "before": before})
    more = {"first_day": days[0], "status": status, "settings_hash": settings.hash(), "details": details}
    row = runs.row(f"{STEP}/{reason}", STEP, days[1], **more)
    logs.append(settings.lake, "runs", [row])
