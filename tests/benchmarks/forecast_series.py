"""Counts of many series: 182 days, a week's shape, a level that drifts; a third of them busy."""

from __future__ import annotations

import numpy as np

DAYS, LAST, LEVEL = 182, 19_900, 0.8


def counts(size: int) -> np.ndarray:
    """Events per day, (size, 182); none is 0 on the first day, from which a series is known."""
    rng = np.random.default_rng(7)
    shape = 1 + 0.5 * np.sin(2 * np.pi * (np.arange(DAYS) / 7 + rng.random((size, 1))))
    level = np.exp(rng.normal(1.0, 1.5, (size, 1)) + np.cumsum(rng.normal(0, 0.02, (size, DAYS)), axis=1))
    events = rng.poisson(level * shape)
    events[:, 0] = np.maximum(events[:, 0], 1)
    return events.astype(np.float64)
