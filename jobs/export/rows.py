"""What is delivered of a table or segment: under the caller's ids, all of it, or what changed since a target was told.

Of a state it is what holds at the end of the day, of a snapshot the newest, of a fact the day's partition, of a log all of it,
of a segment its answer.
"""

from __future__ import annotations

import hashlib
import json
from datetime import date, timedelta
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, StructType

from conf.settings import Settings, SettingsError, Sink, Webhook
from conf.tables import TABLES
from jobs import segments
from jobs.lake import consent, logs
from jobs.lake.context import Context
from jobs.lake.identities import load_key, unsealed_column
from jobs.lake.runs import NIGHT, REFRESH, REFRESHED
from jobs.lake.store import Days, keyframe_before
from jobs.sinks.delivery import Changes, Delivery, Manifest

# What of the lists concerns whoever shows them; other tables are delivered with all their columns.
_COLUMNS = {
    "recommendations": (
        "user_id", "slot", "rank", "item_id", "score", "source", "reason", "model_version", "propensity", "changed_on",
    ),
}  # fmt: skip
_NEVER = ("vault", "erasures")
EXPORT = "export"
# Times of a log without times stand for an order only.
_MADE_UP = ("event_timestamp", "event_date", "until")


def delivery(context: Context, sink: Sink, known: Manifest | None = None, *, whole: bool = False) -> Delivery | None:
    """What the sink is to be given; None: its table was never written."""
    source = sink.source
    if version(context, source) is None:
        return None
    rows = caller_rows(context, source)
    contract, day = TABLES.get(source), context.as_of(source)
    state, last = _made_of(context, source, day)
    manifest = Manifest(
        source=source,
        day=day,
        state=state,
        last=last,
        versions={table: pin for table in _tables(context, source) if (pin := _pin(context, table)) is not None},
        columns={field.name: field.dataType.simpleString() for field in rows.schema},
        contract=sink.contract,
    )
    return Delivery(
        rows=rows,
        manifest=manifest,
        key=contract.primary_key if contract else (),
        by=contract.owner if contract else (segments.USER,),
        run_id=context.run_id,
        since=lambda before: _changes(context, source, before),
        known=known,
        whole=whole,
        comment=contract.comment if contract else f"the segment {source}",
        comments={column.name: column.comment for column in contract.columns} if contract else {},
    )


def check_source(settings: Settings, name: str, sink: Sink) -> None:
    """
    Raises:
        SettingsError: no such table or segment, one that never leaves, or one that the sink cannot be sent.
    """
    source = sink.source
    if source in _NEVER:
        raise SettingsError(f"sinks.{name}.source: {source} never leaves the lake")
    if source not in TABLES and source not in settings.segments:
        raise SettingsError(
            f"sinks.{name}.source: there is no table {source}, and no segment; `wherewhen tables` lists the tables"
        )
    if isinstance(sink, Webhook) and source in TABLES and TABLES[source].kind != "state":
        raise SettingsError(
            f"sinks.{name}.source: a webhook is sent owners with their rows, and {source} has none: name a state, or a segment"
        )


def version(context: Context, source: str) -> int | None:
    """The Delta version that is delivered. Of a segment that of the first table it reads; the run's record names all."""
    return _pin(context, _tables(context, source)[0])


def _tables(context: Context, source: str) -> tuple[str, ...]:
    """What decides which rows are delivered."""
    tables = (source,) if source in TABLES else segments.parsed(context.settings, source).tables
    return (*tables, consent.CONSENTS) if context.settings.asks_consent else tables


def _pin(context: Context, table: str) -> int | None:
    return context.pins.get(table, context.lake.version(table) if TABLES[table].kind == "log" else None)


def _made_of(context: Context, source: str, day: date) -> tuple[str, str]:
    """Tells apart what the rows are made of as of the end of a day: before it, and on it.

    Of a state the runs that made its days since the keyframe: what came later leaves it as it is, and so does an erasure,
    which takes a person from the target as well.
    """
    settings, tables = context.settings, _tables(context, source)
    said: list[object] = [source, settings.privacy.notice_versions, context.mapping.has_times]
    last: list[str | None] = []
    for table in tables:
        if (source in TABLES and TABLES[source].kind == "state") or table == consent.CONSENTS:
            made = _made_by(context, table, day)
            last.append(made.pop(str(day), None))
            said.append(made)
        else:
            said += [_pin(context, table), day]
    if source not in TABLES:
        said.append(settings.segments[source].query)
    return hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()[:16], json.dumps(last)


def _made_by(context: Context, table: str, until: date) -> dict[str, str]:
    """Day -> the run that made it, of the version of a state that is seen, since the keyframe."""
    since, pin = keyframe_before(until, context.first_day), _pin(context, table) or 0
    rows = logs.read(context.lake.root, "runs", f"status IN ('done', '{REFRESHED}') AND step NOT IN ('{NIGHT}', '{REFRESH}')")
    made: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: row["finished_at"]):
        if row["outputs"].get(table, pin + 1) <= pin and row["first_day"] <= until and row["day"] >= since:
            covered = Days(first=max(since, row["first_day"]), last=min(until, row["day"]))
            made.update({str(day): row["run_id"] for day in covered})
    return made


