"""Learned numbers for buckets of time gaps, distances and events apart.

Shape suffixes: N buckets, H heads.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

TIME_BUCKETS = 30  # octaves of seconds: up to 17 years
UNKNOWN_TIME = TIME_BUCKETS
DISTANCE_BUCKETS = 20  # octaves of 50 m: up to the other side of the earth
UNKNOWN_DISTANCE = DISTANCE_BUCKETS
ORDER_BUCKETS = 32  # events apart: each number up to 15, then quarters of an octave, up to 240
_FIRST_OCTAVE_M = 50.0
_METRES_PER_DEGREE = math.radians(6_371_000.0)


def time_bucket(seconds: Tensor) -> Tensor:
    """Octave of a time gap in seconds, int64 in 0..TIME_BUCKETS - 1."""
    return torch.log2(1.0 + seconds.abs().float()).long().clamp(max=TIME_BUCKETS - 1)


def order_bucket(apart: Tensor) -> Tensor:
    """Bucket of how many events lie between two, int64 in 0..ORDER_BUCKETS - 1: exact when few, coarser when many.

    Source: the relative positions of Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
    Transformer", JMLR 2020.
    """
    exact = ORDER_BUCKETS // 2
    many = exact + 4.0 * torch.log2(apart.abs().clamp(min=exact).float() / exact)
    return torch.where(apart.abs() < exact, apart.abs(), many.long().clamp(max=ORDER_BUCKETS - 1))


def metres(latitude: Tensor, longitude: Tensor, to_latitude: Tensor, to_longitude: Tensor) -> Tensor:
    """Between places in degrees; NaN where one is.

    Equirectangular: within 1% up to 500 km. The cosine is taken of the second place, so give the smaller tensor there.
    """
    north = to_latitude - latitude
    turn = (to_longitude - longitude).abs()
    east = torch.minimum(turn, 360.0 - turn) * torch.cos(torch.deg2rad(to_latitude))
    return (north.square() + east.square()).sqrt() * _METRES_PER_DEGREE


def distance_bucket(latitude: Tensor, longitude: Tensor, to_latitude: Tensor, to_longitude: Tensor) -> Tensor:
    """Octave of the distance between places in degrees; UNKNOWN_DISTANCE where one is NaN."""
    apart = metres(latitude, longitude, to_latitude, to_longitude)
    known = torch.isfinite(apart)
    bucket = torch.log2(1.0 + torch.where(known, apart, 0.0) / _FIRST_OCTAVE_M).long().clamp(max=DISTANCE_BUCKETS - 1)
    return torch.where(known, bucket, UNKNOWN_DISTANCE)


class _Lookup(torch.autograd.Function):
    """table[bucket] whose gradient is counted: an embedding's takes a hundred times as long on a CPU at these sizes."""

    @staticmethod
    def forward(ctx: Any, table_NH: Tensor, bucket: Tensor) -> Tensor:
        ctx.save_for_backward(bucket)
        ctx.shape = table_NH.shape
        return table_NH[bucket]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (bucket,), (grad,) = ctx.saved_tensors, grads
        flat, rows = bucket.flatten(), ctx.shape[0]
        columns = [torch.bincount(flat, weights=column, minlength=rows) for column in grad.flatten(0, -2).unbind(-1)]
        return torch.stack(columns, dim=1).to(grad.dtype), None


class BucketBias(nn.Module):
    """A learned number per bucket and head, zeros to begin with."""

    def __init__(self, buckets: int, heads: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(buckets, heads))

    def forward(self, bucket: Tensor) -> Tensor:
        return _Lookup.apply(self.weight, bucket)
