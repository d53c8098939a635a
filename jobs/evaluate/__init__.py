"""Judges the day's candidates on its events against the published version and baselines; decides what serves.

The network and the ranker are both judged; what is decided on is the one whose kind serves, at first the better one.
Every target event that arrived on the day is ranked by all contenders as it would have been ranked when
it happened: before anything was trained on it. A bootstrap judges a second version besides, trained
until a cut, on all that came after the cut. A log without times is judged on each user's last event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pyspark.sql import Window
from pyspark.sql import functions as F

from conf.tables import TABLES
from jobs.evaluate import choosing, contest, exams, gate, quality, versions
from jobs.evaluate.replaying import evaluate_file
from jobs.lake import logs
from jobs.lake.context import Context
from jobs.lake.publications import BASELINE, INTEREST, in_force, in_order
from jobs.lake.schema import spark_schema
from models.judging import Judged, Terms, Verdicts
from models.metrics import Tally

__all__ = ["evaluate_file", "run"]


def run(context: Context) -> None:
    registry, day, terms = context.log_rows("model_versions"), context.days.last, contest.terms(context)
    # A run of a day does not see what it decided itself.
    newest = in_force(context.log_rows("publications"), before=day)
    before = None if newest is None else newest["model_version"]
    published = None if before is None else versions.known(registry, before)
    cuts = versions.held_out(registry, day) if context.bootstrap and context.mapping.has_times else []
    held = _held_out(context, cuts, terms)
    rows = contest.rows(context, held, quality.HOLDOUT)
    by_kind = {row["kind"]: held[row["model_version"]] for row in cuts if row["model_version"] in held}

    made = versions.candidates(registry, day, context.mapping.has_times)
    asked = context.settings.gate
    as_held_out = {kind: one.mean(asked.measure) for kind, one in by_kind.items()}
    lately = choosing.lately(context, registry) if len(made) > 1 else {}
    made = choosing.in_turn(made, published, as_held_out, lately, asked.margin)
    candidate = made[0] if made else None
    exam = exams.day_exam(context) if context.mapping.has_times else exams.last_events_exam(context)
    fitted = contest.fitted(context, exam, candidate or published)
    others = [] if published is None else [published]
    verdicts = contest.contest(context, exam, fitted, [*made, *others], terms, against=before if made else None)
    _tell(context, verdicts.judged, quality.DAY)
    rows += contest.rows(context, verdicts.judged, quality.DAY)
    judged = verdicts.judged
    if candidate is not None and not judged:
        # Nothing happened on the day: the versions trained until the cut stand for the candidates.
        judged = {name: one for name, one in held.items() if name in fitted}
        judged |= {row["model_version"]: by_kind[row["kind"]] for row in made if row["kind"] in by_kind}

    if candidate is not None and verdicts.paired is not None:
        rows += quality.paired_rows(candidate["model_version"], verdicts.paired, context.settings, day)
    schema = spark_schema(TABLES["model_quality"])
    table = context.spark.createDataFrame([tuple(row[name] for name in schema.names) for row in rows], schema)
    context.write("model_quality", table)
    besides = {row["model_version"] for row in made[1:]} - {before}
    judged = {name: one for name, one in judged.items() if name not in besides}
    decision = _decide(context, candidate, published, replace(verdicts, judged=judged))
    catalogue = fitted[gate.POPULARITY].vocabulary.items
    if decision is not None and (candidate is not None or before is not None or catalogue):
        _publish(context, decision, fitted, registry)


def _held_out(context: Context, cuts: Sequence[logs.Row], terms: Terms) -> dict[str, Judged]:
    """Versions that were trained until a cut, judged on what came after it; beside the baselines."""
    if not cuts:
        return {}
    later = exams.holdout_exam(context, cuts[0]["trained_until"].date())
    judged = contest.contest(context, later, contest.fitted(context, later, cuts[0]), cuts, terms).judged
    _tell(context, judged, quality.HOLDOUT)
    return judged


def _tell(context: Context, judged: Mapping[str, Judged], evaluation: str) -> None:
    for line in contest.lines(context, judged, f"{evaluation} {context.days.last}"):
        context.log.info("%s", line)
    metric = context.settings.gate.measure
    context.note(**{evaluation: {contest.label(name): round(one.mean(metric), 6) for name, one in judged.items()}})


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
        is_baseline=published["kind"] == BASELINE,
    )
    return gate.against_published(duel, context.settings.gate)


def _past(context: Context) -> list[Tally]:
    """The paired tallies of earlier days. Brought here are some hundred rows a day, of a bounded number of days."""
    stored = context.before("model_quality").where(F.col("evaluation") == quality.PAIRED)
    days_back = F.dense_rank().over(Window.orderBy(F.desc("day")))
    rows = [row.asDict() for row in stored.withColumn("_back", days_back).where(F.col("_back") <= _DAYS_LOOKED_AT).collect()]
    decisions = in_order(context.log_rows("publications", "candidate IS NOT NULL"))
    newest = {row["day"]: row for row in decisions}
    refused = {(day, row["candidate"]) for day, row in newest.items() if row["decision"] == "refused"}
    return quality.pairs(rows, refused, context.settings)


# Refused days are left out, so more than `gate.days` are looked at.
_DAYS_LOOKED_AT = 60


def _publish(context: Context, decision: gate.Decision, fitted: contest.Fitted, registry: versions.Rows) -> None:
    day = context.days.last
    if decision.decision == "baseline":
        made = versions.baseline_version(fitted[decision.model_version], context.lake.root, day)
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
    context.note(decision=decision.decision, model_version=decision.model_version, measure=context.settings.gate.label)
    if decision.decision == "refused":
        context.note(refusals=[f"evaluate: candidate {decision.candidate} of {day} is refused: {decision.reason}"])
