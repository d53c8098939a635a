"""What lists are like, whatever was wanted: how novel, how diverse, how true to the user's own mixture of categories.

Shape suffixes: Q lists, K items of a list, N recent events, V items, C categories.
"""

from __future__ import annotations

import numpy as np

from models.queries import PADDING

MEASURES = ("novelty", "diversity", "calibration")
# So much of the user's own mixture is lent to the list's, so that a category it lacks costs much, and not everything.
_LENT = 0.01


def measures(best_QK: np.ndarray, recent_QN: np.ndarray, category_V: np.ndarray, share_V: np.ndarray) -> np.ndarray:
    """`MEASURES` of each list, (Q, 3) float64; 0 for an empty one.

    best_QK: catalogue places, -1 pads. recent_QN: category indices of the user's newest events, 0 pads. category_V: the
    items' categories. share_V: the items' shares in all target events.
    """
    return np.stack(
        [novelty(best_QK, share_V), diversity(best_QK, category_V), calibration(best_QK, recent_QN, category_V)], axis=1
    )


def novelty(best_QK: np.ndarray, share_V: np.ndarray) -> np.ndarray:
    """Mean self-information of the items of a list, bits.

    Source: Zhou et al.: "Solving the apparent diversity-accuracy dilemma of recommender systems", PNAS 2010.
    """
    some_QK = best_QK >= 0
    if not some_QK.any():
        return np.zeros(len(best_QK))
    bits_QK = np.where(some_QK, -np.log2(share_V[np.maximum(best_QK, 0)]), 0.0)
    return bits_QK.sum(axis=1) / np.maximum(some_QK.sum(axis=1), 1)


def diversity(best_QK: np.ndarray, category_V: np.ndarray) -> np.ndarray:
    """Share of the pairs of a list that differ in category; 0 where there is no pair."""
    length_Q = (best_QK >= 0).sum(axis=1)
    count_QC = _mixture(best_QK, category_V)
    alike_Q = (count_QC * (count_QC - 1)).sum(axis=1)
    pairs_Q = length_Q * (length_Q - 1)
    return np.where(pairs_Q > 0, 1.0 - alike_Q / np.maximum(pairs_Q, 1), 0.0)


def calibration(best_QK: np.ndarray, recent_QN: np.ndarray, category_V: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence of a list's mixture of categories from that of the user's newest events, nats; 0 is best.

    Source: Steck: "Calibrated Recommendations", RecSys 2018.
    """
    size = 1 + int(max(category_V.max(initial=0), recent_QN.max(initial=0)))
    list_QC = _mixture(best_QK, category_V, size)
    own_QC = _counts(np.nonzero(recent_QN != PADDING)[0], recent_QN[recent_QN != PADDING], (len(recent_QN), size))
    length_Q1, known_Q1 = list_QC.sum(axis=1, keepdims=True), own_QC.sum(axis=1, keepdims=True)
    own_QC, list_QC = own_QC / np.maximum(known_Q1, 1.0), list_QC / np.maximum(length_Q1, 1.0)
    lent_QC = (1.0 - _LENT) * list_QC + _LENT * own_QC
    with np.errstate(divide="ignore", invalid="ignore"):
        terms_QC = np.where(own_QC > 0, own_QC * np.log(own_QC / lent_QC), 0.0)
    return np.where((length_Q1 > 0) & (known_Q1 > 0), terms_QC, 0.0).sum(axis=1)


def _mixture(best_QK: np.ndarray, category_V: np.ndarray, size: int | None = None) -> np.ndarray:
    """How many items of each list are of each category, (Q, C) float64."""
    row_T, place_T = np.nonzero(best_QK >= 0)
    size = 1 + int(category_V.max(initial=0)) if size is None else size
    return _counts(row_T, category_V[best_QK[row_T, place_T]] if len(row_T) else row_T, (len(best_QK), size))


def _counts(row_T: np.ndarray, column_T: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return np.bincount(row_T * shape[1] + column_T, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
