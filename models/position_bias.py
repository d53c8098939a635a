"""How much less is looked at further down a list: the examination of each rank, 1 at the first.

The model: who looks at an entry answers it as it deserves, and whether somebody looks depends on the rank alone. Either from
lists whose order was shuffled, where every rank holds items that deserve the same; or, without these, by regression EM (Wang
et al., "Position Bias Estimation for Unbiased Learning to Rank in Personal Search", WSDM 2018).

Shape suffixes: K ranks, E entries of lists, F features, G groups of entries with equal features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Answers at a rank from which its rate is trusted.
ENOUGH_ANSWERS = 50
_ROUNDS, _STEADY = 500, 1e-6
_LEAST, _MOST = 1e-6, 1.0 - 1e-6


@dataclass(frozen=True, kw_only=True)
class Examined:
    """`examined_K`: relative to the first rank. `low_K`, `high_K`: an interval of 95%, NaN where none can be given."""

    examined_K: np.ndarray
    low_K: np.ndarray
    high_K: np.ndarray

    @staticmethod
    def evenly(ranks: int) -> Examined:
        """Nothing is known: all are looked at."""
        unknown_K = np.full(ranks, np.nan)
        return Examined(examined_K=np.ones(ranks), low_K=unknown_K, high_K=unknown_K)


def from_shuffled(shown_K: np.ndarray, answered_K: np.ndarray) -> Examined | None:
    """From how many entries were shown and answered at each rank of shuffled lists; None where they are too few.

    The intervals are of the ratio of two rates, by the delta method on its logarithm. Rates may not rise with the rank, and
    are made even where they do (Robertson et al., "Order Restricted Statistical Inference", 1988), weighed by entries.
    """
    if not len(shown_K) or answered_K[0] < ENOUGH_ANSWERS or answered_K.sum() < ENOUGH_ANSWERS * len(shown_K):
        return None
    rate_K = falling(answered_K / np.maximum(shown_K, 1), shown_K)
    ratio_K = rate_K / rate_K[0]
    answers_K = np.maximum(rate_K * shown_K, 0.5)
    error_K = np.sqrt((1.0 - rate_K) / answers_K + (1.0 - rate_K[0]) / answers_K[0])
    error_K[0] = 0.0
    return Examined(examined_K=ratio_K, low_K=ratio_K * np.exp(-1.96 * error_K), high_K=ratio_K * np.exp(1.96 * error_K))


def falling(rate_K: np.ndarray, weight_K: np.ndarray) -> np.ndarray:
    """The nearest rates that do not rise, by pooling adjacent violators.

    >>> falling(np.array([0.5, 0.2, 0.3]), np.array([1.0, 1.0, 1.0])).round(2).tolist()
    [0.5, 0.25, 0.25]
    """
    pools: list[tuple[float, float, int]] = []
    for rate, weight in zip(rate_K, weight_K, strict=True):
        pools.append((float(rate), float(weight), 1))
        while len(pools) > 1 and pools[-2][0] < pools[-1][0]:
            (first, one, many), (second, other, more) = pools[-2:]
            mean = (first * one + second * other) / (one + other) if one + other else second
            pools[-2:] = [(mean, one + other, many + more)]
    return np.repeat([rate for rate, _, _ in pools], [many for _, _, many in pools])


def regression_em(
    rank_E: np.ndarray, answered_E: np.ndarray, group_E: np.ndarray, ranks: int, shown_E: np.ndarray | None = None
) -> Examined:
    """From any lists, where entries that deserve the same were shown at several ranks.

    Args:
        rank_E: from 0.
        answered_E: 0..1.
        group_E: whole numbers, the same for entries that are taken to deserve the same: of one item and kind of user, say.
        shown_E: where E are sums of entries, how many each is of; `answered_E` is then their sum.
    """
    shown_E = np.ones(len(rank_E)) if shown_E is None else shown_E
    shown_K = np.bincount(rank_E, weights=shown_E, minlength=ranks)
    if not len(rank_E) or not answered_E.sum():
        return Examined.evenly(ranks)
    _, group_E = np.unique(group_E, return_inverse=True)
    # Alike in rank and group: one sum for all of them.
    groups = int(group_E.max()) + 1
    shown_GK, answered_GK = np.zeros((groups, ranks)), np.zeros((groups, ranks))
    np.add.at(shown_GK, (group_E, rank_E), shown_E)
    np.add.at(answered_GK, (group_E, rank_E), answered_E)
    examined_K = np.linspace(1.0, 0.5, ranks)
    deserved_G = np.clip(answered_GK.sum(axis=1) / np.maximum(shown_GK.sum(axis=1), 1), _LEAST, _MOST)
    for _ in range(_ROUNDS):
        looked_GK, liked_GK = _expected(shown_GK, answered_GK, examined_K, deserved_G)
        before_K = examined_K
        examined_K = np.clip(looked_GK.sum(axis=0) / np.maximum(shown_K, 1.0), _LEAST, _MOST)
        deserved_G = np.clip(liked_GK.sum(axis=1) / shown_GK.sum(axis=1), _LEAST, _MOST)
        if np.abs(examined_K / examined_K[0] - before_K / before_K[0]).max() < _STEADY:
            break
    unknown_K = np.full(ranks, np.nan)
    return Examined(examined_K=np.where(shown_K > 0, examined_K / examined_K[0], np.nan), low_K=unknown_K, high_K=unknown_K)


def _expected(
    shown_GK: np.ndarray, answered_GK: np.ndarray, examined_K: np.ndarray, deserved_G: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How many entries were looked at, and how many were liked, whether looked at or not."""
    passed_GK = shown_GK - answered_GK
    both_GK = examined_K * deserved_G[:, None]
    looked_GK = answered_GK + passed_GK * examined_K * (1.0 - deserved_G[:, None]) / (1.0 - both_GK)
    liked_GK = answered_GK + passed_GK * deserved_G[:, None] * (1.0 - examined_K) / (1.0 - both_GK)
    return looked_GK, liked_GK
