import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import theilslopes
from statsmodels.tsa.seasonal import STL

from jobs.time_series import shape
from jobs.time_series.gaps import gaps
from jobs.time_series.rhythm import rhythm
from jobs.time_series.stl import stl

MONDAY = 19_723  # 2024-01-01
TOLERANCE = {"rel": 1e-9, "abs": 1e-9}


def random_counts(seed, days, series=40):
    rng = np.random.default_rng(seed)
    return rng.poisson(rng.uniform(0, 4, (1, series)), (days, series)).astype(float)


def alone(describe, counts, *more):
    return {name: values[0] for name, values in describe(np.asarray(counts, dtype=float)[:, None], *more).items()}


@pytest.mark.parametrize("days", [14, 21, 91])
def test_the_week_agrees_with_numpys_fourier_transform(days):
    counts = random_counts(2, days)
    last = np.arange(40) + MONDAY
    found = shape.weekly(counts, last)
    time = np.arange(days)
    for number in range(40):
        line, start = np.polyfit(time, counts[:, number], 1)
        residual = counts[:, number] - start - line * time
        spectrum = np.fft.rfft(residual)
        power = np.abs(spectrum) ** 2
        total = 2 * power[1:].sum() - (power[-1] if days % 2 == 0 else 0)
        varies = np.sum(residual**2) > 1e-18 * max(1, np.sum(counts[:, number] ** 2))
        wanted = 2 * power[days // 7] / total if varies else 0.0
        assert found["weekly_strength"][number] == pytest.approx(wanted, **TOLERANCE)
        if wanted > 1e-6:
            # The component is cos(2 pi t / 7 + angle), t from the first day on.
            peak = -np.angle(spectrum[days // 7]) * 7 / (2 * np.pi) + 0.5 + (last[number] - days + 1 - MONDAY)
            off = (found["weekly_peak_day"][number] - peak + 3.5) % 7 - 3.5
            assert off == pytest.approx(0, abs=1e-6)


def test_planted_weeks():
    days = np.arange(91)
    season = alone(shape.weekly, 20 + 0.5 * days + 5 * np.cos(2 * np.pi * (days - 4) / 7), np.array([MONDAY + 90]))
    # The series begins on a Monday; the fifth day's noon is the peak.
    assert season["weekly_strength"] > 0.98 and season["weekly_peak_day"] == pytest.approx(4.5, abs=0.1)
    for flat in (np.full(91, 7), np.zeros(91), 3 + 0.25 * days):
        found = alone(shape.weekly, flat, np.array([MONDAY]))
        assert found["weekly_strength"] == 0 and np.isnan(found["weekly_peak_day"])
    assert alone(shape.weekly, 10 + 5 * np.cos(2 * np.pi * days / 5), np.array([MONDAY]))["weekly_strength"] < 0.02


@pytest.mark.parametrize("days", [21, 28, 91])
def test_slope_agrees_with_scipy_on_weeks(days):
    counts = random_counts(3, days)
    found = shape.slope(counts)
    for number in range(40):
        weeks = counts[:, number].reshape(-1, 7).sum(axis=1)
        assert found[number] == pytest.approx(theilslopes(weeks).slope / 49, **TOLERANCE)
    planted = 5 + 0.25 * np.arange(days)
    assert shape.slope(planted[:, None])[0] == pytest.approx(0.25)
    if days == 91:
        planted[-1] += 400
        assert shape.slope(planted[:, None])[0] == pytest.approx(0.25), "one day makes no trend of three months"
    season = np.tile([0, 0, 9, 9, 9, 20, 30], days // 7)
    assert shape.slope(season[:, None].astype(float))[0] == 0


def test_volatility_is_the_noise_without_season_and_trend():
    rng = np.random.default_rng(4)
    noise = rng.normal(0, 3, (91, 500))
    pattern = np.tile([0, 0, 9, 9, 9, 20, 30], 13)[:, None] + 0.02 * np.arange(91)[:, None]
    assert shape.volatility(pattern + noise).mean() == pytest.approx(3, rel=0.02)
    assert shape.volatility(np.tile([0.0, 1, 2, 3, 4, 5, 6], 3)[:, None])[0] == 0


@given(
    days=st.integers(14, 120), period=st.integers(2, 12), seasonal=st.sampled_from([7, 13, 35]), seed=st.integers(0, 2**32 - 1)
)
def test_stl_agrees_with_statsmodels(days, period, seasonal, seed):
    if days < 2 * period:
        return
    values = np.random.default_rng(seed).normal(0, 10, days).cumsum()
    of_trend, of_season = stl(days, period, seasonal)
    peer = STL(values, period=period, seasonal=seasonal).fit()
    np.testing.assert_allclose(of_trend @ values, peer.trend, rtol=0, atol=1e-9 * np.abs(values).max())
    np.testing.assert_allclose(of_season @ values, peer.seasonal, rtol=0, atol=1e-9 * np.abs(values).max())


def test_trend_and_season():
    days = np.arange(91)
    pattern = np.array([-3.0, -3, -1, 0, 1, 2, 4])  # from Monday on
    noise = np.random.default_rng(5).normal(0, 0.5, (91, 30))
    counts = (10 + 0.1 * days + np.tile(pattern, 13))[:, None] + noise
    # The series end on a Sunday, all of them.
    found = shape.trend_and_season(counts, np.full(30, MONDAY + 90))
    assert found["trend"].mean() == pytest.approx(19, abs=0.3)
    np.testing.assert_allclose(found["season"].mean(axis=0), pattern, atol=0.4)
    assert found["trend_strength"].min() > 0.9 and found["season_strength"].min() > 0.9
    # The same days, cut at a Wednesday: each weekday keeps its name.
    found = shape.trend_and_season(counts[3:87], np.full(30, MONDAY + 86))
    np.testing.assert_allclose(found["season"].mean(axis=0), pattern, atol=0.4)
    still = shape.trend_and_season(np.full((91, 1), 7.0), np.array([MONDAY]))
    assert still["trend"][0] == pytest.approx(7) and still["trend_strength"][0] == 0 and still["season_strength"][0] == 0
    assert np.abs(still["season"]).max() < 1e-9


def test_gaps_follow_the_definition():
    counts = random_counts(6, 91, series=60) * (np.random.default_rng(7).random((91, 60)) < np.linspace(0.01, 1, 60))
    counts[-1, 0] = 1
    found = gaps(counts)
    for number in range(60):
        at = np.flatnonzero(counts[:, number])
        gap = np.diff(at)
        assert found["active_days"][number] == len(at)
        assert found["days_since"][number] == (90 - at[-1] if len(at) else 91)
        if not len(gap):
            assert np.isnan([found[name][number] for name in ("gap_mean", "gap_sd", "gap_max", "burstiness")]).all()
            continue
        assert found["gap_mean"][number] == pytest.approx(gap.mean(), **TOLERANCE)
        assert found["gap_sd"][number] == pytest.approx(gap.std(), rel=1e-9, abs=1e-6)
        assert found["gap_max"][number] == gap.max()
        if len(gap) == 1:
            assert np.isnan(found["burstiness"][number])
            continue
        r, n = gap.std() / gap.mean(), len(gap)
        wanted = (math.sqrt(n + 1) * r - math.sqrt(n - 1)) / ((math.sqrt(n + 1) - 2) * r + math.sqrt(n - 1))
        assert found["burstiness"][number] == pytest.approx(wanted, abs=1e-6)
    even, burst = np.zeros(91), np.zeros(91)
    even[::7] = 1
    burst[[*range(5), *range(60, 65)]] = 1
    assert alone(gaps, even)["burstiness"] == pytest.approx(-1) and alone(gaps, burst)["burstiness"] > 0.6


def test_windows_count_back_from_the_last_day():
    counts = np.arange(91.0)[:, None]
    recent = shape.windows(counts, 90)
    assert recent.shape == (1, 90) and recent[0, :3].tolist() == [90, 179, 267] and recent[0, -1] == counts[1:].sum()
    assert shape.windows(counts[-3:], 5)[0].tolist() == [90, 179, 267, 267, 267]


def test_rhythm_finds_the_peak():
    hours = np.zeros((24, 5))
    hours[[23, 0, 1], 0] = 1
    hours[18, 1] = 4
    hours[:, 2] = 3
    hours[[6, 18], 3] = 2
    found = rhythm(hours)
    assert found["daily_strength"][:4] == pytest.approx([(1 + 2 * math.cos(math.pi / 12)) / 3, 1, 0, 0], abs=1e-12)
    assert found["daily_peak_hour"][:2] == pytest.approx([0, 18], abs=1e-9) and found["daily_peak_hour"][0] < 24
    assert found["hour_entropy"][:4] == pytest.approx([math.log(3), 0, math.log(24), math.log(2)], abs=1e-12)
    assert np.isnan(found["daily_peak_hour"][2:]).all()
    assert np.isnan(found["daily_strength"][4]) and np.isnan(found["hour_entropy"][4])
