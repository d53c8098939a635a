"""DBSCAN of many points on the sphere in one process: linear memory, no list of all pairs of neighbours.

The globe is cut into rows of latitude and each row into cells, so small that two points of a cell are always
within the radius of each other. So points of a cell that weighs enough are all core, the core points of a
cell are always of one cluster, and only pairs of cells need a look at points: few of them, as most counts
reach the minimum, and most cells their cluster, before.

Gunawan (2013) and Gan and Tao (2015), DBSCAN revisited, for the grid; Ester et al. (1996) for the definition.

Legend: N points, ordered by cell; C cells; P pairs of cells; Q queries: a point and the points of a cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from jobs.spatial.clusters import NOISE, Flags, Ints
from jobs.spatial.sphere import Floats, chord, unit_vectors

LEAST_RADIUS_M, GREATEST_RADIUS_M = 0.1, 1_000_000.0
# Distances computed at once: some 200 MB.
_AT_ONCE = 1 << 21
# Core points of each of two cells that are tried before all are.
_FIRST_FEW = 4
# From so many pairs of points on two cells are compared by a tree.
_MANY = 1 << 14
# Of lengths: two points of a cell are to be near in spite of rounding.
_ROUNDING = 1e-6
# Bits of a cell's number below those of its row.
_ROW = 32


@dataclass(frozen=True, kw_only=True)
class Dense:
    """What is known of each of N points. `cell`: (N,); `core`: (N,) flags; `cluster`: (N,), the smallest cell with a core
    point of the cluster, -1 for noise."""

    cell: Ints
    core: Flags
    cluster: Ints


def cells_of(latitude: Floats, longitude: Floats, radius_m: float) -> Ints:
    """A number of each point's cell, (n,), not negative; two points of a cell are within `radius_m`."""
    side = _side(radius_m)
    row = np.floor(np.radians(latitude + 90.0) / side).astype(np.int64)
    columns = _columns(row, side)
    column = np.minimum(np.floor((longitude + 180.0) % 360.0 / 360.0 * columns), columns - 1)
    result: Ints = (row << _ROW) + column.astype(np.int64)
    return result


def _side(radius_m: float) -> float:
    return chord(radius_m) * (1 - _ROUNDING) / float(np.sqrt(2))


def _columns(row: Ints, side: float) -> Floats:
    """How many cells a row has: none wider than high, at its edge nearest to the equator."""
    south = row * side - np.pi / 2
    nearest_equator = np.maximum(np.maximum(south, -(south + side)), 0.0)
    result: Floats = np.maximum(np.ceil(2 * np.pi * np.cos(nearest_equator) / side), 1.0)
    return result


def _centres(cell: Ints, radius_m: float) -> Floats:
    """The middles of cells as unit vectors, (n, 3); no point of a cell is farther from its middle than half the radius."""
    side, row = _side(radius_m), cell >> _ROW
    column = cell - (row << _ROW)
    longitude = (column + 0.5) / _columns(row, side) * 360.0 - 180.0
    return unit_vectors(np.degrees((row + 0.5) * side) - 90.0, longitude)


