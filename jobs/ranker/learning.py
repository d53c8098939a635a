"""The versions of a day: what is known at the end of each plan, and the trees that go with it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from jobs.evaluate.exams import is_target
from jobs.lake import commits, logs
from jobs.lake.context import Context
from jobs.lake.publications import RANKER
from jobs.ranker import counting, growing, versions
from jobs.ranker.counting import Asked
from jobs.train.catalogue import catalogues, declared
from jobs.train.cutting import EVENT, Plan, whole_plans
from models import registry
from models.facts import Facts, facts


def learn(context: Context) -> None:
    plans = whole_plans(list(context.days), context.bootstrap, context.settings.evaluate.holdout_share)
    kept = versions.kept_trees(context)
    # What trees are grown on begins here; by what was known before it.
    cuts = [None if kept is not None else growing.cut(context, plan.until.date()) for plan in plans]
    made = []
    for plan, cut, (now, then) in zip(plans, cuts, _known(context, plans, cuts), strict=True):
        trees = kept
        if trees is None and cut is not None and then is not None:
            trees = growing.grown(context, then, cut, plan.until.date())
        if trees is not None:
            made.append(versions.Draft(plan=plan, known=now, grown=trees))
    if not made:
        context.note(learned="no version: too few target events came on too few days")
        context.log.info("ranker of %s: too little to grow trees on, so no new version", context.days.last)
        return
    _store(context, made)


def _known(context: Context, plans: Sequence[Plan], cuts: Sequence[date | None]) -> list[tuple[Facts, Facts | None]]:
    """Of each plan what is known at its end, and what was at its cut."""
    targets = context.mapping.target_events
    events = context.earlier("events").select(*EVENT).where(is_target(context))
    names = [one.vocabulary for one in catalogues(events, declared(context), plans, targets, None)]
    asked = [
        [Asked(vocabulary=vocabulary, until=until) for until in (plan.until.date(), cut) if until is not None]
        for plan, vocabulary, cut in zip(plans, names, cuts, strict=True)
    ]
    tallies = iter(counting.tallies(events, [one for some in asked for one in some]))
    found = [[facts(one.vocabulary, targets, next(tallies)) for one in some] for some in asked]
    return [(some[0], some[1] if len(some) > 1 else None) for some in found]


def _store(context: Context, made: Sequence[versions.Draft]) -> None:
    """A folder and a row of the registry of each; what is there already is left as it is."""
    there = {row["model_version"] for row in context.log_rows("model_versions", f"kind = '{RANKER}'")}
    names = {draft.plan.name: draft.version(context) for draft in made}
    for draft in made:
        with commits.commit(context.lake.root, "a model folder"):
            registry.save(draft.hybrid(context), registry.version_folder(context.lake.root, names[draft.plan.name]))
    rows: list[logs.Row] = [draft.row(context, names[draft.plan.name]) for draft in made if names[draft.plan.name] not in there]
    if rows:
        context.append("model_versions", rows)
    context.note(versions=names, grown_on=str(made[0].grown.on))
