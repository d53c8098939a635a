"""The network of the interest model: events to states, states and a query to a vector and a pull towards the own past.

The sum over the own past events of an item is a pointer (Merity et al.: "Pointer Sentinel Mixture
Models", ICLR 2017) whose weights are habits (see `models.habits`).

Shape suffixes: B rows (users), L events of history (oldest first, padding in front), T moments asked
about per row, D width, V items of the catalogue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conf.learning import Model
from models.buckets import DISTANCE_BUCKETS, TIME_BUCKETS, UNKNOWN_DISTANCE, UNKNOWN_TIME, distance_bucket, time_bucket
from models.events import Events, Moments, gap_before, is_first, last_known
from models.habits import Habits
from models.knowledge import Knowledge, Known, Profile
from models.queries import FIRST, PADDING, UNKNOWN
from models.sequence import sequence_encoder, take
from models.terms import PlaceTerms, TimeTerms

# Keeps exp() of a pull finite in fp32 whatever is learned.
_LARGEST_PULL = 20.0
# Share of items that do without their own embedding at a step, where more is known of them.
_NAMELESS = 0.1


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the network says: scores = vector . item_matrix + item bias, plus `pull` at the items of the past.

    `pull_BTL` is zero but at the first place of each item in the row; `item_BL` names the item there, and
    `base_BTL` is its score without the pull. L is 0 where items do not repeat: nothing is pulled then.
    What the vector is made of: `short_BTD`, the state at the end of the history, and `long_BTD`, a reading of the whole past,
    weighed by the query; None where the log has nothing that asks.
    """

    vector_BTD: Tensor
    pull_BTL: Tensor
    base_BTL: Tensor
    item_BL: Tensor
    short_BTD: Tensor
    long_BTD: Tensor | None = None


