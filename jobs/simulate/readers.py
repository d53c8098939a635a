"""People who see lists night after night, and answer them: a small world to try strategies in, without Spark.

Everybody has tastes by category, which wander, and in one night, if asked for, turn over for a part of them. What an item is
worth to somebody follows from the taste, its quality, the region, the slot, and how often it was shown lately: people tire of
it, and like what they never saw. Whether an entry is looked at follows from its rank alone (`position`), or from what stands
above it (`cascade`: people read on until they have found something; Craswell et al., WSDM 2008).

Shape suffixes: U users, V items, C categories, R regions, T slots, K ranks, P items of a source, S sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from models.policy import Context
from models.top_k import ABSENT, top_k

ClickModel = Literal["position", "cascade"]
SOURCES = ("model", "own", "trend", "popular", "new", "random")
SLOT_NAMES = ("morning", "afternoon", "evening", "night")
# Nights since somebody came for the first time.
_NEW_NIGHTS, _MOST_ACTIVE = 7, 0.6
_HALF_LIFE_NIGHTS = {"model": 45.0, "own": 30.0, "trend": 4.0, "popular": 10.0}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How large the world is, and what happens in it. `shift`: on which night, and for which part of users, tastes turn."""

    users: int = 600
    items: int = 300
    categories: int = 12
    regions: int = 3
    k: int = 10
    clicks: ClickModel = "position"
    falling: float = 0.7  # the rank's power by which fewer look
    wander: float = 0.05
    shift_night: int | None = None
    shift_share: float = 0.7
    seed: int = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Visits:
    """Who comes on a night, and when: one list each."""

    user_N: np.ndarray
    slot_N: np.ndarray
    contexts: tuple[Context, ...]  # of each visit


