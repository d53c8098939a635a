"""Which version of a table readers see, and the days that it reaches over. Needs no JVM."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from conf.tables import TABLES
from jobs.lake import logs
from jobs.lake.runs import NIGHT, REFRESH, REFRESHED
from jobs.query.statement import QueryError, nearest

log = logging.getLogger("wherewhen")

RUNS = "runs"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A table at a version (None: the newest, of a log that no step commits), as of the end of `day`."""

    version: int | None
    day: date
    first_day: date


@dataclass(frozen=True, kw_only=True)
class Records:
    """The finished rows of `runs`, oldest first."""

    root: str
    rows: tuple[logs.Row, ...]

    @classmethod
    def of(cls, root: str) -> Records:
        rows = logs.read(root, RUNS, f"status = 'done' OR (step = '{REFRESH}' AND status = '{REFRESHED}')")
        return cls(root=root, rows=tuple(sorted(rows, key=lambda row: row["finished_at"])))

    @property
    def first_day(self) -> date:
        """The lake's first day."""
        ingested = [row["first_day"] for row in self.rows if row["step"] == "ingest"]
        return min(ingested or [row["first_day"] for row in self.rows], default=date.min)

    def committed(self) -> dict[str, Seen]:
        """Table -> what readers see: the newest night and what a later refresh made, or what steps made before any night."""
        nights = [row for row in self.rows if row["step"] == NIGHT]
        if nights:
            newest_day = max(row["day"] for row in nights)
            night = [row for row in nights if row["day"] == newest_day][-1]
            later = [row for row in self.rows if row["step"] == REFRESH and row["day"] > newest_day]
            # An erasure closes the night anew, and with it ends what a refresh showed.
            return self._outputs([night, *[row for row in later[-1:] if row["finished_at"] > night["finished_at"]]])
        return self._outputs(self.rows)

    def of_run(self, run_id: str) -> dict[str, Seen]:
        """Table -> the version that a run left (its night's, where it closed one), else the one that it read.

        Raises:
            QueryError: no step of such a run is finished.
        """
        rows = [row for row in self.rows if row["run_id"] == run_id]
        if not rows:
            known = dict.fromkeys(row["run_id"] for row in reversed(self.rows))
            raise QueryError(f"no run {run_id} is finished in {self.root}{nearest(run_id, known)}; `wherewhen runs` lists them")
        read = {
            name: Seen(version=version, day=row["day"], first_day=self.first_day)
            for row in reversed(rows)
            for name, version in row["inputs"].items()
        }
        nights = [row for row in rows if row["step"] == NIGHT]
        return {**read, **self._outputs(nights or rows)}

    def at_version(self, name: str, version: int) -> Seen | None:
        """A version that a finished step wrote; None where none did."""
        wrote = [row for row in self.rows if row["step"] != NIGHT and row["outputs"].get(name) == version]
        return Seen(version=version, day=wrote[-1]["day"], first_day=self.first_day) if wrote else None

    def _outputs(self, rows: list[logs.Row] | tuple[logs.Row, ...]) -> dict[str, Seen]:
        return {
            name: Seen(version=version, day=row["day"], first_day=self.first_day)
            for row in rows
            for name, version in row["outputs"].items()
        }


def seen(root: str, versions: Mapping[str, int], at_run: str | None) -> dict[str, Seen]:
    """What a query sees of every table that it may name; logs that no step commits as they stand.

    Raises:
        QueryError: an unknown run or table.
    """
    records = Records.of(root)
    if at_run is not None:
        found = records.of_run(at_run)
    else:
        found = records.committed()
        if found and not any(row["step"] == NIGHT for row in records.rows):
            log.info("no night is finished in %s yet: these are the rows of single finished steps", root)
    last = max((row["day"] for row in records.rows), default=date.max)
    as_it_stands = Seen(version=None, day=last, first_day=records.first_day)
    written = {name for row in records.rows for name in row["outputs"]}
    for name, contract in TABLES.items():
        if contract.kind == "log" and name not in written:
            found.setdefault(name, as_it_stands)
    for name, version in versions.items():
        if name not in TABLES:
            raise QueryError(f"--version {name}={version}: there is no table {name}{nearest(name, TABLES)}")
        found[name] = records.at_version(name, version) or Seen(version=version, day=last, first_day=records.first_day)
    return found
