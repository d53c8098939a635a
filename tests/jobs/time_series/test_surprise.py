"""Changes and anomalies: what is planted is found, and where nothing is planted little is found."""

import numpy as np
import pytest
from scipy import stats

from jobs.time_series import surprise

WEEK = np.array([0.2, 0.6, 0.9, 1.0, 1.1, 1.4, 1.8])
WEEK = WEEK / WEEK.mean()


def poisson(seed, mean, series=4000, days=91):
    """Days with a rhythm of the week."""
    rng = np.random.default_rng(seed)
    return rng.poisson(mean * np.resize(WEEK, days)[:, None], (days, series)).astype(float)


@pytest.mark.parametrize("mean", [0.1, 1, 20, 300])
def test_chance_is_told_as_chance(mean):
    """Where nothing happens p is small as rarely as it says; counts are whole numbers, so more rarely."""
    counts = poisson(1, mean)
    changed = surprise.change_point(counts)["change_p"]
    for bound in (0.1, 0.01, 0.001):
        assert np.nanmean(changed <= bound) < 1.3 * bound + 0.001
    counts = counts[:85]
    active = counts[-1] > 0
    unusual = surprise.last_day(counts[:-1][:, active], counts[-1][active])["anomaly_p"]
    for bound in (0.1, 0.01, 0.001):
        assert np.mean(unusual <= bound) < 1.4 * bound + 0.001


def test_over_dispersed_counts_are_no_surprise_either():
    rng = np.random.default_rng(2)
    counts = rng.negative_binomial(20 / 4, 1 / 5, (85, 4000)).astype(float)
    unusual = surprise.last_day(counts[:-1], counts[-1])["anomaly_p"]
    assert np.mean(unusual <= 0.01) < 0.025
    assert np.nanmean(surprise.change_point(counts[:84])["change_p"] <= 0.01) < 0.02


def test_planted_changes_are_dated():
    counts = poisson(3, 20, series=300)
    rng = np.random.default_rng(4)
    counts[60:] += rng.poisson(10 * np.resize(WEEK, 91)[60:, None], (31, 300))
    found = surprise.change_point(counts)
    assert (found["change_p"] < 0.001).mean() > 0.99
    assert np.median(found["change_days_ago"]) == 90 - 60
    assert (np.abs(found["change_days_ago"] - 30) <= 2).mean() > 0.85
    assert found["change_log_ratio"].mean() == pytest.approx(np.log(1.5), abs=0.02)
    fallen = surprise.change_point(np.concatenate([poisson(5, 10, series=50, days=49), np.zeros((42, 50))]))
    assert (fallen["change_p"] < 1e-6).all() and (fallen["change_log_ratio"] < -3).all()
    assert np.isnan(surprise.change_point(np.zeros((28, 1)))["change_p"]).all()


def test_the_chance_of_a_maximum():
    """Against the maximum of simulated Brownian bridges."""
    rng = np.random.default_rng(6)
    steps = 2000
    walk = rng.normal(0, 1 / np.sqrt(steps), (steps, 4000)).cumsum(axis=0)
    time = np.arange(1, steps + 1)[:, None] / steps
    bridge = np.abs(walk - time * walk[-1]) / np.sqrt(np.maximum(time * (1 - time), 1e-9))
    inside = (time[:, 0] >= 1 / 13) & (time[:, 0] <= 12 / 13)
    highest = bridge[inside].max(axis=0)
    for height in (2.5, 3.0, 3.5):
        assert surprise._exceeds(np.array([height]), 1 / 13)[0] == pytest.approx((highest > height).mean(), rel=0.35, abs=0.002)


def test_planted_days_are_found_whatever_the_weekday_and_earlier_outliers():
    counts = poisson(7, 20, series=700, days=84)
    rng = np.random.default_rng(8)
    spoiled = counts.copy()
    spoiled[rng.integers(0, 84, 700), np.arange(700)] += 300
    usual = rng.poisson(20 * WEEK[0], 700).astype(float)
    for before, share in ((counts, 0.99), (spoiled, 0.93)):
        found = surprise.last_day(before, usual)
        assert found["expected"].mean() == pytest.approx(20 * WEEK[0], rel=0.3), "the quietest weekday"
        high = surprise.last_day(before, usual + 30)
        assert (high["anomaly_p"] < 1e-3).mean() > share and (high["anomaly"] > 3).mean() > share
    busy = poisson(9, 60, series=300, days=84)
    low = surprise.last_day(busy, np.zeros(300))
    assert (low["anomaly_p"] < 0.01).mean() > 0.8 and (low["anomaly"] < 0).all()


def test_tails_agree_with_scipy():
    rng = np.random.default_rng(10)
    mean, dispersion = rng.uniform(0.05, 30, 200), rng.uniform(1.01, 6, 200)
    count = rng.poisson(mean * rng.uniform(0.2, 3, 200)).astype(float)
    peer = stats.nbinom(mean / (dispersion - 1), 1 / dispersion)
    some = 1 - peer.pmf(0)
    above = peer.sf(count - 1) / np.where(count > 0, some, 1)
    below = np.where(count > 0, (peer.cdf(count) - peer.pmf(0)) / some, peer.cdf(count))
    wanted = np.minimum(1, 2 * np.where(count > 0, np.minimum(above, below), below))
    np.testing.assert_allclose(surprise._tails(count, mean, dispersion), wanted, rtol=1e-6, atol=1e-12)
