"""What a version is made of besides its windows: code, settings, and the version it goes on from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import models
from conf.learning import ENCODERS, WEEKDAYS, Model
from conf.settings import Settings
from jobs.lake import logs
from jobs.lake.context import Context
from jobs.lake.publications import INTEREST, in_force
from models import registry
from models.queries import Vocabulary

# They change when, how fast, on what, how long at most a training runs, and who is told; not what it would learn.
_RESOURCES = {"processes", "max_seconds", "checkpoint_seconds", "windows_at_once", "tracking", "from_scratch_on", "only_on"}
# Weights of one network fit another where these are equal.
_SHAPE = ("encoder", "window", "width", "layers", "heads", "times", "places", "repeats")


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A version whose weights a night goes on from; it has learnt what arrived before `day`."""

    version: str
    day: date
    folder: Path


def learning_settings(settings: Settings) -> dict[str, Any]:
    """The settings that change what is learnt."""
    return {
        "model": settings.network.model_dump(mode="json"),
        "train": settings.train.model_dump(mode="json", exclude=_RESOURCES),
    }


@cache
def learning_code() -> str:
    """Hash of the files in `models/`."""
    digest = hashlib.sha256()
    for path in sorted(Path(models.__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def rests(context: Context) -> bool:
    """Whether the night learns nothing, by `train.only_on`: it is another day's, and something was learnt before."""
    only_on = context.settings.train.only_on
    if context.bootstrap or only_on is None or WEEKDAYS[context.days.last.weekday()] == only_on:
        return False
    return any(row["day"] < context.days.last for row in context.log_rows("model_versions", f"kind = '{INTEREST}'"))


def parent(context: Context, knowledge: Mapping[str, int]) -> Parent | None:
    """What the night goes on from: the version published before the day if it fits, else the newest that does.

    What the day itself trained or published does not count, so that a day run again has the same parent.
    A bootstrap has none, nor has the night of `train.from_scratch_on`: what is learnt night by night drifts from what
    a training on all of it finds, and names that are gone are forgotten.

    Args:
        knowledge: kinds of vectors of items there are today, and their sizes: weights that read others do not fit.
    """
    day = context.days.last
    if context.bootstrap or WEEKDAYS[day.weekday()] == context.settings.train.from_scratch_on:
        return None
    rows = {row["model_version"]: row for row in context.log_rows("model_versions") if _fits(context, row, knowledge)}
    served = in_force(context.log_rows("publications"), before=day)
    found = rows.get(served["model_version"]) if served is not None else None
    if found is None:
        found = max(rows.values(), key=lambda row: (row["day"], row["created_at"]), default=None)
    if found is None:
        return None
    return Parent(version=found["model_version"], day=found["day"], folder=Path(context.lake.root) / found["folder"])


def _fits(context: Context, row: logs.Row, knowledge: Mapping[str, int]) -> bool:
    """Was it trained on all that came before an earlier day, by a network of the same shape?"""
    is_whole = row["kind"] == INTEREST and row["method"] in ENCODERS and row["trained_until"].date() == row["day"]
    if not is_whole or row["day"] >= context.days.last:
        return False
    made, wanted = json.loads(row["settings"]).get("model", {}), context.settings.network.model_dump(mode="json")
    folder = Path(context.lake.root) / row["folder"]
    if not all(made.get(name) == wanted[name] for name in _SHAPE) or not registry.is_whole(folder):
        return False
    # Another release's network may have other parts.
    return registry.details(folder).get("parts") == _parts(context.settings.network.model_dump_json(), tuple(knowledge.items()))


@cache
def _parts(settings: str, knowledge: tuple[tuple[str, int], ...]) -> str:
    from models.interest import new_network, parts
    from models.knowledge import Knowledge

    nothing = Vocabulary(items=(), item_categories=(), categories=(), event_types=())
    told = Knowledge(vectors={kind: np.zeros((0, size), np.float16) for kind, size in knowledge})
    return parts(new_network(Model.model_validate_json(settings), nothing, told))
