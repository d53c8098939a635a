"""Lists mixed from several sources: at each rank one is drawn, and gives its best item that is not listed yet.

What was drawn is known by its chance, so that answers to such lists tell of other mixes as well (see `models.off_policy`).
Shape suffixes: B lists, S sources, P best items of each, K length of a list, E entries of lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.top_k import ABSENT

MOST_SOURCES = 31  # one bit each


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """Lists (B, K), those that lack items filled up with ABSENT.

    `agreed_BK`: which of the sources would have given this item here, one bit each, the first source the lowest.
    `propensity_BK`: how likely the item was here, given those above it; 1 where there is none.
    """

    item_BK: np.ndarray
    agreed_BK: np.ndarray
    propensity_BK: np.ndarray


def mix(
    best_BSP: np.ndarray,
    share_BS: np.ndarray,
    draw_BK: np.ndarray,
    *,
    kind_AV: np.ndarray | None = None,
    cap_A: Sequence[int] = (),
) -> Mixed:
    """One after the other, rank by rank. Who has nothing left gives what the first source does that has.

    Args:
        best_BSP: the items of each source, best first, ABSENT where it has no more.
        share_BS: how likely each source is drawn; they sum to 1.
        draw_BK: numbers of 0..1.
        kind_AV: of each attribute the kinds of all items, whole numbers; -1: like no other.
        cap_A: of each attribute how many of a kind a list may hold.
    """
    rows, sources, _ = best_BSP.shape
    assert sources <= MOST_SOURCES, f"{sources} sources, and bits for {MOST_SOURCES}"
    bit_S = 1 << np.arange(sources)
    upto_BS = np.cumsum(share_BS, axis=1)
    every = np.arange(rows)
    free_BSP = best_BSP != ABSENT
    kind_ABSP = None if kind_AV is None else np.where(free_BSP, kind_AV[:, np.maximum(best_BSP, 0)], -1)
    held_ABSP = None if kind_ABSP is None else np.zeros(kind_ABSP.shape, np.int32)
    items, agreed = np.full(draw_BK.shape, ABSENT, np.int64), np.zeros(draw_BK.shape, np.int64)
    propensity = np.ones(draw_BK.shape)
    for rank in range(draw_BK.shape[1]):
        next_BS = free_BSP.argmax(axis=2)
        has_BS = np.take_along_axis(free_BSP, next_BS[..., None], axis=2)[..., 0]
        offered_BS = np.take_along_axis(best_BSP, next_BS[..., None], axis=2)[..., 0]
        offered_BS = np.where(has_BS, offered_BS, offered_BS[every, has_BS.argmax(axis=1)][:, None])
        some_B = np.flatnonzero(has_BS.any(axis=1))
        if not len(some_B):
            break
        drawn_B = np.minimum((draw_BK[:, rank, None] >= upto_BS).sum(axis=1), sources - 1)
        item_B = offered_BS[every, drawn_B]
        same_BS = offered_BS == item_B[:, None]
        items[some_B, rank] = item_B[some_B]
        agreed[some_B, rank] = (same_BS @ bit_S)[some_B]
        # Shares may sum to a rounding more than 1.
        propensity[some_B, rank] = np.minimum((same_BS * share_BS).sum(axis=1), 1.0)[some_B]
        free_BSP &= best_BSP != item_B[:, None, None]
        if kind_AV is not None and kind_ABSP is not None and held_ABSP is not None:
            kind_AB = np.where(item_B == ABSENT, -1, kind_AV[:, np.maximum(item_B, 0)])
            held_ABSP += (kind_ABSP == kind_AB[..., None, None]) & (kind_ABSP != -1)
            free_BSP &= (held_ABSP < np.array(cap_A)[:, None, None, None]).all(axis=0)
    return Mixed(item_BK=items, agreed_BK=agreed, propensity_BK=propensity)


def agreeing(agreed_E: np.ndarray, sources: int) -> np.ndarray:
    """The bits of `Mixed.agreed_BK` as (..., S) of booleans."""
    return (agreed_E[..., None] >> np.arange(sources)) & 1 == 1


def propensities(agreed_E: np.ndarray, share_ES: np.ndarray) -> np.ndarray:
    """How likely the entries of lists would have been under other shares, given the entries above them; 1 where none is."""
    likely_E = np.minimum((agreeing(agreed_E, share_ES.shape[-1]) * share_ES).sum(axis=-1), 1.0)
    return np.where(agreed_E == 0, 1.0, likely_E)
