"""What a policy makes of a batch's lists: each rank drawn from one of several sources, with chances that are written down.

Some lists are shown in another order, to learn how much is looked at further down (`policy.shuffled`); some users keep the
ranking alone (`policy.holdout`). What is drawn for a user stays the same for a week, so that lists do not flicker.

Shape suffixes: U users of a batch, S slots, B moments (some of U x S), K list, P best items of a source, N sources, V items.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conf.settings import Policy as Settings
from models import chance
from models.mixing import mix
from models.policy import ANY, Context, Limits, Policy
from models.top_k import ABSENT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RANKED, SHUFFLED = "ranked", "shuffled"
# What can list items: the ranking that serves; the user's own past; what most take; `models.candidates.WAYS`, where the ranker
# knows them; anything. Who has nothing to list leaves the place to the ranking.
SOURCES = (RANKED, "own", "popular", "nearby", "alike", "following", "random")
TOGETHER, PART = "+", "|"
# By the bits of `models.mixing`: nothing (the ranking, unmixed), each set of sources, and at the end a shuffled list.
SOURCE_NAMES: tuple[str | None, ...] = (
    None,
    *(TOGETHER.join(name for bit, name in enumerate(SOURCES) if agreed >> bit & 1) for agreed in range(1, 1 << len(SOURCES))),
    SHUFFLED,
)
NEW_BELOW, _ACTIVE = 5, 50  # events known of a user, from which one is no longer new, and active
# Keys of what is drawn besides ranks: whose, which lists, which order, which items.
_HOLDOUT, _SHUFFLED, _ORDER, _ITEMS = 1, 2, 3, 4
_RANDOM_TRIED = 3


def limits_of(settings: Settings) -> Limits:
    return Limits(**{name: getattr(settings, name) for name in Limits.__dataclass_fields__})


def activity(events: int) -> str:
    """
    >>> activity(0), activity(5), activity(50)
    ('new', 'some', 'active')
    """
    return "new" if events < NEW_BELOW else "some" if events < _ACTIVE else "active"


def wide_region(region: str | None) -> str:
    """Of a region its country and first-order division.

    >>> wide_region("JP/Tokyo/Shibuya"), wide_region(None)
    ('JP/Tokyo', '')
    """
    return "/".join(region.split("/")[:2]) if region else ANY


@dataclass(frozen=True, kw_only=True)
class Blend:
    """The policy in force, and how it is applied. `week`: lists are drawn anew when it changes."""

    folder: str
    version: str
    week: int
    shuffled: float
    holdout: float

    @staticmethod
    def of(folder: str, version: str, settings: Settings, day: date) -> Blend:
        week = day.toordinal() // 7
        return Blend(folder=folder, version=version, week=week, shuffled=settings.shuffled, holdout=settings.holdout)


@lru_cache(maxsize=1)
def _loaded(folder: str) -> Policy:
    """Once per worker process and version."""
    policy = Policy.load(Path(folder))
    if policy.sources != SOURCES:
        raise ValueError(f"{folder}: its sources are {', '.join(policy.sources)}, of another release: publish none or another")
    return policy


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Lists as they are given out, (B, K) each. `agreed_BK`: see `models.mixing`; 0 where nothing was mixed."""

    position_BK: np.ndarray
    score_BK: np.ndarray
    agreed_BK: np.ndarray
    propensity_BK: np.ndarray
    is_shuffled_B: np.ndarray

    @property
    def source_BK(self) -> np.ndarray:  # noqa: N802
        """What put each entry there, by its place in `SOURCE_NAMES`."""
        return np.where(self.is_shuffled_B[:, None], len(SOURCE_NAMES) - 1, self.agreed_BK)


