"""Rows kept as columns: frozen dataclasses of equally long arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

from jobs.simulate.atlas import Flags, Floats, Ints


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Every field is an array with one element a row."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def take(self, rows: Ints | Flags) -> Self:
        """The rows with these numbers, or those that are true."""
        taken: dict[str, Any] = {field.name: getattr(self, field.name)[rows] for field in fields(self)}
        return type(self)(**taken)

    @classmethod
    def stacked(cls, pieces: Sequence[Self]) -> Self:
        """All rows of the pieces, in their order."""
        columns: dict[str, Any] = {
            field.name: np.concatenate([getattr(piece, field.name) for piece in pieces]) for field in fields(cls)
        }
        return cls(**columns)


@dataclass(frozen=True, kw_only=True)
class Events(Columns):
    """Events before they are written.

    user, item: numbers in the world; item is -1 for searches. kind: index into EVENT_TYPES.
    at: milliseconds since 1970 UTC. latitude, longitude: degrees. device, scene: indices.
    origin: the UTC day number (milliseconds / 86,400,000) on which the session took place.
    session: number within the user's day. rating: 1..5, 0 where not a review.
    topic: category searched for. phrase: a number that picks the words.
    """

    user: Ints
    item: Ints
    kind: Ints
    at: Ints
    latitude: Floats
    longitude: Floats
    device: Ints
    scene: Ints
    origin: Ints
    session: Ints
    rating: Ints
    topic: Ints
    phrase: Ints


EVENT_TYPES = ("search", "view", "check_in", "click", "cart", "purchase", "review")
SEARCH, VIEW, CHECK_IN, CLICK, CART, PURCHASE, REVIEW = range(len(EVENT_TYPES))
DEVICES = ("android", "ios", "web")
SCENES = ("feed", "search", "map", "notification")
DAY_MILLIS = 86_400_000


def begins(values: Ints) -> Flags:
    """Whether a row is the first of a run of equal values."""
    return np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]
