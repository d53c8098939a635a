"""Hotspots: cells that, with their neighbours, hold more events than chance gives the cells of their region.

Legend: C cells of a region, S slots (`any` last), P ordered pairs of neighbours, itself included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import h3.api.basic_str as h3
import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.special import ndtr

from conf.contracts import ANY_SLOT, SLOTS
from conf.settings import Spatial
from jobs.spatial.clusters import Flags, Ints
from jobs.spatial.sphere import Floats
from jobs.spatial.windows import by_slot

_EVERY_SLOT = (*SLOTS, ANY_SLOT)
_HOT = (
    "snapshot_day date, region string, cell string, slot string, latitude double, longitude double, events bigint, "
    "users bigint, z double, p_value double, cluster_events bigint, cluster_cell string"
)


def hotspots(events: DataFrame, settings: Spatial) -> DataFrame:
    """`hotspots` of each `snapshot_day`.

    A cell belongs to the region of most of its events in the window (ties: the first by name); the
    study area of a region are its cells with any event in the window, in whichever slot. Per
    region and slot, cells are hot that pass Gi* and Benjamini-Hochberg (see `getis_ord`,
    `discoveries`); hot neighbours form a cluster. A cluster in which no cell has
    `hotspot_min_users` distinct users is one person's habit, and left out; so are regions of fewer
    than `hotspot_min_cells` cells, where z is not normal.

    Args:
        events: snapshot_day, cell, region, slot, user_id, one row per event of its window.
    """
    counts = (
        by_slot(events.where(F.col("cell").isNotNull()))
        .groupBy("snapshot_day", "cell", "slot")
        .agg(
            F.count(F.lit(1)).alias("events"),
            F.count_distinct("user_id").alias("users"),
            F.mode("region", deterministic=True).alias("region"),
        )
    )
    of_cell = Window.partitionBy("snapshot_day", "cell")
    whole = F.max(F.when(F.col("slot") == ANY_SLOT, F.col("region"))).over(of_cell)
    by_region = counts.withColumn("region", whole).groupBy("snapshot_day", "region")
    hot = by_region.applyInArrow(_hot_cells_of_region(settings), _HOT)
    largest_first = Window.partitionBy("snapshot_day", "slot").orderBy(F.desc("cluster_events"), "cluster_cell")
    return hot.select(
        "cell",
        "region",
        "slot",
        "latitude",
        "longitude",
        "events",
        "users",
        "z",
        "p_value",
        (F.dense_rank().over(largest_first) - 1).alias("cluster_id"),
        F.col("snapshot_day").alias("day"),
    )


def getis_ord(counts: Floats, near: csr_matrix) -> Floats:
    """Gi* of each cell, (C, S): z values of the sums over a cell and its neighbours.

    G_i* = (sum_j w_ij x_j - mean W_i) / (s sqrt((C sum_j w_ij^2 - W_i^2) / (C - 1))), w_ij = 1 for
    neighbours and the cell itself, W_i = sum_j w_ij, s the population standard deviation of the
    counts (Ord and Getis, 1995). Where it is not defined (equal counts, or a cell whose neighbours
    are the whole study area) it is 0.

    Args:
        counts: x, (C, S).
        near: w, (C, C), ones with the diagonal.
    """
    cells = len(counts)
    weight = np.asarray(near.sum(axis=1), dtype=np.float64).reshape(-1, 1)
    deviation = counts.std(axis=0)
    scale = deviation * np.sqrt((cells * weight - weight**2) / max(cells - 1, 1))
    excess = near @ counts - counts.mean(axis=0) * weight
    z: Floats = np.divide(excess, scale, out=np.zeros_like(excess), where=scale > 0)
    return z


def discoveries(p: Floats, rate: float) -> Flags:
    """Which p values (C, S) are significant, each column a family: Benjamini and Hochberg (1995)."""
    ascending = np.sort(p, axis=0)
    bound = rate * np.arange(1, len(p) + 1)[:, None] / len(p)
    passing = np.where(ascending <= bound, ascending, -1.0).max(axis=0, initial=-1.0)
    return p <= passing


@dataclass(frozen=True, kw_only=True)
class _Region:
    """events, users: (C, S)."""

    cells: list[str]
    events: Ints
    users: Ints


def _hot_cells_of_region(settings: Spatial) -> Callable[[pa.Table], pa.Table]:
    def hot_cells(rows: pa.Table) -> pa.Table:
        region = _by_cell(rows)
        near = neighbours(region.cells)
        z = getis_ord(region.events.astype(np.float64), near)
        p = ndtr(-z)
        enough = len(region.cells) >= settings.hotspot_min_cells
        is_hot = discoveries(p, settings.hotspot_false_discovery_rate) & (z > 0) & enough
        cluster = _clusters(is_hot, near)
        is_hot &= _users_of_cluster(region.users, is_hot, cluster) >= settings.hotspot_min_users
        cell, slot = np.nonzero(is_hot)
        label = cluster[cell, slot] * len(_EVERY_SLOT) + slot
        found, at = np.unique(label, return_inverse=True)
        size = np.bincount(at, region.events[cell, slot], len(found)).astype(np.int64)
        names = np.array(region.cells)
        centres = np.array([h3.cell_to_latlng(name) for name in names[cell]]).reshape(-1, 2)
        return pa.table(
            {
                "snapshot_day": rows["snapshot_day"].combine_chunks().take(pa.array(np.zeros(len(cell), dtype=np.int64))),
                "region": rows["region"].combine_chunks().take(pa.array(np.zeros(len(cell), dtype=np.int64))),
                "cell": pa.array(names[cell], pa.string()),
                "slot": pa.array(np.array(_EVERY_SLOT)[slot], pa.string()),
                "latitude": centres[:, 0],
                "longitude": centres[:, 1],
                "events": region.events[cell, slot],
                "users": region.users[cell, slot],
                "z": z[cell, slot],
                "p_value": p[cell, slot],
                "cluster_events": size[at],
                "cluster_cell": pa.array(names[cluster[cell, slot]], pa.string()),
            }
        )

    return hot_cells


def _by_cell(rows: pa.Table) -> _Region:
    """Counts as matrices; cells in the order of their names."""
    names, cell = np.unique(rows["cell"].to_numpy(), return_inverse=True)
    slot = np.array([_EVERY_SLOT.index(name) for name in rows["slot"].to_pylist()])
    events = np.zeros((len(names), len(_EVERY_SLOT)), dtype=np.int64)
    users = np.zeros_like(events)
    events[cell, slot], users[cell, slot] = rows["events"].to_numpy(), rows["users"].to_numpy()
    return _Region(cells=names.tolist(), events=events, users=users)


def neighbours(cells: list[str]) -> csr_matrix:
    """Which of the cells touch, (C, C) ones, each cell beside itself."""
    number = {cell: place for place, cell in enumerate(cells)}
    around = [[number[near] for near in h3.grid_disk(cell, 1) if near in number] for cell in cells]
    columns = np.array([place for row in around for place in row])
    starts = np.cumsum([0, *[len(row) for row in around]])
    return csr_matrix((np.ones(len(columns)), columns, starts), shape=(len(cells), len(cells)))


def _clusters(is_hot: Flags, near: csr_matrix) -> Ints:
    """Per slot the first cell of the connected hot cells that a cell belongs to, (C, S)."""
    first = np.zeros(is_hot.shape, dtype=np.int64)
    for slot, hot in enumerate(is_hot.T):
        cell = np.flatnonzero(hot)
        if len(cell):
            component = connected_components(near[cell][:, cell], directed=False)[1]
            first[cell, slot] = cell[np.unique(component, return_index=True)[1][component]]
    return first


def _users_of_cluster(users: Ints, is_hot: Flags, cluster: Ints) -> Ints:
    """The most users that any cell of a hot cell's cluster has, (C, S): a lower bound of the cluster's."""
    most = np.zeros_like(users)
    cell, slot = np.nonzero(is_hot)
    np.maximum.at(most, (cluster[cell, slot], slot), users[cell, slot])
    found = np.zeros_like(users)
    found[cell, slot] = most[cluster[cell, slot], slot]
    return found
