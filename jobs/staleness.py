"""Which tables hold rows that the code and settings of today would not have made. Needs no JVM."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta

from conf.settings import Settings
from conf.tables import TABLES
from jobs.lake import logs
from jobs.pipeline import AS_IT_STANDS, BEFORE, STEPS, Step
from jobs.provenance import code_version, settings_hash

# Day -> the newest finished run of a step that covers it.
Runs = dict[date, logs.Row]


def stale(settings: Settings) -> dict[str, str]:
    """Table -> why it is stale: `code` or `settings` changed since some day of it was made, or a table it is made of.

    A run counts until another covers its day: nights with new code leave the days before them stale.
    Of what a bootstrap writes for the last day alone, only the newest day counts. Logs are never stale.
    """
    by_step = _newest_by_day(logs.read(settings.lake, "runs", "status IN ('done', 'skipped')"))
    writer = {table: step for step in STEPS for table in step.writes}
    found: dict[str, str] = {}
    for step in STEPS:
        for table in step.writes:
            runs = by_step.get(step.name, {})
            if not runs or TABLES[table].kind == "log":
                continue
            if TABLES[table].newest_only:
                runs = {max(runs): runs[max(runs)]}
            reason = _own(step, runs, settings) or _inherited(step, runs, by_step, writer, found)
            if reason:
                found[table] = reason
    return found


def standing(settings: Settings, name: str, day: date) -> logs.Row | None:
    """A step's run of the day, if it is its newest, by today's code and settings, and nothing that it read was made again.

    Tables that would be made otherwise today, but are not, do not count: it read them as they are.
    """
    [step] = [step for step in STEPS if step.name == name]
    by_step = _newest_by_day(logs.read(settings.lake, "runs", "status IN ('done', 'skipped')"))
    runs = by_step.get(name, {})
    if not runs or max(runs) != day or _own(step, newest := {day: runs[day]}, settings):
        return None
    writer = {table: step for step in STEPS for table in step.writes}
    again = (_is_newer(by_step.get(writer[table].name, {}), newest, before=before) for table, before in _read(step, writer))
    return None if any(again) else runs[day]


def _newest_by_day(rows: Iterable[logs.Row]) -> dict[str, Runs]:
    found: dict[str, Runs] = {}
    for row in sorted(rows, key=lambda row: row["finished_at"]):
        days = (row["day"] - row["first_day"]).days + 1
        found.setdefault(row["step"], {}).update({row["first_day"] + timedelta(days=n): row for n in range(days)})
    return found


def _own(step: Step, runs: Runs, settings: Settings) -> str:
    rows = runs.values()
    # The release alone changes no row.
    code = code_version(step).partition("+")[2]
    reasons = {
        "settings": any(row["settings_hash"] != settings_hash(step, settings) for row in rows),
        "code": any(row["code_version"].partition("+")[2] != code for row in rows),
    }
    return " and ".join(reason for reason, holds in reasons.items() if holds)


def _inherited(step: Step, runs: Runs, by_step: dict[str, Runs], writer: dict[str, Step], found: dict[str, str]) -> str:
    """The first table read that is stale, or was made again since."""
    for table, before in _read(step, writer):
        if table in found or _is_newer(by_step.get(writer[table].name, {}), runs, before=before):
            return f"reads {table}"
    return ""


def _read(step: Step, writer: dict[str, Step]) -> Iterator[tuple[str, bool]]:
    """The tables of others that a step rests on, and whether it reads them as of the day before."""
    for read in step.reads:
        table = read.removesuffix(BEFORE)
        if not read.endswith(AS_IT_STANDS) and writer[table] != step and TABLES[table].kind != "log":
            yield table, read.endswith(BEFORE)


def _is_newer(upstream: Runs, runs: Runs, *, before: bool) -> bool:
    """Was any day that a run rests on made again after it? `before`: it rests on the days before its own."""
    days = sorted(upstream)
    newest: datetime | None = None
    by: set[str] = set()
    for day in sorted(runs):
        own = runs[day]
        while days and (days[0] < day or (days[0] == day and not before)):
            row = upstream[days.pop(0)]
            if newest is None or row["finished_at"] > newest:
                newest, by = row["finished_at"], {row["run_id"]}
        if newest is not None and newest > own["finished_at"] and own["run_id"] not in by:
            return True
    return False
