"""What any model has to beat, by name; stored as model versions are.

Shape suffixes: B moments, V items.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from conf.baselines import BASELINES, Baselines
from models.collaborative import als, item_cf
from models.counts import Counts
from models.personal import content, kernels, markov, user_frequency
from models.queries import Histories, Queries, Vocabulary

__all__ = ["BASELINES", "Baseline", "baseline"]

# What a baseline is fitted to besides the counts.
ARRAYS = {"item_cf": ("neighbour_VK", "likeness_VK"), "als": ("factors_VR",)}
_COUNTS = ("events_V", "transitions_V", "successor_VK", "successor_count_VK")
_DETAILS, _ARRAYS, _VOCABULARY = "version.json", "counts.npz", "vocabulary.json"


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A `Ranker`; `method` is one of `BASELINES`, `arrays` what `ARRAYS` says that it needs."""

    method: str
    counts: Counts
    settings: Baselines = field(default_factory=Baselines)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def vocabulary(self) -> Vocabulary:
        return self.counts.vocabulary

    def scores(self, histories: Histories, queries: Queries) -> np.ndarray:
        """Scores of all items, (B, V) float32."""
        return _SCORES[self.method](self, histories, queries)

    @property
    def content(self) -> dict[str, np.ndarray]:
        """Every array that the scores are made of."""
        return {**{name: getattr(self.counts, name) for name in _COUNTS}, **self.arrays}

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(folder / _ARRAYS, **self.content)
        self.vocabulary.save(folder / _VOCABULARY)
        details = {"method": self.method, "target_types": self.counts.target_types}
        (folder / _DETAILS).write_text(json.dumps({**details, "baselines": self.settings.model_dump(mode="json")}))

    @staticmethod
    def load(folder: Path) -> Baseline:
        details = json.loads((folder / _DETAILS).read_text())
        with np.load(folder / _ARRAYS) as stored:
            arrays = {name: stored[name] for name in stored.files}
        counts = {name: arrays.pop(name) for name in _COUNTS}
        vocabulary = Vocabulary.load(folder / _VOCABULARY)
        return Baseline(
            method=details["method"],
            counts=Counts(vocabulary=vocabulary, target_types=tuple(details["target_types"]), **counts),
            settings=Baselines.model_validate(details["baselines"]),
            arrays=arrays,
        )


_SCORES: Mapping[str, Callable[[Baseline, Histories, Queries], np.ndarray]] = {
    "popularity": lambda one, histories, _: np.repeat(one.counts.events_V.astype(np.float32)[None], len(histories.item_BL), 0),
    "user_frequency": lambda one, histories, _: user_frequency(one.counts, histories),
    "markov": lambda one, histories, _: markov(one.counts, histories, one.settings.markov),
    "kernels": lambda one, histories, queries: kernels(one.counts, histories, queries, one.settings.kernels),
    "content": lambda one, histories, _: content(one.counts, histories, one.settings.content),
    "item_cf": lambda one, histories, _: item_cf(
        one.counts, histories, (one.arrays["neighbour_VK"], one.arrays["likeness_VK"]), one.settings.item_cf
    ),
    "als": lambda one, histories, _: als(one.counts, histories, one.arrays["factors_VR"], one.settings.als),
}


def baseline(
    name: str, counts: Counts, settings: Baselines | None = None, arrays: Mapping[str, np.ndarray] | None = None
) -> Baseline:
    """One of the baselines by name.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in BASELINES:
        raise ValueError(f"there is no baseline {name}; the baselines are {', '.join(BASELINES)}")
    given = {key: (arrays or {})[key] for key in ARRAYS.get(name, ())}
    return Baseline(method=name, counts=counts, settings=settings or Baselines(), arrays=given)
