"""labeller: which interests last, learnt from those that did.

On Mondays, and at the end of a bootstrap, a version learns from all interests of which it is known by then; one that
learnt eight weeks and an exam earlier is examined beside the rule and the labeller that serves. What serves, if it is no
rule, then says of each interest of the newest day how likely it lasts. `event_labels`, `user_interests` and what ages
in them stay the rule's: a version that comes or goes changes no row of the past.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from pyspark.sql import functions as F

from jobs.labeller import gate, reading, serving, versions
from jobs.lake import logs
from jobs.lake.context import Context, Skipped
from jobs.lake.publications import LABELLER, RULE, in_force
from models.labeller import EXAM_DAYS, LEAST_ASKED, LEAST_LESSONS, Exam, Past, exam, learn
from models.lasting import MATURES_DAYS

TABLE = "learned_labels"
# What is examined learns from what was over when the exam began; the exam is over eight weeks after its last day.
LEAST_DAYS = 2 * MATURES_DAYS + EXAM_DAYS
_MONDAY = 0


def run(context: Context) -> None:
    if not context.mapping.has_times:
        raise Skipped("the log has no times, so nothing tells which interests last")
    if context.settings.labeller.by == RULE:
        context.note(labeller="off: labeller.by is rule")
        context.clear(TABLE)
        return
    day = context.days.last
    if context.bootstrap or day.weekday() == _MONDAY:
        _learn(context)
    registry = context.log_rows("model_versions", f"kind = '{LABELLER}'")
    now = _in_force(context.log_rows("publications"), context, days=1)
    context.note(serves=now)
    if now == RULE or (clock := reading.clock(context)) is None:
        context.clear(TABLE)
        return
    by = versions.load(context.lake.root, _known(registry, now))
    found = serving.told(reading.of_day(context), by, clock)
    context.write(TABLE, found.withColumns({"model_version": F.lit(now), "day": F.lit(day)}))


def _in_force(publications: Sequence[logs.Row], context: Context, *, days: int) -> str:
    """What serves by the decisions for days before that many after the run's."""
    row = in_force(publications, before=context.days.last + timedelta(days=days), kind=LABELLER)
    return RULE if row is None else str(row["model_version"])


def _known(registry: Sequence[logs.Row], version: str) -> logs.Row:
    row = next((row for row in registry if row["model_version"] == version), None)
    if row is None:
        raise ValueError(f"labeller {version} is not in the registry: `wherewhen publish rule` goes on without one")
    return row


def _learn(context: Context) -> None:
    """Make the week's version, examine it, decide."""
    day, seed = context.days.last, context.settings.train.seed
    history = (day - context.first_day).days
    if history <= LEAST_DAYS or (clock := reading.clock(context)) is None:
        _say(context, f"none: {history} days of history, of the {LEAST_DAYS + 1} that learning and an exam take")
        return
    past = reading.lessons(context, clock)
    taken = exam(past, seed=seed)
    made = None if taken is None else learn(past, seed=seed)
    if taken is None or made is None:
        known = f"{len(past.moments):,} days with events of a category"
        least = f"{LEAST_LESSONS:,} to learn from and {LEAST_ASKED} to ask about, of different ends"
        _say(context, f"none: too little is known of what lasts: {known}, and it takes {least}")
        return
    version = versions.name(past, context.settings)
    versions.store(made, context.lake.root, version)
    by_rule = gate.compared(taken, gate.learned(taken.learned_M, taken.cut), gate.ruled(taken), samples=_samples(context))
    registry = context.log_rows("model_versions", f"kind = '{LABELLER}'")
    if version not in {row["model_version"] for row in registry}:
        metrics = _metrics(taken, by_rule, made.cut)
        context.append("model_versions", [versions.row(version, day, context.settings, made, metrics)])
    context.note(versions={LABELLER: version})
    # A run of a day does not see what it decided itself.
    before = _in_force(context.log_rows("publications"), context, days=0)
    by_serving = None if before in (RULE, version) else _beside(context, past, taken, _known(registry, before))
    _publish(context, version, gate.decided(version, before, by_rule, by_serving))


def _beside(context: Context, past: Past, taken: Exam, serving: logs.Row) -> gate.Comparison | None:
    """The examined one and the labeller that serves, of the moments that neither knew; None where these are few."""
    is_new = taken.moments.day_M + MATURES_DAYS >= reading.number(serving["trained_until"].date())
    if is_new.sum() < LEAST_ASKED:
        return None
    part = replace(
        taken,
        moments=taken.moments.take(is_new),
        lasted_M=taken.lasted_M[is_new],
        learned_M=taken.learned_M[is_new],
        ruled_M=taken.ruled_M[is_new],
    )
    other = versions.load(context.lake.root, serving)
    theirs = gate.learned(other.probability(part.moments, past.categories, past.clock), other.cut)
    return gate.compared(part, gate.learned(part.learned_M, part.cut), theirs, samples=_samples(context))


def _samples(context: Context) -> int:
    return context.settings.evaluate.bootstrap_samples


def _metrics(taken: Exam, by_rule: gate.Comparison, cut: float) -> dict[str, float]:
    """Of the exam, for the card; and the version's own cut."""
    found = {"share_that_lasted": float(taken.lasted_M.mean()), "called_lasting_from": cut}
    for measure, (ours, theirs) in by_rule.values.items():
        key = measure.replace(" ", "_").lower()
        found |= {key: ours, f"{key}_of_rule": theirs}
    return {key: round(value, 6) for key, value in found.items()}


def _publish(context: Context, candidate: str, decision: gate.Decision) -> None:
    row = {
        "day": context.days.last,
        "kind": LABELLER,
        "model_version": decision.model_version,
        "decision": decision.decision,
        "candidate": candidate,
        "reason": decision.reason,
        "run_id": context.run_id,
        "decided_at": logs.now(),
    }
    context.append("publications", [row])
    said = f"{candidate} is {decision.decision}, {decision.model_version} serves: {decision.reason}"
    _say(context, said)
    context.note(decision=decision.decision)


def _say(context: Context, said: str) -> None:
    context.log.info("labeller of %s: %s", context.days.last, said)
    context.note(learned=said)