def _changes(context: Context, source: str, before: Manifest) -> Changes | None:
    """None: what a target with that manifest lacks cannot be told from the state's changes."""
    day, contract = context.as_of(source), TABLES.get(source)
    if contract is None or contract.kind != "state" or contract.owner == ("entity",) or before.source != source:
        return None
    # What moves with time alone moves in every row.
    if any(column.aged for column in contract.columns) or before.day > day:
        return None
    # Partitions that are older than the last keyframe but one may be gone.
    keyframe = keyframe_before(day, context.first_day)
    if before.day < keyframe_before(keyframe - timedelta(days=1), context.first_day):
        return None
    state, last = _made_of(context, source, before.day)
    if state != before.state:
        return None
    # A day that was made again since: what it was before was delivered.
    is_again = last != before.last
    after = before.day - timedelta(days=1) if is_again else before.day
    later = context.over(Days(first=after + timedelta(days=1), last=day))
    told = context.over(Days(first=before.day, last=before.day))
    parts = []
    of_people = contract.owner == (segments.USER,)
    for table in (source, *([consent.CONSENTS] if of_people and context.settings.asks_consent else [])):
        parts.append(later.changed(table))
        if is_again and table in before.versions:
            if not context.lake.holds(table, before.versions[table], told.days.where()):
                return None
            parts.append(told.pinned({table: before.versions[table]}).changed(table))
    owners = reduce(DataFrame.unionByName, [part.select(*contract.owner) for part in parts]).distinct()
    # Who allows it again has rows of before, as has who did not change on a day that was made again.
    reach = None if is_again or (of_people and context.settings.asks_consent) else after
    rows = _shown(context, source, context.aged(source, reach).join(owners, on=[*contract.owner], how="left_semi"))
    return Changes(
        rows=_under_callers_ids(context, rows, owners), owners=_under_callers_ids(context, owners, owners, all_=True)
    )


def caller_rows(context: Context, source: str) -> DataFrame:
    """The table or segment as of the run's last day, under the caller's ids."""
    rows = segments.members(context, source) if source not in TABLES else _table_rows(context, source)
    return _under_callers_ids(context, _shown(context, source, rows))


def _shown(context: Context, source: str, rows: DataFrame) -> DataFrame:
    if source in TABLES:
        rows = rows.select(*[name for name in _COLUMNS.get(source, TABLES[source].names) if name in rows.columns])
    if context.mapping.has_times:
        return rows
    return rows.select(*[_without_time(rows, name).alias(name) for name in rows.columns])


def _table_rows(context: Context, table: str) -> DataFrame:
    match TABLES[table].kind:
        case "state":
            return context.aged(table)
        case "snapshot":
            return context.snapshot(table)
        case "fact":
            return context.history(table).where(F.col("day") == F.lit(context.as_of(table)))
    return context.lake.read(table, version(context, table))


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


def _under_callers_ids(context: Context, rows: DataFrame, among: DataFrame | None = None, *, all_: bool = False) -> DataFrame:
    """Pseudonyms replaced through the vault; rows of users whom it does not know (erased), or who forbid it, are left out.

    among: where given, the only users there are. all_: with those who forbid it.
    """
    names = rows.columns
    has_entity = {"entity_type", "entity_id"} <= set(names)
    if segments.USER not in names and not has_entity:
        return rows
    version = context.pins.get("vault", context.lake.version("vault"))
    if version is not None:
        context.inputs["vault"] = version
    sealed = context.lake.read("vault", version)
    if among is not None:
        sealed = sealed.join(among, on="user_id", how="left_semi")
    sealed = sealed.dropDuplicates(["user_id"])
    if not all_ and (allowing := context.allowing(EXPORT)) is not None:
        sealed = sealed.join(allowing, on="user_id", how="left_semi")
    # Decrypted before the join: once per user, not once per row.
    vault = sealed.select("user_id", unsealed_column(F.col("sealed"), load_key()).alias("_caller"))
    if not has_entity:
        known = rows.join(vault, on="user_id", how="inner").withColumn("user_id", F.col("_caller")).drop("_caller")
        every = known.unionByName(rows.where("user_id IS NULL")) if rows.schema["user_id"].nullable else known
        return every.select(*names)
    is_user = F.col("entity_type") == "user"
    people = vault.withColumnRenamed("user_id", "entity_id")
    named = (
        rows.where(is_user).join(people, on="entity_id", how="inner").withColumn("entity_id", F.col("_caller")).drop("_caller")
    )
    every = named.unionByName(rows.where(~is_user))
    every = every.withColumn("entity", F.concat_ws(":", "entity_type", "entity_id")) if "entity" in names else every
    return every.select(*names)
