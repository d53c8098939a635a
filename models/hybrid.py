"""A first ranker and a learned one: the first orders the catalogue, gradient-boosted trees the few candidates of a moment.

Trees are LambdaMART (Burges, "From RankNet to LambdaRank to LambdaMART", MSR-TR-2010-82) as LightGBM grows them.
Shape suffixes: B moments, V items, C candidates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import lightgbm
import numpy as np

from models.candidates import FEATURES, Candidates, candidates
from models.facts import Facts
from models.queries import Histories, Queries, Ranker, Vocabulary

_ROUNDS = 150
_GROWN_AS = {
    "objective": "lambdarank", "lambdarank_truncation_level": 10, "learning_rate": 0.1, "num_leaves": 31, "max_bin": 63,
    "min_data_in_leaf": 50, "feature_fraction": 0.5, "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 5.0,
    "deterministic": True, "force_row_wise": True, "seed": 1, "verbose": -1,
}  # fmt: skip
# Of the candidates that were not taken: as many of the best by the first ranker, and this share of the others.
_BEST_KEPT, _OTHERS_KEPT = 30, 0.25
# Candidates with equal trees stand as the first ranker has them.
_TIE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Hybrid:
    """A `Ranker` over the catalogue of the first one. What is no candidate comes after all that are, in the first's order."""

    first: Ranker
    known: Facts
    trees: lightgbm.Booster

    @property
    def method(self) -> str:
        return "hybrid"

    @property
    def vocabulary(self) -> Vocabulary:
        return self.first.vocabulary

    def scores(self, histories: Histories, queries: Queries) -> np.ndarray:
        """Scores of all items, (B, V) float32."""
        first_BV = self.first.scores(histories, queries)
        if not first_BV.size:
            return first_BV
        found = candidates(self.known, histories, queries, first_BV)
        below_BV = first_BV - first_BV.max(axis=1, keepdims=True)
        score_C = self.trees.predict(found.features_CF)
        below_C = below_BV[found.row_C, found.item_C]
        score_C = score_C + _TIE * below_C / (1.0 - below_C)
        least_B = np.full(len(first_BV), np.inf)
        np.minimum.at(least_B, found.row_C, score_C)
        scores_BV: np.ndarray = (below_BV + least_B[:, None] - 1.0).astype(np.float32)
        scores_BV[found.row_C, found.item_C] = score_C
        return scores_BV


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Candidates of moments, and which of them was taken; moments of which none was say nothing and are left out."""

    features_CF: np.ndarray
    is_taken_C: np.ndarray
    size_B: np.ndarray


def examples(found: Candidates, target_B: np.ndarray) -> Examples:
    """target_B: the catalogue place that was taken at each moment, -1 where it is not in the catalogue."""
    is_taken_C = found.item_C == target_B[found.row_C]
    told_B = np.bincount(found.row_C, weights=is_taken_C, minlength=len(target_B)) > 0
    score_C = found.features_CF[:, FEATURES.index("first_score")]
    order = np.lexsort((-score_C, found.row_C))
    size_B = np.bincount(found.row_C, minlength=len(target_B))
    place_C = np.empty(len(order), np.int64)
    place_C[order] = np.arange(len(order)) - np.repeat(np.cumsum(size_B) - size_B, size_B)
    drawn_C = np.random.default_rng(0).random(len(order)) < _OTHERS_KEPT
    kept = np.flatnonzero(told_B[found.row_C] & (is_taken_C | (place_C < _BEST_KEPT) | drawn_C))
    size_B = np.bincount(found.row_C[kept], minlength=len(target_B))
    return Examples(features_CF=found.features_CF[kept], is_taken_C=is_taken_C[kept], size_B=size_B[size_B > 0])


def grow(parts: Iterable[Examples], threads: int = 1) -> lightgbm.Booster:
    """Trees that order the candidates of such moments.

    Raises:
        ValueError: there is no moment to learn from.
    """
    given = list(parts)
    if not sum(len(part.size_B) for part in given):
        raise ValueError("there is no moment whose item was among the candidates: nothing to learn an order from")
    data = lightgbm.Dataset(
        np.concatenate([part.features_CF for part in given]),
        np.concatenate([part.is_taken_C for part in given]).astype(np.int32),
        group=np.concatenate([part.size_B for part in given]),
        feature_name=list(FEATURES),
    )
    return lightgbm.train({**_GROWN_AS, "num_threads": threads}, data, num_boost_round=_ROUNDS)
