"""The LSTM over all series: what it learns of planted ones, and that it is the same each time."""

import numpy as np
import pytest
import torch
from scipy.stats import nbinom

from models import forecaster
from models.forecaster import LEAST_DAYS, Forecaster, train

DAYS, LAST, LEVEL = 112, 19_900, 0.8


def planted(seed, size=30, days=DAYS):
    """Levels of all sizes, with one shape of the week."""
    rng, day = np.random.default_rng(seed), np.arange(days)
    shape = 1 + 0.5 * np.sin(2 * np.pi * day / 7)
    return rng.poisson(np.exp(rng.uniform(0, 4, (size, 1))) * shape).astype(np.float64)


@pytest.fixture(scope="module")
def network():
    return train(planted(1), np.zeros(30, np.int64), LAST, seed=5)


def test_a_shape_that_all_share_is_learnt_and_intervals_hold(network):
    counts_PD = planted(2, days=DAYS + 14)
    before, actual_PH, first = counts_PD[:, :DAYS], counts_PD[:, DAYS:], np.zeros(30, np.int64)
    mean_PH, lower_PH, upper_PH = network.forecast(before, first, LAST, LEVEL)
    naive_PH = np.tile(before[:, -7:], 2)
    scale_P = actual_PH.mean(axis=1, keepdims=True)
    assert (np.abs(mean_PH - actual_PH) / scale_P).mean() < 0.8 * (np.abs(naive_PH - actual_PH) / scale_P).mean()
    assert 0.75 < ((lower_PH <= actual_PH) & (actual_PH <= upper_PH)).mean() < 0.93
    assert (lower_PH >= 0).all() and (lower_PH <= upper_PH).all()


def test_the_same_series_give_the_same_weights(network):
    again, other = (train(planted(1), np.zeros(30, np.int64), LAST, seed=seed) for seed in (5, 6))
    assert again.dumped() == network.dumped() != other.dumped()
    first = np.zeros(30, np.int64)
    loaded = Forecaster.loaded(network.dumped())
    for one, two in zip(*(made.forecast(planted(3), first, LAST, LEVEL) for made in (network, loaded)), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_series_gets_the_same_whatever_is_beside_it(network):
    counts_PD, first = planted(4), np.arange(30) % 50
    whole = network.forecast(counts_PD, first, LAST, LEVEL)
    for row in (0, 17):
        alone = network.forecast(counts_PD[row : row + 1], first[row : row + 1], LAST, LEVEL)
        np.testing.assert_allclose(alone[0][0], whole[0][row], rtol=1e-12)


def test_what_is_read_of_a_day_is_what_was_known_at_its_end():
    counts_PD, first = planted(5, 3), np.array([0, 10, 20])
    other_PD = np.hstack([counts_PD[:, :60], 9 * counts_PD[:, 60:] + 1])
    one, two = (forecaster._read(counts, first, LAST) for counts in (counts_PD, other_PD))
    for name in ("days_PDF", "level_PD", "share_PDW"):
        torch.testing.assert_close(getattr(one, name)[:, :60], getattr(two, name)[:, :60], rtol=0, atol=0)
        assert not torch.equal(getattr(one, name), getattr(two, name))
    # Moments of a matrix that ends earlier are the same moments: weekdays are those of the calendar.
    shorter = forecaster._read(counts_PD[:, :60], first, LAST - (DAYS - 60))
    torch.testing.assert_close(one.days_PDF[:, :60], shorter.days_PDF)
    ahead = [forecaster._ahead(read, last, torch.tensor([1]), torch.tensor([[59]])) for read, last in
             ((one, LAST), (shorter, LAST - (DAYS - 60)))]  # fmt: skip
    torch.testing.assert_close(*ahead)


def test_the_weekday_share_is_that_of_the_weekday_ahead():
    counts_PD = np.tile([1.0, 2, 3, 4, 5, 6, 7], (1, 8))
    read = forecaster._read(counts_PD, np.zeros(1, np.int64), LAST)
    # After the last day, a 7, come 1, 2, ... 7; the level is 4.
    wanted = np.log((np.arange(1, 8) + 0.5) / 4.5)
    np.testing.assert_allclose(read.share_PDW[0, -1], wanted)


def test_the_loss_is_the_negative_binomial():
    shift, spread, level, events = (torch.tensor(values, dtype=torch.float64) for values in
        ([0.1, -2.0], [-1.0, 0.5], [3.0, 40.0], [0.0, 7.0]))  # fmt: skip
    mean, size = (level.numpy() + 0.5) * np.exp(shift.numpy()), np.exp(-spread.numpy())
    wanted = -nbinom.logpmf(events.numpy(), size, size / (size + mean))
    np.testing.assert_allclose(forecaster._lost(shift, spread, level, events), wanted)


def test_short_silent_and_damaged():
    assert train(planted(6, days=LEAST_DAYS + 13), np.zeros(30, np.int64), LAST, seed=1) is None
    silent = train(np.zeros((2, 60)), np.zeros(2, np.int64), LAST, seed=1)
    mean_PH, lower_PH, upper_PH = silent.forecast(np.zeros((2, 60)), np.array([0, 40]), LAST, LEVEL)
    assert (mean_PH[0] < 0.2).all() and (upper_PH[0] <= 1).all() and (lower_PH[0] == 0).all()
    assert np.isnan(mean_PH[1]).all()  # of twenty days no level is known
    with pytest.raises(ValueError, match="no weights of the forecaster"):
        Forecaster.loaded(silent.dumped()[:-100])
