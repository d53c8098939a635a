"""Losses that look at a few items instead of the catalogue: for catalogues that full softmax is too slow for.

Both share their negatives within a batch. The items of the own past, which are pulled and so the strongest of all others,
are never left to chance. Shape suffixes: B windows, T moments asked about per window, L events of history, N targets,
S items drawn, V items of the catalogue, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from models.network import Network, Reading
from models.queries import FIRST


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Distinct items drawn, how often each was, and the log of how many it stands for: times / (draws x its chance)."""

    place_S: Tensor  # int64, place in the catalogue 0..V-1
    times_S: Tensor
    log_weight_S: Tensor


class Negatives:
    """Draws items with replacement, of which each has a known chance."""

    def __init__(self, share_V: Tensor) -> None:
        """`share_V`: relative chances; half of all draws are uniform, so that every item has one."""
        chance_V = share_V.double() / share_V.double().sum()
        self.chance_V = 0.5 * chance_V + 0.5 / len(chance_V)
        self.sums_V = self.chance_V.cumsum(0)

    def draw(self, count: int) -> Draw:
        """`count` draws, from torch's random state."""
        device = self.sums_V.device
        drawn = torch.searchsorted(self.sums_V, torch.rand(count, dtype=torch.float64, device=device) * self.sums_V[-1])
        place_S, times_S = drawn.clamp(max=len(self.sums_V) - 1).unique(return_counts=True)
        log_weight_S = (times_S / (count * self.chance_V[place_S])).log().float()
        return Draw(place_S=place_S, times_S=times_S, log_weight_S=log_weight_S)


def sampled_softmax(
    network: Network, reading: Reading, target_BT: Tensor, draw: Draw, weight_N: Tensor | None = None
) -> Tensor:
    """Sum over the targets of -log softmax, each times its weight (None: 1), the sum over the catalogue estimated: own
    items and target as they are, the rest by the items drawn, each for as many as it stands for (the log-Q correction).

    Source: Bengio, Senecal: "Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic Language Model",
    IEEE Transactions on Neural Networks 19 (2008).
    """
    found = _scores(network, reading, target_BT, draw)
    # Own items are summed as they are; where one was drawn as well, it would count twice.
    drawn_NS = (found.drawn_NS + draw.log_weight_S).masked_fill((found.pulled_NS != 0) | found.is_target_NS, -torch.inf)
    sums_N = torch.cat([found.target_N.unsqueeze(1), found.own_NL, drawn_NS], dim=1).logsumexp(1)
    return _summed(sums_N - found.target_N, weight_N)


def gbce(
    network: Network, reading: Reading, target_BT: Tensor, draw: Draw, calibration: float, weight_N: Tensor | None = None
) -> Tensor:
    """Sum over the targets, each by its weight, of the generalised binary cross entropy: the likelihood of the target is
    raised to a power that undoes what sampling few negatives does to the probabilities (calibration 1: wholly; 0: plain
    cross entropy).

    Source: Petrov, Macdonald: "gSASRec: Reducing Overconfidence in Sequential Recommendation Trained with Negative
    Sampling", RecSys 2023.
    """
    found = _scores(network, reading, target_BT, draw)
    share = int(draw.times_S.sum()) / max(network.item_bias.numel() - 1, 1)
    power = share * (calibration * (1.0 - 1.0 / share) + 1.0 / share)
    negative_NS = F.logsigmoid(-(found.drawn_NS + found.pulled_NS)).masked_fill(found.is_target_NS, 0.0)
    return -_summed(power * F.logsigmoid(found.target_N) + (negative_NS * draw.times_S).sum(1), weight_N)


def _summed(value_N: Tensor, weight_N: Tensor | None) -> Tensor:
    return (value_N if weight_N is None else value_N * weight_N).sum()


@dataclass(frozen=True, kw_only=True)
class _Scores:
    """Of each target moment: of the target, of the other items of the own past (-inf where there is none), of those drawn."""

    target_N: Tensor
    own_NL: Tensor
    drawn_NS: Tensor  # without what the past adds ...
    pulled_NS: Tensor  # ... which is this
    is_target_NS: Tensor


def _scores(network: Network, reading: Reading, target_BT: Tensor, draw: Draw) -> _Scores:
    chosen_BT = target_BT >= FIRST
    vector_ND, target_N = reading.vector_BTD[chosen_BT], target_BT[chosen_BT] - FIRST
    own_NL = (reading.item_BL - FIRST).unsqueeze(1).expand_as(reading.pull_BTL)[chosen_BT]
    pull_NL, base_NL = reading.pull_BTL[chosen_BT], reading.base_BTL[chosen_BT]
    is_other_NL = (pull_NL != 0) & (own_NL != target_N.unsqueeze(1))
    pulled_target_N = pull_NL.masked_fill(is_other_NL, 0.0).sum(1)
    # By rows: of a row's events the drawn ones are the same at every moment.
    drawn_BLS = (reading.item_BL - FIRST).unsqueeze(2) == draw.place_S
    pulled_NS = (reading.pull_BTL @ drawn_BLS.to(reading.pull_BTL.dtype))[chosen_BT]
    return _Scores(
        target_N=(vector_ND * network.items(target_N)).sum(1) + network.item_bias[target_N] + pulled_target_N,
        own_NL=torch.where(is_other_NL, base_NL + pull_NL, -torch.inf),
        drawn_NS=vector_ND @ network.items(draw.place_S).T + network.item_bias[draw.place_S],
        pulled_NS=pulled_NS,
        is_target_NS=target_N.unsqueeze(1) == draw.place_S,
    )
