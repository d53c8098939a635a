"""DBSCAN on the sphere over weighted points, for many weightings of the same points at once.

Legend: K weightings (days), U distinct points, P ordered pairs of different points within the radius.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from jobs.spatial.sphere import Floats, chord

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

NOISE = -1


def clusters(points: Floats, weights_KU: Ints, radius_m: float, min_weight: int) -> Ints:
    """Which cluster each point belongs to, per weighting: labels (K, U), -1 for noise and absent points.

    A point is core when the points within `radius_m` of it, itself included, weigh `min_weight` or
    more; connected core points are one cluster, and its label is the smallest index among them. A
    point that is not core joins the cluster of the smallest label among its core neighbours. So the
    result equals scikit-learn's DBSCAN with `sample_weight` and the haversine metric on the points
    in the given order, absent points (weight 0) left out; labels differ in name only.

    Ester, Kriegel, Sander and Xu (1996), A density-based algorithm for discovering clusters.

    Args:
        points: unit vectors, (U, 3), distinct.
        weights_KU: visits per point and weighting, (K, U), not negative.
        radius_m: neighbourhood, metres along the sphere.
        min_weight: visits that make a core point, at least 1.
    """
    if not weights_KU.size:
        return np.full(weights_KU.shape, NOISE)
    near = _neighbours(points, radius_m)
    weighed_KU = weights_KU + (near @ weights_KU.T).T
    present_KU = weights_KU > 0
    is_core_KU = present_KU & (weighed_KU >= min_weight)
    from_P = np.repeat(np.arange(len(points)), np.diff(near.indptr))
    to_P = near.indices
    labels_KU = _joined(is_core_KU, from_P, to_P)
    return _with_borders(labels_KU, present_KU & ~is_core_KU, from_P, to_P)


def _neighbours(points: Floats, radius_m: float) -> csr_matrix:
    """Who is near whom, (U, U) with a one per ordered pair of different points, rows in order."""
    size = len(points)
    pairs = cKDTree(points).query_pairs(chord(radius_m), output_type="ndarray").astype(np.int32)
    first, second = np.concatenate([pairs, pairs[:, ::-1]]).T
    # As narrow integers: numpy sorts those by radix, ten times faster.
    in_order = np.argsort(first.astype(np.min_scalar_type(size)), kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(first, minlength=size))])
    return csr_matrix((np.ones(len(first), dtype=np.int64), second[in_order], starts), shape=(size, size))


def _joined(is_core_KU: Flags, from_P: Ints, to_P: Ints) -> Ints:
    """Each core point's smallest connected core point, (K, U); -1 elsewhere. All weightings are one graph."""
    count, size = is_core_KU.shape
    once = from_P < to_P
    first, second = from_P[once], to_P[once]
    which, pair = np.nonzero(is_core_KU[:, first] & is_core_KU[:, second])
    rows, columns = which * size + first[pair], which * size + second[pair]
    # The rows are in order already: handing over a finished CSR spares scipy the sort.
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=count * size))])
    graph = csr_matrix((np.ones(len(rows)), columns, starts), shape=(count * size, count * size))
    component = connected_components(graph, directed=False)[1]
    smallest = np.unique(component, return_index=True)[1][component]
    return np.where(is_core_KU, smallest.reshape(count, size) % size, NOISE)


def _with_borders(labels_KU: Ints, is_border_KU: Flags, from_P: Ints, to_P: Ints) -> Ints:
    """Gives the points at the borders the smallest label among their core neighbours."""
    size = labels_KU.shape[1]
    ever = is_border_KU.any(axis=0)[from_P]
    border, core = from_P[ever], to_P[ever]
    found_KU = np.full(labels_KU.shape, size)
    which, pair = np.nonzero(is_border_KU[:, border] & (labels_KU[:, core] != NOISE))
    np.minimum.at(found_KU, (which, border[pair]), labels_KU[which, core[pair]])
    return np.where(found_KU < size, found_KU, labels_KU)
