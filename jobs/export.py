"""Delivers tables and segments to the sinks: caller's ids, whole or not at all, one row per sink in `export_log`.

A sink that fails does not keep the others from being served; the step then fails and names it.
What is delivered: of a state what holds at the end of the day, of a snapshot the newest, of a fact the
day's partition, of a log all of it, of a segment its answer. Nested columns become JSON where the sink has none.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, MapType, StructType

from conf.settings import Postgres, Redis, Settings, SettingsError, Sink
from conf.tables import TABLES
from jobs import segments
from jobs.lake import lock, logs
from jobs.lake.context import Context
from jobs.lake.failures import one_line
from jobs.lake.identities import load_key, unsealed_column
from jobs.lake.runs import newest_night
from jobs.lake.store import Days, Lake
from jobs.pipeline import choose
from jobs.sinks import folder, postgres, redis

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# What of the lists concerns whoever shows them; other tables are delivered with all their columns.
_COLUMNS = {
    "recommendations": (
        "user_id", "slot", "rank", "item_id", "score", "source", "reason", "model_version", "propensity", "day",
    ),
}  # fmt: skip
_NEVER = ("vault", "erasures")
EXPORT = "export"
# Times of a log without times stand for an order only.
_MADE_UP = ("event_timestamp", "event_date", "until")


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What became of one sink."""

    sink: str
    table: str
    target: str
    rows: int = 0
    error: str | None = None


def run(context: Context) -> None:
    if not context.settings.sinks:
        context.note(sinks="none in the settings")
        return
    _fail_for(deliver(context, context.settings.sinks))


def export(spark: SparkSession, settings: Settings, sink: str | None = None, dry_run: bool = False) -> list[Delivery]:
    """Deliver the newest finished night again, to one sink or to all; a dry run only counts.

    Raises:
        SettingsError: there is no such sink, or none at all.
        ValueError: no night is finished, or a sink failed (the others are served first).
        Refused: another process writes the lake, other steps of that very night apart.
    """
    if not settings.sinks:
        raise SettingsError("no sinks in the settings: add one, for example --set 'sinks.files={kind: csv, path: out/lists}'")
    if sink is not None and sink not in settings.sinks:
        raise SettingsError(f"there is no sink {sink}; the settings have {', '.join(sorted(settings.sinks))}")
    night = newest_night(settings.lake)
    if night is None:
        raise ValueError(f"no night is finished in {settings.lake}: run one first (wherewhen run --day D)")
    context = Context(
        settings=settings,
        lake=Lake(spark, settings.lake),
        days=Days(first=night.day, last=night.day),
        first_day=night.first_day,
        run_id=f"{night.day:%Y%m%d}-export-{uuid.uuid4().hex[:8]}",
        bootstrap=False,
        pins=night.versions,
    ).seen_by(choose(only=(EXPORT,))[0])
    chosen = {name: target for name, target in settings.sinks.items() if sink in (None, name)}
    if dry_run:
        return _counted(context, chosen)
    with lock.held(settings.lake, f"export of {night.day}", day=night.day, steps=("export",)):
        deliveries = deliver(context, chosen)
    _fail_for(deliveries)
    return deliveries


def deliver(context: Context, sinks: dict[str, Sink]) -> list[Delivery]:
    """Serve every sink; failures are returned and logged, not raised."""
    deliveries = []
    for name, sink in sinks.items():
        _check_source(context.settings, name, sink.source)
        version = _version(context, sink.source)
        if version is None:
            context.log.warning("  %s: nothing is delivered, %s was never written", name, sink.source)
            continue
        delivery = _deliver(context, name, sink)
        deliveries.append(delivery)
        record = {
            "run_id": context.run_id, "day": context.days.last, "sink": name, "table_name": sink.source,
            "table_version": version, "rows": delivery.rows, "status": "done" if delivery.error is None else "failed",
            "error": delivery.error, "finished_at": logs.now(),
        }  # fmt: skip
        context.append("export_log", [record])
    context.note(sinks={delivery.sink: delivery.error or delivery.rows for delivery in deliveries})
    return deliveries


def _deliver(context: Context, name: str, sink: Sink) -> Delivery:
    try:
        rows = caller_rows(context, sink.source)
        contract = TABLES.get(sink.source)
        if isinstance(sink, Postgres):
            key, comment = (contract.primary_key, contract.comment) if contract else ((), f"the segment {sink.source}")
            count = postgres.deliver(flat(rows), sink, key, comment)
        elif isinstance(sink, Redis):
            key = contract.primary_key if contract else ()
            count = redis.deliver(rows, sink, key, context.days.last, context.run_id)
        else:
            ordered = rows.sortWithinPartitions(*(contract.key if contract else ("user_id",)))
            count = folder.deliver(flat(ordered) if sink.kind == "csv" else ordered, sink, context.days.last, context.run_id)
    except Exception as error:  # whatever it is, the other sinks are served first; raised again by `_fail_for`
        context.log.debug("sink %s", name, exc_info=True)
        said = one_line(error)
        context.log.error("  %s: %s", name, said)
        return Delivery(sink=name, table=sink.source, target=_target(sink), error=said)
    context.log.info("  %s: %s rows of %s in %s", name, f"{count:,}", sink.source, _target(sink))
    return Delivery(sink=name, table=sink.source, target=_target(sink), rows=count)


