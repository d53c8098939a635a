"""How weights are moved: groups of parameters, clipping, and the learning rate from step to step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from models.buckets import BucketBias
from models.habits import Habits
from models.network import Network

_WARM_UP = 0.05
_FASTER = 5.0
_CLIP = 1.0


class Descent:
    """AdamW; and Adam for those rows of the item table alone that a step has seen, where `network.item.sparse`.

    Of 100 million items a step sees thousands: a dense gradient and a pass over all moments would be all that it does.
    """

    def __init__(self, network: Network, learning_rate: float, weight_decay: float) -> None:
        self.parameters = list(network.parameters())
        sparse = [network.item.weight] if network.item.sparse else []
        dense = groups(network, learning_rate, weight_decay, {id(weight) for weight in sparse})
        self.optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(dense, fused=True)]
        if sparse:
            self.optimizers.append(torch.optim.SparseAdam(sparse, lr=learning_rate))
        self._peaks = [group["lr"] for group in self._groups]

    @property
    def _groups(self) -> list[dict[str, Any]]:
        # Others, once a state was loaded.
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def step(self, share: float) -> None:
        """Move the weights, at this share of the peak learning rate, by their gradients, and forget these."""
        for group, peak in zip(self._groups, self._peaks, strict=True):
            group["lr"] = peak * share
        _clip(self.parameters)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)


def _clip(parameters: Sequence[Tensor]) -> None:
    """As torch's clip_grad_norm_, which takes no sparse gradients."""
    values = []
    for weight in parameters:
        if weight.grad is not None and weight.grad.is_sparse:
            weight.grad = weight.grad.coalesce()
            values.append(weight.grad.values())
        elif weight.grad is not None:
            values.append(weight.grad)
    share = torch.clamp(_CLIP / (get_total_norm(values) + 1e-6), max=1.0)
    for gradient in values:
        gradient.mul_(share)


def groups(network: Network, learning_rate: float, weight_decay: float, but: set[int]) -> list[dict[str, Any]]:
    """Biases are not decayed. What says how much events count is seen by many of them and may move faster: before each item is
    known by heart. `but`: ids of those left out."""
    fast = [weight for module in network.modules() if isinstance(module, BucketBias | Habits) for weight in module.parameters()]
    apart = {id(weight) for weight in fast} | but
    rest = [weight for weight in network.parameters() if id(weight) not in apart]
    return [
        {"params": [weight for weight in rest if weight.ndim > 1], "lr": learning_rate, "weight_decay": weight_decay},
        {"params": [weight for weight in rest if weight.ndim <= 1], "lr": learning_rate, "weight_decay": 0.0},
        {"params": fast, "lr": _FASTER * learning_rate, "weight_decay": 0.0},
    ]


def share_of_peak(step: float, total: int) -> float:
    """Learning rate at a step as a share of its peak: a short warm-up, then a cosine down to 0."""
    warm = max(1, round(_WARM_UP * total))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warm) / max(1, total - warm))))
