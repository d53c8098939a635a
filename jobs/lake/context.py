"""What a step is given: the days of the run, its tables to read and to write, nothing else."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from copy import copy
from datetime import date, timedelta
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.mapping import Mapping as SourceMapping
from conf.settings import Settings
from conf.tables import TABLES
from jobs.lake import consent, logs
from jobs.lake.refused import Refused
from jobs.lake.store import Days, Lake, keyframe_before, keyframe_copies, keyframes, newest
from jobs.pipeline import Step

__all__ = ["NO_TIMES_DAY", "Context", "Refused", "Skipped"]

_EVENTS, _SEQUENCES = "events", "user_sequences"
NO_TIMES_DAY = date(2000, 1, 1)


class Skipped(Exception):
    """Raised by a step whose source lacks what it needs; the message says what."""


class Context:
    """One step of one run over `days` (a night: one day; a bootstrap: the whole history).

    A step treats both alike: it starts from the state `before` the first day (empty in a
    bootstrap) and gives back rows for every day of the range, each with its `day`. Where the log
    asks for consent, it sees of events and sequences only what may be used for the step's purposes,
    positions only where users allow their location, and users who withdrew are gone when it writes.
    """

    def __init__(
        self, *, settings: Settings, lake: Lake, days: Days, first_day: date, run_id: str, bootstrap: bool, pins: dict[str, int]
    ) -> None:
        self.settings = settings
        self.lake = lake
        self.spark = lake.spark
        self.days = days
        self.first_day = first_day
        self.run_id = run_id
        self.bootstrap = bootstrap
        self.pins = pins
        self.known_until: Mapping[str, date] = {}
        self.purposes: tuple[str, ...] = ()
        self.writes: tuple[str, ...] = ()
        self.inputs: dict[str, int] = {}
        self.outputs: dict[str, int] = {}
        self.rows_out: dict[str, int] = {}
        self.details: dict[str, Any] = {}
        self.rows_in: int | None = None
        self.log = logging.getLogger("wherewhen")

    def seen_by(self, step: Step) -> Context:
        """The same for one step: what may be used for its purposes."""
        seen = copy(self)
        seen.purposes, seen.writes = step.purposes, step.writes
        return seen

    def used_for(self, *purposes: str) -> Context:
        """The same, but of people's events only what may be used for these purposes too."""
        seen = copy(self)
        seen.purposes = (*self.purposes, *purposes)
        return seen

    def over(self, days: Days) -> Context:
        """The same lake over other days, to read only."""
        seen = copy(self)
        seen.days, seen.inputs = days, {}
        return seen

    def pinned(self, versions: dict[str, int]) -> Context:
        """The same, but with some tables at other versions, to read only."""
        seen = copy(self)
        seen.pins, seen.inputs = {**self.pins, **versions}, {}
        return seen

    def left_as_of(self, day: date, *, but: Collection[str]) -> Context:
        """The same, where a refresh made only some tables, and left the others as they were at the end of a day."""
        seen = copy(self)
        seen.known_until = {name: day for name in self.pins if name not in but}
        return seen

    def as_of(self, name: str) -> date:
        """The day at whose end a table is seen: the last, but for those that a refresh left as they were."""
        return self.known_until.get(name, self.days.last)

    @property
    def mapping(self) -> SourceMapping:
        return self.settings.mapping

    def note(self, **details: Any) -> None:
        """Facts for the run record (JSON-like, bounded)."""
        self.details.update(details)

    def arrivals(self, name: str) -> DataFrame:
        """Rows of a fact that arrived in the run's days."""
        rows = self._read(name, self.days.where())
        if name != _EVENTS or not self._limited:
            return rows
        if self._apart:
            return consent.apart(rows, self._spans())
        allowed = F.forall(F.array(*map(F.lit, self.purposes)), lambda purpose: F.array_contains("consents", purpose))
        return rows.where(F.coalesce(allowed, F.lit(False)))

    def fit_days(self) -> list[date]:
        """The run's days on which what is fitted over many owners is made anew: the first of all, and each first of a month.

        On these the states hold every owner.
        """
        return [day for day in self.days if day == self.first_day] + keyframes(self.days, self.first_day)

    def rows_by_day(self, name: str, days: Days | None = None) -> dict[date, int]:
        """How many rows of a fact arrived on each of the days (the run's) that has any, as its files say; no Spark job."""
        version = self.pins.get(name)
        self._read_from(name, version)
        return self.lake.rows_by_day(name, version, days or self.days)

    def before(self, name: str, lookback_days: int | None = None, among: DataFrame | None = None) -> DataFrame:
        """`name@-1`: a state before the first day (without `gone` and `day`), or a fact's earlier partitions.

        A bootstrap starts from nothing: both are empty. among: of a state these owners alone, as in `state`.
        """
        if TABLES[name].kind == "state":
            return self._usable_state(name, self._state_before(name, among))
        yesterday = self.days.first - timedelta(days=1)
        if self.bootstrap:
            return self.lake.read(name, None)
        since = "" if lookback_days is None else f"day >= '{self.days.first - timedelta(days=lookback_days)}' AND "
        return self._usable_facts(name, self._read(name, f"{since}day <= '{yesterday}'"))

    def _state_before(self, name: str, among: DataFrame | None = None) -> DataFrame:
        yesterday = self.days.first - timedelta(days=1)
        if self.bootstrap or yesterday < self.first_day:
            return self.lake.read(name, None).drop("gone", "day")
        reach = Days(first=keyframe_before(yesterday, self.first_day), last=yesterday)
        return newest(self._of(among, name, reach), TABLES[name].owner)

    def _of(self, among: DataFrame | None, name: str, reach: Days) -> DataFrame:
        """Stored rows of a state, of all owners or of some: these are sought before anything is sorted."""
        rows = self._read(name, reach.where())
        return rows if among is None else rows.join(among, on=list(TABLES[name].owner), how="left_semi")

    def earlier(self, name: str) -> DataFrame:
        """A fact's partitions before the last day, in a bootstrap as in a night: what training may see."""
        return self._usable_facts(name, self._read(name, f"day < '{self.days.last}'"))

    def history(self, name: str, lookback_days: int | None = None) -> DataFrame:
        """A fact's rows up to the last day, the run's own days included."""
        since = "" if lookback_days is None else f"day > '{self.days.last - timedelta(days=lookback_days)}' AND "
        return self._usable_facts(name, self._read(name, f"{since}day <= '{self.days.last}'"))

    def events_until_withdrawn(self, lookback_days: int | None) -> DataFrame:
        """`history` of events for results of several days: with `allowed_until`, the day from which on a row may not be used.

        It is null where that day has not come.
        """
        since = "" if lookback_days is None else f"day > '{self.days.last - timedelta(days=lookback_days)}' AND "
        rows = self._read(_EVENTS, f"{since}day <= '{self.days.last}'")
        if not self._limited:
            return rows.withColumn("allowed_until", F.lit(None).cast("date"))
        return consent.usable(rows, self._spans()).drop("allowed_from")

    def state(self, name: str, after: date | None = None, among: DataFrame | None = None) -> DataFrame:
        """`name`: the state as of the last day, what this run wrote included; without `gone` and `day`.

        after: of the owners that changed after that day; others are there or not. among: of these owners alone, one row each.
        """
        last = self.as_of(name)
        since = keyframe_before(last, self.first_day)
        reach = Days(first=since if after is None else max(since, after + timedelta(days=1)), last=last)
        return self._usable_state(name, newest(self._of(among, name, reach), TABLES[name].owner))

    def aged(self, name: str, after: date | None = None) -> DataFrame:
        """`state` with what moves with time as it is at the end of the last day: what readers see."""
        rows = self.state(name, after).withColumn("age_days", F.date_diff(F.lit(self.as_of(name)), "changed_on"))
        columns = [column for column in TABLES[name].columns if column.name in rows.columns]
        return rows.select(
            *[F.expr(column.aged).cast(column.type).alias(column.name) if column.aged else column.name for column in columns]
        )

    def allowing(self, *purposes: str) -> DataFrame | None:
        """The users who allow the purposes as of the last day: `user_id, allowed_from`; None: the log asks for no consent."""
        if not self.settings.asks_consent:
            return None
        return consent.allowed_now(self.state(consent.CONSENTS), purposes, self.settings.privacy.notice_versions)

    def stored(self, name: str, days: Days) -> DataFrame:
        """A state's or snapshot's rows in the partitions of some days, as written; without those who allow it no more."""
        rows = self._read(name, days.where())
        return self._usable_state(name, rows) if TABLES[name].kind == "state" else rows

    def changed(self, name: str) -> DataFrame:
        """State rows of the owners that changed within the run's days, as written (`gone` and `day` included)."""
        return self.arrivals(name).where(F.col("changed_on") == F.col("day"))

    def snapshot(self, name: str) -> DataFrame:
        """The newest partition of a snapshot up to the last day."""
        rows = self._read(name, f"day <= '{self.days.last}'")
        return rows.join(rows.agg(F.max("day").alias("day")), on="day", how="left_semi")

    def log_rows(self, name: str, where: str = "true") -> list[logs.Row]:
        """Rows of a log table, as it stands."""
        version = self.lake.version(name)
        self._read_from(name, version)
        return logs.read(self.lake.root, name, where, version)

    def version(self, name: str) -> int | None:
        """The version of a table that the step sees, for what reads it without Spark; None where there is none yet."""
        version = self.pins.get(name)
        self._read_from(name, version)
        return version

    def write(self, name: str, rows: DataFrame) -> None:
        """Replace the run's partitions of a fact, state or snapshot by `rows` (each with its `day`).

        Of a state, `rows` are the owners that changed, `changed_on` = `day`; copies on keyframe
        days are added here. Where the contract says `newest_only`, only the last day is replaced.
        """
        contract = TABLES[name]
        days = self._written(name)
        if self._limited:
            rows = self._without_withdrawn(name, rows)
        if contract.kind == "state":
            rows = self._with_keyframes(name, rows, days)
        if contract.keep_keyframes is not None:
            rows = rows.where(F.col("day") >= F.lit(self._kept_from(contract.keep_keyframes)))
        self._read_from(name, self.pins.get(name))
        written = self.lake.replace(name, rows, self.replaced(name), whole=self.bootstrap)
        self.outputs[name] = written.version
        self.rows_out[name] = self.rows_out.get(name, 0) + written.rows
        self.pins[name] = written.version

    def clear(self, name: str) -> None:
        """`write` without rows: what is made weekly, on other days. Where the partitions hold none it costs no commit."""
        version = self.pins.get(name)
        if self.bootstrap or version is None or not self.lake.is_empty(name, version, self._written(name)):
            self.write(name, self.lake.read(name, None))
            return
        self._read_from(name, version)
        self.outputs[name] = version
        self.rows_out[name] = 0

    def append(self, name: str, rows: list[logs.Row]) -> None:
        """Append to a log table."""
        self._read_from(name, self.lake.version(name))
        self.outputs[name] = logs.append(self.lake.root, name, rows)
        self.rows_out[name] = self.rows_out.get(name, 0) + len(rows)
        self.pins[name] = self.outputs[name]

    def append_rows(self, name: str, rows: DataFrame) -> None:
        """Append to a log table that Spark writes; it is counted by nobody."""
        self._read_from(name, self.lake.version(name))
        self.outputs[name] = self.pins[name] = self.lake.append(name, rows).version

    def _read(self, name: str, where: str) -> DataFrame:
        version = self.pins.get(name)
        self._read_from(name, version)
        return self.lake.read(name, version, where)

    def _read_from(self, name: str, version: int | None) -> None:
        """Record what the step rests on: of a table that it writes itself, the version before its first write."""
        if version is not None and name not in self.outputs:
            self.inputs.setdefault(name, version)

    @property
    def _limited(self) -> bool:
        return bool(self.purposes) and self.settings.asks_consent

    @property
    def _apart(self) -> bool:
        """Whether states are folded over days within which users may withdraw and allow again."""
        return self.bootstrap and any(TABLES[name].purpose for name in self.writes)

    def _spans(self) -> DataFrame:
        """When users allowed the step's purposes, within the run's days; of a night: who does."""
        accepted = self.settings.privacy.notice_versions
        if self.bootstrap:
            return consent.allowed_spans(self.changed(consent.CONSENTS), self.purposes, accepted)
        return consent.allowed_now(self.state(consent.CONSENTS), self.purposes, accepted)

    def _usable_facts(self, name: str, rows: DataFrame) -> DataFrame:
        """Of events those that may be used as of the last day."""
        if name != _EVENTS or not self.settings.asks_consent:
            return rows
        if (allowed := self.allowing(*self.purposes) if self.purposes else None) is not None:
            rows = consent.usable(rows, allowed).drop("allowed_from", "allowed_until")
        located = self.allowing(consent.LOCATION)
        assert located is not None
        return consent.without_withdrawn_places(rows, located)

    def _usable_state(self, name: str, rows: DataFrame) -> DataFrame:
        """What may be used as of the last day: of sequences their events, of a purpose's own state its owners."""
        if not self.settings.asks_consent:
            return rows
        if name == _SEQUENCES and name not in self.writes:
            located = self.allowing(consent.LOCATION)
            assert located is not None
            return consent.usable_sequences(rows, self.allowing(*self.purposes) if self.purposes else None, located)
        if (purpose := TABLES[name].purpose) is not None:
            allowed = self.allowing(purpose)
            assert allowed is not None
            return consent.usable(rows, allowed, day="changed_on").drop("allowed_from", "allowed_until")
        return rows

    def _without_withdrawn(self, name: str, rows: DataFrame) -> DataFrame:
        """`rows` under the users' own ids, and a gone row for each user whom a withdrawal leaves without state."""
        contract = TABLES[name]
        if contract.purpose is None:
            return consent.together(rows) if self._apart and "user_id" in rows.columns else rows
        if self._apart:
            ended = consent.withdrawn(rows, self._spans())
            rows = consent.together(rows)
        else:
            known, kept = self._state_before(name).select("user_id"), self.before(name).select("user_id")
            ended = known.join(kept.unionByName(rows.select("user_id")), on="user_id", how="left_anti").distinct()
            ended = ended.withColumn("day", F.lit(self.days.last))
        return rows.unionByName(consent.gone(ended, contract))

    def _with_keyframes(self, name: str, rows: DataFrame, days: Days) -> DataFrame:
        frames = keyframes(days, self.first_day)
        if not frames:
            return rows
        owner = TABLES[name].owner
        before = self._state_before(name).withColumn("gone", F.lit(False)).withColumn("day", F.col("changed_on"))
        if TABLES[name].newest_only and self.bootstrap:
            return rows
        every = before.unionByName(rows.select(*before.columns)).persist()
        return rows.unionByName(keyframe_copies(every, owner, frames).select(*rows.columns))

    def replaced(self, name: str) -> str:
        """The partitions that a write replaces (SQL over `day`); those past their keyframes go in the same commit."""
        days = self._written(name)
        if self.bootstrap:
            return f"day <= '{days.last}'"
        keep = TABLES[name].keep_keyframes
        if keep is None:
            return days.where()
        return f"({days.where()}) OR day < '{self._kept_from(keep)}'"

    def _written(self, name: str) -> Days:
        return Days(first=self.days.last, last=self.days.last) if TABLES[name].newest_only else self.days

    def _kept_from(self, keep: int) -> date:
        start = keyframe_before(self.days.last, self.first_day)
        for _ in range(keep - 1):
            if start > self.first_day:
                start = keyframe_before(start - timedelta(days=1), self.first_day)
        return start
