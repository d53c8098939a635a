"""How good forecasts were, at origins of the past.

Legend: O origins; P series, D days, H days ahead, as in `jobs.forecast.methods`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jobs.forecast.methods import FITTED_DAYS, HORIZON, WEEK, Floats, Forecasts, Histories, Ints

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


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How one method did in one stage on the series `rows`, (P,) each; series that no origin could judge are left out."""

    method: str
    stage: str
    rows: Ints
    mase_OP: Floats
    smape: Floats
    coverage: Floats
    origins: Ints


def judged(method: str, stage: str, histories: Histories, rows: Ints, made: Sequence[tuple[int, Forecasts]]) -> Quality:
    """What a method made of the series `rows` after so many days, against what came.

    Origins before which a series is too short do not count: there all methods do the same.
    """
    measures: dict[str, list[Floats]] = {"mase": [], "smape": [], "coverage": []}
    for end, forecasts in made:
        before, actual_PH = histories.take(rows).until(end), histories.counts_PD[rows, end : end + HORIZON]
        is_long = before.lengths >= FITTED_DAYS
        found = {
            "mase": mase(forecasts.expected_PH, actual_PH, before),
            "smape": smape(forecasts.expected_PH, actual_PH),
            "coverage": coverage(forecasts, actual_PH),
        }
        for measure, values in found.items():
            measures[measure].append(np.where(is_long, values, np.nan))
    origins = np.isfinite(measures["smape"]).sum(axis=0)
    kept = np.flatnonzero(origins)
    return Quality(
        method=method,
        stage=stage,
        rows=rows[kept],
        mase_OP=np.stack(measures["mase"])[:, kept],
        smape=mean_known(measures["smape"])[kept],
        coverage=mean_known(measures["coverage"])[kept],
        origins=origins[kept],
    )
