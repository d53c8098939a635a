"""Learned numbers for buckets of time gaps, distances and hours.

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
CLOCK_STEPS = 25  # half hours of distance on the clock, 0..12 h
UNKNOWN_CLOCK = 3 * CLOCK_STEPS
PACE_BUCKETS = 25  # half octaves of a ratio of gaps: 1/64 to 64
UNKNOWN_PACE = PACE_BUCKETS
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


def distance_bucket(latitude: Tensor, longitude: Tensor, to_latitude: Tensor, to_longitude: Tensor) -> Tensor:
    """Octave of the distance between places in degrees; UNKNOWN_DISTANCE where one is NaN.

    Equirectangular: within 1% up to 500 km, and an octave is all that is asked. The cosine is taken of
    the second place, so give the smaller tensor there.
    """
    north = to_latitude - latitude
    turn = (to_longitude - longitude).abs()
    east = torch.minimum(turn, 360.0 - turn) * torch.cos(torch.deg2rad(to_latitude))
    metres = (north.square() + east.square()).sqrt() * _METRES_PER_DEGREE
    known = torch.isfinite(metres)
    bucket = torch.log2(1.0 + torch.where(known, metres, 0.0) / _FIRST_OCTAVE_M).long().clamp(max=DISTANCE_BUCKETS - 1)
    return torch.where(known, bucket, UNKNOWN_DISTANCE)


def clock_bucket(hour: Tensor, other: Tensor) -> Tensor:
    """Half hours between two hours of the week on the 24-hour clock, x (same day, same sort of day, else).

    UNKNOWN_CLOCK where one is negative. Saturday and Sunday are one sort of day, the others another.
    """
    apart = (hour - other).abs() % 24.0
    steps = (2.0 * torch.minimum(apart, 24.0 - apart)).long().clamp(0, CLOCK_STEPS - 1)
    day, other_day = (hour / 24.0).floor(), (other / 24.0).floor()
    kind = torch.where(day == other_day, 0, torch.where((day >= 5) == (other_day >= 5), 1, 2))
    return torch.where((hour >= 0) & (other >= 0), kind * CLOCK_STEPS + steps, UNKNOWN_CLOCK)


def pace_bucket(seconds: Tensor, others: Tensor) -> Tensor:
    """How much longer one time gap is than another, in half octaves up to 64 times either way, int64 in 0..PACE_BUCKETS - 1.

    A minute is added to both: logs tell times to the minute.
    """
    longer = 2.0 * (torch.log2(seconds.float() + 60.0) - torch.log2(others.float() + 60.0))
    half = PACE_BUCKETS // 2
    return longer.round().long().clamp(-half, half) + half


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
    """A learned number per bucket and head; `first_N` are those to begin with, zeros if left out."""

    def __init__(self, buckets: int, heads: int, first_N: Tensor | None = None) -> None:
        super().__init__()
        first = torch.zeros(buckets) if first_N is None else first_N
        self.weight = nn.Parameter(first.unsqueeze(1).repeat(1, heads))

    def forward(self, bucket: Tensor) -> Tensor:
        return _Lookup.apply(self.weight, bucket)


def first_gap_bias() -> Tensor:
    """What an own event counts for by its age: it fades over weeks, and never wholly."""
    days = 2.0 ** torch.arange(TIME_BUCKETS, dtype=torch.float) / 86_400
    return (torch.exp(-days / 20) + 0.1).log()


def first_clock_bias() -> Tensor:
    """What an own event counts for by the hour it had: most within two hours, more on the same sort of day."""
    hours = torch.arange(CLOCK_STEPS) / 2
    near = (torch.exp(-hours.square() / 4.5) + 0.05).log()
    return torch.cat([near + math.log(2), near + math.log(2), near, torch.zeros(1)])
