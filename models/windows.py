"""Training windows: how they are cut from events.

A window holds up to W = model.window + 1 events of one user, oldest first, padding in front. Every
target event is marked in exactly one window, with at least W // 2 earlier events before it (or all
there are). Shape suffixes: E events of many users, N windows, W events of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from models.histories import EventColumns, histories_of_rows
from models.queries import PADDING

CONTEXT, TRAIN, VALIDATION = 0, 1, 2
FOLDS = {TRAIN: "train", VALIDATION: "validation"}
ARRAYS = ("item", "category", "event_type", "timestamp", "hour_of_week", "latitude", "longitude", "is_target")


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows in columns; units and absent values as in `models.queries.Histories`."""

    item_NW: np.ndarray  # int32
    category_NW: np.ndarray  # int32
    event_type_NW: np.ndarray  # int32
    timestamp_NW: np.ndarray  # int64
    hour_of_week_NW: np.ndarray  # float32
    latitude_NW: np.ndarray  # float32
    longitude_NW: np.ndarray  # float32
    is_target_NW: np.ndarray  # int32
    shuffle_N: np.ndarray  # int64: an order that has nothing to do with users or time

    def __len__(self) -> int:
        return len(self.item_NW)

    def __getitem__(self, rows: Any) -> Windows:
        return Windows(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @property
    def nbytes(self) -> int:
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    @staticmethod
    def together(blocks: Sequence[Windows]) -> Windows:
        return Windows(**{field.name: np.concatenate([getattr(b, field.name) for b in blocks]) for field in fields(Windows)})

    @staticmethod
    def none(size: int) -> Windows:
        return histories_as_windows(_NO_EVENTS, np.zeros((0, size), dtype=np.int64), np.zeros((0, size), dtype=np.int32))

    @property
    def lengths(self) -> np.ndarray:
        """Events of each window, (N,)."""
        return (self.item_NW != PADDING).sum(axis=1)

    def trimmed(self) -> Windows:
        """Without the places in front that are padding in every window; two at least are left."""
        size = self.item_NW.shape[1]
        first = min(size - int(self.lengths.max(initial=0)), size - 2)
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        return Windows(**{name: values[:, first:] if values.ndim == 2 else values for name, values in arrays.items()})

    def padded(self, count: int) -> Windows:
        """With empty windows appended up to `count`: nothing in them, no target."""
        missing = count - len(self)
        if missing <= 0:
            return self
        row_NW = np.full((missing, self.item_NW.shape[1]), -1)
        return Windows.together([self, histories_as_windows(_NO_EVENTS, row_NW, np.zeros(row_NW.shape, dtype=np.int32))])


_NO_EVENTS = EventColumns(
    item_E=np.zeros(0, np.int32), category_E=np.zeros(0, np.int32), event_type_E=np.zeros(0, np.int32),
    timestamp_E=np.zeros(0, np.int64), hour_of_week_E=np.zeros(0, np.float32),
    latitude_E=np.zeros(0, np.float32), longitude_E=np.zeros(0, np.float32),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Where windows lie in the events: one entry per window."""

    row_NW: np.ndarray  # int64, rows of the events, -1 = padding
    owner_row_N: np.ndarray  # int64, any row of the window's user
    number_N: np.ndarray  # int32, number of the window in the user's history
    fold_N: np.ndarray  # int8, TRAIN or VALIDATION
    is_target_NW: np.ndarray  # int32


def cut(first_E: np.ndarray, fold_E: np.ndarray, size: int) -> Cut:
    """Windows of `size` events over the rows that are to be learnt (fold TRAIN) or judged (VALIDATION).

    `first_E` is the row at which the user of each row begins. A user's first `size` events share window
    0; after that every `size // 2` events make one, so that a target sees at least the half of a window
    before it, and no event is read more than three times. Windows end with their last target.
    """
    step = max(size // 2, 1)
    wanted = np.flatnonzero(fold_E != CONTEXT)
    place = wanted - first_E[wanted]
    number = np.where(place < size, 0, 1 + (place - size) // step)
    keys = np.stack([first_E[wanted], number, fold_E[wanted].astype(np.int64)], axis=1)
    windows, window_of = np.unique(keys, axis=0, return_inverse=True)
    last = np.zeros(len(windows), dtype=np.int64)
    np.maximum.at(last, window_of.reshape(-1), wanted)
    row_NW = last[:, None] + 1 - size + np.arange(size)
    row_NW = np.where(row_NW >= windows[:, :1], row_NW, -1)
    safe = np.maximum(row_NW, 0)
    # A target belongs to one window: later windows of the user show it as what came before.
    number_E = np.full(len(fold_E), -1)
    number_E[wanted] = number
    own_NW = (fold_E[safe] == windows[:, 2:]) & (number_E[safe] == windows[:, 1:2]) if len(fold_E) else safe
    return Cut(
        row_NW=row_NW,
        owner_row_N=windows[:, 0],
        number_N=windows[:, 1].astype(np.int32),
        fold_N=windows[:, 2].astype(np.int8),
        is_target_NW=((row_NW >= 0) & (own_NW == 1)).astype(np.int32),
    )


def histories_as_windows(events: EventColumns, row_NW: np.ndarray, is_target_NW: np.ndarray) -> Windows:
    """The events at the rows of a cut; `shuffle_N` is left zero."""
    taken = histories_of_rows(events, row_NW)
    return Windows(
        item_NW=taken.item_BL,
        category_NW=taken.category_BL,
        event_type_NW=taken.event_type_BL,
        timestamp_NW=taken.timestamp_BL,
        hour_of_week_NW=taken.hour_of_week_BL,
        latitude_NW=taken.latitude_BL,
        longitude_NW=taken.longitude_BL,
        is_target_NW=is_target_NW,
        shuffle_N=np.zeros(len(row_NW), dtype=np.int64),
    )
