"""STL as two matrices: without robustness weights, trend and season are linear in the series.

So a night's millions of series are decomposed by one product each, and the few lengths that there are
cost a matrix each, once. Cleveland, Cleveland, McRae and Terpenning (1990): STL: A seasonal-trend
decomposition procedure based on loess; the parts' names are theirs.

Legend: N days, C days of the cycle-subseries, one cycle more at either end.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from jobs.time_series.series import Floats

# The common choice without robustness weights: two rounds do, five leave nothing to chance.
_ROUNDS = 5


@lru_cache(maxsize=16)
def stl(days: int, period: int, seasonal: int) -> tuple[Floats, Floats]:
    """Trend and season of series of `days` days, (N, N) each; `seasonal`: how many cycles the season's loess spans (odd)."""
    trend_span = _odd_from(1.5 * period / (1 - 1.5 / seasonal))
    low_pass_CN = _loess(np.arange(days), days, _odd_from(period + 1)) @ _moving_averages(days + 2 * period, period)
    cycles_CN = _cycle_subseries(days, period, seasonal)
    loess_NN = _loess(np.arange(days), days, trend_span)
    itself_NN = np.eye(days)
    trend_NN = season_NN = np.zeros((days, days))
    for _ in range(_ROUNDS):
        smooth_CN = cycles_CN @ (itself_NN - trend_NN)
        season_NN = smooth_CN[period:-period] - low_pass_CN @ smooth_CN
        trend_NN = loess_NN @ (itself_NN - season_NN)
    return trend_NN, season_NN


def _odd_from(least: float) -> int:
    """The smallest odd whole number that is not below."""
    whole = int(np.ceil(least))
    return whole + 1 - whole % 2


def _loess(at: np.ndarray, days: int, span: int) -> Floats:
    """Local lines through the `span` nearest of `days` points, read off `at` the given places: (len(at), N)."""
    x = np.arange(days, dtype=np.float64)
    place = at[:, None].astype(np.float64)
    left = np.clip(place - (span - 1) // 2, 0, max(days - span, 0))
    right = left + min(span, days) - 1
    reach = np.maximum(place - left, right - place) + max(0, (span - days) // 2)
    distance = np.abs(x - place)
    weight = np.where(distance <= 0.001 * reach, 1.0, (1 - (distance / reach) ** 3) ** 3)
    weight = np.where((x >= left) & (x <= right) & (distance <= 0.999 * reach), weight, 0.0)
    weight /= weight.sum(axis=1, keepdims=True)
    centre = weight @ x
    spread = (weight * (x - centre[:, None]) ** 2).sum(axis=1)
    tilt = np.where(np.sqrt(spread) > 0.001 * (days - 1), (at - centre) / np.maximum(spread, 1e-300), 0.0)
    line: Floats = weight * (1 + tilt[:, None] * (x - centre[:, None]))
    return line


def _cycle_subseries(days: int, period: int, span: int) -> Floats:
    """The loess of each weekday's own series, a cycle longer at either end: (C, N)."""
    matrix = np.zeros((days + 2 * period, days))
    for phase in range(period):
        own = np.arange(phase, days, period)
        smooth = _loess(np.arange(-1, len(own) + 1), len(own), span)
        matrix[np.ix_(np.arange(phase, days + 2 * period, period), own)] = smooth
    return matrix


def _moving_averages(size: int, period: int) -> Floats:
    """Means over a period, again, and over three: (size - 2 period, size)."""
    matrix = np.eye(size)
    for length in (period, period, 3):
        steps = len(matrix) - length + 1
        matrix = np.add.reduce([matrix[at : at + steps] for at in range(length)]) / length
    return matrix
