"""How well events were ranked: ranks, metrics of one event, means with intervals clustered by user.

Rank 1 is the best; rank 0 stands for "empty": the target could not be ranked, which counts as a miss.
Shape suffixes: N judged events, B moments, V items, U users, S bootstrap samples, M measures.

Intervals are a Poisson bootstrap over users (Chamandy et al., Estimating Uncertainty for Massive Data
Streams, 2012): in each sample a user counts Poisson(1) times with all of its events. The weight
follows from the user's id and the sample's number alone, so that sums over parts of the users, or
over days, add up to the sums over all of them: nothing that grows with users is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from models import chance

EMPTY = 0
# P(Poisson(1) <= n), n = 0..12: a uniform number falls into one of the steps.
_POISSON_STEPS = np.cumsum([np.exp(-1.0)] + [float(np.exp(-1.0) / np.prod(np.arange(1, n + 1))) for n in range(1, 13)])


def ranks(scores_BV: np.ndarray, target_B: np.ndarray, left_out: Sequence[np.ndarray] | None = None) -> np.ndarray:
    """Rank of each target: 1 + the number of other items that score at least as high, (B,) int64.

    Ties count against us. `target_B` is the catalogue position, -1 where the item is not in the
    catalogue (the rank is then 0, empty). `left_out` lists, per moment, distinct catalogue positions
    that are not ranked; a target among them comes after all that are.
    """
    rows = np.arange(len(target_B))
    target_score_B = scores_BV[rows, np.maximum(target_B, 0)] if scores_BV.shape[1] else np.zeros(len(rows), dtype=np.float32)
    at_least_BV = scores_BV >= target_score_B[:, None]
    rank_B = at_least_BV.sum(axis=1, dtype=np.int64)
    if left_out is not None:
        for row, positions in enumerate(left_out):
            if target_B[row] in positions:
                rank_B[row] = scores_BV.shape[1] - len(positions) + 1
            else:
                rank_B[row] -= np.count_nonzero(at_least_BV[row, positions])
    return np.where(target_B < 0, EMPTY, rank_B)


def hit(rank_N: np.ndarray, k: int) -> np.ndarray:
    """1 where the target is among the first k, float64."""
    return ((rank_N > EMPTY) & (rank_N <= k)).astype(np.float64)


def precision(rank_N: np.ndarray, k: int) -> np.ndarray:
    return hit(rank_N, k) / k


def recall(rank_N: np.ndarray, k: int) -> np.ndarray:
    """Equal to `hit`: each moment has one relevant item."""
    return hit(rank_N, k)


def f1(rank_N: np.ndarray, k: int) -> np.ndarray:
    """Harmonic mean of precision 1/k and recall 1 at a hit, 2 / (k + 1)."""
    return hit(rank_N, k) * 2.0 / (k + 1.0)


def ndcg(rank_N: np.ndarray, k: int) -> np.ndarray:
    """1 / log2(rank + 1) within the first k; the ideal list has the one relevant item first."""
    return hit(rank_N, k) / np.log2(np.maximum(rank_N, 1) + 1.0)


def mrr(rank_N: np.ndarray, k: int = 0) -> np.ndarray:
    """1 / rank over the whole catalogue; `k` is not used."""
    return np.where(rank_N > EMPTY, 1.0 / np.maximum(rank_N, 1), 0.0)


Metric = Callable[[np.ndarray, int], np.ndarray]
METRICS: dict[str, Metric] = {"hit": hit, "precision": precision, "recall": recall, "f1": f1, "ndcg": ndcg, "mrr": mrr}
WITHOUT_K = ("mrr",)


def measures(ks: Sequence[int]) -> list[tuple[str, int]]:
    """Every metric at every k, (name, k); k = 0 where the metric has none."""
    return [(name, k) for name in METRICS for k in ((0,) if name in WITHOUT_K else tuple(ks))]


def values(rank_N: np.ndarray, wanted: Sequence[tuple[str, int]]) -> np.ndarray:
    """Each measure of each event, (N, M) float64."""
    return np.stack([METRICS[name](rank_N, k) for name, k in wanted], axis=1) if wanted else np.zeros((len(rank_N), 0))


def poisson_weights(user_U: Sequence[str], samples: int, seed: int = 0) -> np.ndarray:
    """How often each user counts in each sample, Poisson(1), (S, U) uint8; a function of id, sample and seed alone."""
    hash_U = chance.of_names(user_U, seed)
    uniform_SU = chance.uniform(np.arange(1, samples + 1)[:, None], hash_U[None, :])
    return np.searchsorted(_POISSON_STEPS, uniform_SU, side="right").astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Sums over judged events, plain and per bootstrap sample. Tallies of disjoint users add up; so do those of days.

    The sums are of value times weight, of which each measure has its own: the number of events where each weighs 1.
    """

    events: float
    users: float
    sum_M: np.ndarray  # float64
    weight_M: np.ndarray  # float64
    sum_SM: np.ndarray  # float64
    weight_SM: np.ndarray  # float64

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            events=self.events + other.events,
            users=self.users + other.users,
            sum_M=self.sum_M + other.sum_M,
            weight_M=self.weight_M + other.weight_M,
            sum_SM=self.sum_SM + other.sum_SM,
            weight_SM=self.weight_SM + other.weight_SM,
        )

    @property
    def mean_M(self) -> np.ndarray:  # noqa: N802
        """Mean over events, each by its weight; NaN without events."""
        return self.sum_M / self.weight_M if self.events else np.full(len(self.sum_M), np.nan)

    def quantile(self, share: float) -> np.ndarray:
        """Quantile of the means over the samples, (M,); NaN with fewer than two users, which say nothing of spread."""
        drawn = (self.weight_SM > 0).all(axis=1)
        if self.users < 2 or not drawn.any():
            return np.full(len(self.sum_M), np.nan)
        return np.quantile(self.sum_SM[drawn] / self.weight_SM[drawn], share, axis=0)

    def flat(self) -> list[float]:
        """All numbers in a row, for a column of a table; `Tally.unflat` reads them back."""
        parts = ([self.events, self.users], self.sum_M, self.weight_M, self.sum_SM.ravel(), self.weight_SM.ravel())
        return [float(number) for part in parts for number in part]

    @staticmethod
    def unflat(numbers: Sequence[float], measured: int) -> Tally:
        array = np.asarray(numbers, dtype=np.float64)
        sum_M, weight_M, drawn = np.split(array[2:], [measured, 2 * measured])
        sum_SM, weight_SM = drawn.reshape(2, -1, measured)
        return Tally(
            events=float(array[0]), users=float(array[1]), sum_M=sum_M, weight_M=weight_M, sum_SM=sum_SM, weight_SM=weight_SM
        )


