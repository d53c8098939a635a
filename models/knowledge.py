"""What is known of items besides their names: vectors of their texts and tags, and those that others computed.

Each kind is projected to the network's width; where an item has no vector, a learned one stands for "not known".
Shape suffixes: V items of the catalogue, K numbers of a vector, D width, B rows (users), L events of history, T moments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """`vectors`: kind to (V, K) float16 of unit length, rows of NaN where it is not known; in the order of a vocabulary."""

    vectors: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def sizes(self) -> dict[str, int]:
        return {kind: values_VK.shape[1] for kind, values_VK in sorted(self.vectors.items())}

    def save(self, path: Path) -> None:
        np.savez_compressed(path, **self.vectors)

    @staticmethod
    def load(path: Path) -> Knowledge:
        with np.load(path, allow_pickle=False) as held:
            return Knowledge(vectors={kind: held[kind] for kind in held.files})


class Known(nn.Module):
    """The knowledge of a catalogue as the network reads it. The vectors themselves are no weights: they are told."""

    def __init__(self, knowledge: Knowledge, width: int) -> None:
        super().__init__()
        self.knowledge = knowledge
        self.read = nn.ModuleDict({kind: nn.Linear(size, width) for kind, size in knowledge.sizes.items()})
        self.unknown = nn.ParameterDict({kind: nn.Parameter(torch.zeros(width)) for kind in knowledge.sizes})
        for kind in knowledge.sizes:
            self.register_buffer(_buffer(kind), torch.from_numpy(knowledge.vectors[kind]), persistent=False)

    def forward(self, place: Tensor | None = None) -> Tensor:
        """Of places in the catalogue, (..., D); below 0 is an item that is not in it. None: of all, (V, D)."""
        return sum((self._of(kind, place) for kind in self.read), torch.zeros(()))

    def _of(self, kind: str, place: Tensor | None) -> Tensor:
        values: Tensor = getattr(self, _buffer(kind))
        if place is not None:
            values = values[place.clamp(min=0)] if len(values) else values.new_full((*place.shape, values.shape[1]), math.nan)
        is_known = ~values[..., :1].isnan()
        if place is not None:
            is_known = is_known & (place >= 0).unsqueeze(-1)
        read = self.read[kind](values.nan_to_num().to(self.unknown[kind].dtype))
        return torch.where(is_known, read, self.unknown[kind].to(read.dtype))


def _buffer(kind: str) -> str:
    return f"given_{kind}"


class Profile(nn.Module):
    """A vector of the user: what is known of the items of the past, each weighed by how it answers the state.

    z = attention(h, c) + b, with h the state and c the knowledge of items.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, state_BTD: Tensor, known_BLD: Tensor, hidden_BTL: Tensor) -> Tensor:
        """(B, T, D). hidden_BTL: what does not lie before a moment."""
        answer_BTL = self.query(state_BTD) @ self.key(known_BLD).transpose(1, 2) / math.sqrt(known_BLD.shape[-1])
        # softmax over no events is undefined: a row of nothing reads zeros.
        none_BT1 = hidden_BTL.all(dim=-1, keepdim=True)
        weight_BTL = answer_BTL.masked_fill(hidden_BTL & ~none_BT1, -torch.inf).softmax(-1).masked_fill(none_BT1, 0.0)
        profile_BTD: Tensor = weight_BTL @ self.value(known_BLD) + self.bias
        return profile_BTD
