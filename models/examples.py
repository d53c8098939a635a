"""Windows as the network reads them: what came before, the moments asked about, the targets and their types; and the loss.

Shape suffixes: B windows, W events of a window, T moments asked about per window, N targets, L events of history,
D width, V items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from conf.learning import Train
from models import histories as past
from models.catalogue_loss import catalogue_loss
from models.events import Events, Moments
from models.histories import EventColumns
from models.interest import events_of
from models.network import Network, Reading
from models.queries import FIRST, PADDING, UNKNOWN, Histories, Vocabulary
from models.sampled_loss import Negatives, gbce, sampled_softmax
from models.windows import Windows

# Of the score of an item that is no candidate: e to its power is nothing, and its gradient finite.
_PUSH = -20.0


class Objective(nn.Module):
    """Loss of a batch: a sum over the moments that are targets, each times its worth. `share_V` is how often each item is
    one, relatively.

    `taken_types`: indices of the event types after which an item is not recommended again; it is no candidate then.
    `worth`: what a target of an event type counts, by the type's index, where that is not 1.
    """

    taken_types: Tensor
    worth_E: Tensor | None

    def __init__(
        self,
        network: Network,
        train: Train,
        share_V: Tensor | None = None,
        taken_types: Sequence[int] = (),
        worth: Mapping[int, float] | None = None,
    ) -> None:
        super().__init__()
        worth_E = None
        if worth:
            worth_E = torch.ones(network.event_type.num_embeddings)
            worth_E[list(worth)] = torch.tensor(list(worth.values()))
        self.register_buffer("worth_E", worth_E, persistent=False)
        self.network, self.train_settings = network, train
        self.register_buffer("taken_types", torch.tensor(taken_types, dtype=torch.long), persistent=False)
        even_V = torch.ones_like(network.item_bias)
        drawn_by_V = even_V if share_V is None or train.loss == "gbce" else share_V
        self.negatives = None if train.loss == "full" else Negatives(drawn_by_V)

    def forward(self, events: Events, moments: Moments, target_BT: Tensor, type_BT: Tensor) -> Tensor:
        given, worth_N = self.train_settings, self.worth(target_BT, type_BT)
        if self.negatives is None:
            return catalogue_loss(*self.parts(events, moments, target_BT), worth_N)
        reading, draw = self._reading(events, moments, target_BT), self.negatives.draw(given.negatives)
        if given.loss == "sampled":
            return sampled_softmax(self.network, reading, target_BT, draw, worth_N)
        return gbce(self.network, reading, target_BT, draw, given.calibration, worth_N)

    def worth(self, target_BT: Tensor, type_BT: Tensor) -> Tensor | None:
        """Of each target, (N,); None: 1 each."""
        return None if self.worth_E is None else self.worth_E[type_BT[target_BT >= FIRST]]

    def parts(
        self, events: Events, moments: Moments, target_BT: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Arguments of the loss for the targets alone; `target_BT` is 0 where there is none."""
        reading = self._reading(events, moments, target_BT)
        chosen_BT = target_BT >= FIRST
        place_BL = (reading.item_BL - FIRST).clamp(min=0)
        place_NL = place_BL.unsqueeze(1).expand_as(reading.pull_BTL)[chosen_BT]
        return (
            reading.vector_BTD[chosen_BT],
            self.network.item_matrix(),
            self.network.item_bias,
            reading.pull_BTL[chosen_BT],
            place_NL,
            target_BT[chosen_BT] - FIRST,
        )

    def _reading(self, events: Events, moments: Moments, target_BT: Tensor) -> Reading:
        """As the network reads it; what was taken before is pushed out of the softmax, unless it is taken again."""
        reading: Reading = self.network(events, moments)
        if not len(self.taken_types):
            return reading
        place_L = torch.arange(events.item_BL.shape[1], device=target_BT.device)
        is_taken_BL = torch.isin(events.event_type_BL, self.taken_types) & (events.item_BL >= FIRST)
        is_before_BTL = place_L <= moments.last_BT.unsqueeze(-1)
        is_other_BTL = events.item_BL.unsqueeze(1) != target_BT.unsqueeze(-1)
        pushed_BTL = torch.where(is_taken_BL.unsqueeze(1) & is_before_BTL & is_other_BTL, _PUSH, 0.0)
        return replace(reading, pull_BTL=pushed_BTL, base_BTL=torch.zeros_like(pushed_BTL), item_BL=events.item_BL)


