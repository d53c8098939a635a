"""Segments: saved queries of the settings that name users, answered each night and delivered as tables are.

They read and write as `wherewhen query` has them, and run on Spark, over what may be used for the purpose `export`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from conf.settings import Settings, SettingsError
from conf.tables import TABLES
from jobs.query.statement import HISTORY, check

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from jobs.lake.context import Context

USER = "user_id"
# What single events say is for their own purposes: where a log asks for consent only what steps made of them is asked.
_OF_EVENTS = (
    "raw_events", "events", "events_quarantine", "event_labels", "learned_labels", "user_sequences",
    "training_windows",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A query that was checked: as Spark reads it, the tables it reads, and its columns (none where it says `*`)."""

    sql: str
    tables: tuple[str, ...]
    columns: tuple[str, ...]


def check_all(settings: Settings) -> None:
    """
    Raises:
        SettingsError: a segment cannot be answered; says which, and why.
    """
    for name in settings.segments:
        parsed(settings, name)


def parsed(settings: Settings, name: str) -> Segment:
    """
    Raises:
        SettingsError: not one SELECT over tables that may leave, a column without a name or of one name with another,
            none that is `user_id`.
    """
    from sqlglot import exp, parse_one

    def refuse(why: str) -> SettingsError:
        return SettingsError(f"segments.{name}.query: {why}")

    if name in TABLES:
        raise SettingsError(f"segments.{name}: a table is called so; give the segment another name")
    try:
        statement = check(settings.segments[name].query)
    except SettingsError as error:
        raise refuse(str(error)) from None
    root = parse_one(statement.text, read="postgres")
    assert isinstance(root, exp.Query)
    if any(one.name.lower().endswith(HISTORY) for one in root.find_all(exp.Table)):
        raise refuse(f"a segment is of now: leave {HISTORY} away")
    tables = tuple(sorted(statement.tables - statement.shadowed))
    if settings.asks_consent and (single := [one for one in tables if one in _OF_EVENTS]):
        raise refuse(f"{single[0]} holds single events, and users said what each may be used for: ask what is made of them")
    if not tables:
        raise refuse("it reads no table")
    columns = [] if root.is_star else [one.lower() for one in root.named_selects]
    if "" in columns:
        raise refuse(f"column {columns.index('') + 1} has no name: give it one with AS")
    if columns:
        _check_columns(name, columns)
    return Segment(sql=root.sql(dialect="spark"), tables=tables, columns=tuple(columns))


def _check_columns(name: str, columns: list[str]) -> None:
    if double := sorted({one for one in columns if columns.count(one) > 1}):
        raise SettingsError(f"segments.{name}.query: two columns are called {double[0]}: name them apart with AS")
    if USER not in columns:
        raise SettingsError(f"segments.{name}.query: a segment says who is in it: select {USER}")


def members(context: Context, name: str) -> DataFrame:
    """The segment's rows as of the run's last day, under pseudonyms; rows without a user are left out.

    Raises:
        SettingsError: as `parsed`, or Spark cannot plan the query.
        ValueError: a table that it reads was never written.
    """
    from pyspark.errors import PySparkException

    segment = parsed(context.settings, name)
    spark = context.lake.spark
    for table in segment.tables:
        _seen(context, name, table).createOrReplaceTempView(table)
    try:
        rows = spark.sql(segment.sql)
    except PySparkException as error:
        said = " ".join(str(error.getMessage() or error).split(";")[0].split())
        raise SettingsError(f"segments.{name}.query: Spark cannot answer it: {said}") from None
    finally:
        for table in segment.tables:
            spark.catalog.dropTempView(table)
    rows = rows.toDF(*segment.columns) if segment.columns else rows
    _check_columns(name, rows.columns)
    return rows.where(f"{USER} IS NOT NULL")


def _seen(context: Context, name: str, table: str) -> DataFrame:
    """As `wherewhen query` shows it."""
    kind = TABLES[table].kind
    version = context.pins.get(table, context.lake.version(table) if kind == "log" else None)
    if version is None:
        raise ValueError(f"segment {name}: {table} was never written; `wherewhen tables` shows what there is")
    match kind:
        case "state":
            return context.aged(table)
        case "snapshot":
            return context.snapshot(table)
        case "fact":
            return context.history(table)
    return context.lake.read(table, version)
