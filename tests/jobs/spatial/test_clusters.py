import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN

from jobs.spatial.clusters import NOISE, clusters
from jobs.spatial.sphere import EARTH_RADIUS_M, unit_vectors

RADIUS_M = 150.0


def peers_labels(latitude, longitude, weights, min_weight):
    """scikit-learn's labels of the points present, renamed to the smallest core point of each cluster."""
    present = np.flatnonzero(weights)
    labels = np.full(len(weights), NOISE)
    if not len(present):
        return labels
    radians = np.radians(np.stack([latitude[present], longitude[present]], axis=1))
    model = DBSCAN(eps=RADIUS_M / EARTH_RADIUS_M, min_samples=min_weight, metric="haversine", algorithm="brute")
    found = model.fit(radians, sample_weight=weights[present]).labels_
    core = model.core_sample_indices_
    for label in set(found) - {NOISE}:
        labels[present[found == label]] = present[core[found[core] == label].min()]
    return labels


def points_around(rng, count, spread_m):
    """Distinct points about one centre, which may lie at the antimeridian or far north."""
    centre = np.array([rng.choice([0.0, 40.7, -33.9, 78.2]), rng.choice([-74.0, 179.9995, 0.0])])
    metres = rng.normal(0, spread_m, (count, 2))
    east = metres[:, 1] / 111_195 / np.cos(np.radians(centre[0]))
    latitude, longitude = centre[0] + metres[:, 0] / 111_195, (centre[1] + east + 180) % 360 - 180
    return latitude, longitude


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 60),
    days=st.integers(1, 5),
    spread_m=st.sampled_from([20.0, 150.0, 600.0]),
    min_weight=st.integers(1, 8),
)
def test_equals_scikit_learn_for_every_weighting(seed, count, days, spread_m, min_weight):
    rng = np.random.default_rng(seed)
    latitude, longitude = points_around(rng, count, spread_m)
    weights = rng.integers(0, 4, (days, count))
    found = clusters(unit_vectors(latitude, longitude), weights, RADIUS_M, min_weight)
    for ours, weighting in zip(found, weights, strict=True):
        np.testing.assert_array_equal(ours, peers_labels(latitude, longitude, weighting, min_weight))


def test_weights_stand_for_repeated_points():
    rng = np.random.default_rng(3)
    latitude, longitude = points_around(rng, 80, 400.0)
    order = np.lexsort((longitude, latitude))
    latitude, longitude = latitude[order], longitude[order]
    weights = rng.integers(1, 5, 80)
    ours = clusters(unit_vectors(latitude, longitude), weights[None, :], RADIUS_M, 5)[0]
    every = np.radians(np.stack([latitude, longitude], axis=1)).repeat(weights, axis=0)
    theirs = DBSCAN(eps=RADIUS_M / EARTH_RADIUS_M, min_samples=5, metric="haversine").fit(every).labels_
    theirs = theirs[np.cumsum(weights) - 1]
    assert len(set(ours) - {NOISE}) >= 2
    np.testing.assert_array_equal(ours == NOISE, theirs == NOISE)
    assert len(set(zip(ours, theirs, strict=True))) == len(set(ours)) == len(set(theirs))


def test_no_points_no_clusters():
    assert clusters(np.zeros((0, 3)), np.zeros((2, 0), dtype=int), RADIUS_M, 3).shape == (2, 0)