@dataclass(frozen=True, kw_only=True, eq=False)
class Blender:
    """One batch of users."""

    blend: Blend
    policy: Policy
    slots: tuple[str, ...]
    contexts: tuple[str, ...]  # of users: region and activity
    key_U: np.ndarray
    is_held_U: np.ndarray
    own_UP: np.ndarray
    popular_P: np.ndarray
    banned_V: np.ndarray
    kind_AV: np.ndarray | None
    cap_A: Sequence[int]

    @staticmethod
    def of(blend: Blend, users: Sequence[str], contexts: tuple[str, ...], slots: tuple[str, ...], **known: Any) -> Blender:
        key_U = chance.of_names(users)
        is_held_U = chance.uniform(key_U, np.array(_HOLDOUT)) < blend.holdout
        return Blender(
            blend=blend, policy=_loaded(blend.folder), slots=slots, contexts=contexts, key_U=key_U, is_held_U=is_held_U, **known
        )

    def drawn(
        self,
        row_B: np.ndarray,
        ranked: tuple[np.ndarray, np.ndarray],
        scores: Any,
        ways: Mapping[str, np.ndarray],
        seen: Sequence[np.ndarray] | None,
    ) -> Drawn:
        """row_B: numbers of moments, user by user, of each all slots. `ranked`: positions and scores of the ranking alone."""
        position_BK, score_BK = ranked
        user_B, slot_B = np.divmod(row_B, len(self.slots))
        rank_K = np.arange(position_BK.shape[1])
        week_B = chance.numbered(self.key_U[user_B], slot_B + len(self.slots) * np.int64(self.blend.week))
        mixed = mix(
            self._offered(user_B, week_B, position_BK, ways, seen),
            self._shares(user_B, slot_B),
            chance.uniform(week_B[:, None], 1_000 + rank_K[None, :]),
            kind_AV=self.kind_AV,
            cap_A=self.cap_A,
        )
        is_held_B1 = self.is_held_U[user_B][:, None]
        items_BK = np.where(is_held_B1, position_BK, mixed.item_BK)
        is_shuffled_B = (chance.uniform(week_B, np.array(_SHUFFLED)) < self.blend.shuffled) & ~is_held_B1[:, 0]
        order_BK = np.where(
            is_shuffled_B[:, None] & (items_BK != ABSENT),
            chance.uniform(chance.numbered(week_B, np.array(_ORDER))[:, None], rank_K[None, :]),
            1.0 + rank_K,
        ).argsort(axis=1, kind="stable")
        items_BK = np.take_along_axis(items_BK, order_BK, axis=1)
        is_plain_B1 = is_held_B1 | is_shuffled_B[:, None]
        length_B1 = np.maximum((items_BK != ABSENT).sum(axis=1, keepdims=True), 1)
        return Drawn(
            position_BK=items_BK,
            score_BK=np.where(is_held_B1, score_BK, _scores_of(scores, items_BK)),
            agreed_BK=np.where(is_plain_B1, 0, mixed.agreed_BK),
            propensity_BK=np.where(is_held_B1, 1.0, np.where(is_shuffled_B[:, None], 1.0 / length_B1, mixed.propensity_BK)),
            is_shuffled_B=is_shuffled_B,
        )

    def _shares(self, user_B: np.ndarray, slot_B: np.ndarray) -> np.ndarray:
        asked = [(self.contexts[user], self.slots[slot]) for user, slot in zip(user_B, slot_B, strict=True)]
        distinct = sorted(set(asked))
        shares = self.policy.shares([context_of(*one) for one in distinct])
        place = {one: number for number, one in enumerate(distinct)}
        return shares[[place[one] for one in asked]]

    def _offered(
        self,
        user_B: np.ndarray,
        week_B: np.ndarray,
        ranked_BK: np.ndarray,
        ways: Mapping[str, np.ndarray],
        seen: Sequence[np.ndarray] | None,
    ) -> np.ndarray:
        """The items of each source, (B, N, P), without those that may not be listed."""
        depth = max(ranked_BK.shape[1], self.own_UP.shape[1], len(self.popular_P), _RANDOM_TRIED * ranked_BK.shape[1])
        best_BNP = np.full((len(user_B), len(SOURCES), depth), ABSENT, np.int64)
        given = {"own": self.own_UP[user_B], "popular": np.broadcast_to(self.popular_P, (len(user_B), len(self.popular_P)))}
        given |= {"random": self._random(week_B, _RANDOM_TRIED * ranked_BK.shape[1]), **ways}
        for name, item_BP in given.items():
            may_BP = (item_BP != ABSENT) & ~self.banned_V[np.maximum(item_BP, 0)]
            if seen is not None:
                for row, taken in enumerate(seen):
                    if len(taken):
                        may_BP[row] &= ~np.isin(item_BP[row], taken)
            best_BNP[:, SOURCES.index(name), : item_BP.shape[1]] = np.where(may_BP, item_BP, ABSENT)
        best_BNP[:, SOURCES.index(RANKED), : ranked_BK.shape[1]] = ranked_BK
        return best_BNP

    def _random(self, week_B: np.ndarray, many: int) -> np.ndarray:
        draw_BP = chance.uniform(chance.numbered(week_B, np.array(_ITEMS))[:, None], np.arange(many)[None, :])
        return np.asarray((draw_BP * len(self.banned_V)).astype(np.int64))


def context_of(user: str, slot: str) -> Context:
    """From `recommendations.policy_context` and the slot."""
    region, _, active = user.rpartition(PART)
    return region, slot, active


def favourites(user_E: np.ndarray, item_E: np.ndarray, users: int, many: int) -> np.ndarray:
    """Each user's items, those taken most often first, of these the last taken; (U, P) catalogue places.

    Rows in the order of users and time; items outside the catalogue are below 0.

    >>> favourites(np.array([0, 0, 0, 1]), np.array([7, 8, 7, -1]), 2, 3).tolist()
    [[7, 8, -1], [-1, -1, -1]]
    """
    best_UP = np.full((users, many), ABSENT, np.int64)
    kept = np.flatnonzero(item_E >= 0)
    if not len(kept) or not many:
        return best_UP
    pair_E = user_E[kept].astype(np.int64) * (int(item_E.max()) + 1) + item_E[kept]
    pair_C, inverse, times_C = np.unique(pair_E, return_inverse=True, return_counts=True)
    last_C = np.zeros(len(pair_C), np.int64)
    np.maximum.at(last_C, inverse, kept)
    user_C, item_C = np.divmod(pair_C, int(item_E.max()) + 1)
    order = np.lexsort((-last_C, -times_C, user_C))
    count_U = np.bincount(user_C, minlength=users)
    place_C = np.arange(len(order)) - np.repeat(np.cumsum(count_U) - count_U, count_U)
    there = place_C < many
    best_UP[user_C[order][there], place_C[there]] = item_C[order][there]
    return best_UP


def _scores_of(scores: Any, position_BK: np.ndarray) -> np.ndarray:
    """What the ranking says of items of lists, float32; -inf where there is none."""
    row_B1, place_BK = np.arange(len(position_BK))[:, None], np.maximum(position_BK, 0)
    found = scores[row_B1, place_BK] if isinstance(scores, np.ndarray) else scores[row_B1, place_BK].float().cpu().numpy()
    return np.where(position_BK == ABSENT, -np.inf, found).astype(np.float32)
