"""What is unlikely in daily counts: a change of their level, and a last day that does not fit.

Counts are taken as over-dispersed Poisson: their variance is a multiple of their mean. Weekdays have
factors of their own, drawn towards 1 where there is little to tell them by.

Legend: N days, whole weeks; P series; D weekdays.
"""

from __future__ import annotations

import numpy as np
from scipy.special import betainc, xlogy

from jobs.time_series.series import Floats
from jobs.time_series.shape import WEEK, Features, sum_days

# As many events as would have to speak for a factor of 1 on each weekday.
_PRIOR_EVENTS = 4.0
# A change has whole weeks on both sides, or weekdays would be taken for it.
_EDGE = WEEK
# The last day is held against the level of so many days before it.
_RECENT = 4 * WEEK
# So many of the days with events, the busiest, may be outliers themselves, and count as the next one does.
_TRIMMED = 0.05
# Nearly Poisson: the negative binomial has no end at 1.
_LEAST_DISPERSION = 1.001


def weekday_factors(counts_NP: Floats) -> Floats:
    """How many times the mean there is on the weekday of each day of a week, (D, P), the first day's first; mean 1."""
    of_weekday = np.stack([sum_days(counts_NP[weekday::WEEK]) for weekday in range(WEEK)])
    mean_of_weekday = sum_days(counts_NP) / WEEK
    return (of_weekday + _PRIOR_EVENTS) / (mean_of_weekday + _PRIOR_EVENTS)


def change_point(counts_NP: Floats) -> Features:
    """The day since when the level is another one: where splitting the series raises its likelihood most.

    change_days_ago: days from the first day at the new level to the last day. change_log_ratio: logarithm
    of new over old level. change_p: how likely a greater gain is without any change (James, James and
    Siegmund, 1987: the maximum of a standardised Brownian bridge). NaN without events.
    """
    days, series = counts_NP.shape
    factor_DP = weekday_factors(counts_NP)
    total = sum_days(counts_NP)
    events, exposure, of_squares = np.zeros(series), np.zeros(series), np.zeros(series)
    best = {name: np.zeros(series) for name in ("gain", "day", "events", "exposure", "squares")}
    best["gain"] -= 1.0
    for day, counts in enumerate(counts_NP):
        if _EDGE <= day <= days - _EDGE:
            later = total - events
            gain = xlogy(events, events / exposure) + xlogy(later, later / (days - exposure)) - xlogy(total, total / days)
            better = gain > best["gain"]
            now = {"gain": gain, "day": np.full(series, float(day)), "events": events, "exposure": exposure}
            for name, values in (now | {"squares": of_squares}).items():
                best[name] = np.where(better, values, best[name])
        factor = factor_DP[day % WEEK]
        events, exposure, of_squares = events + counts, exposure + factor, of_squares + counts**2 / factor
    before = (best["events"], best["exposure"], best["squares"])
    after = (total - best["events"], days - best["exposure"], of_squares - best["squares"])
    dispersion = np.maximum(1, (_pearson(*before) + _pearson(*after)) / (days - 1 - WEEK))
    height = np.sqrt(np.maximum(2 * best["gain"] / dispersion, 0))
    known = total > 0
    ratio = np.log((after[0] + 0.5) / after[1]) - np.log((before[0] + 0.5) / before[1])
    return {
        "change_days_ago": np.where(known, days - 1 - best["day"], np.nan),
        "change_log_ratio": np.where(known, ratio, np.nan),
        "change_p": np.where(known, _exceeds(height, _EDGE / days), np.nan),
    }


def _pearson(events: Floats, exposure: Floats, squares: Floats) -> Floats:
    """Sum of (x - level f)^2 / (level f), from the sums of x, f and x^2 / f."""
    level = events / exposure
    return np.divide(squares, level, out=np.zeros_like(level), where=level > 0) - events


def _exceeds(height: Floats, edge: float) -> Floats:
    """P(max |B(t)| / sqrt(t (1 - t)) >= height), t from `edge` to 1 - edge."""
    bound = np.maximum(height, 1.0)
    density = np.exp(-(bound**2) / 2) / np.sqrt(2 * np.pi)
    odds = 2 * np.log((1 - edge) / edge)
    return np.where(height <= 1, 1.0, np.minimum(density * ((bound - 1 / bound) * odds + 4 / bound), 1.0))


def last_day(counts_NP: Floats, today: Floats) -> Features:
    """What the days before let expect of the last one, and how far it is from that.

    expected: level of the last four weeks times the factor of the weekday, outliers cut down. anomaly: z,
    (x - expected) / standard deviation. anomaly_p: two-sided, by the negative binomial; of a day with
    events given that it has some, since series are looked at on such days.

    Args:
        counts_NP: the whole weeks before it.
        today: its events, (P,).
    """
    days, series = counts_NP.shape
    ascending = np.sort(np.ascontiguousarray(counts_NP.T), axis=1)
    active = (ascending > 0).sum(axis=1)
    outliers = np.floor(_TRIMMED * active + 0.5).astype(np.int64)
    usual_NP = np.minimum(counts_NP, ascending[np.arange(series), days - 1 - outliers])
    factor_DP = weekday_factors(usual_NP)
    recent = min(days, _RECENT)
    # Half an event: that none was seen is not to say that there is none.
    expected = np.maximum(sum_days(usual_NP[-recent:]) / recent, 0.5 / days) * factor_DP[0]
    level = sum_days(usual_NP) / days
    squares = sum_days(usual_NP**2 / np.tile(factor_DP, (days // WEEK, 1)))
    spread = _pearson(level * days, np.full(series, float(days)), squares) / (days - WEEK)
    # The expectation itself rests on so many days and weekdays.
    dispersion = np.maximum(spread, _LEAST_DISPERSION) * (1 + 1 / recent + WEEK / days)
    return {
        "expected": expected,
        "anomaly": (today - expected) / np.sqrt(dispersion * expected),
        "anomaly_p": _tails(today, expected, dispersion),
    }


def _tails(count: Floats, mean: Floats, dispersion: Floats) -> Floats:
    """Two-sided p of negative binomial counts; of a positive one given that it is."""
    size, share = mean / (dispersion - 1), 1 / dispersion
    some = 1 - share**size
    above = betainc(np.maximum(count, 1), size, 1 - share) / some  # P(X >= count | X >= 1)
    below = betainc(size, count + 1, share)  # P(X <= count)
    below = np.where(count > 0, (below - share**size) / some, below)
    one_sided = np.where(count > 0, np.minimum(above, below), below)
    return np.clip(2 * one_sided, 0.0, 1.0)
