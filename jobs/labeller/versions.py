"""A labeller as a version of the registry: its name, its folder, its row."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from datetime import UTC, date, datetime, time
from functools import cache
from pathlib import Path

import numpy as np

from conf.settings import Settings, digest
from jobs.lake import commits, logs
from jobs.lake.publications import LABELLER
from models import labeller, lasting, trees
from models.labeller import METHOD, Labeller, Past

_FOLDER = "models"  # as models.registry has it, which loads torch


def settings_of(settings: Settings) -> dict[str, dict[str, object]]:
    """The settings that change what is learnt."""
    return {
        "label": settings.label.model_dump(mode="json"),
        "labeller": settings.labeller.model_dump(mode="json", include={"max_moments"}),
        "train": settings.train.model_dump(mode="json", include={"seed"}),
    }


def name(past: Past, settings: Settings) -> str:
    """Equal pasts, code and settings give an equal name."""
    learnt = hashlib.sha256()
    for one in fields(past.moments):
        learnt.update(np.ascontiguousarray(getattr(past.moments, one.name)).tobytes())
    learnt.update(past.clock.pace_D.tobytes())
    parts = {
        "moments": learnt.hexdigest(),
        "categories": list(past.categories),
        "since": past.clock.first,
        "until": past.until,
        "code": _code(),
        "settings": settings_of(settings),
    }
    return f"{LABELLER}-{digest(parts)}"


@cache
def _code() -> str:
    files = [Path(str(module.__file__)) for module in (labeller, lasting, trees)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def store(made: Labeller, root: str, version: str) -> None:
    """Write the folder; one that is there already is the same."""
    from models import registry  # loads torch, which those who only ask need not

    with commits.commit(root, "a model folder"):
        registry.save(made, registry.version_folder(root, version))


def load(root: str, version: logs.Row) -> Labeller:
    """
    Raises:
        ValueError: its folder is gone or damaged, or another release's; says how to go on.
    """
    return Labeller.load(Path(root) / version["folder"])


def row(version: str, day: date, settings: Settings, made: Labeller, metrics: dict[str, float]) -> logs.Row:
    """Its row of the registry."""
    return {
        "model_version": version,
        "kind": LABELLER,
        "method": METHOD,
        "day": day,
        "trained_until": datetime.combine(day, time(), tzinfo=UTC),
        "folder": f"{_FOLDER}/{version}",
        "settings": json.dumps(settings_of(settings), sort_keys=True),
        "metrics": json.dumps(metrics),
        "items": len(made.lasts),
        "created_at": logs.now(),
    }
