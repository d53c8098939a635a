"""The shape of daily counts: windows, slope, noise, the rhythm of the week, trend and season.

Legend: N days, the last one is the series' own day; P series; W whole weeks.

Sums over days go day by day over all series at once, never along a series, and products of matrices
in blocks of one size: so a series gives the same bits whatever others stand beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.time_series.series import Floats, Ints
from jobs.time_series.stl import stl

WEEK = 7
# Below this a share is rounding, not rhythm.
NOTHING = 1e-9
# Loess windows of the season (in weeks): as wide as the longest series, so that only lasting change moves it.
SEASON_WEEKS = 13
_BLOCK = 256

Features = dict[str, npt.NDArray[Any]]


def sum_days(values_NP: Floats) -> Floats:
    """Sum over the days, in order (numpy's own sum orders it by the array's size)."""
    total = np.zeros(values_NP.shape[1])
    for of_day in values_NP:
        total = total + of_day
    return total


def windows(counts_NP: Floats, longest: int) -> Ints:
    """Events of the last 1, 2, ... `longest` days, (P, longest)."""
    recent = np.cumsum(counts_NP[::-1], axis=0)[:longest].T.astype(np.int64)
    return np.pad(recent, [(0, 0), (0, longest - recent.shape[1])], mode="edge")


def slope(counts_NP: Floats) -> Floats:
    """Robust slope in events per day and day: the median of the slopes between any two of the whole weeks.

    Theil (1950) and Sen (1968), on weekly sums, so that no rhythm of the week is taken for a trend.
    """
    weekly_WP = counts_NP.reshape(-1, WEEK, counts_NP.shape[1]).sum(axis=1)
    later, earlier = np.tril_indices(len(weekly_WP), -1)
    between = (weekly_WP[later] - weekly_WP[earlier]) / (later - earlier)[:, None]
    slopes: Floats = np.median(np.ascontiguousarray(between.T), axis=1) / WEEK**2
    return slopes


def volatility(counts_NP: Floats) -> Floats:
    """Standard deviation of a day's noise: root mean square of the change from the same weekday a week before, over sqrt 2."""
    change = counts_NP[WEEK:] - counts_NP[:-WEEK]
    return np.sqrt(sum_days(np.square(change)) / (2 * len(change)))


def weekly(counts_NP: Floats, day: Ints) -> Features:
    """The Fourier component of the counts around their least-squares line, at a period of 7 days, over whole weeks.

    weekly_strength: its share of the variance (the periodogram's at that frequency); 0 where the line
    explains all. weekly_peak_day: when it peaks, in days since the start of Monday; NaN without a rhythm.

    Args:
        day: the last day of each series, (P,), days since 1970.
    """
    days = len(counts_NP)
    time = np.arange(days) - (days - 1) / 2
    # Twice the time is a whole number: the sum is exact, and a symmetric series has no line.
    line = sum_days(counts_NP * (2 * time)[:, None]) / 2 / float(time @ time)
    residual_NP = counts_NP - sum_days(counts_NP) / days - line * time[:, None]
    variation = sum_days(np.square(residual_NP))
    angle = 2 * np.pi * np.arange(days) / WEEK
    cosine, sine = sum_days(residual_NP * np.cos(angle)[:, None]), sum_days(residual_NP * np.sin(angle)[:, None])
    varies = variation > NOTHING**2 * np.maximum(sum_days(np.square(counts_NP)), 1)
    share = np.divide(2 / days * (cosine**2 + sine**2), variation, out=np.zeros_like(line), where=varies)
    strength = np.where(share > NOTHING, np.minimum(share, 1), 0.0)
    # 1970 began on a Thursday. A count stands for its whole day, hence for its noon.
    since_monday = (day - days + 1 + 3) % WEEK
    peak = (np.arctan2(sine, cosine) * WEEK / (2 * np.pi) + since_monday + 0.5) % WEEK
    return {"weekly_strength": strength, "weekly_peak_day": np.where(strength > 0, peak, np.nan)}


def trend_and_season(counts_NP: Floats, day: Ints) -> Features:
    """STL: trend (of the last day, per day), season (of the last seven days, Monday first, (P, 7)), and how strong they are.

    A strength is 1 - var(remainder) / var(remainder + component), at least 0 (Wang, Smith and Hyndman,
    2006); 0 where nothing varies.
    """
    of_trend, of_season = stl(len(counts_NP), WEEK, SEASON_WEEKS)
    trend_NP, season_NP = _times(of_trend, counts_NP), _times(of_season, counts_NP)
    remainder_NP = counts_NP - trend_NP - season_NP
    scale = sum_days(np.square(counts_NP))

    def strength(component_NP: Floats) -> Floats:
        whole = _variation(component_NP + remainder_NP)
        varies = whole > NOTHING**2 * np.maximum(scale, 1)
        share = 1 - np.divide(_variation(remainder_NP), whole, out=np.ones_like(whole), where=varies)
        return np.where(share > NOTHING, share, 0.0)

    # The last of the seven days has the weekday of `day`; 1970 began on a Thursday.
    weekday = np.arange(WEEK)
    at = (weekday[None, :] - (day[:, None] + 3) - 1) % WEEK
    return {
        "trend": trend_NP[-1],
        "trend_strength": strength(trend_NP),
        "season": np.take_along_axis(season_NP[-WEEK:].T, at, axis=1),
        "season_strength": strength(season_NP),
    }


def _variation(values_NP: Floats) -> Floats:
    return sum_days(np.square(values_NP - sum_days(values_NP) / len(values_NP)))


def _times(matrix_NN: Floats, values_NP: Floats) -> Floats:
    """The product, in blocks of one size: a library chooses its order of summing by the shape."""
    days, series = values_NP.shape
    padded = np.zeros((days, -(-series // _BLOCK) * _BLOCK))
    padded[:, :series] = values_NP
    blocks = [matrix_NN @ np.ascontiguousarray(padded[:, at : at + _BLOCK]) for at in range(0, padded.shape[1], _BLOCK)]
    return np.concatenate([np.zeros((days, 0)), *blocks], axis=1)[:, :series]
