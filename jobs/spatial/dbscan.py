"""DBSCAN of any number of points, over all machines: tiles of the globe, each with a margin, and clusters joined across them.

A tile is clustered in one task (see `jobs.spatial.dense`) together with the points up to twice the radius
around it, so that it is known of every point up to the radius around it whether it is core. Tiles meet in cells: one
that two tiles have core points of is of one cluster. The driver sees a sample and the new names
of clusters that lie in several tiles; one task sees the cells along the edges of tiles.

The margins are those of Patwary et al. (2012), the joining by cells as in RP-DBSCAN (Song and Lee, 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from jobs.spatial.clusters import NOISE, Ints
from jobs.spatial.dense import GREATEST_RADIUS_M, LEAST_RADIUS_M, dense
from jobs.spatial.sphere import Floats, chord, unit_vectors

CLUSTER = "cluster"
ROWS_OF_TILE = 150_000
# A tile is so many radii wide at least: narrower ones would be mostly margin.
_LEAST_WIDTH = 16
_SAMPLED = 16_384
_INSIDE, _SHARED, _OUTSIDE = 0, 1, 2
# Of margins: what is at the radius by another way of rounding is within them.
_MORE = 1 + 1e-6


def dbscan(
    points: DataFrame,
    radius_m: float,
    min_weight: Column | float,
    *,
    weight: Column | None = None,
    by: tuple[str, ...] = (),
    rows_of_tile: int = ROWS_OF_TILE,
) -> DataFrame:
    """`points` with `cluster` (bigint; null for noise), as scikit-learn's DBSCAN with the haversine metric finds them.

    Equal up to the clusters' names and to points at the borders of several clusters, which join that of
    their nearest core point. A name is the number of the cluster's smallest cell: it does not depend on the
    order of the rows, nor on partitions and tiles.

    One job takes a sample. What tiles find is kept (persisted), where there are several.

    Args:
        points: latitude, longitude (degrees, not null) and any other columns.
        radius_m: neighbourhood, metres along the sphere.
        min_weight: the weight within it, the point's own included, that makes a core point; a column is the same within
            a group.
        weight: of a point, at least 1; None: each weighs 1.
        by: columns, not null, whose groups are clustered each by itself.
        rows_of_tile: from about so many rows on a tile is split.

    Raises:
        ValueError: a radius out of range; in a task: a row without a position.
    """
    if not LEAST_RADIUS_M <= radius_m <= GREATEST_RADIUS_M:
        raise ValueError(f"dbscan: radius_m is {radius_m}; it is from {LEAST_RADIUS_M:g} to {GREATEST_RADIUS_M:g}")
    tiles = tiles_of(sampled(points), radius_m, rows_of_tile)
    least = None if isinstance(min_weight, Column) else float(min_weight)
    # What is the same everywhere is no column: each makes the way to Python and back twice.
    asked = {"_weight": weight, "_least": min_weight if isinstance(min_weight, Column) else None}
    weighed = points.withColumns({name: column.cast("double") for name, column in asked.items() if column is not None})
    spread = weighed.mapInArrow(spreading(tiles, radius_m), _with(weighed, _tile=T.IntegerType(), _where=T.ByteType()))
    found_in = _with(points, **{CLUSTER: T.LongType(), "_cell": T.LongType()})
    found = spread.groupBy(*by, "_tile").applyInArrow(clustering(points.columns, by, radius_m, least), found_in)
    if isinstance(tiles, int):
        return found.drop("_cell")
    found = found.persist()
    joined_in = T.StructType([*[points.schema[name] for name in by], *map(_long, (CLUSTER, "_whole"))])
    links = found.where(F.col("_cell").isNotNull()).select(*by, CLUSTER, "_cell")
    whole = links.groupBy(*(by or (F.lit(0),))).applyInArrow(joining(by), joined_in)
    # Few rows, and the other side has clusters of any size: they are not to be brought together by name.
    labelled = found.where(F.col("_cell").isNull()).drop("_cell").join(F.broadcast(whole), on=[*by, CLUSTER], how="left")
    return labelled.select(*points.columns, F.coalesce("_whole", CLUSTER).alias(CLUSTER))


def _long(name: str) -> T.StructField:
    return T.StructField(name, T.LongType())


def _with(rows: DataFrame, **more: T.DataType) -> T.StructType:
    known = [T.StructField(field.name, field.dataType) for field in rows.schema]
    return T.StructType([*known, *[T.StructField(name, kind) for name, kind in more.items()]])


@dataclass(frozen=True, kw_only=True)
class Split:
    """Points whose coordinate `axis` is below `at` are `low`'s, the others `high`'s. A leaf is the number of its tile."""

    axis: int
    at: float
    low: Split | int
    high: Split | int


def tiles_of(sample: Floats, radius_m: float, rows_of_tile: int) -> Split | int:
    """Boxes of unit vectors with about equally many rows; 0 where one is enough.

    Args:
        sample: x, y, z and the rows that each stands for, (n, 4).
    """
    numbers = iter(range(len(sample) + 1))

    def split(rows: Floats) -> Split | int:
        width = np.ptp(rows[:, :3], axis=0) if len(rows) else np.zeros(3)
        axis = int(width.argmax())
        if rows[:, 3].sum() > rows_of_tile and width[axis] >= _LEAST_WIDTH * chord(radius_m):
            rows = rows[rows[:, axis].argsort(kind="stable")]
            middle = np.searchsorted(rows[:, 3].cumsum(), rows[:, 3].sum() / 2)
            at = float(rows[middle, axis])
            is_low = rows[:, axis] < at
            if is_low.any():
                return Split(axis=axis, at=at, low=split(rows[is_low]), high=split(rows[~is_low]))
        return next(numbers)

    return split(sample)


def sampled(points: DataFrame) -> Floats:
    """At most `_SAMPLED` positions as unit vectors, and how many rows each stands for: x, y, z, rows, (n, 4).

    Rows are dealt out to so many heaps in turn, and of each heap one is drawn.
    """
    heaps = points.select(
        F.col("latitude").cast("double").alias("latitude"),
        F.col("longitude").cast("double").alias("longitude"),
        F.pmod(F.monotonically_increasing_id(), F.lit(_SAMPLED)).alias("heap"),
        F.rand(1).alias("drawn"),
    )
    drawn = [F.min_by(axis, "drawn").alias(axis) for axis in ("latitude", "longitude")]
    rows = heaps.groupBy("heap").agg(*drawn, F.count(F.lit(1)).alias("rows")).drop("heap").toArrow()
    known = np.stack([column.to_numpy().astype(np.float64) for column in rows.columns], axis=1)
    known = known[np.isfinite(known).all(axis=1)]
    result: Floats = np.concatenate([unit_vectors(known[:, 0], known[:, 1]), known[:, 2:]], axis=1)
    return result


def _vectors(batch: pa.RecordBatch) -> Floats:
    positions = [np.asarray(batch.column(name).to_numpy(zero_copy_only=False)) for name in ("latitude", "longitude")]
    if not all(np.isfinite(one.astype(np.float64)).all() for one in positions):
        raise ValueError("dbscan: a row has no latitude or no longitude; leave such rows out")
    return unit_vectors(*positions)


def spreading(tiles: Split | int, radius_m: float) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Each row once for every tile that needs it, with `_tile` and whether it lies in it (`_where`)."""

    def spread(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            points = _vectors(batch)
            everyone = np.arange(len(points))
            needed = list(_needed(tiles, points, everyone, np.full(len(points), -1.0), 2 * chord(radius_m) * _MORE))
            row = np.concatenate([rows for _, rows, _ in needed])
            tile = np.repeat([number for number, _, _ in needed], [len(rows) for _, rows, _ in needed])
            is_inside = np.concatenate([beyond for _, _, beyond in needed]) < 0
            shared = np.bincount(row, minlength=len(points)) > 1
            where = np.where(is_inside, np.where(shared[row], _SHARED, _INSIDE), _OUTSIDE)
            taken = batch if isinstance(tiles, int) else batch.take(pa.array(row))
            columns = [*taken.columns, pa.array(tile.astype(np.int32)), pa.array(where.astype(np.int8))]
            yield pa.RecordBatch.from_arrays(columns, names=[*batch.schema.names, "_tile", "_where"])

    return spread


def _needed(
    tiles: Split | int, points: Floats, rows: Ints, beyond: Floats, margin: float
) -> Iterator[tuple[int, Ints, Floats]]:
    """Per tile the rows within `margin` of it, and how far each is beyond its edges (negative: inside)."""
    if isinstance(tiles, int):
        yield tiles, rows, beyond
        return
    ahead = points[rows, tiles.axis] - tiles.at
    low, high = ahead <= margin, ahead >= -margin
    past_low, past_high = np.where(ahead < 0, -1.0, ahead), np.where(ahead >= 0, -1.0, -ahead)
    yield from _needed(tiles.low, points, rows[low], np.maximum(beyond, past_low)[low], margin)
    yield from _needed(tiles.high, points, rows[high], np.maximum(beyond, past_high)[high], margin)


def clustering(columns: list[str], by: tuple[str, ...], radius_m: float, least: float | None) -> Callable[[pa.Table], pa.Table]:
    """A tile's own rows with their cluster as far as the tile sees it, and, with `_cell`, the cells that it shares.

    least: the weight that makes a core point; None: it is in the rows, as weights are that are not 1.
    """

    def clustered(rows: pa.Table) -> pa.Table:
        where = rows["_where"].to_numpy()
        latitude, longitude = (rows[name].to_numpy() for name in ("latitude", "longitude"))
        weight = rows["_weight"].to_numpy() if "_weight" in rows.column_names else np.ones(len(where))
        found = dense(latitude, longitude, weight, radius_m, rows["_least"][0].as_py() if least is None else least)
        own = np.flatnonzero(where != _OUTSIDE)
        cluster = pa.array(found.cluster[own], mask=found.cluster[own] == NOISE)
        mine = rows if len(own) == rows.num_rows else rows.take(pa.array(own))
        mine = mine.select(columns).append_column(CLUSTER, cluster).append_column("_cell", pa.nulls(len(own), pa.int64()))
        shared = found.core & (where != _INSIDE)
        links = np.unique(np.stack([found.cluster[shared], found.cell[shared]]), axis=1)
        if not links.size:
            return mine
        first = rows.select(list(by)).slice(0, 1).to_pydict()
        ends: dict[str, pa.Array] = {CLUSTER: pa.array(links[0]), "_cell": pa.array(links[1])}
        of_group = {name: pa.array(value * links.shape[1], mine.schema.field(name).type) for name, value in first.items()}
        empty = {field.name: pa.nulls(links.shape[1], field.type) for field in mine.schema}
        return pa.concat_tables([mine, pa.table({**empty, **of_group, **ends}, schema=mine.schema)])

    return clustered


def joining(by: tuple[str, ...]) -> Callable[[pa.Table], pa.Table]:
    """What tiles call a cluster (`cluster`), and its name over all tiles (`_whole`)."""

    def joined(links: pa.Table) -> pa.Table:
        ends = np.stack([links[CLUSTER].to_numpy(), links["_cell"].to_numpy()])
        cells, place = np.unique(ends, return_inverse=True)
        first, second = place.reshape(ends.shape)
        graph = coo_matrix((np.ones(len(first), dtype=np.int8), (first, second)), shape=(len(cells), len(cells)))
        component = connected_components(graph, directed=False)[1]
        smallest = cells[np.unique(component, return_index=True)[1]][component]
        names = np.unique(first)
        renamed = names[smallest[names] != cells[names]]
        first_row = pa.array(np.zeros(len(renamed), dtype=np.int64))
        group = {name: links[name].combine_chunks().take(first_row) for name in by}
        return pa.table({**group, CLUSTER: cells[renamed], "_whole": smallest[renamed]})

    return joined
