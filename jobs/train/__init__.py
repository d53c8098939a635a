"""Cuts windows from events before the day and trains a candidate model on them.

A bootstrap trains a second version besides, on all but the newest days, for evaluate to judge on
those; it is never published. A night goes on from the published weights with what arrived since,
but for one a week, which begins with fresh weights. Where `train.only_on` names a weekday, the nights of
the others train nothing.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.settings import digest
from jobs.lake import commits, logs
from jobs.lake.context import Context
from jobs.lake.publications import INTEREST
from jobs.train import cutting, lineage, tracking
from jobs.train import knowledge as items
from jobs.train.catalogue import Catalogue, catalogues, declared
from jobs.train.cutting import EVENT, Plan, Sizes, midnight
from jobs.train.launch import launch
from models import registry
from models.batches import Source
from models.knowledge import Knowledge
from models.queries import Vocabulary
from models.tasks import Result, Task

WINDOWS = "training_windows"


def run(context: Context) -> None:
    day, settings, targets = context.days.last, context.settings, context.mapping.target_events
    if lineage.rests(context):
        context.note(trained=f"no version: train.only_on is {settings.train.only_on}")
        context.clear(WINDOWS)
        return
    told = items.told(context)
    context.note(knowledge=sorted(told))
    parent = lineage.parent(context, items.sizes(told))
    context.note(parent=None if parent is None else parent.version)
    events, plans = _events(context, parent), _plans(context, parent)
    if context.mapping.has_times and parent is None:
        plans = cutting.with_validation(events, plans, targets, settings.train.validation_share)
    before = None if parent is None else Vocabulary.load(parent.folder / registry.VOCABULARY)
    known = catalogues(events, declared(context), plans, targets, before)
    vocabularies = {plan.until: one.vocabulary for plan, one in zip(plans, known, strict=True)}
    folded = cutting.folded(events, plans, targets, context.mapping.has_times)
    made = cutting.windows(folded, plans, vocabularies, settings.model.window + 1)
    context.write(WINDOWS, made.withColumn("day", F.lit(day)))
    written = context.lake.read(WINDOWS, context.outputs[WINDOWS], f"day = '{day}'")
    sizes = cutting.sizes(written)
    drafts = [
        Draft(
            plan=plan,
            catalogue=one,
            knowledge=items.knowledge(told, plan.until.date(), one.vocabulary.items),
            known=items.fingerprint(told, plan.until.date(), one.vocabulary.items),
            sizes=sizes[plan.until],
            parent=parent,
        )
        for plan, one in zip(plans, known, strict=True)
        if plan.until in sizes and sizes[plan.until].targets.get("train")
    ]
    if not drafts:
        context.note(trained="no version: there is no target event to learn from")
        context.log.info("train of %s: no target event to learn from, so no new version", day)
        return
    _make(context, drafts)


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A version before it is trained. `known`: a name of what is known, per kind."""

    plan: Plan
    catalogue: Catalogue
    knowledge: Knowledge
    known: Mapping[str, str]
    sizes: Sizes
    parent: lineage.Parent | None

    def version(self, context: Context) -> str:
        """Its name: equal windows, names, code, settings and parent give an equal name."""
        vocabulary = self.catalogue.vocabulary
        parts = {
            "windows": self.sizes.fingerprint,
            "knowledge": dict(self.known),
            "names": [vocabulary.items, vocabulary.item_categories, vocabulary.categories, vocabulary.event_types],
            "code": lineage.learning_code(),
            "settings": lineage.learning_settings(context.settings),
            "parent": None if self.parent is None else self.parent.version,
        }
        return digest(parts)


def _plans(context: Context, parent: lineage.Parent | None) -> list[Plan]:
    """The candidate; in a bootstrap the version besides that is to be judged on the newest days."""
    day = context.days.last
    if not context.mapping.has_times:
        # All events are of the one day; each user's last is left out instead.
        return [Plan(name="candidate", until=midnight(day + timedelta(days=1)))]
    candidate, *besides = cutting.whole_plans(list(context.days), context.bootstrap, context.settings.evaluate.holdout_share)
    return [replace(candidate, since=None if parent is None else parent.day), *besides]


def _events(context: Context, parent: lineage.Parent | None) -> DataFrame:
    """Events that a training may see. A night reads what arrived since its parent, and the sequences before that."""
    if not context.mapping.has_times:
        return context.history("events").select(*EVENT)
    if parent is None:
        return context.earlier("events").select(*EVENT)
    arrived = context.earlier("events").where(F.col("day") >= F.lit(parent.day)).select(*EVENT)
    users = arrived.select("user_id").distinct()
    sequences = context.before("user_sequences").join(users, on="user_id", how="left_semi")
    event = sequences.select("user_id", F.explode("events").alias("event"))
    fields = {"day": F.col("event.arrived_on")}
    known = event.select(
        "user_id", *[fields.get(name, F.col(f"event.{name}")).alias(name) for name in EVENT if name != "user_id"]
    )
    return arrived.unionByName(known.where(F.col("day") < F.lit(parent.day)).select(*EVENT))


