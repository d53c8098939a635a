"""A hybrid as a version of the registry: its name, its folder, its row; and the trees that a night keeps."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from conf.learning import HYBRID, WEEKDAYS
from conf.settings import Settings, digest
from jobs.lake import logs
from jobs.lake.context import Context
from jobs.lake.publications import RANKER
from jobs.ranker.growing import Grown
from jobs.train.cutting import Plan
from jobs.train.lineage import learning_code
from models import registry
from models.facts import KINDS, Facts
from models.hybrid import Hybrid, load_trees, text_of


def settings_of(settings: Settings) -> dict[str, Any]:
    """The settings that change what is learnt."""
    return {
        "ranker": settings.ranker.model_dump(mode="json", include={"max_moments"}),
        "kernels": settings.baselines.kernels.model_dump(mode="json"),
        "worth": settings.train.worth,
    }


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A version before it is stored."""

    plan: Plan
    known: Facts
    grown: Grown

    def version(self, context: Context) -> str:
        """Its name: equal counts, trees, code and settings give an equal name."""
        counted = hashlib.sha256()
        for kind in KINDS:
            for part in self.known.tallies[kind]:
                counted.update(np.ascontiguousarray(part).tobytes())
        vocabulary = self.known.vocabulary
        parts = {
            "counted": counted.hexdigest(),
            "names": [vocabulary.items, vocabulary.item_categories, vocabulary.categories, vocabulary.event_types],
            "trees": text_of(self.grown.trees),
            "made_by": _made_by(context.settings),
        }
        return f"{HYBRID}-{digest(parts)}"

    def hybrid(self, context: Context) -> Hybrid:
        details = {"grown_on": str(self.grown.on), "made_by": _made_by(context.settings)}
        kernels = context.settings.baselines.kernels
        return Hybrid(known=self.known, trees=self.grown.trees, kernels=kernels, details=details)

    def row(self, context: Context, version: str) -> logs.Row:
        """Its row of the registry."""
        return {
            "model_version": version,
            "kind": RANKER,
            "method": HYBRID,
            "day": context.days.last,
            "trained_until": self.plan.until,
            "folder": f"{registry.FOLDER}/{version}",
            "settings": json.dumps(settings_of(context.settings), sort_keys=True),
            "metrics": "{}",
            "items": len(self.known.vocabulary.items),
            "created_at": logs.now(),
        }


def kept_trees(context: Context) -> Grown | None:
    """The trees of the newest version of a day before; None in a bootstrap, on the night of `train.from_scratch_on`, and
    where that version was made by other code or settings.

    What the day itself made does not count, so that a day run again keeps the same.
    """
    day, settings = context.days.last, context.settings
    if context.bootstrap or WEEKDAYS[day.weekday()] == settings.train.from_scratch_on:
        return None
    rows = [row for row in context.log_rows("model_versions", f"kind = '{RANKER}'") if row["day"] < day]
    rows = [row for row in rows if row["trained_until"].date() == row["day"]]
    newest = max(rows, key=lambda row: (row["day"], row["created_at"]), default=None)
    if newest is None:
        return None
    folder = Path(context.lake.root) / newest["folder"]
    if not registry.is_whole(folder) or (details := registry.details(folder))["made_by"] != _made_by(settings):
        return None
    return Grown(trees=load_trees(folder), on=date.fromisoformat(details["grown_on"]))


def _made_by(settings: Settings) -> str:
    return digest([learning_code(), settings_of(settings)])