Users = Sequence[str] | np.ndarray


def tally(values_NM: np.ndarray, user_N: Users, samples: int, seed: int = 0, *, weight_NM: np.ndarray | None = None) -> Tally:
    """Sums of per-event values whose events belong to `user_N`; a user's events must be in one tally only.

    `weight_NM`: what each event weighs in each measure, above 0, (N, M) or (N, 1); None: 1.
    """
    names, code_N = (
        np.unique(np.asarray(user_N, dtype=object), return_inverse=True) if len(user_N) else (np.zeros(0, object), [])
    )
    weight_NM = np.broadcast_to(1.0 if weight_NM is None else weight_NM, values_NM.shape)
    sum_UM, weight_UM = np.zeros((2, len(names), values_NM.shape[1]))
    np.add.at(sum_UM, code_N, values_NM * weight_NM)
    np.add.at(weight_UM, code_N, weight_NM)
    drawn_SU = poisson_weights(list(names), samples, seed).astype(np.float64)
    return Tally(
        events=float(len(values_NM)),
        users=float(len(names)),
        sum_M=sum_UM.sum(axis=0),
        weight_M=weight_UM.sum(axis=0),
        sum_SM=drawn_SU @ sum_UM,
        weight_SM=drawn_SU @ weight_UM,
    )


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over events and the 95% bounds of it; NaN where there is nothing to go by."""

    mean: float
    lower: float
    upper: float


def intervals(summed: Tally) -> list[Interval]:
    """Mean and two-sided 95% bootstrap interval of each measure."""
    bounds = zip(summed.mean_M, summed.quantile(0.025), summed.quantile(0.975), strict=True)
    return [Interval(mean=float(mean), lower=float(lower), upper=float(upper)) for mean, lower, upper in bounds]


def paired(ours_N: np.ndarray, theirs_N: np.ndarray, user_N: Users, samples: int, seed: int = 0) -> Interval:
    """Mean difference (ours - theirs) over the same events, with its interval clustered by user."""
    return intervals(tally((ours_N - theirs_N)[:, None], user_N, samples, seed))[0]
