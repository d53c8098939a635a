"""How far one distribution has moved from another, from counts by bin. No Spark.

Shape suffix: B bins, the same on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri

ABSENT = ""  # the bin of rows without a value
QUANTILES = 10
NAMES = 20
# Added to every bin: half an observation (Krichevsky and Trofimov, 1981), so that an empty bin is rare, not impossible.
_SMOOTHING = 0.5
_ALARMS = 0.001  # the share of undisturbed nights on which chance alone may exceed `chance`


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Counts of the same bins now and before."""

    now_B: np.ndarray
    before_B: np.ndarray

    @property
    def bins(self) -> int:
        return len(self.now_B)

    def psi(self) -> float:
        """Population stability index: sum of (p - q) ln(p / q), in nats (Siddiqi, Credit Risk Scorecards, 2006)."""
        p_B, q_B = shares(self.now_B), shares(self.before_B)
        return float(((p_B - q_B) * np.log(p_B / q_B)).sum())

    def kl(self) -> float:
        """Kullback-Leibler divergence of now from before: sum of p ln(p / q), in nats. The index is the sum of both ways."""
        p_B, q_B = shares(self.now_B), shares(self.before_B)
        return float((p_B * np.log(p_B / q_B)).sum())


def shares(counts_B: np.ndarray) -> np.ndarray:
    """Smoothed shares: none is 0, all add up to 1."""
    smoothed_B = counts_B + _SMOOTHING
    return smoothed_B / smoothed_B.sum()


def chance(bins: int, now: int, before: int) -> float:
    """What the index stays below in 999 of 1,000 comparisons of samples of one distribution; half of it for the divergence.

    The index of two samples of n and m is about (1/n + 1/m) times a chi-square with a degree of freedom less than bins
    (Yurdakul and Naranjo, Statistical properties of the population stability index, Journal of Risk Model Validation, 2020).
    `now` and `before` count users: a user's rows resemble each other, so they are no sample of their own.
    """
    if bins < 2:
        return 0.0
    return float(chdtri(bins - 1, _ALARMS) * (1 / now + 1 / before))


def named(now: Mapping[str, int], before: Mapping[str, int]) -> Pair:
    """A bin per name: the most frequent of before by themselves, all others in one."""
    first = sorted(before, key=lambda name: (-before[name], name))[:NAMES]
    others = [*(set(now) | set(before)) - set(first)]
    return _pair([[name] for name in first] + ([others] if others else []), now, before)


def numbers(now: Mapping[str, int], before: Mapping[str, int]) -> Pair:
    """Bins of about equal counts before, from counts by step of the grid (see `jobs.drift.grid`); few steps stand alone.

    A step lies in the bin in which the middle of its rows lies, so that values below or above all that was there
    before have a bin of their own where much of before is one value.
    """
    steps = sorted({int(step) for step in (*now, *before) if step != ABSENT})
    absent = [[ABSENT]] if ABSENT in now or ABSENT in before else []
    if len(steps) <= NAMES:
        return _pair([[str(step)] for step in steps] + absent, now, before)
    counts = np.array([before.get(str(step), 0) for step in steps])
    middle = np.cumsum(counts) - counts / 2
    number = np.minimum(QUANTILES * middle // max(counts.sum(), 1), QUANTILES - 1).astype(int)
    groups = [[str(step) for step, of in zip(steps, number, strict=True) if of == bin_] for bin_ in np.unique(number)]
    return _pair(groups + absent, now, before)


def _pair(groups: Sequence[Sequence[str]], now: Mapping[str, int], before: Mapping[str, int]) -> Pair:
    now_B, before_B = (np.array([sum(side.get(name, 0) for name in group) for group in groups]) for side in (now, before))
    return Pair(now_B=now_B, before_B=before_B)