def _counted(context: Context, sinks: dict[str, Sink]) -> list[Delivery]:
    """A dry run: what would be delivered where."""
    counts: dict[str, int] = {}
    for name, sink in sinks.items():
        _check_source(context.settings, name, sink.source)
        if sink.source not in counts:
            counts[sink.source] = caller_rows(context, sink.source).count()
        said = f"{counts[sink.source]:,} rows of {sink.source} as of {context.days.last}"
        context.log.info("  %s: would write %s to %s", name, said, _target(sink))
    return [
        Delivery(sink=name, table=sink.source, target=_target(sink), rows=counts[sink.source]) for name, sink in sinks.items()
    ]


def _target(sink: Sink) -> str:
    if isinstance(sink, Postgres):
        return f"table {sink.table}"
    return f"keys {sink.prefix}:..." if isinstance(sink, Redis) else sink.path


def _fail_for(deliveries: list[Delivery]) -> None:
    failed = [delivery for delivery in deliveries if delivery.error is not None]
    if failed:
        served = [delivery.sink for delivery in deliveries if delivery.error is None]
        rest = f" ({', '.join(served)}: delivered)" if served else ""
        raise ValueError("; ".join(f"sink {delivery.sink} failed: {delivery.error}" for delivery in failed) + rest)


def _check_source(settings: Settings, name: str, source: str) -> None:
    if source in _NEVER:
        raise SettingsError(f"sinks.{name}.source: {source} never leaves the lake")
    if source not in TABLES and source not in settings.segments:
        raise SettingsError(
            f"sinks.{name}.source: there is no table {source}, and no segment; `wherewhen tables` lists the tables"
        )


def _version(context: Context, source: str) -> int | None:
    """Of a segment that of the first table it reads; the run's record names all."""
    table = source if source in TABLES else segments.parsed(context.settings, source).tables[0]
    return context.pins.get(table, context.lake.version(table) if TABLES[table].kind == "log" else None)


def caller_rows(context: Context, source: str) -> DataFrame:
    """The table or segment as of the run's last day, under the caller's ids, a table with `day`."""
    if source not in TABLES:
        rows = segments.members(context, source)
        names = rows.columns
    else:
        rows = _table_rows(context, source)
        names = [name for name in _COLUMNS.get(source, TABLES[source].names) if name in rows.columns]
    rows = rows.select(*names)
    if not context.mapping.has_times:
        rows = rows.select(*[_without_time(rows, name).alias(name) for name in rows.columns])
    return _under_callers_ids(context, rows).select(*names)


def _table_rows(context: Context, table: str) -> DataFrame:
    day = F.lit(context.days.last)
    match TABLES[table].kind:
        case "state":
            return context.aged(table).withColumn("day", day)
        case "snapshot":
            return context.snapshot(table)
        case "fact":
            return context.history(table).where(F.col("day") == day)
    return context.lake.read(table, _version(context, table))


def _without_time(rows: DataFrame, name: str) -> Column:
    kind = rows.schema[name].dataType
    if name in _MADE_UP:
        return F.lit(None).cast(kind)
    if isinstance(kind, ArrayType) and isinstance(kind.elementType, StructType):
        inner = {field.name: field.dataType for field in kind.elementType}
        made_up = [field for field in _MADE_UP if field in inner]

        def bare(element: Column) -> Column:
            for field in made_up:
                element = element.withField(field, F.lit(None).cast(inner[field]))
            return element

        return F.transform(name, bare) if made_up else F.col(name)
    return F.col(name)


def _under_callers_ids(context: Context, rows: DataFrame) -> DataFrame:
    """Pseudonyms replaced through the vault; rows of users whom it does not know (erased), or who forbid it, are left out."""
    has_entity = {"entity_type", "entity_id"} <= set(rows.columns)
    if "user_id" not in rows.columns and not has_entity:
        return rows
    version = context.pins.get("vault", context.lake.version("vault"))
    if version is not None:
        context.inputs["vault"] = version
    sealed = context.lake.read("vault", version).dropDuplicates(["user_id"])
    if (allowing := context.allowing(EXPORT)) is not None:
        sealed = sealed.join(allowing, on="user_id", how="left_semi")
    # Decrypted before the join: once per user, not once per row.
    vault = sealed.select("user_id", unsealed_column(F.col("sealed"), load_key()).alias("_caller"))
    if not has_entity:
        known = rows.join(vault, on="user_id", how="inner").withColumn("user_id", F.col("_caller")).drop("_caller")
        return known.unionByName(rows.where("user_id IS NULL")) if rows.schema["user_id"].nullable else known
    is_user = F.col("entity_type") == "user"
    people = vault.withColumnRenamed("user_id", "entity_id")
    named = (
        rows.where(is_user).join(people, on="entity_id", how="inner").withColumn("entity_id", F.col("_caller")).drop("_caller")
    )
    every = named.unionByName(rows.where(~is_user))
    return every.withColumn("entity", F.concat_ws(":", "entity_type", "entity_id")) if "entity" in rows.columns else every


def flat(rows: DataFrame) -> DataFrame:
    """Nested columns as JSON text."""
    return rows.select(
        *[
            F.to_json(field.name).alias(field.name)
            if isinstance(field.dataType, ArrayType | MapType | StructType)
            else F.col(field.name)
            for field in rows.schema
        ]
    )