def dense(latitude: Floats, longitude: Floats, weight: Floats, radius_m: float, min_weight: float) -> Dense:
    """DBSCAN with scikit-learn's result for the haversine metric and `sample_weight`, up to names and border ties.

    Clusters are named by their smallest cell, which depends on no order of the points. A point that is not core
    joins the cluster of the nearest core point within the radius (ties: the first by cell, latitude and longitude).

    Args:
        latitude: degrees, (N,).
        longitude: degrees, (N,).
        weight: of each point, at least 1, (N,).
        radius_m: neighbourhood, metres along the sphere.
        min_weight: the weight within it, the point's own included, that makes a core point.
    """
    if not len(latitude):
        return Dense(cell=np.zeros(0, np.int64), core=np.zeros(0, np.bool_), cluster=np.zeros(0, np.int64))
    cell = cells_of(latitude, longitude, radius_m)
    order = np.lexsort((longitude, latitude, cell))
    grid = _Grid.of(cell[order], unit_vectors(latitude[order], longitude[order]), radius_m)
    core = _core(grid, weight[order], min_weight)
    found = np.full(len(order), NOISE, dtype=np.int64)
    if core.any():
        cores = np.flatnonzero(core)
        found[cores], inner = _joined(grid, cores)
        _with_borders(grid, inner, found, core)
    result = Dense(cell=cell, core=np.empty_like(core), cluster=np.empty_like(found))
    result.core[order], result.cluster[order] = core, found
    return result


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """Points in the order of their cells. `cell`: (N,) places in `names` (C,); `start`, `size`: (C,);
    `low`, `high`: the corners of a box around a cell's points, (C, 3); `centres`: of the cells, (C, 3)."""

    points: Floats
    names: Ints
    cell: Ints
    start: Ints
    size: Ints
    low: Floats
    high: Floats
    centres: Floats
    radius_m: float

    @classmethod
    def of(cls, cell: Ints, points: Floats, radius_m: float) -> _Grid:
        names, start, number, size = np.unique(cell, return_index=True, return_inverse=True, return_counts=True)
        return cls(
            points=points,
            names=names,
            cell=number,
            start=start,
            size=size,
            low=np.minimum.reduceat(points, start),
            high=np.maximum.reduceat(points, start),
            centres=_centres(names, radius_m),
            radius_m=radius_m,
        )

    @property
    def reach(self) -> float:
        """The radius as a chord."""
        return chord(self.radius_m)

    def near(self) -> tuple[Ints, Ints, Floats]:
        """Pairs of different cells, each once, whose points may be within reach, and the squared distance of their boxes."""
        pairs = cKDTree(self.centres).query_pairs(2 * self.reach, output_type="ndarray")
        first, second = pairs.T
        gap = np.maximum(np.maximum(self.low[second] - self.high[first], self.low[first] - self.high[second]), 0.0)
        apart = np.einsum("pi,pi->p", gap, gap)
        kept = apart <= self.reach**2 * (1 + _ROUNDING)
        return first[kept], second[kept], apart[kept]


def _core(grid: _Grid, weight: Floats, min_weight: float) -> Flags:
    """Which points are core, (N,): cells that weigh enough as a whole, else counted cell by cell, the nearest first."""
    heavy = np.bincount(grid.cell, weight, len(grid.names)) >= min_weight
    core = heavy[grid.cell]
    open_points = np.flatnonzero(~core)
    if not len(open_points):
        return core
    first, second, apart = grid.near()
    one, other, apart = np.concatenate([first, second]), np.concatenate([second, first]), np.concatenate([apart, apart])
    asked = ~heavy[one]
    one, other, apart = one[asked], other[asked], apart[asked]
    in_order = np.lexsort((apart, one))
    one, other = one[in_order], other[in_order]
    begin = np.searchsorted(one, np.arange(len(grid.names) + 1))
    weighed = np.bincount(grid.cell, weight, len(grid.names))[grid.cell[open_points]]
    turn = 0
    while len(open_points):
        at = begin[grid.cell[open_points]] + turn
        goes_on = at < begin[grid.cell[open_points] + 1]
        open_points, weighed, at = open_points[goes_on], weighed[goes_on], at[goes_on]
        beside = other[at]
        for some, rows, candidates, square in _distances(grid.points, open_points, grid, beside, grid.size):
            near = square <= grid.reach**2
            weighed[some] += np.bincount(rows[near], weight[candidates[near]], some.stop - some.start)
        enough = weighed >= min_weight
        core[open_points[enough]] = True
        open_points, weighed = open_points[~enough], weighed[~enough]
        turn += 1
    return core


def _joined(grid: _Grid, cores: Ints) -> tuple[Ints, _Grid]:
    """The cluster of each core point, by the name of its smallest cell, and the grid of the core points alone."""
    inner = _Grid.of(grid.names[grid.cell[cores]], grid.points[cores], grid.radius_m)
    first, second, _ = inner.near()
    span = np.maximum(inner.high[first] - inner.low[second], inner.high[second] - inner.low[first])
    touch = np.einsum("pi,pi->p", span, span) <= grid.reach**2
    edges = [np.stack([first[touch], second[touch]])]
    for few in (1, _FIRST_FEW, None):
        component = _components(edges, len(inner.names))
        apart = component[first] != component[second]
        first, second = first[apart], second[apart]
        meet = _meet(inner, first, second, few)
        edges.append(np.stack([first[meet], second[meet]]))
    component = _components(edges, len(inner.names))
    # Names ascend, so the first cell of a component has its smallest.
    smallest = inner.names[np.unique(component, return_index=True)[1]]
    return smallest[component][inner.cell], inner


