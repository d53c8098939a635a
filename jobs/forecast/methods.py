"""Ways to forecast counts, each over many series at once, with intervals.

Legend: P series, D days (oldest first), H days ahead (`HORIZON`).
A series begins with its first event: what was before it nobody can tell from silence.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from conf.contracts import FORECAST_DAYS as HORIZON

log = logging.getLogger("wherewhen")

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Found = tuple[Floats, Floats, Floats]  # expected, lower, upper, each (H,)

WEEK = 7
# What a method needs at least, days: a week to repeat and one to see how well that goes; four weeks to fit a season.
NAIVE_DAYS, FITTED_DAYS = 2 * WEEK, 4 * WEEK
MEAN, NAIVE, ETS, LSTM, ARIMA, PROPHET = "mean", "seasonal_naive", "ets", "lstm", "arima", "prophet"
# Too dear for every series.
SLOW = (ARIMA, PROPHET)


@dataclass(frozen=True, kw_only=True)
class Forecasts:
    """Events a day, and the bounds within which they are to be expected; never below 0."""

    expected_PH: Floats
    lower_PH: Floats
    upper_PH: Floats

    def named(self) -> dict[str, Floats]:
        return {"expected": self.expected_PH, "lower": self.lower_PH, "upper": self.upper_PH}

    def put(self, rows: Ints, others: Forecasts) -> None:
        """Take the rows of `others` as these rows."""
        self.expected_PH[rows], self.lower_PH[rows], self.upper_PH[rows] = others.expected_PH, others.lower_PH, others.upper_PH

    @staticmethod
    def empty(size: int) -> Forecasts:
        """NaN everywhere."""
        expected_PH, lower_PH, upper_PH = np.full((3, size, HORIZON), np.nan)
        return Forecasts(expected_PH=expected_PH, lower_PH=lower_PH, upper_PH=upper_PH)


@dataclass(frozen=True, kw_only=True)
class Histories:
    """Events of each day up to the day as of which is forecast.

    counts_PD: the days before a series' `first` one do not count. last: the newest day, in days since 1970.
    """

    counts_PD: Floats
    first: Ints
    last: int

    @property
    def lengths(self) -> Ints:
        return self.counts_PD.shape[1] - self.first

    def take(self, rows: Ints) -> Histories:
        return Histories(counts_PD=self.counts_PD[rows], first=self.first[rows], last=self.last)

    def until(self, days: int) -> Histories:
        """The first `days` days alone; series that begin later have no history there, of length 0."""
        last = self.last - (self.counts_PD.shape[1] - days)
        return Histories(counts_PD=self.counts_PD[:, :days], first=np.minimum(self.first, days), last=last)


# Rows of NaN where it cannot: too short a history, or a fit that failed. The number is the level of the intervals.
Method = Callable[[Histories, float], Forecasts]


def completed(made: Forecasts, histories: Histories, level: float) -> npt.NDArray[np.object_]:
    """Fill in what the method could not do by `seasonal_naive`, else by `mean`; gives back which of them, or None, (P,)."""
    by = np.full(len(histories.first), None, dtype=object)
    for name, way in ((NAIVE, seasonal_naive), (MEAN, mean)):
        rows = np.flatnonzero(~np.isfinite(made.expected_PH + made.lower_PH + made.upper_PH).all(axis=1))
        if len(rows):
            made.put(rows, way(histories.take(rows), level))
            by[rows] = name
    return by


def mean(histories: Histories, level: float) -> Forecasts:
    """The mean of the days there are; spread at least as counts of that mean are (Poisson). Without any day 0."""
    days = np.maximum(histories.lengths, 1)
    is_seen_PD = np.arange(histories.counts_PD.shape[1]) >= histories.first[:, None]
    level_P = np.where(is_seen_PD, histories.counts_PD, 0).sum(axis=1) / days
    squares = np.where(is_seen_PD, (histories.counts_PD - level_P[:, None]) ** 2, 0).sum(axis=1)
    variance = np.maximum(squares / np.maximum(days - 1, 1), level_P) * (1 + 1 / days)
    expected_PH = np.repeat(level_P[:, None], HORIZON, axis=1)
    return _normal(expected_PH, np.sqrt(variance)[:, None], level)


def seasonal_naive(histories: Histories, level: float) -> Forecasts:
    """The last week again; of series of two weeks and more.

    The variance is the mean square of what the series' weeks differed by, once for each week ahead (Hyndman and
    Athanasopoulos, Forecasting: principles and practice, 5.5).
    """
    counts_PD, days = histories.counts_PD, histories.counts_PD.shape[1]
    differences_PD = counts_PD[:, WEEK:] - counts_PD[:, :-WEEK]
    is_inside_PD = np.arange(WEEK, days) >= histories.first[:, None] + WEEK
    squares = np.where(is_inside_PD, differences_PD, 0) ** 2
    variance = squares.sum(axis=1) / np.maximum(histories.lengths - WEEK, 1)
    ahead_H = np.arange(HORIZON)
    if days < NAIVE_DAYS:
        return Forecasts.empty(len(counts_PD))
    expected_PH = np.where(histories.lengths[:, None] >= NAIVE_DAYS, counts_PD[:, days - WEEK + ahead_H % WEEK], np.nan)
    return _normal(expected_PH, np.sqrt(variance[:, None] * (ahead_H // WEEK + 1)), level)


def _normal(expected_PH: Floats, deviation_PH: Floats, level: float) -> Forecasts:
    half_PH = ndtri(0.5 + level / 2) * deviation_PH
    lower_PH, upper_PH = np.maximum(expected_PH - half_PH, 0.0), expected_PH + half_PH
    return Forecasts(expected_PH=np.array(expected_PH), lower_PH=lower_PH, upper_PH=upper_PH)


def ets(histories: Histories, level: float) -> Forecasts:
    """Exponential smoothing, its components chosen by AICc (statsforecast's AutoETS)."""
    from statsforecast.models import AutoETS

    model = AutoETS(season_length=WEEK)
    return _each(histories, lambda counts: _found(model.forecast(y=counts, h=HORIZON, level=_percent(level))))


def arima(histories: Histories, level: float) -> Forecasts:
    """Seasonal ARIMA, its orders by stepwise search (statsforecast's AutoARIMA)."""
    from statsforecast.models import AutoARIMA

    model = AutoARIMA(season_length=WEEK)
    return _each(histories, lambda counts: _found(model.forecast(y=counts, h=HORIZON, level=_percent(level))))


def arima_at(histories: Histories, level: float, origins: Sequence[int]) -> list[Forecasts]:
    """`arima` as of several moments, each after so many days: fitted at the first, and carried on from there to the others."""
    from statsforecast.models import AutoARIMA

    models: dict[int, AutoARIMA] = {}

    def carried_on(row: int, counts: Floats) -> Found:
        if row not in models:
            models[row] = AutoARIMA(season_length=WEEK).fit(counts)
            return _found(models[row].predict(h=HORIZON, level=_percent(level)))
        return _found(models[row].forward(y=counts, h=HORIZON, level=_percent(level)))

    return [_each_row(histories.until(days), carried_on) for days in origins]


def prophet(histories: Histories, level: float) -> Forecasts:
    """Prophet: a trend that may bend, and the week."""
    # It looks for a library of interactive pictures and complains; the other tells of every fit.
    for name in ("prophet.plot", "cmdstanpy"):
        logging.getLogger(name).disabled = True
    import pandas as pd
    from prophet import Prophet

    last = np.datetime64(histories.last, "D")
    ahead = pd.DataFrame({"ds": pd.date_range(last + 1, periods=HORIZON)})

    def fitted(counts: Floats) -> Found:
        model = Prophet(
            interval_width=level,
            weekly_seasonality=True,
            yearly_seasonality=False,
            daily_seasonality=False,
            uncertainty_samples=200,
        )
        model.fit(pd.DataFrame({"ds": pd.date_range(end=last, periods=len(counts)), "y": counts}), seed=1)
        np.random.seed(1)  # Prophet draws from numpy's global numbers
        found = model.predict(ahead)
        return found["yhat"].to_numpy(), found["yhat_lower"].to_numpy(), found["yhat_upper"].to_numpy()

    return _each(histories, fitted)


# By themselves: the LSTM comes with its weights.
METHODS: dict[str, Method] = {NAIVE: seasonal_naive, ETS: ets, ARIMA: arima, PROPHET: prophet}


def _each(histories: Histories, fitted: Callable[[Floats], Found]) -> Forecasts:
    return _each_row(histories, lambda row, counts: fitted(counts))


def _each_row(histories: Histories, fitted: Callable[[int, Floats], Found]) -> Forecasts:
    """Series by series, since these libraries know no other way; of series of `FITTED_DAYS` and more.

    A fit that fails leaves NaN: on some numbers each of them does, and the series has other methods.
    """
    made = Forecasts.empty(len(histories.first))
    for row in np.flatnonzero(histories.lengths >= FITTED_DAYS):
        try:
            found = fitted(row, np.ascontiguousarray(histories.counts_PD[row, histories.first[row] :]))
        except Exception as error:
            log.debug("a series of %d days cannot be fitted: %r", histories.lengths[row], error)
            continue
        for values_PH, values in zip((made.expected_PH, made.lower_PH, made.upper_PH), found, strict=True):
            values_PH[row] = np.maximum(values, 0.0)
    return made


def _percent(level: float) -> list[Any]:
    return [100 * level]


def _found(said: Mapping[str, Any]) -> Found:
    """As statsforecast says it: `mean`, and one bound under a name with the level in it for each side."""
    [lower] = [values for name, values in said.items() if name.startswith("lo-")]
    [upper] = [values for name, values in said.items() if name.startswith("hi-")]
    return np.asarray(said["mean"]), np.asarray(lower), np.asarray(upper)