@dataclass(kw_only=True, eq=False)
class World:
    """It moves on by `live`, from one night to the next; what is asked of it in between changes nothing."""

    plan: Plan
    night: int = 0
    random: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        plan, self.random = self.plan, np.random.default_rng(self.plan.seed)
        random = self.random
        self.region_U = random.integers(0, plan.regions, plan.users)
        self.region_V = random.integers(0, plan.regions, plan.items)
        self.category_V = random.integers(0, plan.categories, plan.items)
        self.quality_V = random.normal(0.0, 0.6, plan.items)
        self.at_slot_CT = random.normal(0.0, 0.7, (plan.categories, len(SLOT_NAMES)))
        self.taste_UC = random.dirichlet(np.full(plan.categories, 0.25), plan.users)
        # A third of people and a fifth of items are not there from the beginning.
        self.since_U = np.where(random.random(plan.users) < 0.33, random.integers(0, 60, plan.users), -100)
        self.since_V = np.where(random.random(plan.items) < 0.2, random.integers(0, 60, plan.items), -100)
        self.comes_U = random.uniform(0.2, 0.9, plan.users)
        self.shown_UV = np.zeros((plan.users, plan.items), np.float32)
        self.ever_UV = np.zeros((plan.users, plan.items), bool)
        taken = (plan.users, plan.items)
        self.taken = {name: np.zeros(taken, np.float32) for name in _HALF_LIFE_NIGHTS}
        self.taken_popular_RTV = np.zeros((plan.regions, len(SLOT_NAMES), plan.items), np.float32)
        for _ in range(30):
            self._live_without_lists()

    def visits(self) -> Visits:
        """Of the night that comes."""
        plan = self.plan
        user_N = np.flatnonzero((self.random.random(plan.users) < self.comes_U) & (self.since_U <= self.night))
        slot_N = self.random.integers(0, len(SLOT_NAMES), len(user_N))
        is_new_N = self.night - self.since_U[user_N] < _NEW_NIGHTS
        activity_N = np.where(is_new_N, "new", np.where(self.comes_U[user_N] > _MOST_ACTIVE, "active", "some"))
        contexts = tuple(
            (f"region {region}", SLOT_NAMES[slot], str(activity))
            for region, slot, activity in zip(self.region_U[user_N], slot_N, activity_N, strict=True)
        )
        return Visits(user_N=user_N, slot_N=slot_N, contexts=contexts)

    def worth(self, visits: Visits) -> np.ndarray:
        """How likely each item is taken by somebody who looks at it, (N, V)."""
        user_N, slot_N = visits.user_N, visits.slot_N
        liked_NV = np.log(self.taste_UC[user_N] + 0.02)[:, self.category_V] + self.quality_V
        liked_NV += 0.8 * (self.region_U[user_N][:, None] == self.region_V) + self.at_slot_CT[self.category_V][:, slot_N].T
        liked_NV += 0.4 * ~self.ever_UV[user_N] - 0.5 * self.shown_UV[user_N]
        worth_NV = 1.0 / (1.0 + np.exp(1.0 - liked_NV))
        worth_NV[:, self.since_V > self.night] = 0.0
        return np.asarray(worth_NV)

    def best(self, visits: Visits) -> np.ndarray:
        """The best list there can be for each visit, (N, K)."""
        return top_k(self.worth(visits), self.plan.k)[0]

    def sources(self, visits: Visits) -> np.ndarray:
        """What each of `SOURCES` would list, from what it has seen: (N, S, P)."""
        plan, user_N = self.plan, visits.user_N
        popular_NV = np.log(self.taken_popular_RTV[self.region_U[user_N], visits.slot_N] + 0.1)
        liked_NV = {name: np.log(self._by_category(self.taken[name][user_N]) + 0.02) for name in ("model", "trend")}
        scores = {
            "model": liked_NV["model"] + popular_NV,
            "own": self.taken["own"][user_N],
            "trend": liked_NV["trend"] + popular_NV,
            "popular": popular_NV,
            "new": np.broadcast_to(np.where(self.since_V >= 0, self.since_V, -100.0), popular_NV.shape),
            "random": self.random.random(popular_NV.shape),
        }
        there_V = self.since_V <= self.night
        lists = [top_k(np.where(there_V, scores[name], -np.inf).astype(np.float32), plan.k)[0] for name in SOURCES]
        return np.stack(lists, axis=1)

    def examined(self, item_NK: np.ndarray, worth_NV: np.ndarray) -> np.ndarray:
        """How likely each entry of these lists is looked at, (N, K)."""
        rank_K = np.arange(item_NK.shape[1])
        if self.plan.clicks == "position":
            return np.broadcast_to(1.0 / (1.0 + rank_K) ** self.plan.falling, item_NK.shape)
        worth_NK = np.take_along_axis(worth_NV, np.maximum(item_NK, 0), axis=1)
        # Half of those who have found something stop, and at each entry one of twelve loses patience.
        goes_on_NK = (1.0 - 0.5 * worth_NK) * (11.0 / 12.0)
        return np.cumprod(np.concatenate([np.ones((len(item_NK), 1)), goes_on_NK[:, :-1]], axis=1), axis=1)

    def expected(self, item_NK: np.ndarray, worth_NV: np.ndarray) -> np.ndarray:
        """How likely each entry of these lists is taken, (N, K)."""
        worth_NK = np.take_along_axis(worth_NV, np.maximum(item_NK, 0), axis=1)
        return np.where(item_NK == ABSENT, 0.0, worth_NK * self.examined(item_NK, worth_NV))

    def answers(self, item_NK: np.ndarray, worth_NV: np.ndarray) -> np.ndarray:
        """Which entries are taken, (N, K) of booleans: drawn anew each time."""
        if self.plan.clicks == "position":
            return np.asarray(self.random.random(item_NK.shape) < self.expected(item_NK, worth_NV))
        worth_NK = np.where(item_NK == ABSENT, 0.0, np.take_along_axis(worth_NV, np.maximum(item_NK, 0), axis=1))
        taken_NK = self.random.random(item_NK.shape) < worth_NK
        stops_NK = (taken_NK & (self.random.random(item_NK.shape) < 0.5)) | (self.random.random(item_NK.shape) < 1.0 / 12.0)
        read_NK: np.ndarray = np.cumsum(stops_NK, axis=1) - stops_NK == 0
        return np.asarray(taken_NK & read_NK)

    def live(self, visits: Visits, item_NK: np.ndarray, taken_NK: np.ndarray) -> None:
        """The night has passed: people tire of what they were shown, sources learn what was taken, tastes wander."""
        user_N, there_NK = visits.user_N, item_NK != ABSENT
        row_E, column_E = np.nonzero(there_NK)
        self.shown_UV *= 0.8
        np.add.at(self.shown_UV, (user_N[row_E], item_NK[row_E, column_E]), 1.0)
        self.ever_UV[user_N[row_E], item_NK[row_E, column_E]] = True
        row_T, column_T = np.nonzero(there_NK & taken_NK)
        self._learn(user_N[row_T], visits.slot_N[row_T], item_NK[row_T, column_T])
        self._live_without_lists()
        self.night += 1
        if self.night == self.plan.shift_night:
            turned_U = np.flatnonzero(self.random.random(self.plan.users) < self.plan.shift_share)
            self.taste_UC[turned_U] = self.random.dirichlet(np.full(self.plan.categories, 0.25), len(turned_U))

    def _live_without_lists(self) -> None:
        """What people do of their own accord in a day; and how their tastes wander."""
        plan, there_V = self.plan, self.since_V <= self.night
        for name, nights in _HALF_LIFE_NIGHTS.items():
            self.taken[name] *= 0.5 ** (1.0 / nights)
        self.taken_popular_RTV *= 0.5 ** (1.0 / _HALF_LIFE_NIGHTS["popular"])
        user_N = np.flatnonzero((self.random.random(plan.users) < 0.5 * self.comes_U) & (self.since_U <= self.night))
        slot_N = self.random.integers(0, len(SLOT_NAMES), len(user_N))
        liked_NV = np.log(self.taste_UC[user_N] + 0.02)[:, self.category_V] + self.quality_V
        liked_NV += 0.8 * (self.region_U[user_N][:, None] == self.region_V) + self.at_slot_CT[self.category_V][:, slot_N].T
        liked_NV = np.where(there_V, liked_NV, -np.inf) + self.random.gumbel(size=liked_NV.shape)
        self._learn(user_N, slot_N, liked_NV.argmax(axis=1))
        if plan.wander:
            moved_UC = self.taste_UC * np.exp(plan.wander * self.random.normal(size=self.taste_UC.shape))
            self.taste_UC = moved_UC / moved_UC.sum(axis=1, keepdims=True)

    def _learn(self, user_T: np.ndarray, slot_T: np.ndarray, item_T: np.ndarray) -> None:
        for counts_UV in self.taken.values():
            np.add.at(counts_UV, (user_T, item_T), 1.0)
        np.add.at(self.taken_popular_RTV, (self.region_U[user_T], slot_T, item_T), 1.0)

    def _by_category(self, counts_NV: np.ndarray) -> np.ndarray:
        """The share of each item's category among what was taken, (N, V)."""
        of_category_VC = np.eye(self.plan.categories, dtype=np.float32)[self.category_V]
        taken_NC = counts_NV @ of_category_VC + 0.1
        return np.asarray((taken_NC / taken_NC.sum(axis=1, keepdims=True))[:, self.category_V])


def as_numbers(contexts: Sequence[Context]) -> tuple[tuple[Context, ...], np.ndarray]:
    """The distinct contexts, and the place of each among them."""
    distinct = sorted(set(contexts))
    place = {context: number for number, context in enumerate(distinct)}
    return tuple(distinct), np.array([place[context] for context in contexts], dtype=np.int64)
