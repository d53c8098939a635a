"""How good forecasts were, at origins of the past. Legend: P series, D days, H days ahead, as in `jobs.forecast.methods`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jobs.forecast.methods import FITTED_DAYS, HORIZON, WEEK, Floats, Forecasts, Histories

SELECTION, REPORT = "selection", "report"
Origins = dict[str, list[int]]


def origins(days: int, wanted: int) -> Origins:
    """Days of history at each origin of the two stages, a week apart; as many as fit, at most `wanted` each.

    What the report is about begins where the last selection's horizon has ended, so that nothing was chosen by it.
    """
    fitting = (days - FITTED_DAYS - 2 * HORIZON) // (2 * WEEK) + 1
    number = min(wanted, fitting)
    if number < 1:
        return {SELECTION: [], REPORT: []}
    report = _ending(days - HORIZON, number)
    return {SELECTION: _ending(report[0] - HORIZON, number), REPORT: report}


def _ending(last: int, number: int) -> list[int]:
    return [last - WEEK * back for back in reversed(range(number))]


def mase(expected_PH: Floats, actual_PH: Floats, histories: Histories) -> Floats:
    """Mean absolute scaled error (Hyndman and Koehler, 2006): over the mean difference of a day from that of the week before.

    NaN where the history is the same week again and again, or shorter than eight days.
    """
    counts_PD = histories.counts_PD
    steps_PD = np.abs(counts_PD[:, WEEK:] - counts_PD[:, :-WEEK])
    is_inside_PD = np.arange(WEEK, counts_PD.shape[1]) >= histories.first[:, None] + WEEK
    scale = np.where(is_inside_PD, steps_PD, 0).sum(axis=1) / np.maximum(histories.lengths - WEEK, 1)
    error = np.abs(expected_PH - actual_PH).mean(axis=1)
    return np.divide(error, scale, out=np.full(len(error), np.nan), where=scale > 0)


def smape(expected_PH: Floats, actual_PH: Floats) -> Floats:
    """Mean of |f - y| / (|f| + |y|), 0..1; of 0 for 0 it is 0."""
    total_PH = np.abs(expected_PH) + np.abs(actual_PH)
    off_PH = np.abs(expected_PH - actual_PH)
    return np.divide(off_PH, total_PH, out=np.zeros_like(off_PH), where=total_PH > 0).mean(axis=1)


def coverage(made: Forecasts, actual_PH: Floats) -> Floats:
    """Share of the days that lie within their interval."""
    return ((made.lower_PH <= actual_PH) & (actual_PH <= made.upper_PH)).mean(axis=1)


def mean_known(values: Sequence[Floats]) -> Floats:
    """Per series the mean over the origins at which it is known; NaN without any."""
    stacked = np.stack(values)
    known = np.isfinite(stacked)
    total = np.where(known, stacked, 0).sum(axis=0)
    return np.divide(total, known.sum(axis=0), out=np.full(total.shape, np.nan), where=known.any(axis=0))