class Network(nn.Module):
    """Sizes follow from the settings and the vocabulary: `items`, `categories`, `event_types` count names."""

    category_of_item_V: Tensor

    def __init__(
        self, settings: Model, *, items: int, categories: int, event_types: int, knowledge: Knowledge | None = None
    ) -> None:
        super().__init__()
        width = settings.width
        self.settings = settings
        self.item = nn.Embedding(FIRST + items, width)
        self.category = nn.Embedding(FIRST + categories, width)
        self.event_type = nn.Embedding(FIRST + event_types, width)
        self.item_bias = nn.Parameter(torch.zeros(items))
        self.register_buffer("category_of_item_V", torch.zeros(items, dtype=torch.long))
        if settings.times:
            self.hour, self.query_hour = TimeTerms(width), TimeTerms(width)
            self.gap, self.query_gap = nn.Embedding(TIME_BUCKETS + 1, width), nn.Embedding(TIME_BUCKETS + 1, width)
        if settings.places:
            self.query_place = PlaceTerms(width)
            self.distance = nn.Embedding(DISTANCE_BUCKETS + 1, width)
        self.event_norm = nn.LayerNorm(width)
        self.encoder = sequence_encoder(settings)
        self.state_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(settings.dropout)

        is_told = knowledge is not None and bool(knowledge.vectors)
        self.known = Known(knowledge, width) if knowledge is not None and is_told else None
        self.profile = Profile(width) if is_told else None
        self._drawn: int | None = None

        self.nothing = nn.Parameter(torch.zeros(width))
        # Without anything that asks, and without habits, the state says all: a plain sequence model.
        self.asks = settings.times or settings.places or settings.repeats
        if self.asks:
            self._make_past(settings)
        self._initialise()

    def _make_past(self, settings: Model) -> None:
        """What weighs the past by the query and by habits."""
        width = settings.width
        asked = width if settings.times or settings.places else 0
        self.past_query = nn.Linear(width + asked, width)
        self.past_key = nn.Linear(2 * width, width)
        self.past_value = nn.Linear(width, width)
        self.habits = Habits(settings)
        if settings.repeats:
            self.past_strength = nn.Parameter(torch.ones(()))
            self.past_instead = nn.Parameter(torch.ones(()))
        joined = 2 * width + asked
        # Each number of both readings is weighed, or each reading as a whole, or nothing is.
        weights = {"gate": width, "attention": 1, "concatenation": 0}[settings.fusion]
        self.gate = nn.Linear(joined, weights) if weights else None
        self.vector = nn.Sequential(nn.LayerNorm(joined), nn.Linear(joined, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def item_matrix(self) -> Tensor:
        """(V, D): what an item is worth to a vector: its own embedding, that of its category, what else is known of it."""
        item_VD = self.item.weight[FIRST:]
        if self.known is None:
            return item_VD + self.category(self.category_of_item_V)
        nameless_V = self._nameless(torch.arange(len(item_VD), device=item_VD.device))
        item_VD = torch.where(nameless_V.unsqueeze(1), self.item.weight[UNKNOWN], item_VD)
        return item_VD + self.category(self.category_of_item_V) + self.known()

    def items(self, place: Tensor) -> Tensor:
        """Rows of the item matrix, without making it."""
        return self._item(place + FIRST) + self.category(self.category_of_item_V[place])

    def _item(self, index: Tensor) -> Tensor:
        """An item's own embedding and what is known of it."""
        if self.known is None:
            return self.item(index)
        # Indices, and no rows, are exchanged: gradients of the table may be sparse.
        named = torch.where((index >= FIRST) & self._nameless(index - FIRST), UNKNOWN, index)
        return self.item(named) + self.known(index - FIRST)

    def _nameless(self, place: Tensor) -> Tensor:
        """Which places of the catalogue do without their own embedding at this step, as those do that nobody has taken yet.

        So what is known of an item learns to stand for it (Volkovs, Yu, Poutanen: "DropoutNet", NeurIPS 2017). By a number
        that is drawn once a step, and a hash (MurmurHash3's last steps): an item is nameless wherever it is read, or nowhere.
        """
        if not self.training or self._drawn is None:
            return torch.zeros_like(place, dtype=torch.bool)
        mixed = (place * 0x9E3779B1 + self._drawn) & 0xFFFFFFFF
        mixed = ((mixed ^ (mixed >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
        mixed = ((mixed ^ (mixed >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
        return (mixed ^ (mixed >> 16)) < _NAMELESS * 2**32

    def states(self, events: Events) -> tuple[Tensor, Tensor]:
        """Each event as read alone and as read after those before it, both (B, L, D)."""
        x_BLD = self._item(events.item_BL) + self.category(events.category_BL) + self.event_type(events.event_type_BL)
        if self.settings.times:
            gap_BL = torch.where(is_first(events), UNKNOWN_TIME, time_bucket(gap_before(events)))
            x_BLD = x_BLD + self.hour(events.hour_of_week_BL) + self.gap(gap_BL)
        if self.settings.places:
            lat_BL, lon_BL = last_known(events.latitude_BL, events.longitude_BL)
            distance_BL = distance_bucket(events.latitude_BL, events.longitude_BL, lat_BL.roll(1, 1), lon_BL.roll(1, 1))
            distance_BL[:, 0] = UNKNOWN_DISTANCE
            x_BLD = x_BLD + self.distance(distance_BL)
        x_BLD = self.dropout(self.event_norm(x_BLD))
        return x_BLD, self.state_norm(self.encoder(x_BLD, events))

    def forward(self, events: Events, moments: Moments) -> Reading:
        if self.training and self.known is not None:
            self._drawn = int(torch.randint(2**32, ()))
        event_BLD, state_BLD = self.states(events)
        some_BT = moments.last_BT >= 0
        last_BT = moments.last_BT.clamp(min=0)
        state_BTD = torch.where(some_BT.unsqueeze(-1), take(state_BLD, last_BT), self.nothing)
        if self.known is not None and self.profile is not None:
            known_BLD = self.known(events.item_BL - FIRST) + self.category(events.category_BL)
            state_BTD = state_BTD + self.profile(state_BTD, known_BLD, _hidden(events, moments))
        if not self.asks:
            return _unpulled(state_BTD, state_BTD)
        vector_BTD, weight_BTL, long_BTD = self._asked(events, _later(events, moments), event_BLD, state_BLD, state_BTD)
        if not self.settings.repeats:
            return _unpulled(vector_BTD, state_BTD, long_BTD)
        item_BL = torch.where(events.item_BL >= FIRST, events.item_BL, PADDING)
        base_BTL = self._base(vector_BTD, item_BL)
        pull_BTL = self._pull(base_BTL, weight_BTL, item_BL)
        return Reading(
            vector_BTD=vector_BTD, pull_BTL=pull_BTL, base_BTL=base_BTL, item_BL=item_BL, short_BTD=state_BTD, long_BTD=long_BTD
        )

    def _asked(
        self, events: Events, moments: Moments, event_BLD: Tensor, state_BLD: Tensor, state_BTD: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The state and a reading of the whole past, fused by weights that see the query (`model.fusion`), (B, T, D); logs of
        the weights of the past events, (B, T, L); that reading, (B, T, D)."""
        some_BT = moments.last_BT >= 0
        query_BTD = self._query(events, moments)
        # The state in which an event happened is that before it.
        before_BLD = torch.where(is_first(events).unsqueeze(-1), self.nothing, state_BLD.roll(1, 1))
        past_query_BTD = self.past_query(torch.cat([state_BTD, *query_BTD], dim=-1))
        past_key_BLD = self.past_key(torch.cat([event_BLD, before_BLD], dim=-1))
        alike_BTL = past_query_BTD @ past_key_BLD.transpose(1, 2) / math.sqrt(state_BLD.shape[-1])
        habit_BTL = self.habits(events, moments, _hidden(events, moments), event_BLD, *query_BTD).clamp(max=_LARGEST_PULL)
        # What is alike is read, and pulls nothing: it knows the own past by heart before habits are learnt.
        read_BTL = alike_BTL + habit_BTL

        # softmax over no events is undefined: a row of nothing reads zeros.
        weight_BTL = read_BTL.masked_fill(~some_BT.unsqueeze(-1), 0.0).softmax(-1).masked_fill(~some_BT.unsqueeze(-1), 0.0)
        long_BTD = weight_BTL @ self.past_value(event_BLD)
        joined = torch.cat([state_BTD, long_BTD, *query_BTD], dim=-1)
        if self.gate is not None:
            gate_BTD = self.gate(joined).sigmoid()
            joined = torch.cat([gate_BTD * state_BTD, (1 - gate_BTD) * long_BTD, *query_BTD], dim=-1)
        return self.vector(joined), habit_BTL, long_BTD

    def _base(self, vector_BTD: Tensor, item_BL: Tensor) -> Tensor:
        """The scores of the row's own items by taste alone, (B, T, L); of padding, something."""
        place_BL = (item_BL - FIRST).clamp(min=0)
        return vector_BTD @ self.items(place_BL).transpose(1, 2) + self.item_bias[place_BL].unsqueeze(1)

    def _pull(self, base_BTL: Tensor, weight_BTL: Tensor, item_BL: Tensor) -> Tensor:
        """What the past adds to each of its items, at the item's first place in the row, (B, T, L).

        With s the log of an item's summed weights, and b its score without the past, b becomes
        log(exp(b) + exp(s)): an item is taken by taste or by habit, a mixture of two softmaxes.
        `past_instead` below 1 lets taste count within habit as well.
        """
        summed_BTL = weight_BTL.exp() @ first_places(item_BL).to(weight_BTL.dtype)
        some_BTL = summed_BTL > 0
        log_BTL = torch.where(some_BTL, summed_BTL, 1.0).log()
        pull_BTL = self.past_strength * F.softplus(log_BTL - self.past_instead * base_BTL)
        return torch.where(some_BTL, pull_BTL, 0.0)

    def _query(self, events: Events, moments: Moments) -> list[Tensor]:
        """What is known of the moments but who asks, (B, T, D); nothing where the log has neither times nor places."""
        known = []
        if self.settings.times:
            last_time_BT = events.timestamp_BL.gather(1, moments.last_BT.clamp(min=0))
            gap_BT = time_bucket(moments.timestamp_BT - last_time_BT)
            gap_BT = torch.where((moments.last_BT >= 0) & (moments.hour_of_week_BT >= 0), gap_BT, UNKNOWN_TIME)
            known += [self.query_hour(moments.hour_of_week_BT), self.query_gap(gap_BT)]
        if self.settings.places:
            known.append(self.query_place(moments.latitude_BT, moments.longitude_BT))
        return [reduce(torch.add, known)] if known else []


def _later(events: Events, moments: Moments) -> Moments:
    """Moments at the time of the user's last event have no time: whoever asks with it does not know when it will be."""
    last_time_BT = events.timestamp_BL.gather(1, moments.last_BT.clamp(min=0))
    is_known_BT = (moments.last_BT < 0) | (moments.timestamp_BT > last_time_BT)
    return replace(moments, hour_of_week_BT=torch.where(is_known_BT, moments.hour_of_week_BT, -1.0))


def _unpulled(vector_BTD: Tensor, short_BTD: Tensor, long_BTD: Tensor | None = None) -> Reading:
    none_BTL = vector_BTD[:, :, :0]
    none_BL = torch.zeros(len(vector_BTD), 0, dtype=torch.long, device=vector_BTD.device)
    return Reading(
        vector_BTD=vector_BTD, pull_BTL=none_BTL, base_BTL=none_BTL, item_BL=none_BL, short_BTD=short_BTD, long_BTD=long_BTD
    )


def _hidden(events: Events, moments: Moments) -> Tensor:
    """(B, T, L): is it no event before the moment?"""
    place_L = torch.arange(events.item_BL.shape[1], device=events.item_BL.device)
    return (place_L > moments.last_BT.unsqueeze(-1)) | (events.item_BL == PADDING).unsqueeze(1)


def first_places(item_BL: Tensor) -> Tensor:
    """(B, L, L) true at [b, l, f] where f is the first place of l's item in row b; padding has none."""
    same_BLL = (item_BL.unsqueeze(2) == item_BL.unsqueeze(1)) & (item_BL != PADDING).unsqueeze(1)
    place_L = torch.arange(item_BL.shape[1], device=item_BL.device)
    first_BL = same_BLL.int().argmax(dim=2)
    return (first_BL.unsqueeze(2) == place_L) & (item_BL != PADDING).unsqueeze(2)
