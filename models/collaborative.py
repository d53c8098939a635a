"""Baselines made of what users take together: item-based collaborative filtering, and factors of implicit feedback.

A moment's user is known by the history alone, so that nothing is kept per user. Shape suffixes: B moments, L events of
history, V items, K neighbours, R factors.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from conf.baselines import Als, ItemCf
from models.counts import Counts
from models.queries import Histories

# Breaks ties by popularity, below anything that a score says.
_TIE = 1e-6


def item_cf(counts: Counts, histories: Histories, fitted: tuple[np.ndarray, np.ndarray], given: ItemCf) -> np.ndarray:
    """Sum of the likenesses to the items of the history, newer ones counting more.

    `fitted`: `neighbour_VK`, catalogue places of each item's neighbours, -1 where it has fewer; `likeness_VK` float64.
    Source: Deshpande, Karypis: "Item-Based Top-N Recommendation Algorithms", ACM TOIS 2004.
    """
    neighbour_VK, likeness_VK = fitted
    size = len(counts.events_V)
    weight_BV = _weights(counts, histories, given.half_life_events)
    item_P, place_P = np.nonzero(neighbour_VK >= 0)
    like_VV = sparse.csr_matrix((likeness_VK[item_P, place_P], (item_P, neighbour_VK[item_P, place_P])), shape=(size, size))
    scores_BV = (weight_BV @ like_VV + given.itself * weight_BV).toarray() + _TIE * counts.share_V
    return scores_BV.astype(np.float32)


def als(counts: Counts, histories: Histories, factors_VR: np.ndarray, given: Als) -> np.ndarray:
    """Dot products of the items' factors with those that the history's items give their user, by one least squares step.

    Source: Hu, Koren, Volinsky: "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008.
    """
    weight_BV = _weights(counts, histories, given.half_life_events)
    width = factors_VR.shape[1]
    gram_RR, one_RR = factors_VR.T @ factors_VR, np.eye(width)
    users_BR = np.zeros((weight_BV.shape[0], width))
    for row in range(weight_BV.shape[0]):
        some = slice(weight_BV.indptr[row], weight_BV.indptr[row + 1])
        mine_LR, weight_L = factors_VR[weight_BV.indices[some]], given.confidence * weight_BV.data[some]
        if len(weight_L):
            # Spark weighs the regularisation by the number of items, and so does this.
            system_RR = gram_RR + mine_LR.T @ (weight_L[:, None] * mine_LR) + given.regularisation * len(weight_L) * one_RR
            users_BR[row] = np.linalg.solve(system_RR, mine_LR.T @ (1.0 + weight_L))
    return (users_BR @ factors_VR.T + _TIE * counts.share_V).astype(np.float32)


def _weights(counts: Counts, histories: Histories, half_life_events: float) -> sparse.csr_matrix:
    """How much each item of a history counts, (B, V): the sum over its events, each halved every so many events."""
    taken_BL = counts.items_taken(histories)
    row_T, place_T = np.nonzero(taken_BL >= 0)
    weight_T = np.exp2(-(taken_BL.shape[1] - 1 - place_T) / half_life_events)
    shape = (len(taken_BL), len(counts.events_V))
    # Adds up what is given twice.
    return sparse.csr_matrix((weight_T, (row_T, taken_BL[row_T, place_T])), shape=shape)
