"""DBSCAN by cells, against scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN

from jobs.spatial.clusters import NOISE
from jobs.spatial.dense import cells_of, dense
from jobs.spatial.sphere import EARTH_RADIUS_M, chord, unit_vectors

RADIUS_M = 150.0
METRES_A_DEGREE = np.radians(1.0) * EARTH_RADIUS_M
CENTRES = [(0.0, 179.9995), (40.7, -74.0), (89.9993, 10.0), (-90.0, 0.0), (78.2, -180.0), (-0.0005, 0.0)]


def around(rng, count, spread_m, centre):
    """Points about a centre in metres, which may be at the antimeridian or a pole."""
    north, east = rng.normal(0, spread_m, (2, count)) / METRES_A_DEGREE
    vectors = unit_vectors(north, east)
    tilt, turn = np.radians(centre)
    x, y, z = vectors.T
    x, z = x * np.cos(tilt) - z * np.sin(tilt), x * np.sin(tilt) + z * np.cos(tilt)
    longitude = np.degrees(np.arctan2(y, x) + turn)
    return np.degrees(np.arcsin(np.clip(z, -1, 1))), (longitude + 180) % 360 - 180


def peer(latitude, longitude, weight, min_weight, radius_m=RADIUS_M):
    """scikit-learn's labels and core flags."""
    radians = np.radians(np.stack([latitude, longitude], axis=1))
    model = DBSCAN(eps=radius_m / EARTH_RADIUS_M, min_samples=min_weight, metric="haversine", algorithm="brute")
    model.fit(radians, sample_weight=weight)
    core = np.zeros(len(latitude), dtype=bool)
    core[model.core_sample_indices_] = True
    return model.labels_, core


def assert_same(ours, labels, core, latitude, longitude, radius_m=RADIUS_M):
    """Equal up to names, and a point at the borders of several clusters in any of them."""
    np.testing.assert_array_equal(ours == NOISE, labels == NOISE)
    pairs = set(zip(ours[core].tolist(), labels[core].tolist(), strict=True))
    assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})
    points = unit_vectors(latitude, longitude)
    for border in np.flatnonzero(~core & (labels != NOISE)):
        near = np.linalg.norm(points - points[border], axis=1) <= chord(radius_m)
        assert ours[border] in ours[core & near]


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 250),
    spread_m=st.sampled_from([0.0, 5.0, 100.0, 400.0, 1500.0, 20_000.0]),
    centre=st.sampled_from(CENTRES),
    repeats=st.booleans(),
    weighted=st.booleans(),
    min_weight=st.integers(1, 12),
)
def test_equals_scikit_learn(seed, count, spread_m, centre, repeats, weighted, min_weight):
    rng = np.random.default_rng(seed)
    latitude, longitude = around(rng, count, spread_m, centre)
    if repeats:
        taken = rng.integers(0, max(count // 3, 1), count)
        latitude, longitude = latitude[taken], longitude[taken]
    weight = rng.integers(1, 5, count) if weighted else np.ones(count, dtype=int)
    found = dense(latitude, longitude, weight, RADIUS_M, min_weight)
    labels, core = peer(latitude, longitude, weight, min_weight)
    np.testing.assert_array_equal(found.core, core)
    assert_same(found.cluster, labels, core, latitude, longitude)


def test_crowds_side_by_side_are_told_apart_by_their_nearest_points():
    """Cells with thousands of points each, whose nearest pair decides; the last step of the look at points."""
    rng = np.random.default_rng(1)
    for gap_m in (RADIUS_M - 0.5, RADIUS_M + 0.5):
        west, east = (np.stack([rng.uniform(-60, 60, 700), rng.uniform(0, 60, 700)]) for _ in range(2))
        west[:, 0], east[:, 0] = (0, 0), (0, 0)
        metres = np.concatenate([[west[0], -west[1]], [east[0], east[1] + gap_m]], axis=1)
        latitude, longitude = metres / METRES_A_DEGREE
        found = dense(latitude, longitude, np.ones(1400), RADIUS_M, 5)
        labels, core = peer(latitude, longitude, None, 5)
        assert len(set(labels)) == (1 if gap_m < RADIUS_M else 2)
        assert_same(found.cluster, labels, core, latitude, longitude)


def test_names_and_borders_depend_on_no_order():
    rng = np.random.default_rng(2)
    latitude, longitude = around(rng, 400, 700.0, CENTRES[1])
    once = dense(latitude, longitude, np.ones(400), RADIUS_M, 7)
    assert len(set(once.cluster)) > 3 and (~once.core & (once.cluster != NOISE)).any()
    order = rng.permutation(400)
    again = dense(latitude[order], longitude[order], np.ones(400), RADIUS_M, 7)
    np.testing.assert_array_equal(once.cluster[order], again.cluster)


@pytest.mark.parametrize("radius_m", [0.1, 150.0, 30_000.0, 1_000_000.0])
def test_points_of_a_cell_are_near_each_other(radius_m):
    rng = np.random.default_rng(3)
    latitude = np.concatenate([rng.uniform(-90, 90, 20_000), [90.0, -90.0, 0.0]])
    longitude = np.concatenate([rng.uniform(-180, 180, 20_000), [180.0, -180.0, 180.0]])
    near = latitude + rng.uniform(-1, 1, len(latitude)) * radius_m / METRES_A_DEGREE, longitude
    latitude, longitude = np.concatenate([latitude, np.clip(near[0], -90, 90)]), np.concatenate([longitude, longitude])
    cell = cells_of(latitude, longitude, radius_m)
    order = np.argsort(cell, kind="stable")
    together = np.flatnonzero(np.diff(cell[order]) == 0)
    assert len(together) > 1000
    points = unit_vectors(latitude, longitude)[order]
    assert np.linalg.norm(points[together] - points[together + 1], axis=1).max() <= chord(radius_m)


def test_no_points():
    assert len(dense(np.zeros(0), np.zeros(0), np.zeros(0), RADIUS_M, 3).cluster) == 0
