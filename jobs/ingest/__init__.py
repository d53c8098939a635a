"""Reads what landed, replaces user ids by pseudonyms, keeps what is declared of items, users and surroundings."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from datetime import date
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.mapping import Events
from conf.settings import Privacy
from conf.tables import TABLES
from jobs.ingest.attributes import declared_items, items_by_day, mentioned_items, users_by_day
from jobs.ingest.columns import Types, remembered, tell_new
from jobs.ingest.completeness import refuse_missing, refuse_unusual
from jobs.ingest.consents import CONSENTS, check_purposes, consents_by_day, stated_in_events, stated_in_feed
from jobs.ingest.landing import File, Landing, listing
from jobs.ingest.privacy import limited
from jobs.ingest.reading import BROKEN, CONTENT, Source, read
from jobs.ingest.relations import ITEM_RELATIONS, RELATIONS, related, relations_by_day
from jobs.ingest.sources import EVENTS, Feeding, feedings, first_day, with_day
from jobs.ingest.surroundings import CONTEXT, context_by_day, refused, told
from jobs.ingest.survey import ERASED, NOTHING, Past, as_details, marked, refuse_changed, survey
from jobs.ingest.vectors import ITEM_VECTORS, VECTORS, vectored, vectors_by_day
from jobs.lake.context import Context
from jobs.lake.identities import load_key, pseudonym_column, sealed_column
from jobs.lake.tombstones import tombstones

__all__ = ["first_day", "raw_events", "run"]

FEEDBACK, RAW_FEEDBACK = "feedback", "raw_feedback"


def run(context: Context) -> None:
    """Count everything, so that what cannot be read stops the run before it writes; then write.

    Raises:
        ValueError: a source is missing, unreadable or not as its mapping says, a column changed its type, a purpose is unknown;
            the key of the tombstones is another.
        Refused: the day's folder is missing or holds too few or too many rows; a finished day's rows changed.
    """
    key, erased, landing = load_key(), tombstones(context.lake.root), Landing(context.spark)
    sources = feedings(landing, context.settings)
    refuse_missing(context, sources.values())
    past = Past.of(context, dated=sources[EVENTS].dated)
    files = {name: _files(landing, source, [*past.days, *context.days], context) for name, source in sources.items()}
    if context.bootstrap and sources[EVENTS].dated and not files[EVENTS]:
        raise ValueError(f"{sources[EVENTS].path}: no landing folder holds a file named {sources[EVENTS].pattern}")
    folders = {day: listing([f for one in files.values() for f in one if f.day == day]) for day in (*past.days, *context.days)}
    undated = {name: listing(files[name]) for name, source in sources.items() if not source.dated}
    suspects = past.changed_folders(folders) if sources[EVENTS].dated else _all_unless_same(past, undated)

    # Items and users without days are read again only where their files are no longer the same.
    files |= {name: () for name in sources if name != EVENTS and _same(past, undated, name)}
    wanted = {*suspects, *context.days}
    given = {name: _rows(context, source, files[name], wanted, past) for name, source in sources.items()}
    rows = {name: marked(frame, erased) for name, (frame, _) in given.items()}
    columns = _drift(context, past, [source for _, source in given.values()])
    found = survey(rows, key, counted=[name for name, source in sources.items() if name == EVENTS or source.dated])
    prints = found.prints
    refuse_changed(past, prints, suspects)
    counts = {day: known.rows for day, known in {**past.prints, context.days.last: NOTHING, **prints}.items()}
    refuse_unusual(context, sources[EVENTS], landing, counts)
    of_days = {name: frame.where(context.days.where()).where(~F.col(ERASED)).drop(ERASED) for name, frame in rows.items()}
    statements = _statements(context, of_days)
    if statements is not None:
        check_purposes(statements)

    counted = [prints[day] for day in context.days if day in prints]
    context.rows_in, left_out = sum(one.rows for one in counted), sum(one.erased for one in counted)
    context.note(fingerprints=as_details(prints, {day: folders.get(day, "") for day in wanted}), listings=undated)
    context.note(columns=columns)
    if left_out:
        context.note(erased=left_out)
    _write(context, of_days, key)
    # Feedback comes from outside and may name anybody: ids are taken from what people did.
    known = found.user_ids.where(context.days.where() + f" AND feed != '{FEEDBACK}'")
    _add_to_vault(context, known.select("user_id"), key)
    if CONTEXT in of_days:
        _write_told(context, CONTEXT, told(of_days[CONTEXT], sources[CONTEXT].feed), context_by_day)
    if RELATIONS in of_days:
        _write_told(context, ITEM_RELATIONS, related(of_days[RELATIONS]), relations_by_day)
    if VECTORS in of_days:
        _write_told(context, ITEM_VECTORS, vectored(of_days[VECTORS]), vectors_by_day)
    if statements is not None:
        hidden = statements.withColumn("user_id", pseudonym_column(F.col("user_id"), key))
        from_events = "consent" in context.mapping.events.columns
        accepted = context.settings.privacy.notice_versions
        context.write(CONSENTS, consents_by_day(hidden, context.before(CONSENTS), accepted, dated=from_events))
    if context.rows_out["raw_events"] + left_out != context.rows_in:
        raise ValueError(
            f"{context.rows_in - left_out} source rows were counted, then {context.rows_out['raw_events']} read: "
            "a file changed meanwhile; run the day again"
        )


def _files(landing: Landing, source: Feeding, days: Collection[date], context: Context) -> tuple[File, ...]:
    """Without times there is one day, and every landing folder belongs to it."""
    if not context.mapping.has_times and source.place is not None and source.place.days is not None:
        days = source.place.days
    return source.files(landing, days)


def _same(past: Past, undated: dict[str, str], name: str) -> bool:
    """Whether a source without days was read before and its files are still the same."""
    digest = undated.get(name, "")
    return digest != "" and past.undated.get(name) == digest


def _all_unless_same(past: Past, undated: dict[str, str]) -> tuple[date, ...]:
    """A log without folders is read whole, so that every finished day can be checked."""
    return () if _same(past, undated, EVENTS) else past.days


def _drift(context: Context, past: Past, sources: Iterable[Source]) -> dict[str, Types]:
    """What the sources have for columns, for the next run to compare; new ones are told."""
    columns, new = {}, {}
    for source in sources:
        before = past.columns.get(source.where, {})
        new[source.where] = tell_new(before, source.found, source.feed, source.where)
        columns[source.where] = remembered(before, source.found)
    if any(new.values()):
        context.note(new_columns={where: names for where, names in new.items() if names})
    return columns


def _rows(
    context: Context, feeding: Feeding, files: tuple[File, ...], wanted: set[date], past: Past
) -> tuple[DataFrame, Source]:
    """The source's rows that arrived on these days, with `day`, user ids still the caller's; and what was read."""
    has_days = context.mapping.has_times
    chosen = tuple(file for file in files if file.day is None or file.day in wanted or not has_days)
    context.lake.reads(sum(file.size for file in chosen))
    known = past.columns.get(feeding.where, {})
    source = replace(feeding.source(chosen), known=known, accept=context.settings.completeness.accept)
    rows = with_day(
        read(context.spark, source), feeding, context.mapping, first_day=context.first_day, undated_day=context.days.first
    )
    if feeding.name == EVENTS and not feeding.dated and has_days:
        # A log without folders is read whole; the days wanted of it have no gap.
        rows = rows.where(F.col("day").between(F.lit(min(wanted)), F.lit(max(wanted))))
    return rows, source


def _statements(context: Context, rows: dict[str, DataFrame]) -> DataFrame | None:
    """Who allowed what, from the events and from a feed of its own; None: the log asks for no consent."""
    found = []
    if "consent" in context.mapping.events.columns:
        found.append(stated_in_events(rows[EVENTS], context.mapping.events))
    if CONSENTS in rows:
        found.append(stated_in_feed(rows[CONSENTS]))
    return reduce(DataFrame.unionByName, found) if found else None


def _write(context: Context, rows: dict[str, DataFrame], key: bytes) -> None:
    context.write("raw_events", raw_events(rows[EVENTS], context.mapping.events, key, context.settings.privacy))
    declared = declared_items(rows["items"]) if "items" in rows else None
    context.write("items", items_by_day(declared, mentioned_items(context.arrivals("raw_events")), context.before("items")))
    if "users" in rows:
        hidden = rows["users"].withColumn("user_id", pseudonym_column(F.col("user_id"), key))
        context.write("users", users_by_day(hidden, context.before("users")))
    if FEEDBACK in rows:
        context.write(RAW_FEEDBACK, _as_contract(RAW_FEEDBACK, _hidden(rows[FEEDBACK], key)))


def _write_told(context: Context, name: str, rows: DataFrame, by_day: Callable[[DataFrame, DataFrame], DataFrame]) -> None:
    """What a feed tells of no person; rows that cannot be understood are counted by reason and left out."""
    found = rows.persist()
    counts = refused(found)
    if counts:
        context.note(**{f"{name}_refused": counts})
        said = ", ".join(f"{reason} {count}" for reason, count in counts.items())
        context.log.warning("%s: rows were refused: %s", name, said)
    context.write(name, by_day(found, context.before(name)))


def raw_events(rows: DataFrame, feed: Events, key: bytes, privacy: Privacy) -> DataFrame:
    """The contract's columns. Equal source rows get equal hashes, whatever file they stand in.

    A row's hash is over all fields of the source, those that the mapping does not name included:
    only a row that repeats another in full may be taken for its duplicate. It is keyed: from an
    open hash and the rest of the row one could try out the addresses and positions that were left out.
    """
    shown = limited(_hidden(rows, key), privacy)
    return _as_contract("raw_events", shown.withColumn("event_type", _event_type(feed)))


def _hidden(rows: DataFrame, key: bytes) -> DataFrame:
    return rows.withColumn("user_id", pseudonym_column(F.col("user_id"), key)).withColumn("row_hash", _row_hash(key))


def _as_contract(table: str, rows: DataFrame) -> DataFrame:
    """The table's columns, null where the source has none such."""
    given = {name: F.col(name) for name in rows.columns}
    return rows.select(*[given.get(one.name, F.lit(None)).cast(one.type).alias(one.name) for one in TABLES[table].columns])


