"""How much each event of the past counts at a moment: when and where both are, and what came before each.

Kernels learnt jointly: what the hour says may depend on how long ago it was, and on whence the moment is asked. Fitted to
Foursquare's next check-in, measures read one by one and added up (a product of kernels) know less of the user's own venues.

Shape suffixes: B rows (users), L events of history, T moments asked about per row, N pairs of a moment and an event before it,
D width, F measures of a pair, H hidden.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from conf.learning import Model
from models.buckets import metres
from models.events import Events, Moments, before, gap_before, is_first, last_known
from models.queries import PADDING, WEEKEND

TIMES = (
    "age", "fades", "days", "today", "apart", "hour", "part_of_day", "near_hour", "same_day", "same_sort", "pace", "same_pace",
    "paced",
)  # fmt: skip
PLACES = ("away", "here", "placed", "away_before", "from_here", "placed_before")
ORDERS = ("after_item", "after_category", "after_both", "itself", "back")
_BEGINS_AS = {"fades": 1.0, "near_hour": 1.0}
_HIDDEN = 32
_DAY_S, _MINUTE_S = 86_400.0, 60.0
# Widths: hours on the clock; the log of a ratio of gaps; kilometres.
_HOUR, _PART_OF_DAY, _PACE, _NEAR_KM = 1.0, 2.5, 0.7, 0.3


def measures(settings: Model) -> tuple[str, ...]:
    return (*(TIMES if settings.times else ()), *(PLACES if settings.places else ()), *(ORDERS if settings.repeats else ()))


@dataclass(frozen=True, kw_only=True)
class _Pairs:
    """Places in the tensors of moments and events, (N,) each."""

    events: Events
    moments: Moments
    row_N: Tensor
    asked_N: Tensor
    event_N: Tensor

    def of_event(self, values_BL: Tensor) -> Tensor:
        return values_BL[self.row_N, self.event_N]

    def of_moment(self, values_BT: Tensor) -> Tensor:
        return values_BT[self.row_N, self.asked_N]


class Habits(nn.Module):
    """The measures of pairs, read with the event and with what is known of the moment, by a small network.

    forward: logs of weights, (B, T, L); -inf where `hidden_BTL` says that it is no event before the moment.
    """

    def __init__(self, settings: Model) -> None:
        super().__init__()
        self.settings = settings
        names = measures(settings)
        self.alone = nn.Parameter(torch.tensor([_BEGINS_AS.get(name, 0.0) for name in names]))
        self.measured = nn.Linear(len(names), _HIDDEN)
        self.event = nn.Linear(settings.width, _HIDDEN, bias=False)
        self.asked = nn.Linear(settings.width, _HIDDEN, bias=False) if settings.times or settings.places else None
        self.joined = nn.Sequential(nn.ReLU(), nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1, bias=False))

    def forward(
        self, events: Events, moments: Moments, hidden_BTL: Tensor, event_BLD: Tensor, query_BTD: Tensor | None = None
    ) -> Tensor:
        row_N, asked_N, event_N = (~hidden_BTL).nonzero(as_tuple=True)
        with torch.no_grad():
            pairs = _Pairs(events=events, moments=moments, row_N=row_N, asked_N=asked_N, event_N=event_N)
            measures_NF = torch.stack(self._measures(pairs), dim=1)
        length, times = hidden_BTL.shape[2], hidden_BTL.shape[1]
        hidden_NH = self.measured(measures_NF) + self.event(event_BLD).flatten(0, 1).index_select(0, row_N * length + event_N)
        if self.asked is not None and query_BTD is not None:
            hidden_NH = hidden_NH + self.asked(query_BTD).flatten(0, 1).index_select(0, row_N * times + asked_N)
        weight_N = measures_NF @ self.alone + self.joined(hidden_NH).squeeze(1).to(measures_NF.dtype)
        return measures_NF.new_full(hidden_BTL.shape, -torch.inf).index_put((row_N, asked_N, event_N), weight_N)

    def _measures(self, pairs: _Pairs) -> list[Tensor]:
        found = _times(pairs) if self.settings.times else []
        found += _places(pairs) if self.settings.places else []
        return found + (_orders(pairs) if self.settings.repeats else [])


def _times(pairs: _Pairs) -> list[Tensor]:
    """`TIMES`. Where the time is hidden ages are to the newest event, and no hour or pace is told."""
    events, moments = pairs.events, pairs.moments
    newest_BT = events.timestamp_BL.gather(1, moments.last_BT.clamp(min=0))
    told_BT = moments.hour_of_week_BT >= 0
    now_BT = torch.where(told_BT, moments.timestamp_BT, newest_BT)
    days_N = ((pairs.of_moment(now_BT) - pairs.of_event(events.timestamp_BL)).float() / _DAY_S).clamp(min=0)
    hour_N, then_N = pairs.of_moment(moments.hour_of_week_BT), pairs.of_event(events.hour_of_week_BL)
    apart_N = (hour_N - then_N).abs() % 24.0
    apart_N = torch.minimum(apart_N, 24.0 - apart_N)
    same_sort_N = ((hour_N >= WEEKEND) == (then_N >= WEEKEND)).float()
    hours = (
        apart_N / 12, _bell(apart_N / _HOUR), _bell(apart_N / _PART_OF_DAY),
        (torch.exp(-apart_N.square() / 4.5) + 0.05).log() + math.log(2) * same_sort_N,
        ((hour_N / 24).floor() == (then_N / 24).floor()).float(), same_sort_N,
    )  # fmt: skip
    on_clock_N = (hour_N >= 0) & (then_N >= 0)
    pace_N = pairs.of_moment(_log_minutes(now_BT - newest_BT)) - pairs.of_event(_log_minutes(gap_before(events)))
    pace_N = pace_N.clamp(-6.0, 6.0)
    paced_N = pairs.of_moment(told_BT) & ~pairs.of_event(is_first(events))
    return [
        (days_N + 1e-3).log() / 3, (torch.exp(-days_N / 20) + 0.1).log(), torch.exp(-days_N / 2), (days_N < 0.75).float(),
        *[torch.where(on_clock_N, one_N, 0.0) for one_N in hours],
        *[torch.where(paced_N, one_N, 0.0) for one_N in (pace_N / 3, _bell(pace_N / _PACE))], paced_N.float(),
    ]  # fmt: skip


def _places(pairs: _Pairs) -> list[Tensor]:
    """`PLACES`: how far away it was, and from how far away it was come to: who is there again may go on as then."""
    events, moments = pairs.events, pairs.moments
    here = pairs.of_moment(moments.latitude_BT), pairs.of_moment(moments.longitude_BT)
    latitude_BL, longitude_BL = last_known(events.latitude_BL, events.longitude_BL)
    found = []
    for there in (
        (events.latitude_BL, events.longitude_BL),
        (before(latitude_BL, torch.nan), before(longitude_BL, torch.nan)),
    ):
        km_N = metres(*here, *(pairs.of_event(one_BL) for one_BL in there)) / 1000
        known_N = torch.isfinite(km_N)
        km_N = torch.where(known_N, km_N, 0.0)
        found += [torch.where(known_N, one_N, 0.0) for one_N in ((km_N + 0.03).log() / 3, torch.exp(-km_N / _NEAR_KM))]
        found.append(known_N.float())
    return found


def _orders(pairs: _Pairs) -> list[Tensor]:
    """`ORDERS`: does it come after what the moment comes after (the item, its category, the two items before), is it that
    item itself, and how many events ago was it."""
    events, last_BT = pairs.events, pairs.moments.last_BT.clamp(min=0)
    item_before_BL, category_before_BL = before(events.item_BL, PADDING), before(events.category_BL, PADDING)
    second_BL = before(item_before_BL, PADDING)
    last_N, second_N, category_N = (
        pairs.of_moment(one_BL.gather(1, last_BT)) for one_BL in (events.item_BL, item_before_BL, events.category_BL)
    )
    after_item_N = pairs.of_event(item_before_BL) == last_N
    after_both_N = after_item_N & (pairs.of_event(second_BL) == second_N) & (second_N != PADDING)
    after_category_N = pairs.of_event(category_before_BL) == category_N
    flags = after_item_N, after_category_N, after_both_N, pairs.of_event(events.item_BL) == last_N
    back_N = (pairs.of_moment(last_BT) - pairs.event_N).float()
    return [*[flag_N.float() for flag_N in flags], torch.log1p(back_N) / 3]


def _bell(apart_N: Tensor) -> Tensor:
    return torch.exp(-0.5 * apart_N.square())


def _log_minutes(seconds: Tensor) -> Tensor:
    """A minute is added: logs tell times to the minute."""
    return (seconds.float() + _MINUTE_S).log()
