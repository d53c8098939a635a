"""Histories and moments as tensors. Shape suffixes: B rows (users), L events of history, T moments asked about per row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from models.queries import PADDING


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


def before(values_BL: Tensor, nothing: float) -> Tensor:
    """Of each place in a row what the one before it has; of the first place `nothing`."""
    return F.pad(values_BL, (1, 0), value=nothing)[:, :-1]


def gap_before(events: Events) -> Tensor:
    """Seconds from the place before in the row, (B, L); of the first place 0, of the first event that since padding."""
    return events.timestamp_BL.diff(dim=1, prepend=events.timestamp_BL[:, :1])


def is_first(events: Events) -> Tensor:
    """(B, L): is nothing but padding before it?"""
    return before(events.item_BL, PADDING) == PADDING


def last_known(latitude_BL: Tensor, longitude_BL: Tensor) -> tuple[Tensor, Tensor]:
    """The newest known place up to and with each event; NaN before the first."""
    known_BL = torch.isfinite(latitude_BL) & torch.isfinite(longitude_BL)
    place_L = torch.arange(latitude_BL.shape[1], device=latitude_BL.device)
    newest_BL = torch.where(known_BL, place_L, -1).cummax(dim=1).values
    taken_BL = newest_BL.clamp(min=0)
    nowhere_BL = newest_BL < 0
    return (
        latitude_BL.gather(1, taken_BL).masked_fill(nowhere_BL, torch.nan),
        longitude_BL.gather(1, taken_BL).masked_fill(nowhere_BL, torch.nan),
    )
