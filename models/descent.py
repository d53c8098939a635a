"""How weights are moved: groups of parameters for the optimizer, and the learning rate from step to step."""

from __future__ import annotations

import math
from typing import Any

from models.buckets import BucketBias
from models.network import Network

_WARM_UP = 0.05
_BUCKETS_FASTER = 5.0


def groups(network: Network, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Biases are not decayed; those of buckets are sums over many events and may move faster."""
    buckets = [module.weight for module in network.modules() if isinstance(module, BucketBias)]
    fast = {id(weight) for weight in buckets}
    rest = [weight for weight in network.parameters() if id(weight) not in fast]
    return [
        {"params": [weight for weight in rest if weight.ndim > 1], "lr": learning_rate, "weight_decay": weight_decay},
        {"params": [weight for weight in rest if weight.ndim <= 1], "lr": learning_rate, "weight_decay": 0.0},
        {"params": buckets, "lr": _BUCKETS_FASTER * learning_rate, "weight_decay": 0.0},
    ]


def share_of_peak(step: float, total: int) -> float:
    """Learning rate at a step as a share of its peak: a short warm-up, then a cosine down to 0."""
    warm = max(1, round(_WARM_UP * total))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warm) / max(1, total - warm))))
