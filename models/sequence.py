"""Sequence encoders: each event as read after those before it. One interface: encoder(x_BLD, events) -> state_BLD.

Self-attention with learned biases for the time gap and the distance of any two events follows STAN
(Luo, Liu, Liu: "STAN: Spatio-Temporal Attention Network for Next Location Recommendation", WWW 2021).
Recurrent layers are torch's, pre-norm with a residual each, as the attention's are. An event's state depends on no later
event and on no padding; the states of padding say nothing.

Shape suffixes: B rows (users), L events of history (oldest first, padding in front), D width, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from conf.learning import Model
from models.buckets import DISTANCE_BUCKETS, ORDER_BUCKETS, TIME_BUCKETS, BucketBias, distance_bucket, order_bucket, time_bucket
from models.events import Events
from models.queries import PADDING


def sequence_encoder(settings: Model) -> nn.Module:
    """The encoder that the settings name.

    Raises:
        ValueError: the width is not a multiple of the heads.
    """
    if settings.encoder == "transformer":
        return Attention(settings)
    return Recurrent(settings)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Of any two events of a row: may the first not see the second, and the bucket of what lies between them.

    A bucket has a row or none, and is absent where the log does not say: `order` stands in for the time then.
    """

    hidden_BLL: Tensor
    buckets: Mapping[str, Tensor]


class Block(nn.Module):
    """One pre-norm transformer layer whose attention is given a bias for each pair of events."""

    def __init__(self, settings: Model) -> None:
        super().__init__()
        width = settings.width
        self.heads = settings.heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.biases = nn.ModuleDict({name: BucketBias(size, settings.heads) for name, size in _pair_sizes(settings).items()})
        self.feed = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
        )
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x_BLD: Tensor, pairs: Pairs) -> Tensor:
        rows, length, width = x_BLD.shape
        qkv = self.qkv(self.norm(x_BLD)).view(rows, length, 3, self.heads, width // self.heads)
        q_BHLD, k_BHLD, v_BHLD = qkv.permute(2, 0, 3, 1, 4)
        logits_BHLL = q_BHLD @ k_BHLD.transpose(-1, -2) / math.sqrt(width // self.heads)
        for name, bias in self.biases.items():
            logits_BHLL = logits_BHLL + bias(pairs.buckets[name]).permute(0, 3, 1, 2)
        weight_BHLL = logits_BHLL.masked_fill(pairs.hidden_BLL.unsqueeze(1), -torch.inf).softmax(-1)
        read_BLD = (weight_BHLL @ v_BHLD).transpose(1, 2).reshape(rows, length, width)
        x_BLD = x_BLD + self.dropout(self.out(read_BLD))
        return x_BLD + self.dropout(self.feed(x_BLD))


class Attention(nn.Module):
    """Transformer layers over a row's events; none sees a later one."""

    def __init__(self, settings: Model) -> None:
        super().__init__()
        if settings.width % settings.heads:
            raise ValueError(
                f"model.width: {settings.width} is not a multiple of model.heads ({settings.heads}); change one of them"
            )
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.layers))
        self.wanted = tuple(_pair_sizes(settings))

    def forward(self, x_BLD: Tensor, events: Events) -> Tensor:
        length = x_BLD.shape[1]
        absent_BL = events.item_BL == PADDING
        later_LL = torch.ones(length, length, dtype=torch.bool, device=x_BLD.device).triu(1)
        itself_LL = torch.eye(length, dtype=torch.bool, device=x_BLD.device)
        pairs = Pairs(
            hidden_BLL=later_LL | (absent_BL[:, None, :] & ~itself_LL),
            buckets={name: _BUCKETS[name](events) for name in self.wanted},
        )
        for block in self.blocks:
            x_BLD = block(x_BLD, pairs)
        return x_BLD


def _pair_sizes(settings: Model) -> dict[str, int]:
    """What attention knows of two events, and how many buckets that has."""
    sizes = {"gap": TIME_BUCKETS + 1} if settings.times else {"order": ORDER_BUCKETS}
    return sizes | ({"distance": DISTANCE_BUCKETS + 1} if settings.places else {})


def _gaps(events: Events) -> Tensor:
    return time_bucket(events.timestamp_BL[:, :, None] - events.timestamp_BL[:, None, :])


def _distances(events: Events) -> Tensor:
    return distance_bucket(
        events.latitude_BL[:, :, None], events.longitude_BL[:, :, None],
        events.latitude_BL[:, None, :], events.longitude_BL[:, None, :],
    )  # fmt: skip


def _orders(events: Events) -> Tensor:
    place_L = torch.arange(events.item_BL.shape[1], device=events.item_BL.device)
    return order_bucket(place_L[:, None] - place_L).unsqueeze(0)


_BUCKETS: Mapping[str, Callable[[Events], Tensor]] = {"gap": _gaps, "distance": _distances, "order": _orders}


class Recurrent(nn.Module):
    """RNN, LSTM or GRU layers over a row's events."""

    def __init__(self, settings: Model) -> None:
        super().__init__()
        cell = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[settings.encoder]
        width = settings.width
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(settings.layers))
        self.cells = nn.ModuleList(cell(width, width, batch_first=True) for _ in range(settings.layers))
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x_BLD: Tensor, events: Events) -> Tensor:
        # A recurrence would carry padding into the first event: rows begin with their events, and end in it.
        length = x_BLD.shape[1]
        place_L = torch.arange(length, device=x_BLD.device)
        before_B1 = (events.item_BL == PADDING).sum(dim=1, keepdim=True)
        x_BLD = take(x_BLD, (place_L + before_B1).clamp(max=length - 1))
        for norm, cell in zip(self.norms, self.cells, strict=True):
            x_BLD = x_BLD + self.dropout(cell(norm(x_BLD))[0])
        return take(x_BLD, (place_L - before_B1).clamp(min=0))


def take(x_BLD: Tensor, place_BT: Tensor) -> Tensor:
    """x at the places, (B, T, D)."""
    return x_BLD.gather(1, place_BT.unsqueeze(-1).expand(-1, -1, x_BLD.shape[-1]))
