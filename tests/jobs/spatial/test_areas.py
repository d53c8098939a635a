"""Areas: crowds that were planted are found, by both methods, under names that people know; few people never show."""

from datetime import date

import h3
import numpy as np
import pytest
from sklearn.cluster import KMeans

from jobs.spatial.areas import hotspot_areas, k_means, names_of, number_of_means
from jobs.spatial.sphere import EARTH_RADIUS_M, distance_m, offsets, unit_vectors

DAY = date(2024, 6, 24)
METRES_A_DEGREE = np.radians(1.0) * EARTH_RADIUS_M
SCHEMA = "snapshot_day date, region string, slot string, user_id string, cell string, latitude double, longitude double"
PENN, TIMES_SQUARE, VILLAGE = (40.7506, -73.9935), (40.7580, -73.9855), (40.7336, -74.0027)


def metres(one, other):
    at = [np.array([value]) for value in (*one, *other)]
    return distance_m(offsets(*at), np.zeros((1, 3)))[0]


def visits(rng, centre, count, spread_m, users, region="US/New York/Manhattan"):
    north, east = rng.normal(0, spread_m, (2, count)) / METRES_A_DEGREE
    latitude, longitude = centre[0] + north, centre[1] + east / np.cos(np.radians(centre[0]))
    return [
        (DAY, region, "weekday_morning", f"u{number % users}", h3.latlng_to_cell(*at, 9), *at)
        for number, at in enumerate(zip(latitude.tolist(), longitude.tolist(), strict=True))
    ]


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(1)
    crowds = visits(rng, PENN, 120, 40.0, 30) + visits(rng, TIMES_SQUARE, 90, 40.0, 20)
    habit, over_town = visits(rng, VILLAGE, 60, 20.0, 3), visits(rng, (40.745, -73.99), 300, 2_000.0, 100)
    return crowds + habit + over_town


def test_planted_crowds_are_the_areas(spark, make_settings, rows):
    found = hotspot_areas(
        spark.createDataFrame(rows, SCHEMA), make_settings("conf/local.yaml", "spatial.area_min_share=0.05").spatial
    )
    areas = found.collect()
    assert {area.day for area in areas} == {DAY} and {area.slot for area in areas} == {"weekday_morning", "any"}
    dense = sorted((area for area in areas if (area.method, area.slot) == ("dbscan", "any")), key=lambda area: area.area_id)
    assert [area.area_id for area in dense] == [0, 1], "three people's habit is no area"
    for area, centre, least, people in zip(dense, (PENN, TIMES_SQUARE), (120, 90), (30, 20), strict=True):
        assert metres((area.latitude, area.longitude), centre) < 60
        assert least - 5 <= area.events <= least + 40 and area.users >= people and area.radius_m < 400
        assert area.region == "US/New York/Manhattan"
    assert len({area.name for area in dense}) == 2
    means = [area for area in areas if (area.method, area.slot) == ("kmeans", "any")]
    cells = len({row[4] for row in rows})
    assert 2 <= len(means) <= number_of_means(cells)
    assert min(metres((area.latitude, area.longitude), PENN) for area in means) < 500
    assert all(area.users >= 10 for area in areas)


def test_few_people_are_never_shown(spark, make_settings):
    rng = np.random.default_rng(2)
    events = visits(rng, PENN, 200, 40.0, 9) + visits(rng, VILLAGE, 50, 3_000.0, 9)
    assert hotspot_areas(spark.createDataFrame(events, SCHEMA), make_settings().spatial).collect() == []


def test_k_means_is_as_good_as_the_best_of_many_random_starts_and_the_same_each_time():
    rng = np.random.default_rng(3)
    metres = np.concatenate([rng.normal(centre, 300, (60, 2)) for centre in ((0, 0), (4000, 0), (0, 5000), (6000, 6000))])
    points = unit_vectors(40 + metres[:, 0] / METRES_A_DEGREE, -74 + metres[:, 1] / METRES_A_DEGREE)
    weight = rng.integers(1, 20, len(points))
    label = k_means(points, weight, 4)

    def squares(label):
        groups = [label == one for one in np.unique(label)]
        centres = [np.average(points[of], axis=0, weights=weight[of]) for of in groups]
        return sum((weight[of, None] * (points[of] - at) ** 2).sum() for of, at in zip(groups, centres, strict=True))

    best = KMeans(4, n_init=20, random_state=1).fit(points, sample_weight=weight).labels_
    assert squares(label) == pytest.approx(squares(best), rel=1e-6)
    np.testing.assert_array_equal(label, k_means(points, weight, 4))
    assert len(np.unique(k_means(points[[0, 0, 0]], weight[:3], 3))) == 1, "fewer positions than means"


def test_names_are_of_the_nearest_place_and_told_apart():
    at = np.array([PENN, TIMES_SQUARE, VILLAGE, (40.6782, -73.9442), (48.8566, 2.3522)])
    names = names_of(*at.T)
    assert len(set(names)) == 5 and names[4] == "Paris"
    assert names_of(*np.repeat(at[4:], 3, axis=0).T)[1:] == [
        f"{names_of(*np.repeat(at[4:], 3, axis=0).T)[0]} {n}" for n in (2, 3)
    ]
    assert names_of(np.zeros(0), np.zeros(0)) == []
