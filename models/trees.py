"""Boosted trees as plain arrays: whoever asks them needs numpy only, and no release of the library that grew them.

Shape suffixes: M rows asked about, F features, T trees, N nodes of all trees.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Trees:
    """`start_T`: each tree's root. Of nodes: `feature_N`, -1 in a leaf; up to `threshold_N` goes to `left_N`, above it to
    `right_N`; unknown to the left where `missing_left_N`. `value_N`: a leaf's part of the log-odds; `baseline` is all's.
    """

    baseline: Floats
    start_T: Ints
    feature_N: Ints
    threshold_N: Floats
    left_N: Ints
    right_N: Ints
    missing_left_N: Flags
    value_N: Floats

    def log_odds(self, inputs_MF: Floats) -> Floats:
        """(M,)"""
        total_M = np.full(len(inputs_MF), float(self.baseline))
        for start in self.start_T:
            node_M = np.full(len(inputs_MF), start)
            while (inner := np.flatnonzero(self.feature_N[node_M] >= 0)).size:
                node = node_M[inner]
                asked = inputs_MF[inner, self.feature_N[node]]
                goes_left = np.where(np.isnan(asked), self.missing_left_N[node], asked <= self.threshold_N[node])
                node_M[inner] = np.where(goes_left, self.left_N[node], self.right_N[node])
            total_M += self.value_N[node_M]
        return total_M

    def save(self, path: Path) -> None:
        np.savez(path, **{one.name: getattr(self, one.name) for one in fields(self)})

    @staticmethod
    def load(path: Path) -> Trees:
        """
        Raises:
            OSError, KeyError, ValueError, BadZipFile: there are none, or they are damaged.
        """
        with np.load(path, allow_pickle=False) as held:
            return Trees(**{one.name: held[one.name] for one in fields(Trees)})

    @staticmethod
    def of(fitted: Any) -> Trees:
        """Of scikit-learn's HistGradientBoostingClassifier with two classes and no categorical features."""
        nodes = [stage[0].nodes for stage in fitted._predictors]
        start = np.cumsum([0, *map(len, nodes)])[:-1]
        of_tree = np.repeat(start, [len(one) for one in nodes])
        every = np.concatenate(nodes)
        is_leaf = every["is_leaf"].astype(bool)
        return Trees(
            baseline=np.float64(np.ravel(fitted._baseline_prediction)[0]).reshape(()),
            start_T=start.astype(np.int64),
            feature_N=np.where(is_leaf, -1, every["feature_idx"]).astype(np.int64),
            threshold_N=every["num_threshold"].astype(np.float64),
            left_N=every["left"].astype(np.int64) + of_tree,
            right_N=every["right"].astype(np.int64) + of_tree,
            missing_left_N=every["missing_go_to_left"].astype(bool),
            value_N=every["value"].astype(np.float64),
        )
