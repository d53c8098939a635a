"""Which method forecasts a series: the median of the cheap ones, unless another did clearly better at the early origins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jobs.forecast.judging import SELECTION, Quality, mean_known
from jobs.forecast.methods import Ints

# Errors this close are equal, whatever the order of a sum.
_EQUAL = 1e-9


def selected(qualities: Sequence[Quality], default: str, size: int) -> np.ndarray:
    """The method of each series, (size,): of those whose MASE at the early origins is below that of `default` by more than
    the standard error of the difference, the one of the least; else `default`.

    The least of several noisy means is seldom that of the best method, and a median of methods is seldom far behind the best:
    what is less sure than that goes to it (the rule of one standard error: Breiman et al., 1984). One origin shows none.
    """
    early = {quality.method: quality for quality in qualities if quality.stage == SELECTION}
    chosen, least = np.full(size, default, dtype=object), np.zeros(size)
    if default not in early:
        return chosen
    usual_OP = _of_all(early[default], size)
    for name, quality in early.items():
        difference_OP = _of_all(quality, size) - usual_OP
        known = np.isfinite(difference_OP).sum(axis=0)
        mean = np.nan_to_num(mean_known(list(difference_OP)))
        squares = np.where(np.isfinite(difference_OP), (difference_OP - mean) ** 2, 0).sum(axis=0)
        error = np.sqrt(squares / np.maximum(known - 1, 1) / np.maximum(known, 1))
        is_better = (known >= 2) & (mean < -error - _EQUAL) & (mean < least - _EQUAL)
        chosen[is_better], least[is_better] = name, mean[is_better]
    return chosen


def _of_all(quality: Quality, size: int) -> np.ndarray:
    """MASE at each origin of every series, (O, size); NaN of those that the method was not tried on."""
    rows: Ints = quality.rows
    found = np.full((len(quality.mase_OP), size), np.nan)
    found[:, rows] = quality.mase_OP
    return found
