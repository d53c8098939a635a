"""Histories and moments as tensors. Shape suffixes: B rows (users), L events of history, T moments asked about per row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


class _Tensors:
    """A dataclass of tensors."""

    def to(self, device: torch.device) -> Self:
        return type(self)(**{name: tensor.to(device) for name, tensor in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Events(_Tensors):
    """Histories as tensors: indices int64, seconds int64, the rest float32; as in `models.queries.Histories`."""

    item_BL: Tensor
    category_BL: Tensor
    event_type_BL: Tensor
    timestamp_BL: Tensor
    hour_of_week_BL: Tensor
    latitude_BL: Tensor
    longitude_BL: Tensor


@dataclass(frozen=True, kw_only=True)
class Moments(_Tensors):
    """Moments asked about. `last_BT` is the place in the row of the newest event before, -1 = none.

    `hour_of_week_BT` < 0 hides the time, NaN coordinates the place.
    """

    timestamp_BT: Tensor
    hour_of_week_BT: Tensor
    latitude_BT: Tensor
    longitude_BT: Tensor
    last_BT: Tensor