def _row_hash(key: bytes) -> Column:
    secret = hmac.new(key, b"wherewhen row", hashlib.sha256).hexdigest()
    whole = F.concat_ws("\x1e", F.col(CONTENT), F.concat(F.lit("user_id\x1f"), F.col("user_id")))
    content = F.when(F.col(BROKEN).isNull(), whole).otherwise(F.concat(F.lit("broken\x1f"), F.col(BROKEN)))
    return F.substring(F.sha2(F.concat(F.lit(secret), content), 256), 1, 32)


def _event_type(feed: Events) -> Column:
    if feed.event_type is not None:
        return F.when(F.col(BROKEN).isNull(), F.lit(feed.event_type))
    if feed.wide:
        return F.lit(None)
    written = F.col("event_type")
    for theirs, ours in (feed.event_types or {}).items():
        written = F.when(F.col("event_type") == theirs, F.lit(ours)).otherwise(written)
    return written


def _add_to_vault(context: Context, user_ids: DataFrame, key: bytes) -> None:
    """Seal the ids of users who are new. Read as it stands: what a killed run appended is not appended again."""
    known = context.lake.read("vault", context.lake.version("vault")).select("user_id")
    ids = user_ids.distinct().withColumnRenamed("user_id", "id")
    new = ids.withColumn("user_id", pseudonym_column(F.col("id"), key)).join(known, on="user_id", how="left_anti")
    rows = new.select("user_id", sealed_column(F.col("id"), key).alias("sealed"), F.current_timestamp().alias("added_at"))
    context.append_rows("vault", rows)
