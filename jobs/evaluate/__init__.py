"""Judges the candidate on the day's events against the published version and baselines; decides what serves.

Every target event that arrived on the day is ranked by all contenders as it would have been ranked when
it happened: before anything was trained on it. A bootstrap judges a second version besides, trained
until a cut, on all that came after the cut. A log without times is judged on each user's last event.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from dataclasses import dataclass, replace
from datetime import date

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf.tables import TABLES
from jobs.evaluate import gate, moments, quality, versions
from jobs.evaluate.fitting import fit
from jobs.evaluate.judging import judge, threads_of_a_task
from jobs.evaluate.replaying import evaluate_file
from jobs.lake import logs
from jobs.lake.context import Context
from jobs.lake.publications import INTEREST, in_force
from jobs.lake.schema import spark_schema
from models.baselines import BASELINES, Counts, baseline
from models.judging import Contender, Judged, Terms, Verdicts
from models.metrics import Tally
from models.replay import Options

__all__ = ["evaluate_file", "run"]


def run(context: Context) -> None:
    registry, day = context.log_rows("model_versions"), context.days.last
    candidate = versions.candidate(registry, day, context.mapping.has_times)
    # A run of a day does not see what it decided itself.
    newest = in_force(context.log_rows("publications"), before=day)
    before = None if newest is None else newest["model_version"]
    published = None if before is None else versions.known(registry, before)
    exam = day_exam(context) if context.mapping.has_times else last_events_exam(context)
    counts = _counts(context, exam, candidate or published)
    verdicts = _judge(context, exam, counts, candidate, published)
    _tell(context, verdicts.judged, quality.DAY)
    rows = [row for name, one in verdicts.judged.items() for row in quality.quality_rows(_label(name), one, quality.DAY, day)]

    cut = versions.holdout(registry, day) if context.bootstrap and context.mapping.has_times else None
    judged = verdicts.judged
    if cut is not None:
        later = holdout_exam(context, cut["trained_until"].date())
        held = _judge(context, later, _counts(context, later, cut), cut, None).judged
        _tell(context, held, quality.HOLDOUT)
        rows += [row for name, one in held.items() for row in quality.quality_rows(_label(name), one, quality.HOLDOUT, day)]
        if candidate is not None and not judged:
            # Nothing happened on the day: the version trained until the cut stands for the candidate.
            judged = {candidate["model_version"] if name == cut["model_version"] else name: one for name, one in held.items()}

    if candidate is not None and verdicts.paired is not None:
        rows += quality.paired_rows(candidate["model_version"], verdicts.paired, context.settings.gate, day)
    schema = spark_schema(TABLES["model_quality"])
    table = context.spark.createDataFrame([tuple(row[name] for name in schema.names) for row in rows], schema)
    context.write("model_quality", table)
    decision = _decide(context, candidate, published, replace(verdicts, judged=judged))
    if decision is not None and (candidate is not None or before is not None or counts.vocabulary.items):
        _publish(context, decision, counts, registry)


@dataclass(frozen=True, kw_only=True)
class Exam:
    """Moments to be asked about (`rows`, see `moments`), and the target events that baselines may be fitted on."""

    rows: DataFrame
    fitted_on: DataFrame


def is_target(context: Context) -> Column:
    return F.col("event_type").isin(*context.mapping.target_events) & F.col("item_id").isNotNull()


def day_exam(context: Context) -> Exam:
    """The target events that arrived on the last day; known is what arrived before."""
    asks, earlier = is_target(context), context.earlier("events")
    arrived = context.arrivals("events").where(F.col("day") == F.lit(context.days.last))
    users = arrived.where(asks).select("user_id").distinct()
    if context.bootstrap:
        known = _newest_rows(context, earlier.join(users, on="user_id", how="left_semi"))
    else:
        known = moments.sequence_rows(context.before("user_sequences").join(users, on="user_id", how="left_semi"))
    told = moments.new_rows(arrived.join(users, on="user_id", how="left_semi"), F.when(asks, F.lit(0)))
    return Exam(rows=moments.together(known, told), fitted_on=earlier.where(asks))


def holdout_exam(context: Context, cut: date) -> Exam:
    """All target events that arrived from the cut on, each with all that came before it, the held out included."""
    events, asks = context.history("events"), is_target(context)
    is_later = F.col("day") >= F.lit(cut)
    users = events.where(is_later & asks).select("user_id").distinct()
    theirs = events.join(users, on="user_id", how="left_semi")
    known = _newest_rows(context, theirs.where(~is_later))
    told = moments.new_rows(theirs.where(is_later), F.when(asks, F.lit(0)))
    return Exam(rows=moments.together(known, told), fitted_on=events.where(asks & ~is_later))


def last_events_exam(context: Context) -> Exam:
    """Each user's last target event; known is what is before it in the user's order."""
    by_user = Window.partitionBy("user_id")
    at = F.struct("event_timestamp", "event_id")
    marked = context.history("events").withColumn("_last", F.max(F.when(is_target(context), at)).over(by_user))
    asks = (F.col("_last.event_id") == F.col("event_id")) & (F.col("_last.event_timestamp") == F.col("event_timestamp"))
    known = _newest_rows(context, marked.where(F.col("event_timestamp") < F.col("_last.event_timestamp")))
    told = moments.new_rows(marked.where(asks), F.lit(0))
    return Exam(rows=moments.together(known, told), fitted_on=marked.where(is_target(context) & ~asks))


def _newest_rows(context: Context, events: DataFrame) -> DataFrame:
    mapping = context.mapping
    return moments.newest_rows(events, context.settings.sequences.length, mapping.target_events, mapping.repeats)


def _counts(context: Context, exam: Exam, version: logs.Row | None) -> Counts:
    """For the baselines: over the version's catalogue, so that all rank the same items."""
    vocabulary = None if version is None else versions.vocabulary(context.lake.root, version)
    return fit(exam.fitted_on, context.mapping.target_events, vocabulary)