def examples(windows: Windows, vocabulary: Vocabulary) -> tuple[Events, Moments, Tensor, Tensor]:
    """A batch as the network reads it: the first W - 1 events, and the last T places as moments asked about.

    A moment is given its time, and the clock and place of what came before it: no other column of its
    own event. (B, T) target indices come third, 0 where a place is no target, the types of these events fourth.
    Places that are padding in all windows are left out: W is that of the longest.
    """
    windows = windows.trimmed()
    rows, size = windows.item_NW.shape
    targets = np.where(windows.is_target_NW == 1, windows.item_NW, PADDING)
    asked = int(size - np.argmax((targets >= FIRST).any(axis=0))) if (targets >= FIRST).any() else 1
    tail = slice(size - asked, size)
    flat = EventColumns(
        item_E=windows.item_NW.ravel(), category_E=windows.category_NW.ravel(), event_type_E=windows.event_type_NW.ravel(),
        timestamp_E=windows.timestamp_NW.ravel(), hour_of_week_E=windows.hour_of_week_NW.ravel(),
        latitude_E=windows.latitude_NW.ravel(), longitude_E=windows.longitude_NW.ravel(),
    )  # fmt: skip
    row_NW = np.arange(rows)[:, None] * size + np.zeros(size, dtype=np.int64)
    first_NW = row_NW + (windows.item_NW == PADDING).sum(axis=1, keepdims=True)
    # Padding stands before the first event and is an owner of its own.
    owner_NW = np.where(np.arange(size) + row_NW < first_NW, row_NW, first_NW)
    stop_NW = past.stop_before(owner_NW.ravel(), flat.timestamp_E).reshape(rows, size)
    queries = past.queries_before(
        flat,
        past.Moments(
            first_B=first_NW[:, tail].ravel(),
            stop_B=stop_NW[:, tail].ravel(),
            timestamp_B=windows.timestamp_NW[:, tail].ravel(),
        ),
    )
    last_BT = np.where(stop_NW > first_NW, stop_NW - 1 - row_NW, -1)[:, tail]
    histories = Histories(
        item_BL=windows.item_NW[:, :-1], category_BL=windows.category_NW[:, :-1], event_type_BL=windows.event_type_NW[:, :-1],
        timestamp_BL=windows.timestamp_NW[:, :-1], hour_of_week_BL=windows.hour_of_week_NW[:, :-1],
        latitude_BL=windows.latitude_NW[:, :-1], longitude_BL=windows.longitude_NW[:, :-1],
    )  # fmt: skip
    moments = Moments(
        timestamp_BT=torch.from_numpy(queries.timestamp_B.reshape(rows, asked)),
        hour_of_week_BT=torch.from_numpy(queries.hour_of_week_B.reshape(rows, asked)),
        latitude_BT=torch.from_numpy(queries.latitude_B.reshape(rows, asked)),
        longitude_BT=torch.from_numpy(queries.longitude_B.reshape(rows, asked)),
        last_BT=torch.from_numpy(last_BT),
    )
    known = np.where(windows.event_type_NW < FIRST + len(vocabulary.event_types), windows.event_type_NW, UNKNOWN)
    target_BT, type_BT = (torch.from_numpy(values[:, tail].astype(np.int64)) for values in (targets, known))
    return events_of(histories, slice(None), size - 1, vocabulary), moments, target_BT, type_BT


def hide(moments: Moments, share: float) -> Moments:
    """Query dropout: of this share of the moments, half lose time and place, a quarter each one of them."""
    drawn_BT = torch.rand(moments.last_BT.shape, device=moments.last_BT.device)
    no_time_BT = drawn_BT < 0.75 * share
    no_place_BT = (drawn_BT < 0.5 * share) | ((drawn_BT >= 0.75 * share) & (drawn_BT < share))
    return Moments(
        timestamp_BT=moments.timestamp_BT,
        hour_of_week_BT=moments.hour_of_week_BT.masked_fill(no_time_BT, -1.0),
        latitude_BT=moments.latitude_BT.masked_fill(no_place_BT, torch.nan),
        longitude_BT=moments.longitude_BT.masked_fill(no_place_BT, torch.nan),
        last_BT=moments.last_BT,
    )
