"""Which method forecasts a series: the median of the cheap ones, unless another did clearly better at the early origins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from jobs.forecast.judging import SELECTION, Quality, mean_known
from jobs.forecast.methods import Ints

# Errors this close are equal, whatever the order of a sum.
_EQUAL = 1e-9
# Of series on which all methods are alike, the share at which another may seem better, whatever their number.
_MISTAKEN = 0.05


def selected(qualities: Sequence[Quality], default: str, size: int) -> np.ndarray:
    """The method of each series, (size,): of those whose MASE at the early origins is surely below that of `default`, by a
    one-sided t test of the differences (Diebold and Mariano, 1995; Bonferroni), the one of the least; else `default`.

    The least of several noisy means is seldom that of the best method, and a median of methods is seldom far behind the best:
    what is less sure goes to it. One origin shows nothing.
    """
    early = {quality.method: quality for quality in qualities if quality.stage == SELECTION}
    chosen, least = np.full(size, default, dtype=object), np.zeros(size)
    if default not in early:
        return chosen
    usual_OP = _of_all(early[default], size)
    sure = 1 - _MISTAKEN / max(len(early) - 1, 1)
    for name, quality in early.items():
        difference_OP = _of_all(quality, size) - usual_OP
        known = np.isfinite(difference_OP).sum(axis=0)
        mean = np.nan_to_num(mean_known(list(difference_OP)))
        squares = np.where(np.isfinite(difference_OP), (difference_OP - mean) ** 2, 0).sum(axis=0)
        bound = stdtrit(np.maximum(known - 1, 1), sure) * _standard_error(squares, known)
        is_better = (known >= 2) & (mean < -bound - _EQUAL) & (mean < least - _EQUAL)
        chosen[is_better], least[is_better] = name, mean[is_better]
    return chosen


def _standard_error(squares: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Of the mean over `known` origins, from the sum of squares about it.

    Horizons of two weeks that begin a week apart overlap by half: neighbours correlate by 1/2, pairs of n by 1/n in the mean.
    So the squares sum to (n - 1)^2 / n variances on average, and the mean has (2n - 1) / n^2 of one.
    """
    n = np.maximum(known, 2)
    return np.sqrt(squares / (n - 1) / n * (2 * n - 1) / (n - 1))


def _of_all(quality: Quality, size: int) -> np.ndarray:
    """MASE at each origin of every series, (O, size); NaN of those that the method was not tried on."""
    rows: Ints = quality.rows
    found = np.full((len(quality.mase_OP), size), np.nan)
    found[:, rows] = quality.mase_OP
    return found
