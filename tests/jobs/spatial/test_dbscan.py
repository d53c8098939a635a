"""DBSCAN over tiles, against DBSCAN in one piece, which test_dense holds against scikit-learn."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

from jobs.spatial import dbscan as tiled
from jobs.spatial.clusters import NOISE
from jobs.spatial.dbscan import dbscan
from jobs.spatial.dense import dense
from jobs.spatial.sphere import EARTH_RADIUS_M, unit_vectors

METRES_A_DEGREE = np.radians(1.0) * EARTH_RADIUS_M


def scattered(rng, count, spread_m, centre):
    """Points with duplicates, half of them in a few crowds, about a centre that may be at the antimeridian or a pole."""
    crowds = rng.normal(0, spread_m, (max(count // 50, 1), 2))
    metres = np.where(rng.random((count, 1)) < 0.5, crowds[rng.integers(0, len(crowds), count)], 0.0)
    metres = metres + rng.normal(0, np.where(rng.random((count, 1)) < 0.5, 60.0, spread_m), (count, 2))
    latitude = centre[0] + metres[:, 0] / METRES_A_DEGREE
    latitude = np.where(np.abs(latitude) > 90, np.sign(latitude) * 180 - latitude, latitude)
    east = metres[:, 1] / METRES_A_DEGREE / np.maximum(np.cos(np.radians(latitude)), 1e-5)
    longitude = (centre[1] + east + 180) % 360 - 180
    taken = rng.integers(0, count, count)
    return latitude[taken], longitude[taken]


def by_tiles(latitude, longitude, weight, radius_m, min_weight, rows_of_tile):
    """What Spark does with the functions of `dbscan`, one after the other: labels, and how many tiles there were."""
    rows = pa.table({"number": np.arange(len(latitude)), "latitude": latitude, "longitude": longitude})
    sample = np.column_stack([unit_vectors(latitude, longitude), np.ones(len(latitude))])
    tiles = tiled.tiles_of(sample, radius_m, rows_of_tile)
    weighed = rows.append_column("_weight", pa.array(weight.astype(np.float64)))
    weighed = weighed.append_column("_least", pa.array(np.full(len(latitude), float(min_weight))))
    spread = pa.Table.from_batches(tiled.spreading(tiles, radius_m)(weighed.to_batches(max_chunksize=70)))
    tile, cluster = spread["_tile"].to_numpy(), tiled.clustering(rows.column_names, (), radius_m, None)
    found = pa.concat_tables([cluster(spread.filter(pa.array(tile == number))) for number in np.unique(tile)])
    is_link = found["_cell"].is_valid()
    whole = tiled.joining(())(found.filter(is_link))
    renamed = dict(zip(whole["cluster"].to_pylist(), whole["_whole"].to_pylist(), strict=True))
    labels = found.filter(pa.compute.invert(is_link)).sort_by("number")
    assert labels["number"].to_pylist() == list(range(len(latitude)))
    return np.array([renamed.get(label, label) for label in labels["cluster"].fill_null(NOISE).to_pylist()]), len(
        np.unique(tile)
    )


@settings(max_examples=120)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 600),
    spread_m=st.sampled_from([200.0, 2_000.0, 8_000.0, 60_000.0]),
    centre=st.sampled_from([(0.0, 179.9995), (40.7, -74.0), (89.995, 10.0), (-90.0, 0.0), (78.2, -180.0)]),
    min_weight=st.integers(1, 12),
    rows_of_tile=st.sampled_from([20, 60, 200]),
)
def test_tiles_find_what_one_piece_finds(seed, count, spread_m, centre, min_weight, rows_of_tile):
    rng = np.random.default_rng(seed)
    latitude, longitude = scattered(rng, count, spread_m, centre)
    weight = rng.integers(1, 4, count)
    found, _ = by_tiles(latitude, longitude, weight, 150.0, min_weight, rows_of_tile)
    np.testing.assert_array_equal(found, dense(latitude, longitude, weight, 150.0, min_weight).cluster)


def test_a_cluster_that_winds_through_many_tiles_stays_one():
    along = np.linspace(0, 60_000, 2_000)
    latitude = (40 * METRES_A_DEGREE + 1_500 * np.sin(along / 1_500)) / METRES_A_DEGREE
    longitude = along / METRES_A_DEGREE
    found, tiles = by_tiles(latitude, longitude, np.ones(2_000), 150.0, 2, 100)
    assert tiles > 10 and len(set(found)) == 1 and NOISE not in found


def test_on_spark_by_groups_with_weights_and_other_columns(spark):
    rng = np.random.default_rng(5)
    latitude, longitude = scattered(rng, 1_500, 4_000.0, (40.7, -74.0))
    weight, group = rng.integers(1, 4, 1_500), rng.integers(0, 2, 1_500)
    rows = zip(range(1_500), latitude.tolist(), longitude.tolist(), weight.tolist(), group.tolist(), strict=True)
    points = spark.createDataFrame(
        [(number, lat, lon, f"g{of}", heavy, [f"u{number}"]) for number, lat, lon, heavy, of in rows],
        "number int, latitude double, longitude double, part string, heavy int, users array<string>",
    ).repartition(2)
    least = F.when(F.col("part") == "g0", 6).otherwise(9)
    for rows_of_tile in (500, 10_000):
        found = dbscan(points, 150.0, least, weight=F.col("heavy"), by=("part",), rows_of_tile=rows_of_tile)
        assert found.columns == [*points.columns, "cluster"]
        labels = sorted(found.collect())
        found.unpersist()
        assert [(row.number, row.users) for row in labels] == [(number, [f"u{number}"]) for number in range(1_500)]
        for part, min_weight in ((0, 6), (1, 9)):
            one = group == part
            wanted = dense(latitude[one], longitude[one], weight[one], 150.0, min_weight).cluster
            assert len(set(wanted)) > 5 and NOISE in wanted
            got = [row.cluster for row in labels if row.part == f"g{part}"]
            assert got == [None if label == NOISE else label for label in wanted.tolist()]


def test_what_cannot_be_clustered_is_said(spark):
    points = spark.createDataFrame([(1.0, None)], "latitude double, longitude double")
    with pytest.raises(ValueError, match="radius_m is 0"):
        dbscan(points, 0.0, 3)
    with pytest.raises(Exception, match="a row has no latitude or no longitude; leave such rows out"):
        dbscan(points, 150.0, 3).collect()
    nothing = points.where("latitude > 5")
    assert dbscan(nothing, 150.0, 3).collect() == []
