"""The network of the interest model: events to states, states and a query to a vector and a pull towards the own past.

Self-attention with learned biases for the time gap and the distance of any two events follows STAN
(Luo, Liu, Liu: "STAN: Spatio-Temporal Attention Network for Next Location Recommendation", WWW 2021);
the sum over the own past events of an item is a pointer (Merity et al.: "Pointer Sentinel Mixture
Models", ICLR 2017) whose weights are personal kernels over time gap, clock and distance.

Shape suffixes: B rows (users), L events of history (oldest first, padding in front), T moments asked
about per row, D width, H heads, V items of the catalogue, F Fourier terms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conf.settings import Model
from models.queries import FIRST, PADDING

TIME_BUCKETS = 30  # octaves of seconds: up to 17 years
UNKNOWN_TIME = TIME_BUCKETS
DISTANCE_BUCKETS = 20  # octaves of 50 m: up to the other side of the earth
UNKNOWN_DISTANCE = DISTANCE_BUCKETS
CLOCK_STEPS = 25  # half hours of distance on the clock, 0..12 h
UNKNOWN_CLOCK = 3 * CLOCK_STEPS
_FIRST_OCTAVE_M = 50.0
_EARTH_KM = 6371.0
_METRES_PER_DEGREE = math.radians(1000.0 * _EARTH_KM)
_HARMONICS = 4
_PLACE_TERMS = 32
_WAVELENGTHS_KM = (0.5, 200.0)
# Keeps exp() of a pull finite in fp32 whatever is learned.
_LARGEST_PULL = 20.0


@dataclass(frozen=True, kw_only=True)
class Events:
    """Histories as tensors: indices int64, seconds int64, the rest float32; as in `models.queries.Histories`."""

    item_BL: Tensor
    category_BL: Tensor
    event_type_BL: Tensor
    timestamp_BL: Tensor
    hour_of_week_BL: Tensor
    latitude_BL: Tensor
    longitude_BL: Tensor

    def to(self, device: torch.device) -> Events:
        return Events(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Moments asked about. `last_BT` is the place in the row of the newest event before, -1 = none.

    `hour_of_week_BT` < 0 hides the time, NaN coordinates the place.
    """

    timestamp_BT: Tensor
    hour_of_week_BT: Tensor
    latitude_BT: Tensor
    longitude_BT: Tensor
    last_BT: Tensor

    def to(self, device: torch.device) -> Moments:
        return Moments(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the network says: scores = vector . item_matrix + item bias, plus `pull` at the items of the past.

    `pull_BTL` is zero but at the first place of each item in the row; `item_BL` names the item there.
    """

    vector_BTD: Tensor
    pull_BTL: Tensor
    item_BL: Tensor


def time_bucket(seconds: Tensor) -> Tensor:
    """Octave of a time gap in seconds, int64 in 0..TIME_BUCKETS - 1."""
    return torch.log2(1.0 + seconds.abs().float()).long().clamp(max=TIME_BUCKETS - 1)


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


class TimeTerms(nn.Module):
    """Fourier terms of the day and of the week, or a learned vector where the time is unknown."""

    turns_F: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        waves = [k / 24.0 for k in range(1, _HARMONICS + 1)] + [k / 168.0 for k in range(1, _HARMONICS + 1)]
        self.register_buffer("turns_F", 2 * math.pi * torch.tensor(waves), persistent=False)
        self.project = nn.Linear(2 * len(waves), width)
        self.unknown = nn.Parameter(torch.zeros(width))

    def forward(self, hour: Tensor) -> Tensor:
        angle = hour.unsqueeze(-1) * self.turns_F
        terms = self.project(torch.cat([angle.sin(), angle.cos()], dim=-1))
        return torch.where((hour >= 0).unsqueeze(-1), terms, self.unknown)


class PlaceTerms(nn.Module):
    """Random Fourier features of a position at wavelengths from a block to a region, or a learned "unknown"."""

    waves_2F: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        low, high = (math.log(length) for length in _WAVELENGTHS_KM)
        length = torch.exp(low + (high - low) * torch.rand(_PLACE_TERMS, generator=generator))
        turn = 2 * math.pi * torch.rand(_PLACE_TERMS, generator=generator)
        waves = 2 * math.pi / length * torch.stack([turn.cos(), turn.sin()])
        # In fp64: thousands of kilometres are 1e5 radians of the shortest wave.
        self.register_buffer("waves_2F", waves.double(), persistent=False)
        self.project = nn.Linear(2 * _PLACE_TERMS, width)
        self.unknown = nn.Parameter(torch.zeros(width))

    def forward(self, latitude: Tensor, longitude: Tensor) -> Tensor:
        known = torch.isfinite(latitude) & torch.isfinite(longitude)
        lat = torch.deg2rad(torch.where(known, latitude, 0.0).double())
        lon = torch.deg2rad(torch.where(known, longitude, 0.0).double())
        kilometres = _EARTH_KM * torch.stack([lat, lon * lat.cos()], dim=-1)
        angle = (kilometres @ self.waves_2F).remainder(2 * math.pi).float()
        terms = self.project(torch.cat([angle.sin(), angle.cos()], dim=-1))
        return torch.where(known.unsqueeze(-1), terms, self.unknown)


class Block(nn.Module):
    """One pre-norm transformer layer whose attention is given a bias for each pair of events."""

    def __init__(self, settings: Model) -> None:
        super().__init__()
        width = settings.width
        self.heads = settings.heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.gap_bias = BucketBias(TIME_BUCKETS + 1, settings.heads)
        self.distance_bias = BucketBias(DISTANCE_BUCKETS + 1, settings.heads)
        self.feed = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
        )
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x_BLD: Tensor, hidden_BLL: Tensor, gap_BLL: Tensor, distance_BLL: Tensor) -> Tensor:
        rows, length, width = x_BLD.shape
        qkv = self.qkv(self.norm(x_BLD)).view(rows, length, 3, self.heads, width // self.heads)
        q_BHLD, k_BHLD, v_BHLD = qkv.permute(2, 0, 3, 1, 4)
        bias_BHLL = (self.gap_bias(gap_BLL) + self.distance_bias(distance_BLL)).permute(0, 3, 1, 2)
        logits_BHLL = q_BHLD @ k_BHLD.transpose(-1, -2) / math.sqrt(width // self.heads) + bias_BHLL
        weight_BHLL = logits_BHLL.masked_fill(hidden_BLL.unsqueeze(1), -torch.inf).softmax(-1)
        read_BLD = (weight_BHLL @ v_BHLD).transpose(1, 2).reshape(rows, length, width)
        x_BLD = x_BLD + self.dropout(self.out(read_BLD))
        return x_BLD + self.dropout(self.feed(x_BLD))


class Network(nn.Module):
    """Sizes follow from the settings and the vocabulary: `items`, `categories`, `event_types` count names."""

    category_of_item_V: Tensor

    def __init__(self, settings: Model, *, items: int, categories: int, event_types: int) -> None:
        super().__init__()
        width = settings.width
        if width % settings.heads:
            raise ValueError(f"model.width: {width} is not a multiple of model.heads ({settings.heads}); change one of them")
        self.settings = settings
        self.item = nn.Embedding(FIRST + items, width)
        self.category = nn.Embedding(FIRST + categories, width)
        self.event_type = nn.Embedding(FIRST + event_types, width)
        self.item_bias = nn.Parameter(torch.zeros(items))
        self.register_buffer("category_of_item_V", torch.zeros(items, dtype=torch.long))
        self.hour = TimeTerms(width)
        self.place = PlaceTerms(width)
        self.gap = nn.Embedding(TIME_BUCKETS + 1, width)
        self.distance = nn.Embedding(DISTANCE_BUCKETS + 1, width)
        self.event_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.layers))
        self.state_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(settings.dropout)

        self.nothing = nn.Parameter(torch.zeros(width))
        self.query_hour = TimeTerms(width)
        self.query_place = PlaceTerms(width)
        self.query_gap = nn.Embedding(TIME_BUCKETS + 1, width)
        self.past_query = nn.Linear(2 * width, width)
        self.past_key = nn.Linear(2 * width, width)
        self.past_value = nn.Linear(width, width)
        self.past_gap = BucketBias(TIME_BUCKETS, 1, first_gap_bias())
        self.past_clock = BucketBias(UNKNOWN_CLOCK + 1, 1, first_clock_bias())
        self.past_distance = BucketBias(DISTANCE_BUCKETS + 1, 1)
        self.past_order = BucketBias(6, 1)
        self.past_strength = nn.Parameter(torch.ones(()))
        self.past_instead = nn.Parameter(torch.ones(()))
        self.gate = nn.Linear(3 * width, width)
        self.vector = nn.Sequential(
            nn.LayerNorm(3 * width), nn.Linear(3 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def item_matrix(self) -> Tensor:
        """(V, D): what an item is worth to a vector: its own embedding and that of its category."""
        return self.item.weight[FIRST:] + self.category(self.category_of_item_V)

    def states(self, events: Events) -> tuple[Tensor, Tensor]:
        """Each event as read alone and as read after those before it, both (B, L, D)."""
        gap_BL = time_bucket(events.timestamp_BL.diff(dim=1, prepend=events.timestamp_BL[:, :1]))
        absent_BL = events.item_BL == PADDING
        is_first_BL = F.pad(events.item_BL, (1, 0))[:, :-1] == PADDING
        gap_BL = torch.where(is_first_BL, UNKNOWN_TIME, gap_BL)
        lat_BL, lon_BL = last_known(events.latitude_BL, events.longitude_BL)
        distance_BL = distance_bucket(events.latitude_BL, events.longitude_BL, lat_BL.roll(1, 1), lon_BL.roll(1, 1))
        distance_BL[:, 0] = UNKNOWN_DISTANCE
        x_BLD = (
            self.item(events.item_BL)
            + self.category(events.category_BL)
            + self.event_type(events.event_type_BL)
            + self.hour(events.hour_of_week_BL)
            + self.place(events.latitude_BL, events.longitude_BL)
            + self.gap(gap_BL)
            + self.distance(distance_BL)
        )
        x_BLD = self.dropout(self.event_norm(x_BLD))
        length = events.item_BL.shape[1]
        later_LL = torch.ones(length, length, dtype=torch.bool, device=x_BLD.device).triu(1)
        itself_LL = torch.eye(length, dtype=torch.bool, device=x_BLD.device)
        hidden_BLL = later_LL | (absent_BL[:, None, :] & ~itself_LL)
        pair_gap_BLL = time_bucket(events.timestamp_BL[:, :, None] - events.timestamp_BL[:, None, :])
        pair_distance_BLL = distance_bucket(
            events.latitude_BL[:, :, None], events.longitude_BL[:, :, None],
            events.latitude_BL[:, None, :], events.longitude_BL[:, None, :],
        )  # fmt: skip
        h_BLD = x_BLD
        for block in self.blocks:
            h_BLD = block(h_BLD, hidden_BLL, pair_gap_BLL, pair_distance_BLL)
        return x_BLD, self.state_norm(h_BLD)

    def forward(self, events: Events, moments: Moments) -> Reading:
        event_BLD, state_BLD = self.states(events)
        some_BT = moments.last_BT >= 0
        last_BT = moments.last_BT.clamp(min=0)
        state_BTD = torch.where(some_BT.unsqueeze(-1), take(state_BLD, last_BT), self.nothing)
        query_BTD = self._query(events, moments)

        # The state in which an event happened is that before it.
        is_first_BL = F.pad(events.item_BL, (1, 0))[:, :-1] == PADDING
        before_BLD = torch.where(is_first_BL.unsqueeze(-1), self.nothing, state_BLD.roll(1, 1))
        past_query_BTD = self.past_query(torch.cat([state_BTD, query_BTD], dim=-1))
        past_key_BLD = self.past_key(torch.cat([event_BLD, before_BLD], dim=-1))
        width = state_BLD.shape[-1]
        pull_BTL = past_query_BTD @ past_key_BLD.transpose(1, 2) / math.sqrt(width) + self._habits(events, moments)
        place_L = torch.arange(events.item_BL.shape[1], device=last_BT.device)
        hidden_BTL = (place_L > moments.last_BT.unsqueeze(-1)) | (events.item_BL == PADDING).unsqueeze(1)
        pull_BTL = pull_BTL.clamp(max=_LARGEST_PULL).masked_fill(hidden_BTL, -torch.inf)

        # softmax over no events is undefined: a row of nothing reads zeros.
        weight_BTL = pull_BTL.masked_fill(~some_BT.unsqueeze(-1), 0.0).softmax(-1).masked_fill(~some_BT.unsqueeze(-1), 0.0)
        long_BTD = weight_BTL @ self.past_value(event_BLD)
        gate_BTD = self.gate(torch.cat([state_BTD, long_BTD, query_BTD], dim=-1)).sigmoid()
        joined = torch.cat([gate_BTD * state_BTD, (1 - gate_BTD) * long_BTD, query_BTD], dim=-1)
        vector_BTD = self.vector(joined)

        item_BL = torch.where(events.item_BL >= FIRST, events.item_BL, PADDING)
        return Reading(vector_BTD=vector_BTD, pull_BTL=self._pull(vector_BTD, pull_BTL, item_BL), item_BL=item_BL)

    def _pull(self, vector_BTD: Tensor, weight_BTL: Tensor, item_BL: Tensor) -> Tensor:
        """What the past adds to each of its items, at the item's first place in the row, (B, T, L).

        With s the log of an item's summed weights, and b its score without the past, b becomes
        log(exp(b) + exp(s)): an item is taken by taste or by habit, a mixture of two softmaxes.
        `past_instead` below 1 lets taste count within habit as well.
        """
        own_BLD = self.item(item_BL) + self.category(self.category_of_item_V[(item_BL - FIRST).clamp(min=0)])
        bias_BL = self.item_bias[(item_BL - FIRST).clamp(min=0)]
        base_BTL = vector_BTD @ own_BLD.transpose(1, 2) + bias_BL.unsqueeze(1)
        summed_BTL = weight_BTL.exp() @ first_places(item_BL).to(weight_BTL.dtype)
        some_BTL = summed_BTL > 0
        log_BTL = torch.where(some_BTL, summed_BTL, 1.0).log()
        pull_BTL = self.past_strength * F.softplus(log_BTL - self.past_instead * base_BTL)
        return torch.where(some_BTL, pull_BTL, 0.0)

    def _query(self, events: Events, moments: Moments) -> Tensor:
        last_time_BT = events.timestamp_BL.gather(1, moments.last_BT.clamp(min=0))
        gap_BT = time_bucket(moments.timestamp_BT - last_time_BT)
        gap_BT = torch.where((moments.last_BT >= 0) & (moments.hour_of_week_BT >= 0), gap_BT, UNKNOWN_TIME)
        return (
            self.query_hour(moments.hour_of_week_BT)
            + self.query_place(moments.latitude_BT, moments.longitude_BT)
            + self.query_gap(gap_BT)
        )

    def _habits(self, events: Events, moments: Moments) -> Tensor:
        """How much each past event counts by when and where it was, (B, T, L)."""
        last_BT = moments.last_BT.clamp(min=0)
        # Where the time is hidden the gaps are to the newest event.
        newest_BT = events.timestamp_BL.gather(1, last_BT)
        now_BT = torch.where(moments.hour_of_week_BT >= 0, moments.timestamp_BT, newest_BT)
        gap_BTL = time_bucket(now_BT.unsqueeze(-1) - events.timestamp_BL.unsqueeze(1))
        clock_BTL = clock_bucket(moments.hour_of_week_BT.unsqueeze(-1), events.hour_of_week_BL.unsqueeze(1))
        distance_BTL = distance_bucket(
            moments.latitude_BT.unsqueeze(-1), moments.longitude_BT.unsqueeze(-1),
            events.latitude_BL.unsqueeze(1), events.longitude_BL.unsqueeze(1),
        )  # fmt: skip
        order_BTL = self._order(events, last_BT)
        return (
            self.past_gap(gap_BTL) + self.past_clock(clock_BTL) + self.past_distance(distance_BTL) + self.past_order(order_BTL)
        ).squeeze(-1)

    @staticmethod
    def _order(events: Events, last_BT: Tensor) -> Tensor:
        """What stands before each past event: the newest event's item, its category, neither; x is it that item itself."""
        item_BT = events.item_BL.gather(1, last_BT)
        category_BT = events.category_BL.gather(1, last_BT)
        item_before_BL = F.pad(events.item_BL, (1, 0))[:, :-1]
        category_before_BL = F.pad(events.category_BL, (1, 0))[:, :-1]
        after_item = item_before_BL.unsqueeze(1) == item_BT.unsqueeze(-1)
        after_category = category_before_BL.unsqueeze(1) == category_BT.unsqueeze(-1)
        itself = events.item_BL.unsqueeze(1) == item_BT.unsqueeze(-1)
        return torch.where(after_item, 2, torch.where(after_category, 1, 0)) + 3 * itself


def take(x_BLD: Tensor, place_BT: Tensor) -> Tensor:
    """x at the places, (B, T, D)."""
    return x_BLD.gather(1, place_BT.unsqueeze(-1).expand(-1, -1, x_BLD.shape[-1]))


def first_places(item_BL: Tensor) -> Tensor:
    """(B, L, L) true at [b, l, f] where f is the first place of l's item in row b; padding has none."""
    same_BLL = (item_BL.unsqueeze(2) == item_BL.unsqueeze(1)) & (item_BL != PADDING).unsqueeze(1)
    place_L = torch.arange(item_BL.shape[1], device=item_BL.device)
    first_BL = same_BLL.int().argmax(dim=2)
    return (first_BL.unsqueeze(2) == place_L) & (item_BL != PADDING).unsqueeze(2)


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
