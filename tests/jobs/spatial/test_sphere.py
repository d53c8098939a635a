import numpy as np
import pytest

from jobs.spatial.sphere import chord, distance_m, offsets, on_sphere, position, unit_vectors

PARIS, NEW_YORK = (48.8566, 2.3522), (40.7128, -74.0060)


def offset(point, anchor):
    return offsets(*[np.array([value]) for value in (*point, *anchor)])


def test_distance_agrees_with_a_known_one():
    distance = distance_m(offset(NEW_YORK, PARIS), np.zeros((1, 3)))[0]
    assert distance == pytest.approx(5_837_241, abs=2_000)
    one, other = unit_vectors(*np.array([PARIS, NEW_YORK]).T)
    assert chord(distance) == pytest.approx(np.linalg.norm(one - other))


@pytest.mark.parametrize("point", [NEW_YORK, (-89.0, 100.0), (48.0, -177.0)])
def test_an_offset_leads_back_to_its_point(point):
    latitude, longitude = position(offset(point, PARIS), np.array([PARIS[0]]), np.array([PARIS[1]]))
    assert (latitude[0], longitude[0]) == pytest.approx(point, abs=1e-10)


def test_the_mean_of_offsets_is_the_spherical_mean():
    rng = np.random.default_rng(1)
    latitude, longitude = rng.uniform(-80, 80, 50), rng.uniform(100, 260, 50)
    anchor = np.array([latitude[0]]), np.array([longitude[0]])
    mean = on_sphere(offsets(latitude, longitude, *anchor).mean(axis=0)[None, :])
    x, y, z = unit_vectors(latitude, longitude).sum(axis=0)
    wanted = np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))
    assert tuple(value[0] for value in position(mean, *anchor)) == pytest.approx(wanted, abs=1e-10)


def test_centimetres_keep_their_digits_and_the_antimeridian_is_no_edge():
    tiny = np.radians(1e-7) * 6_371_008.8
    north = distance_m(offset((40.0000001, 179.0), (40.0, 179.0)), np.zeros((1, 3)))[0]
    assert north == pytest.approx(tiny, rel=1e-7), "as exact as the degrees are"
    across = distance_m(offset((0.0, -179.9), (0.0, 179.9)), np.zeros((1, 3)))[0]
    assert across == pytest.approx(np.radians(0.2) * 6_371_008.8)
    assert position(offset((0.0, -179.9), (0.0, 179.9)), np.array([0.0]), np.array([179.9]))[1][0] == pytest.approx(-179.9)
