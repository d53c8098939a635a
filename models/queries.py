"""What a ranking is asked and what it answers with: histories, moments, scores.

Shape suffixes: B moments (one row each), L events of history, V items of the catalogue.
Index 0 is padding and 1 is "unknown" in every vocabulary; item `v` of V has index `v + 2`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

PADDING, UNKNOWN, FIRST = 0, 1, 2
HOURS_PER_WEEK = 168.0
WEEKEND = 120.0  # the hour of the week at which Saturday begins


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Names in index order, from index 2 on. New names are appended, so that old weights stay valid."""

    items: tuple[str, ...]
    item_categories: tuple[str, ...]
    categories: tuple[str, ...]
    event_types: tuple[str, ...]

    @cached_property
    def category_index(self) -> dict[str, int]:
        return {name: place + FIRST for place, name in enumerate(self.categories)}

    @cached_property
    def event_type_index(self) -> dict[str, int]:
        return {name: place + FIRST for place, name in enumerate(self.event_types)}

    @cached_property
    def category_of_item_V(self) -> np.ndarray:  # noqa: N802
        """Category index per catalogue item, (V,) int32; unknown where the item has none."""
        return np.array([self.category_index.get(name, UNKNOWN) for name in self.item_categories], dtype=np.int32)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({name: getattr(self, name) for name in _LISTS}))

    @staticmethod
    def load(path: Path) -> Vocabulary:
        content = json.loads(path.read_text())
        return Vocabulary(**{name: tuple(content[name]) for name in _LISTS})


_LISTS = ("items", "item_categories", "categories", "event_types")


def indices(names: Iterable[str | None], index: dict[str, int]) -> np.ndarray:
    """Index of each name, int32; unknown names give 1."""
    return np.fromiter((index.get(name, UNKNOWN) if name is not None else UNKNOWN for name in names), dtype=np.int32)


@dataclass(frozen=True, kw_only=True)
class Histories:
    """The events before each moment, oldest first, padding (index 0) in front.

    `timestamp` is in seconds since 1970 UTC; `hour_of_week` in local hours since Monday 00:00,
    -1 where the log has no times; positions in degrees, NaN where unknown. `seen` lists, per
    moment, catalogue positions (0..V-1) that may not be ranked; None where all may.
    """

    item_BL: np.ndarray  # int32
    category_BL: np.ndarray  # int32
    event_type_BL: np.ndarray  # int32
    timestamp_BL: np.ndarray  # int64
    hour_of_week_BL: np.ndarray  # float32
    latitude_BL: np.ndarray  # float32
    longitude_BL: np.ndarray  # float32
    seen: list[np.ndarray] | None = None

    def part(self, chosen: slice | np.ndarray) -> Histories:
        arrays = {name: values[chosen] for name, values in vars(self).items() if name != "seen"}
        seen = None if self.seen is None else [self.seen[row] for row in np.arange(len(self.item_BL))[chosen]]
        return Histories(**arrays, seen=seen)


@dataclass(frozen=True, kw_only=True)
class Queries:
    """The moments asked about: time, local hour of the week (-1: hidden, or the `any` slot), last known place."""

    timestamp_B: np.ndarray  # int64
    hour_of_week_B: np.ndarray  # float32
    latitude_B: np.ndarray  # float32
    longitude_B: np.ndarray  # float32

    def part(self, chosen: slice | np.ndarray) -> Queries:
        return Queries(**{name: values[chosen] for name, values in vars(self).items()})


class Ranker(Protocol):
    """A model or a baseline: scores the whole catalogue for each moment. Higher is better."""

    @property
    def method(self) -> str: ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    def scores(self, histories: Histories, queries: Queries) -> np.ndarray:
        """Scores of all items, (B, V) float32; never NaN. Does not apply `seen`."""
        ...
