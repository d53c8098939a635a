import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.top_k import top_k


def brute_force(scores, k, banned, seen):
    """Lists of (position, score) by a full sort in Python."""
    lists = []
    for row, values in enumerate(scores):
        left = [v for v in range(len(values)) if not banned[v] and v not in seen[row] and values[v] != -np.inf]
        lists.append([(v, values[v]) for v in sorted(left, key=lambda v: (-values[v], v))][:k])
    return lists


def found(scores, k, **masks):
    positions, values = top_k(scores, k, **masks)
    return [
        [(int(p), v) for p, v in zip(row, best, strict=True) if p >= 0] for row, best in zip(positions, values, strict=True)
    ]


@st.composite
def tiles(draw):
    rows, items = draw(st.integers(0, 5)), draw(st.integers(1, 40))
    few = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 1.0, np.inf])  # few values, so many ties
    many = st.floats(-1e6, 1e6, width=32)
    scores = draw(arrays(np.float32, (rows, items), elements=draw(st.sampled_from([few, many]))))
    banned = draw(arrays(bool, items))
    seen = [np.array(sorted(draw(st.sets(st.integers(0, items - 1)))), dtype=np.int64) for _ in range(rows)]
    return scores, draw(st.integers(1, 50)), banned, seen


@settings(max_examples=300, deadline=None)
@given(tiles())
def test_equals_a_full_sort(tile):
    scores, k, banned, seen = tile
    given_scores = scores.copy()
    assert found(scores, k, banned_V=banned, seen=seen) == brute_force(scores, k, banned, seen)
    nothing = [np.zeros(0, np.int64)] * len(scores)
    assert found(scores, k) == brute_force(scores, k, np.zeros(scores.shape[1], bool), nothing)
    np.testing.assert_array_equal(scores, given_scores, err_msg="the caller's tile was changed")


@pytest.mark.parametrize("levels", [2, 50, 10**9])
def test_of_many_items_as_of_few(levels):
    rng = np.random.default_rng(levels)
    for size, k in ((121, 10), (500, 3), (997, 20), (3000, 1), (4099, 64)):
        scores = rng.integers(0, levels, (17, size)).astype(np.float32) / 7
        scores[rng.random(scores.shape) < 0.1] = -np.inf
        scores[3], scores[4, :-2], scores[5, 7] = -np.inf, -np.inf, np.inf
        banned = rng.random(size) < 0.2
        seen = [np.flatnonzero(rng.random(size) < share) for share in rng.random(17)]
        assert found(scores, k, banned_V=banned, seen=seen) == brute_force(scores, k, banned, seen)
        nothing = [np.zeros(0, np.int64)] * len(scores)
        assert found(scores, k) == brute_force(scores, k, np.zeros(size, bool), nothing)


def test_ties_at_the_last_place_go_to_the_first_positions():
    scores = np.zeros((3, 1000), np.float32)
    scores[:, 700] = 1.0
    positions, _ = top_k(scores, 4)
    assert positions.tolist() == [[700, 0, 1, 2]] * 3


def test_fewer_items_than_k():
    positions, scores = top_k(np.array([[1.0, 3.0, 2.0]], np.float32), 10)
    assert positions.tolist() == [[1, 2, 0]] and scores.tolist() == [[3.0, 2.0, 1.0]]


def test_nothing_left_is_an_empty_list():
    positions, scores = top_k(
        np.ones((2, 3), np.float32), 2, banned_V=np.array([True, False, True]), seen=[np.array([1]), np.array([])]
    )
    assert positions.tolist() == [[-1, -1], [1, -1]]
    assert scores[0].tolist() == [-np.inf, -np.inf]


@pytest.mark.parametrize("masked", [True, False])
def test_nan_is_refused_even_where_it_would_not_show(masked):
    scores = np.ones((2, 3), np.float32)
    scores[1, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        top_k(scores, 1, banned_V=np.array([False, False, masked]))


def test_a_list_holds_something():
    with pytest.raises(ValueError, match="at least one"):
        top_k(np.ones((1, 3), np.float32), 0)
