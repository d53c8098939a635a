"""The gaps between an entity's days with events."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from jobs.time_series.series import Floats
from jobs.time_series.shape import Features


def gaps(counts_NP: Floats) -> Features:
    """Days with events, and the days from one to the next.

    gap_mean, gap_sd, gap_max: NaN with fewer than two days with events. burstiness: -1 for an even pace, 0 at
    random, towards 1 for bursts; NaN with fewer than two gaps (Kim and Jo, 2016, for series of any length).
    """
    days, series = counts_NP.shape
    of_series, at = np.nonzero(counts_NP.T > 0)
    active = np.bincount(of_series, minlength=series)
    last = np.full(series, -1)
    last[of_series] = at  # in order: the newest stays
    same = of_series[1:] == of_series[:-1]
    of_gap, gap = of_series[1:][same], np.diff(at)[same]
    number = np.bincount(of_gap, minlength=series).astype(np.float64)
    total = np.bincount(of_gap, weights=gap, minlength=series).astype(np.float64)
    squares = np.bincount(of_gap, weights=gap**2, minlength=series).astype(np.float64)
    longest = np.zeros(series)
    np.maximum.at(longest, of_gap, gap)
    mean = _over(total, number, number > 0)
    deviation = np.sqrt(_over(number * squares - np.square(total), np.square(number), number > 0))
    ratio, root_up, root_down = deviation / mean, np.sqrt(number + 1), np.sqrt(np.maximum(number - 1, 0))
    burstiness = _over(root_up * ratio - root_down, (root_up - 2) * ratio + root_down, number > 1)
    return {
        "active_days": active,
        "days_since": days - 1 - last,
        "gap_mean": mean,
        "gap_sd": deviation,
        "gap_max": np.where(number > 0, longest, np.nan),
        "burstiness": burstiness,
    }


def _over(above: Floats, below: Floats, where: npt.NDArray[np.bool_]) -> Floats:
    """The quotient where it is asked for, NaN elsewhere."""
    return np.divide(above, below, out=np.full(len(above), np.nan), where=where)