def _judge(context: Context, exam: Exam, counts: Counts, candidate: logs.Row | None, published: logs.Row | None) -> Verdicts:
    """All contenders over the exam: baselines under their names, versions under theirs."""
    root, settings = context.lake.root, context.settings
    by_name = {row["model_version"]: row for row in (candidate, published) if row is not None}
    contenders = [Contender(name=name, ranker=baseline(name, counts)) for name in BASELINES]
    contenders += [Contender(name=name, folder=versions.folder(root, row)) for name, row in by_name.items()]
    metric, k = settings.gate.measure
    compared = (candidate["model_version"], published["model_version"], (metric, k)) if candidate and published else None
    options = Options(
        length=settings.sequences.length, target_types=context.mapping.target_events, repeats=context.mapping.repeats
    )
    terms = Terms(
        options=options,
        ks=tuple(sorted({*settings.evaluate.ks, settings.gate.k})),
        samples=settings.evaluate.bootstrap_samples,
        compared=compared if len(by_name) == 2 else None,
        threads=threads_of_a_task(context.spark),
    )
    return judge(moments.ordered(exam.rows, settings.spark.shuffle_partitions), contenders, terms)


def _label(name: str) -> str:
    return f"{versions.PREFIX}{name}" if name in BASELINES else name


def _tell(context: Context, judged: MappingType[str, Judged], evaluation: str) -> None:
    labelled = {_label(name): one for name, one in judged.items()}
    for line in quality.side_by_side(labelled, context.settings.gate, f"{evaluation} {context.days.last}"):
        context.log.info("%s", line)
    metric = context.settings.gate.measure
    context.note(**{evaluation: {name: round(one.mean(metric), 6) for name, one in labelled.items()}})


def _decide(
    context: Context, candidate: logs.Row | None, published: logs.Row | None, verdicts: Verdicts
) -> gate.Decision | None:
    name = None if candidate is None else candidate["model_version"]
    if published is None:
        return gate.first(name, verdicts.judged, context.settings.gate)
    before = published["model_version"]

    def kept(why: str) -> gate.Decision:
        return gate.Decision(decision="kept", model_version=before, candidate=name, reason=why)

    if name is None:
        return kept("no candidate was trained for the day")
    if name == before:
        return kept("the candidate is the published version")
    if verdicts.paired is None:
        return kept("no target events arrived on the day, so there is nothing to judge by")
    duel = gate.Duel(
        candidate=name,
        published=before,
        day=verdicts.paired,
        past=_past(context),
        judged=verdicts.judged,
        is_baseline=published["kind"] == versions.BASELINE,
    )
    return gate.against_published(duel, context.settings.gate)


def _past(context: Context) -> list[Tally]:
    """The paired tallies of earlier days. Brought here are some hundred rows a day, of a bounded number of days."""
    stored = context.before("model_quality").where(F.col("evaluation") == quality.PAIRED)
    days_back = F.dense_rank().over(Window.orderBy(F.desc("day")))
    rows = [row.asDict() for row in stored.withColumn("_back", days_back).where(F.col("_back") <= _DAYS_LOOKED_AT).collect()]
    decisions = sorted(context.log_rows("publications", "candidate IS NOT NULL"), key=lambda row: row["decided_at"])
    newest = {row["day"]: row for row in decisions}
    refused = {(day, row["candidate"]) for day, row in newest.items() if row["decision"] == "refused"}
    return quality.pairs(rows, refused, context.settings.gate, context.settings.evaluate.bootstrap_samples)


# Refused days are left out, so more than `gate.days` are looked at.
_DAYS_LOOKED_AT = 60


def _publish(context: Context, decision: gate.Decision, counts: Counts, registry: versions.Rows) -> None:
    day = context.days.last
    if decision.decision == "baseline":
        made = versions.baseline_version(baseline(decision.model_version, counts), context.lake.root, day)
        if made["model_version"] not in {row["model_version"] for row in registry}:
            context.append("model_versions", [made])
        decision = replace(decision, model_version=made["model_version"])
    row = {
        "day": day,
        "kind": INTEREST,
        "model_version": decision.model_version,
        "decision": decision.decision,
        "candidate": decision.candidate,
        "reason": decision.reason,
        "run_id": context.run_id,
        "decided_at": logs.now(),
    }
    context.append("publications", [row])
    context.log.info("%s of %s: %s serves: %s", decision.decision, day, decision.model_version, decision.reason)
    context.note(decision=decision.decision, model_version=decision.model_version)
    if decision.decision == "refused":
        context.note(refusals=[f"evaluate: candidate {decision.candidate} of {day} is refused: {decision.reason}"])
