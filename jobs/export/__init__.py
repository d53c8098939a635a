"""Delivers tables and segments to the sinks: caller's ids, whole or not at all, one row per sink in `export_log`.

Each sink is given what it lacks, which its own manifest tells: of a state the owners that changed since, else everything, or
nothing where it holds the very rows. A sink that fails does not keep the others from being served; the step then fails and
names it, and the next delivery catches up. Nested columns become JSON where the sink has none.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from conf.settings import S3, Folder, Jdbc, Postgres, Redis, Settings, SettingsError, Sink, Webhook
from jobs.export.rows import EXPORT, check_source, delivery, version
from jobs.lake import lock, logs
from jobs.lake.context import Context
from jobs.lake.failures import one_line
from jobs.lake.runs import newest_night
from jobs.lake.state import readers_state
from jobs.pipeline import choose
from jobs.sinks import module_of
from jobs.sinks.delivery import CHANGES, EVERYTHING, NOTHING, Delivery, Manifest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SAID = {EVERYTHING: "all of it", CHANGES: "what changed", NOTHING: "it is there already"}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one sink."""

    sink: str
    table: str
    target: str
    rows: int = 0
    how: str | None = None
    checksum: str | None = None
    error: str | None = None


def run(context: Context) -> None:
    if not context.settings.sinks:
        context.note(sinks="none in the settings")
        return
    _fail_for(deliver(context, context.settings.sinks))


def export(
    spark: SparkSession,
    settings: Settings,
    sink: str | None = None,
    *,
    whole: bool = False,
    dry_run: bool = False,
    check: bool = False,
) -> list[Outcome]:
    """Deliver the newest finished night, or a later refresh, to one sink or to all.

    whole: everything, whatever the sinks hold. dry_run: only say what would be sent. check: only compare what they hold.

    Raises:
        SettingsError: there is no such sink, or none at all.
        ValueError: no night is finished, or a sink failed or holds something else (the others are served first).
        Refused: another process writes the lake, other steps of that very night apart.
    """
    if not settings.sinks:
        raise SettingsError("no sinks in the settings: add one, for example --set 'sinks.files={kind: csv, path: out/lists}'")
    if sink is not None and sink not in settings.sinks:
        raise SettingsError(f"there is no sink {sink}; the settings have {', '.join(sorted(settings.sinks))}")
    if (newest := newest_night(settings.lake)) is None:
        raise ValueError(f"no night is finished in {settings.lake}: run one first (wherewhen run --day D)")
    chosen = {name: target for name, target in settings.sinks.items() if sink in (None, name)}
    if dry_run or check:
        context = _context(spark, settings)
        outcomes = [_looked_at(context, name, target, whole=whole, check=check) for name, target in chosen.items()]
    else:
        day = newest.day
        with lock.held(settings.lake, f"export of {day}", day=day, steps=(EXPORT,)):
            outcomes = deliver(_context(spark, settings), chosen, whole=whole)
    _fail_for(outcomes)
    return outcomes


def _context(spark: SparkSession, settings: Settings) -> Context:
    """What readers see now."""
    context = readers_state(spark, settings).seen_by(choose(only=(EXPORT,))[0])
    context.run_id = f"{context.days.last:%Y%m%d}-export-{uuid.uuid4().hex[:8]}"
    return context


def deliver(context: Context, sinks: dict[str, Sink], *, whole: bool = False) -> list[Outcome]:
    """Serve every sink; failures are returned and logged, not raised."""
    outcomes = []
    for name, sink in sinks.items():
        check_source(context.settings, name, sink)
        if (delivered := version(context, sink.source)) is None:
            context.log.warning("  %s: nothing is delivered, %s was never written", name, sink.source)
            continue
        outcome, manifest = _deliver(context, name, sink, whole=whole)
        outcomes.append(outcome)
        record = {
            "run_id": context.run_id, "day": context.days.last, "sink": name, "table_name": sink.source,
            "table_version": delivered, "rows": outcome.rows, "status": "done" if outcome.error is None else "failed",
            "error": outcome.error, "finished_at": logs.now(), "sent": outcome.how, "checksum": outcome.checksum,
            "manifest": None if manifest is None else manifest.text(),
        }  # fmt: skip
        context.append("export_log", [record])
    context.note(sinks={outcome.sink: outcome.error or outcome.rows for outcome in outcomes})
    return outcomes


