"""What a policy would have earned, told from the answers to lists that another policy mixed.

Lists are mixed rank by rank (`models.mixing`), so that of each entry it is known how likely either policy was to put it there,
given those above it. What is earned at a rank depends on the entries down to it, and is weighed by the ratio of the chances
of these: reward interaction inverse propensity scoring (McInerney et al., "Counterfactual Evaluation of Slate Recommendations
with Sequential Reward Interactions", KDD 2020), by itself (`ips`), with weights brought to a mean of 1 at each rank (`snips`),
and on top of a model of what each source earns, which it corrects (`dr`; Jiang and Li, "Doubly Robust Off-policy Value
Evaluation for Reinforcement Learning", ICML 2016; Kiyohara et al., "Doubly Robust Off-Policy Evaluation for Ranking Policies
under the Cascade Behavior Model", WSDM 2022).

Shape suffixes: N lists, K ranks, S sources, U users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from models.mixing import agreeing, propensities

# Of users that count alike; with fewer an interval says nothing.
ENOUGH_USERS = 100.0
_SURELY = 4.0


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Lists as they were shown, and the answers to them. Lists shorter than K end in entries that no source agreed on.

    `propensity_NK`: how likely each entry was, given those above it. `reward_NK`: 0..1. `user_N`: whole numbers.
    """

    agreed_NK: np.ndarray
    propensity_NK: np.ndarray
    reward_NK: np.ndarray
    user_N: np.ndarray

    def part(self, rows: np.ndarray) -> Answered:
        return Answered(**{name: values[rows] for name, values in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The mean reward of a list; `low` and `high`: an interval of 95% over users. NaN where there is nothing to tell from."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Estimates by method, and what they rest on: `users` that count alike, at the rank where they are fewest."""

    by: Mapping[str, Estimate]
    users: float
    lists: int

    @property
    def is_enough(self) -> bool:
        return self.users >= ENOUGH_USERS


def evaluated(answered: Answered, asked_NS: np.ndarray) -> Verdict:
    """asked_NS: the shares that the policy in question would have mixed each list by.

    Raises:
        ValueError: it draws from a source that was not drawn from, so that no answer tells of it.
    """
    if not len(answered.user_N):
        return Verdict(by=dict.fromkeys(("ips", "snips", "dr"), as_shown(answered)), users=0.0, lists=0)
    weight_NK = _weights(answered, asked_NS)
    reward_NK, user_N = answered.reward_NK, answered.user_N
    by = {
        "ips": _interval([_Term(weight_NK=weight_NK, value_NK=reward_NK, by_mean=False)], user_N),
        "snips": _interval([_Term(weight_NK=weight_NK, value_NK=reward_NK)], user_N),
        "dr": _interval(_doubly_robust(answered, asked_NS, _crossed(answered, asked_NS.shape[1])), user_N),
    }
    return Verdict(by=by, users=_alike(weight_NK, user_N), lists=len(user_N))


def compared(answered: Answered, asked_NS: np.ndarray, other_NS: np.ndarray) -> Verdict:
    """How much more a list would have earned by one policy than by another (`dr`): what both have in common falls out.

    Raises:
        ValueError: as `evaluated`, of either.
    """
    if not len(answered.user_N):
        return Verdict(by={"dr": as_shown(answered)}, users=0.0, lists=0)
    worth_NKS = _crossed(answered, asked_NS.shape[1])
    terms, less = (_doubly_robust(answered, shares_NS, worth_NKS) for shares_NS in (asked_NS, other_NS))
    users = min(_alike(_weights(answered, shares_NS), answered.user_N) for shares_NS in (asked_NS, other_NS))
    return Verdict(by={"dr": _interval(terms, answered.user_N, less)}, users=users, lists=len(answered.user_N))


def _weights(answered: Answered, asked_NS: np.ndarray) -> np.ndarray:
    """How much likelier the policy in question was to make each list, down to each rank, (N, K)."""
    asked_NK = propensities(answered.agreed_NK, asked_NS[:, None, :])
    weight_NK: np.ndarray = np.cumprod(asked_NK / answered.propensity_NK, axis=1)
    _check_support(weight_NK[:, 0])
    return weight_NK


def _doubly_robust(answered: Answered, asked_NS: np.ndarray, worth_NKS: np.ndarray) -> list[_Term]:
    """What sources are foretold to earn, and what that is wrong by."""
    asked_NK, weight_NK = propensities(answered.agreed_NK, asked_NS[:, None, :]), _weights(answered, asked_NS)
    before_NK = np.concatenate([np.ones((len(weight_NK), 1)), weight_NK[:, :-1]], axis=1)
    is_NKS = agreeing(answered.agreed_NK, asked_NS.shape[1])
    # Of an entry: the mean over the sources that agreed on it; so over all entries it is the mean over all sources.
    foretold_NK = (is_NKS * asked_NS[:, None, :] * worth_NKS).sum(axis=2) / np.maximum(asked_NK, 1e-300)
    foretold_NK = np.where(answered.agreed_NK == 0, 0.0, foretold_NK)
    ahead_NK = np.where(answered.agreed_NK == 0, 0.0, (asked_NS[:, None, :] * worth_NKS).sum(axis=2))
    rest = _Term(weight_NK=weight_NK, value_NK=answered.reward_NK - foretold_NK)
    return [_Term(weight_NK=before_NK, value_NK=ahead_NK), rest]


def _check_support(weight_N: np.ndarray) -> None:
    """Weights of the first rank have a mean of 1, unless something is asked about that was never shown."""
    error = weight_N.std() / np.sqrt(len(weight_N))
    if weight_N.mean() + _SURELY * error < 1.0 - 1e-9:
        raise ValueError(
            "the policy draws from a source that was never drawn from, or hardly: no list that was shown tells of it"
        )


def as_shown(answered: Answered) -> Estimate:
    """What the lists earned."""
    return _interval([_Term(weight_NK=np.ones(answered.reward_NK.shape), value_NK=answered.reward_NK)], answered.user_N)


@dataclass(frozen=True, kw_only=True)
class _Term:
    """A weighted mean at each rank, summed over ranks; `by_mean`: divided by the mean weight there."""

    weight_NK: np.ndarray
    value_NK: np.ndarray
    by_mean: bool = True

    def told(self) -> tuple[float, np.ndarray]:
        """The sum, and by how much each list moves it (N,)."""
        if not self.by_mean:
            each_N = (self.weight_NK * self.value_NK).sum(axis=1)
            return float(each_N.mean()), each_N - each_N.mean()
        weight_NK = self.weight_NK / np.maximum(self.weight_NK.mean(axis=0), 1e-300)
        mean_K = (weight_NK * self.value_NK).mean(axis=0)
        return float(mean_K.sum()), (weight_NK * (self.value_NK - mean_K)).sum(axis=1)


def _interval(terms: Sequence[_Term], user_N: np.ndarray, less: Sequence[_Term] = ()) -> Estimate:
    """Of the terms, and less others. Users are drawn, not lists: what the lists of one move goes together."""
    if not len(user_N):
        return Estimate(value=np.nan, low=np.nan, high=np.nan)
    told = [term.told() for term in terms] + [(-mean, -moved) for mean, moved in (term.told() for term in less)]
    value = sum(mean for mean, _ in told)
    _, user_N = np.unique(user_N, return_inverse=True)
    moved_U = np.bincount(user_N, weights=sum(moved for _, moved in told))
    users = len(moved_U)
    if users < 2:
        return Estimate(value=value, low=np.nan, high=np.nan)
    error = np.sqrt((moved_U**2).sum() * users / (users - 1)) / len(user_N)
    reach = float(stats.t.ppf(0.975, users - 1) * error)
    return Estimate(value=value, low=value - reach, high=value + reach)


def _alike(weight_NK: np.ndarray, user_N: np.ndarray) -> float:
    """How many users of one weight would tell as much: the least of Kish's effective sizes over ranks."""
    _, user_N = np.unique(user_N, return_inverse=True)
    of_users = np.stack([np.bincount(user_N, weights=weight_N) for weight_N in weight_NK.T])
    return float((of_users.sum(axis=1) ** 2 / np.maximum((of_users**2).sum(axis=1), 1e-300)).min())


def _crossed(answered: Answered, sources: int) -> np.ndarray:
    """What each source earns at each rank, (N, K, S); of each half of the users told by the other half."""
    half_N = answered.user_N % 2 == 0
    worth_NKS = np.zeros((*answered.agreed_NK.shape, sources))
    for own_N in (half_N, ~half_N):
        worth_NKS[own_N] = _worth(answered.part(~own_N), sources)
    return worth_NKS


def _worth(answered: Answered, sources: int) -> np.ndarray:
    """Mean rewards (K, S): of the entries that a source agreed on, each weighed by how unlikely it was.

    A source that nothing is known of at a rank earns what all do there.
    """
    weight_NKS = agreeing(answered.agreed_NK, sources) / answered.propensity_NK[..., None]
    shown_K = (answered.agreed_NK != 0).sum(axis=0)
    all_K = answered.reward_NK.sum(axis=0) / np.maximum(shown_K, 1)
    # One entry of an average worth, so that few entries do not tell too much.
    earned_KS = (weight_NKS * answered.reward_NK[..., None]).sum(axis=0) + all_K[:, None]
    return np.asarray(earned_KS / (weight_NKS.sum(axis=0) + 1.0))
