"""Planted examination, recovered from shuffled lists and from others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.position_bias import falling, from_shuffled, regression_em

PLANTED = 1.0 / np.arange(1, 9) ** 0.8


def test_shuffled_lists_tell_it_with_an_interval():
    rng, lists = np.random.default_rng(1), 200_000
    deserved = rng.beta(1, 6, (lists, len(PLANTED)))
    answered = rng.random(deserved.shape) < deserved * PLANTED
    told = from_shuffled(np.full(len(PLANTED), lists), answered.sum(axis=0))
    assert told.examined_K == pytest.approx(PLANTED, rel=0.03)
    assert ((told.low_K <= PLANTED) & (told.high_K >= PLANTED)).mean() >= 0.7


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng, lists, held = np.random.default_rng(2), 20_000, []
    for _ in range(200):
        answered = rng.binomial(lists, 0.15 * PLANTED)
        told = from_shuffled(np.full(len(PLANTED), lists), answered)
        held.append((told.low_K[1:] <= PLANTED[1:]) & (PLANTED[1:] <= told.high_K[1:]))
    assert 0.92 <= np.mean(held) <= 0.99


def test_too_few_answers_tell_nothing():
    assert from_shuffled(np.full(8, 1_000), np.full(8, 5)) is None
    assert from_shuffled(np.zeros(0), np.zeros(0)) is None
    assert (regression_em(np.zeros(0, int), np.zeros(0), np.zeros(0, int), 4).examined_K == 1.0).all()


def test_lists_that_put_the_best_first_do_not_deceive_it():
    """Better items stand higher, so that plain rates fall faster than people's attention does."""
    rng, entries = np.random.default_rng(3), 300_000
    group = rng.integers(0, 300, entries)
    deserved = np.linspace(0.4, 0.02, 300)
    rank = np.clip((group / 300 * 8 + rng.normal(0, 2.5, entries)).astype(int), 0, 7)
    answered = (rng.random(entries) < deserved[group] * PLANTED[rank]).astype(float)
    rate = np.bincount(rank, answered) / np.bincount(rank)
    assert abs(rate[7] / rate[0] / PLANTED[7] - 1) > 0.5, "what is counted alone is far off"
    assert regression_em(rank, answered, group, 8).examined_K == pytest.approx(PLANTED, rel=0.1)


def test_a_rank_that_nobody_saw_is_not_known():
    told = regression_em(np.array([0, 0, 2, 2]), np.array([1.0, 0.0, 1.0, 0.0]), np.zeros(4, int), 3)
    assert np.isnan(told.examined_K).tolist() == [False, True, False]


@given(rates=st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 10)), min_size=1, max_size=12))
def test_rates_made_to_fall_are_the_nearest_that_do(rates):
    rate, weight = np.array(rates).T
    found = falling(rate, weight)
    assert (np.diff(found) <= 1e-12).all()
    assert (found * weight).sum() == pytest.approx((rate * weight).sum())
    scikit = pytest.importorskip("sklearn.isotonic")
    assert found == pytest.approx(scikit.isotonic_regression(rate, sample_weight=weight, increasing=False), abs=1e-9)


def test_sums_of_entries_say_what_entries_say():
    rng = np.random.default_rng(3)
    rank, group = rng.integers(4, size=5000), rng.integers(6, size=5000)
    answered = (rng.random(5000) < 0.5 ** (rank + 1)).astype(float)
    both = rank * 6 + group
    shown, liked = np.bincount(both, minlength=24), np.bincount(both, weights=answered, minlength=24)
    summed = regression_em(np.arange(24) // 6, liked, np.arange(24) % 6, 4, shown.astype(float))
    assert summed.examined_K == pytest.approx(regression_em(rank, answered, group, 4).examined_K, rel=1e-9)