def as_of(context: Context, day: date) -> tuple[DataFrame, Vocabulary]:
    """Windows and names of a whole training for an earlier `day`, cut from all that is stored, as for a hold-out."""
    targets, events = context.mapping.target_events, context.history("events").select(*EVENT)
    plans = [Plan(name="as of", until=midnight(day))]
    plans = cutting.with_validation(events, plans, targets, context.settings.train.validation_share)
    [known] = catalogues(events, declared(context), plans, targets, None)
    folded = cutting.folded(events, plans, targets, context.mapping.has_times)
    made = cutting.windows(folded, plans, {plans[0].until: known.vocabulary}, context.settings.model.window + 1)
    return made.withColumn("day", F.lit(day)), known.vocabulary


def _make(context: Context, drafts: Sequence[Draft]) -> None:
    """Train what is not there yet, and add the rows that are missing."""
    by_version = {draft.version(context): draft for draft in drafts}
    folders = {version: registry.version_folder(context.lake.root, version) for version in by_version}
    missing = [version for version in by_version if not registry.is_whole(folders[version])]
    with tempfile.TemporaryDirectory(prefix="wherewhen-train-") as scratch:
        trainings = [_training(context, version, by_version[version], Path(scratch) / version) for version in missing]
        results = _launched(context, trainings)
        for one in trainings:
            with commits.commit(context.lake.root, "a model folder"):
                registry.adopt(one.task.folder, folders[one.version])
            registry.checkpoint_file(context.lake.root, one.version).unlink(missing_ok=True)
    runs = [_run_row(context, version, by_version[version], result) for version, result in zip(missing, results, strict=True)]
    known = {row["model_version"] for row in context.log_rows("model_versions")}
    new = [
        _version_row(context, version, draft, folders[version]) for version, draft in by_version.items() if version not in known
    ]
    if runs:
        context.append("training_runs", runs)
    if new:
        context.append("model_versions", new)
    context.note(versions={draft.plan.name: version for version, draft in by_version.items()}, trained=len(missing))


def _launched(context: Context, trainings: Sequence[tracking.Training]) -> list[Result]:
    if not trainings:
        return []
    train = context.settings.train
    with tracking.told(trainings, train.tracking, context.lake.root) as tasks:
        return launch(context.spark, tasks, train.processes, context.log)


def _training(context: Context, version: str, draft: Draft, scratch: Path) -> tracking.Training:
    """A version's training, and what MLflow is to know of it: settings, and of what was learnt, all from before the day."""
    learning = lineage.learning_settings(context.settings)
    params = {f"{section}.{key}": value for section, values in learning.items() for key, value in values.items()}
    plan, sizes = draft.plan, draft.sizes
    params |= {"trained_until": plan.until.isoformat(), "trained_since": plan.since, "validation_from": plan.validation_from}
    for fold in sorted(sizes.windows):
        params |= {f"windows.{fold}": sizes.windows[fold], f"targets.{fold}": sizes.targets.get(fold, 0)}
    vocabulary = draft.catalogue.vocabulary
    params |= {
        "items": len(vocabulary.items),
        "categories": len(vocabulary.categories),
        "windows_hash": digest(sizes.fingerprint),
    }
    tags = {"run_id": context.run_id, "day": str(context.days.last), "training": plan.name}
    tags |= {"parent": "" if draft.parent is None else draft.parent.version, "processes": str(context.settings.train.processes)}
    return tracking.Training(task=_task(context, version, draft, scratch), version=version, tags=tags, params=params)


def _task(context: Context, version: str, draft: Draft, scratch: Path) -> Task:
    settings = context.settings
    scratch.mkdir()
    draft.catalogue.vocabulary.save(scratch / "names.json")
    np.save(scratch / "prior.npy", draft.catalogue.log_share_V)
    draft.knowledge.save(scratch / "knowledge.npz")
    uris = cutting.window_files(context.lake.root, context.outputs[WINDOWS], context.days.last)
    return Task(
        name=draft.plan.name,
        model=settings.network,
        train=settings.train,
        vocabulary=scratch / "names.json",
        source=Source(uris=uris, until=draft.plan.until, size=settings.model.window + 1, counts=draft.sizes.windows),
        folder=scratch / "made",
        prior=scratch / "prior.npy",
        parent=draft.parent.folder if draft.parent is not None else None,
        checkpoint=registry.checkpoint_file(context.lake.root, version),
        taken_types=() if context.mapping.repeats else context.mapping.target_events,
        knowledge=scratch / "knowledge.npz",
    )


def _run_row(context: Context, version: str, draft: Draft, result: Result) -> logs.Row:
    return {
        "run_id": context.run_id,
        "day": context.days.last,
        "model_version": version,
        "windows": draft.sizes.windows.get("train", 0),
        "targets": draft.sizes.targets.get("train", 0),
        "epochs": result.epochs,
        "processes": result.processes,
        "seconds": result.seconds,
        "train_loss": result.train_loss,
        "validation_loss": result.validation_loss,
        "finished_at": logs.now(),
    }


def _version_row(context: Context, version: str, draft: Draft, folder: Path) -> logs.Row:
    return {
        "model_version": version,
        "kind": INTEREST,
        "method": context.settings.model.encoder,
        "day": context.days.last,
        "trained_until": draft.plan.until,
        "folder": f"{registry.FOLDER}/{version}",
        "settings": json.dumps(lineage.learning_settings(context.settings), sort_keys=True),
        "metrics": json.dumps(registry.details(folder).get("metrics", {})),
        "items": len(draft.catalogue.vocabulary.items),
        "created_at": logs.now(),
    }
