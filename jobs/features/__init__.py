"""`wherewhen features`: rows of a file, each with what was known of its user, item or region before its moment.

Answered by DuckDB from the tables' files, without a JVM: one sort per table, on all cores, and on disk what memory cannot hold.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import duckdb
import pyarrow as pa

from conf.contracts import ENTITIES, Table
from conf.settings import Settings
from conf.tables import TABLES
from jobs.features.asof import ROW, Known, as_of, from_snapshots, joined_names, snapshot_columns
from jobs.features.files import check_names, check_output, keep, read_entities, write_rows
from jobs.features.stored import keep_allowed, open_table, quoted, session
from jobs.features.surroundings import CONTEXT, NUMBERS, VALUES, with_context
from jobs.lake.identities import pseudonym_sql
from jobs.lake.output import replaced
from jobs.lake.runs import Night, finished_night
from jobs.lake.store import Days, keyframe_before
from jobs.query import readers_key
from jobs.spatial.windows import snapshot_days

log = logging.getLogger("wherewhen")

FEATURE_TABLES = (
    "items", "users", "user_interests", "time_series_features", "user_places", "user_slot_places", "user_mobility",
    "item_positions", "user_slot_affinity", "hotspots", "region_slot_lift", "item_tags", "user_tags", "item_vectors", "context",
)  # fmt: skip
MOMENT = "event_timestamp"
# Of feeds that few logs have: the section of the mapping that they come by.
_OF_FEEDS = {CONTEXT: "context", "item_vectors": "vectors"}
_SERIES = "time_series_features"
_FIRST_MOMENT, _LAST_MOMENT = "0001-01-02 00:00:00+00", "9999-12-30 00:00:00+00"
_USER, _TYPE, CONSENTS = "user_id", "event_type", "consents"


def features_file(settings: Settings, entities: Path, output: Path, tables: Sequence[str] | None = None) -> tuple[str, ...]:
    """Write `output` (.csv or .parquet): the rows of `entities` in their order, with the columns of `features`.

    Gives back the tables that were joined. The lake is not written.

    Raises:
        ValueError: as `features`; `entities` cannot be read, or `output` not be written.
    """
    check_output(output)
    with replaced(output) as scratch, session(settings.spark.driver_memory) as database:
        read_entities(database, entities)
        found = _Asking(settings=settings, night=finished_night(settings.lake), database=database).answered(tables)
        write_rows(found.rows, scratch, output.suffix)
    return tuple(dict.fromkeys(name.rpartition("__")[0] for name in found.joined))


def features(settings: Settings, entities: pa.Table, tables: Sequence[str] | None = None) -> pa.Table:
    """`entities` with a column `TABLE__COLUMN` for each column of the tables: what was known before the day of a row's moment.

    Args:
        entities: `event_timestamp` (UTC), and what names the owners: `user_id` (the caller's own), `item_id`,
            `category`, `tag`, `region`, `slot`, `cell`. A table with several rows per owner needs the other columns of
            its key as well (`category` for a user's interest in it). time_series_features is joined once for
            each kind of entity that is named (as `time_series_features_user__level`); of the event type in
            `event_type`, else of the first target event. Of `context` there are two maps, by name, of what holds
            at the moment, in the row's `cell` and `region` where it has them.
        tables: of `FEATURE_TABLES`; None: all whose keys are given.

    Raises:
        ValueError: no day is finished, the log has no times, a table is unknown or its key is not given, or rows
            have no `event_timestamp`.
    """
    return features_as_of(settings, finished_night(settings.lake), entities, tables)


def features_as_of(settings: Settings, night: Night, entities: pa.Table, tables: Sequence[str] | None = None) -> pa.Table:
    """`features` of the lake as a night left it."""
    with session(settings.spark.driver_memory) as database:
        check_names(entities.column_names)
        keep(database, entities)
        return _Asking(settings=settings, night=night, database=database).answered(tables).rows.to_arrow_table()


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was asked, in its order, and beside it what was found, in the columns `joined`."""

    rows: duckdb.DuckDBPyRelation
    joined: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Asking:
    """The rows of the session's table `given`, and the lake as a night left it."""

    settings: Settings
    night: Night
    database: duckdb.DuckDBPyConnection

    def answered(self, tables: Sequence[str] | None) -> Found:
        given = self.database.table("given").columns
        if not self.settings.mapping.has_times:
            raise ValueError("the log has no times, so there is no moment as of which its features could be read")
        if MOMENT not in given:
            raise ValueError(f"the entities have no column {MOMENT}: name the moment of each row in it, in UTC")
        for name, section in _OF_FEEDS.items():
            if name not in self.night.versions and name in (tables or ()):
                raise ValueError(
                    f"the lake has no {name}: its log's mapping has no section `{section}:`, or nothing of it arrived"
                )
        there = [name for name in FEATURE_TABLES if name not in _OF_FEEDS or name in self.night.versions]
        chosen = _chosen(tables, given, there)
        asked = self._ask(given)
        days = self._reach()
        made = snapshot_days(Days(first=self.night.first_day, last=days.last), self.night.first_day)
        if self.settings.asks_consent:
            night = self.night
            now = Days(first=keyframe_before(night.day, night.first_day), last=night.day)
            self._open(TABLES[CONSENTS], now, _owners(TABLES[CONSENTS], asked))
        joined: list[tuple[str, ...]] = []
        selects: list[tuple[str, tuple[str, ...]]]
        for name in chosen:
            contract = TABLES[name]
            is_snapshot = contract.kind == "snapshot"
            stored = Days(first=made[0], last=days.last) if is_snapshot else days
            self._open(contract, stored, _owners(contract, asked))
            if contract.purpose is not None and self.settings.asks_consent:
                keep_allowed(self.database, contract, self.settings.privacy.notice_versions)
            if name == CONTEXT:
                selects = [(with_context(asked), (VALUES, NUMBERS))]
            elif is_snapshot:
                selects = [
                    (from_snapshots(contract, made), tuple(f"{name}__{column}" for column in snapshot_columns(contract)))
                ]
            else:
                selects = [(as_of(known), known.joined) for known in _known(name, given)]
            for select, columns in selects:
                _check_apart(given, columns)
                self._find(f"found_{len(joined)}", select, columns)
                joined.append(columns)
            self.database.execute(f"DROP TABLE {quoted(name)}")
        return self._together(given, joined)

    def _open(self, contract: Table, days: Days, where: str) -> None:
        open_table(self.database, self.settings.lake, contract, self.night.versions.get(contract.name), days, where)

    def _ask(self, given: Sequence[str]) -> list[str]:
        """Make the table `asked`; gives back which columns name owners in it."""
        needed = {name for table in FEATURE_TABLES for name in TABLES[table].key} | {_TYPE, "cell", "region"}
        names = [name for name in given if name in needed - {"day"}]
        columns = {name: f"CAST({quoted(name)} AS VARCHAR)" for name in names}
        values: dict[str, str | bytes] = {"type": self.settings.mapping.target_events[0]}
        columns.setdefault(_TYPE, "$type")
        if _TYPE in names:
            del values["type"]
        if _USER in names:
            columns[_USER], more = pseudonym_sql(columns[_USER], readers_key(self.settings))
            values |= more
        # A year of more than four digits is no moment that a day could be told of.
        told = f"try_cast({quoted(MOMENT)} AS TIMESTAMPTZ)"
        moment = f"CASE WHEN {told} BETWEEN TIMESTAMPTZ '{_FIRST_MOMENT}' AND TIMESTAMPTZ '{_LAST_MOMENT}' THEN {told} END"
        selected = ", ".join(f"{value} AS {quoted(name)}" for name, value in columns.items())
        self.database.execute(
            f"CREATE TEMP TABLE asked AS SELECT rowid AS {ROW}, {moment} AS _at, CAST({moment} AS DATE) AS _day, {selected} "
            "FROM given",
            values,
        )
        return list(columns)

    def _reach(self) -> Days:
        """The days whose partitions can hold what was known: from the keyframe before the first moment to the last one.

        Raises:
            ValueError: a row has no moment.
        """
        # To its end: DuckDB does nothing else before.
        asked = self.database.execute("SELECT min(_day), max(_day), count(*) FILTER (_day IS NULL) FROM asked")
        [(*ends, missing)] = asked.fetchall()
        if missing:
            raise ValueError(f"some rows of the entities have no {MOMENT} that can be read: write 2024-06-16 12:30:00, in UTC")
        night = self.night
        first, last = (min(max((day or night.day) - timedelta(days=1), night.first_day), night.day) for day in ends)
        return Days(first=keyframe_before(first, night.first_day), last=last)

    def _find(self, name: str, select: str, columns: Sequence[str]) -> None:
        """Make what a SELECT finds a table of its own, a row for each that asks, in their order."""
        values = ", ".join(f"found.{quoted(column)}" for column in columns)
        self.database.execute(
            f"CREATE TEMP TABLE {name} AS SELECT {values} FROM asked LEFT JOIN ({select}) AS found USING ({ROW}) "
            f"ORDER BY asked.{ROW}"
        )

    def _together(self, given: Sequence[str], joined: Sequence[tuple[str, ...]]) -> Found:
        """The given rows in their order, and beside each what was found for it: row by row, so that nothing is held."""
        columns = [
            f"CAST(given.{quoted(name)} AS TIMESTAMPTZ) AS {quoted(name)}" if name == MOMENT else f"given.{quoted(name)}"
            for name in given
        ]
        columns += [f"found_{number}.{quoted(name)}" for number, names in enumerate(joined) for name in names]
        beside = "".join(f" POSITIONAL JOIN found_{number}" for number in range(len(joined)))
        rows = self.database.sql(f"SELECT {', '.join(columns)} FROM given{beside}")
        return Found(rows=rows, joined=tuple(name for names in joined for name in names))


def _check_apart(given: Sequence[str], columns: Sequence[str]) -> None:
    """
    Raises:
        ValueError: a column that is joined is called as one that is given.
    """
    known = {name.lower() for name in given}
    if meet := [name for name in columns if name.lower() in known]:
        raise ValueError(f"the entities have a column {meet[0]} already: rename it, or leave it out")


def _chosen(tables: Sequence[str] | None, given: Sequence[str], there: Sequence[str]) -> list[str]:
    """The tables to join, of those that are there.

    Raises:
        ValueError: one is unknown, or lacks its key; or there is none.
    """
    for name in tables or ():
        if name not in FEATURE_TABLES:
            raise ValueError(f"{name} is no feature table; these are {', '.join(FEATURE_TABLES)}")
        if lacking := _lacking(name, given):
            raise ValueError(f"{name} needs the column {' and the column '.join(lacking)} in the entities")
    chosen = [name for name in there if (name in tables if tables else not _lacking(name, given))]
    if not chosen:
        needs = "; ".join(f"{name}: {', '.join(_lacking(name, ()))}" for name in there)
        raise ValueError(f"the entities name no owner of any table. They need: {needs}")
    for name in set(there) - set(chosen) if not tables else ():
        log.info("%s is left out: the entities have no column %s", name, " and no ".join(_lacking(name, given)))
    return chosen


def _lacking(name: str, given: Sequence[str]) -> list[str]:
    if name == _SERIES:
        named = any(set(columns) <= set(given) for columns in ENTITIES.values())
        return [] if named else ["user_id or item_id or category or region"]
    if name == CONTEXT:
        return []  # a moment is enough
    return [column for column in TABLES[name].key if column not in given and column != "day"]


def _owners(contract: Table, asked: Sequence[str]) -> str:
    """As SQL, which of a table's rows are of owners that are asked about."""
    if contract.name == _SERIES:
        kinds = [columns for columns in ENTITIES.values() if set(columns) <= set(asked)]
        named = " UNION ALL ".join(f"SELECT {joined_names(columns)} FROM asked" for columns in kinds)
        return f"entity_id IN ({named})"
    if set(contract.owner) <= set(asked) and contract.owner:
        owner = quoted(contract.owner[0])
        return f"{owner} IN (SELECT {owner} FROM asked)"
    return "true"


def _known(name: str, given: Sequence[str]) -> list[Known]:
    contract = TABLES[name]
    if name != _SERIES:
        owner = contract.owner[0]
        rest = tuple(column for column in contract.key if column != owner)
        return [Known(prefix=name, contract=contract, rows=quoted(name), key=owner, owner=(owner,), rest=rest)]
    return [
        Known(
            prefix=f"{name}_{kind}",
            contract=contract,
            rows=f"(SELECT * FROM {name} WHERE entity_type = '{kind}')",
            key="entity_id",
            owner=columns,
            rest=("event_type",),
        )
        for kind, columns in ENTITIES.items()
        if set(columns) <= set(given)
    ]