def _components(edges: list[Ints], size: int) -> Ints:
    first, second = np.concatenate(edges, axis=1)
    graph = coo_matrix((np.ones(len(first), dtype=np.int8), (first, second)), shape=(size, size))
    component: Ints = connected_components(graph, directed=False)[1]
    return component


def _meet(inner: _Grid, first: Ints, second: Ints, few: int | None) -> Flags:
    """Whether some point of one cell is within reach of one of the other, (P,); of each its first `few`, or all."""
    size = inner.size if few is None else np.minimum(inner.size, few)
    meet = np.zeros(len(first), dtype=np.bool_)
    many = size[first] * size[second] > _MANY
    for pair in np.flatnonzero(many):
        one, other = (inner.points[inner.start[cell] :][: size[cell]] for cell in (first[pair], second[pair]))
        nearest = other[cKDTree(other).query(one)[1]]
        meet[pair] = (((one - nearest) ** 2).sum(axis=1) <= inner.reach**2).any()
    pairs = np.flatnonzero(~many)
    taken = size[first[pairs]]
    pair = np.repeat(pairs, taken)
    points = inner.start[first[pair]] + _counted(taken)
    for some, rows, _, square in _distances(inner.points, points, inner, second[pair], size):
        meet[pair[some][rows[square <= inner.reach**2]]] = True
    return meet


def _with_borders(grid: _Grid, inner: _Grid, found: Ints, core: Flags) -> None:
    """Gives points that are not core the cluster of the nearest core point within reach."""
    cluster_of_cores = found[core]
    borders = np.flatnonzero(~core)
    if not len(borders):
        return
    mine, inverse = np.unique(grid.cell[borders], return_inverse=True)
    around = cKDTree(grid.centres[mine]).sparse_distance_matrix(cKDTree(inner.centres), 2 * grid.reach, output_type="ndarray")
    around = around[np.lexsort((around["j"], around["i"]))]
    begin = np.searchsorted(around["i"], np.arange(len(mine) + 1))
    count = np.diff(begin)[inverse]
    point = np.repeat(borders, count)
    beside = around["j"][np.repeat(begin[inverse], count) + _counted(count)]
    best = np.full(len(found), np.inf)
    nearest = np.full(len(found), -1)
    for some, rows, candidates, square in _distances(grid.points, point, inner, beside, inner.size):
        near = np.flatnonzero(square <= grid.reach**2)
        of = point[some][rows[near]]
        # The nearest first, and of equals the first by cell: a point's first row is its choice.
        choice = np.lexsort((candidates[near], square[near], of))
        lead = choice[np.diff(of[choice], prepend=-1) != 0]
        of, core_point, apart = of[lead], candidates[near][lead], square[near][lead]
        better = apart < best[of]
        best[of[better]], nearest[of[better]] = apart[better], core_point[better]
    is_border = nearest >= 0
    found[is_border] = cluster_of_cores[nearest[is_border]]


def _distances(
    points: Floats, query: Ints, grid: _Grid, beside: Ints, size: Ints
) -> Iterator[tuple[slice, Ints, Ints, Floats]]:
    """Squared distances of each query to the first `size` (C,) points of the cell of `grid` beside it, some at a time.

    Yields: the queries at hand; per distance the query, counted from their first, the other point, and the square.

    Args:
        query: places in `points`, (Q,).
        beside: the cells, (Q,).
    """
    sizes = size[beside]
    upto = np.concatenate([[0], np.cumsum(sizes)])
    begin = 0
    while begin < len(query):
        end = max(begin + 1, int(np.searchsorted(upto, upto[begin] + _AT_ONCE, side="right")) - 1)
        some = slice(begin, end)
        rows = np.repeat(np.arange(end - begin), sizes[some])
        candidates = grid.start[beside[some]][rows] + _counted(sizes[some])
        difference = points[query[some]][rows] - grid.points[candidates]
        yield some, rows, candidates, np.einsum("qi,qi->q", difference, difference)
        begin = end


def _counted(sizes: Ints) -> Ints:
    """0, 1, ... up to each size, one after the other."""
    upto = np.cumsum(sizes)
    result: Ints = np.arange(upto[-1] if len(upto) else 0) - np.repeat(upto - sizes, sizes)
    return result