def _deliver(context: Context, name: str, sink: Sink, *, whole: bool) -> tuple[Outcome, Manifest | None]:
    """The outcome, and what the sink then holds; None: what it held before."""
    try:
        given = delivery(context, sink, _known(context, name, sink), whole=whole)
        assert given is not None, f"{sink.source} has a version"
        sent = module_of(sink).deliver(given, sink)
    except Exception as error:  # whatever it is, the other sinks are served first; raised again by `_fail_for`
        context.log.debug("sink %s", name, exc_info=True)
        said = one_line(error)
        context.log.error("  %s: %s", name, said)
        return Outcome(sink=name, table=sink.source, target=_target(sink), error=said), None
    context.log.info("  %s: %s rows of %s in %s (%s)", name, f"{sent.rows:,}", sink.source, _target(sink), _SAID[sent.how])
    done = Outcome(
        sink=name, table=sink.source, target=_target(sink), rows=sent.rows, how=sent.how, checksum=sent.checksum
    )  # fmt: skip
    return done, given.manifest


def _known(context: Context, name: str, sink: Sink) -> Manifest | None:
    """What `export_log` says that a sink of that name holds."""
    quoted = name.replace("'", "''")
    rows = [row for row in context.log_rows("export_log", f"sink = '{quoted}' AND status = 'done'") if row["manifest"]]
    newest = max(rows, key=lambda row: row["finished_at"], default=None)
    return None if newest is None else Manifest.read(newest["manifest"])


def _looked_at(context: Context, name: str, sink: Sink, *, whole: bool, check: bool) -> Outcome:
    """What a sink lacks, or how it differs; nothing is written."""
    check_source(context.settings, name, sink)
    target, said = _target(sink), f"{sink.source} as of {context.days.last}"
    known, module = _known(context, name, sink), module_of(sink)
    done = Outcome(sink=name, table=sink.source, target=target, how=NOTHING)
    try:
        given = delivery(context, sink, known, whole=whole)
        if given is None:
            context.log.warning("  %s: %s was never written", name, sink.source)
        elif check:
            if (differs := module.check(given, sink)) is not None:
                raise ValueError(f"{target} is not {said}: {differs}; `wherewhen export --sink {name} --whole` mends it")
            context.log.info("  %s: %s is %s", name, target, said)
        else:
            # A receiver of posts cannot be asked.
            return _would_send(context, done, given, known if isinstance(sink, Webhook) else module.manifest(sink), sink)
    except Exception as error:  # the other sinks are looked at first; raised again by `_fail_for`
        context.log.debug("sink %s", name, exc_info=True)
        context.log.error("  %s: %s", name, one_line(error))
        return replace(done, error=one_line(error))
    return done


def _would_send(context: Context, done: Outcome, given: Delivery, before: Manifest | None, sink: Sink) -> Outcome:
    said = f"{done.table} as of {context.days.last}"
    if given.is_there(before):
        context.log.info("  %s: %s holds %s already", done.sink, done.target, said)
        return done
    given.check_announced(before)
    changes = None if isinstance(sink, Folder | S3) else given.changes(before)
    rows = (given.rows if changes is None else changes.rows).count()
    owners = "" if changes is None else f", all of the {changes.owners.count():,} owners that changed"
    context.log.info("  %s: would send %s rows of %s to %s%s", done.sink, f"{rows:,}", said, done.target, owners)
    return replace(done, rows=rows, how=EVERYTHING if changes is None else CHANGES)


def _target(sink: Sink) -> str:
    if isinstance(sink, Postgres | Jdbc):
        return f"table {sink.table}"
    if isinstance(sink, Folder):
        return sink.path
    if isinstance(sink, S3):
        return sink.url
    return f"keys {sink.prefix}:..." if isinstance(sink, Redis) else f"the URL in {sink.url_env}"


def _fail_for(outcomes: list[Outcome]) -> None:
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if failed:
        served = [outcome.sink for outcome in outcomes if outcome.error is None]
        rest = f" ({', '.join(served)}: delivered)" if served else ""
        raise ValueError("; ".join(f"sink {outcome.sink} failed: {outcome.error}" for outcome in failed) + rest)
