"""The best k of a catalogue, exactly: what a full sort with ties by position would give.

On a CPU most items are never sorted: the k-th best of the greatest of each block of items is a bound which at least k items
reach, and seldom many more; only these are put in order. That reads the scores twice, at the speed of memory.

Shape suffixes: B moments, V items of the catalogue, K the length of a list, N blocks, W items of a block, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

ABSENT = -1
# Blocks are so many times as many as the items wanted, and no wider: then few items reach the bound that are not wanted.
_BLOCKS, _WIDEST = 3, 64
_BROKEN = "the model scores NaN: its weights or inputs are broken; publish another version (wherewhen rollback)"


def top_k(
    scores_BV: np.ndarray | torch.Tensor,
    k: int,
    *,
    banned_V: np.ndarray | None = None,
    seen: Sequence[np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (B, K) int64 and scores (B, K) float32 of the best items, best first; K = min(k, V).

    Equal scores are ordered by position. `banned_V` marks items that nobody may get, `seen` lists
    the positions that a moment may not get. A list with fewer than K items left ends with
    position -1 and score -inf; so does an item that scores -inf: it is not ranked. A tensor is
    worked on where it lies; arrays need no torch.

    Raises:
        ValueError: a score is NaN, or k < 1.
    """
    if k < 1:
        raise ValueError(f"a list holds at least one item, not {k}")
    if isinstance(scores_BV, np.ndarray):
        allowed_BV = np.ascontiguousarray(scores_BV, dtype=np.float32)
    elif scores_BV.device.type == "cpu":
        allowed_BV = scores_BV.float().contiguous().numpy()
    else:
        return _on_device(scores_BV.float(), k, banned_V, seen)
    if banned_V is not None or seen is not None:
        if np.isnan(allowed_BV).any():  # of those too that are not listed
            raise ValueError(_BROKEN)
        allowed_BV = allowed_BV.copy()
        if banned_V is not None:
            allowed_BV[:, banned_V] = -np.inf
        if seen is not None:
            allowed_BV[_cells(seen)] = -np.inf
    length = min(k, allowed_BV.shape[1])
    if length == 0 or allowed_BV.shape[0] == 0:
        return np.zeros((len(allowed_BV), length), np.int64), np.zeros((len(allowed_BV), length), np.float32)
    if (width := min(allowed_BV.shape[1] // (_BLOCKS * length), _WIDEST)) > 1:
        return _of_blocks(allowed_BV, length, width)
    if np.isnan(allowed_BV).any():
        raise ValueError(_BROKEN)
    positions = np.argsort(-allowed_BV, axis=1, kind="stable")[:, :length]
    scores = np.take_along_axis(allowed_BV, positions, axis=1)
    return np.where(np.isneginf(scores), ABSENT, positions), scores


def _cells(seen: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each position that a moment may not get."""
    moment = np.repeat(np.arange(len(seen)), [len(positions) for positions in seen])
    return moment, np.concatenate([*seen, np.zeros(0, np.int64)]).astype(np.int64)


def _of_blocks(scores_BV: np.ndarray, k: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """`top_k` of a CPU's scores, which hold at least `k` blocks of `width` items."""
    rows, size = scores_BV.shape
    even = size // width * width
    # Blocks are taken across, not along: the greatest of W rows of N is found many at a time.
    greatest_BN = scores_BV[:, :even].reshape(rows, width, -1).max(axis=1)
    greatest_BN = np.concatenate([greatest_BN, scores_BV[:, even:]], axis=1)
    if np.isnan(greatest_BN).any():  # the greatest of a block with one NaN is NaN
        raise ValueError(_BROKEN)
    bound_B = np.partition(greatest_BN, greatest_BN.shape[1] - k, axis=1)[:, -k]
    place_C = np.flatnonzero(scores_BV >= bound_B[:, None])
    row_C = place_C // size
    count_B = np.bincount(row_C, minlength=rows)
    # Where many tie at the bound, or hardly an item may be ranked, all are sorted.
    many_B = count_B > 4 * k + _WIDEST
    if many_B.any():
        kept_C = ~many_B[row_C]
        place_C, row_C, count_B = place_C[kept_C], row_C[kept_C], np.where(many_B, 0, count_B)
    in_order_BC = np.full((rows, max(int(count_B.max(initial=0)), k)), np.iinfo(np.int64).max)
    column_C = np.arange(len(row_C)) - (np.cumsum(count_B) - count_B)[row_C]
    in_order_BC[row_C, column_C] = _keys(scores_BV.ravel()[place_C], place_C - row_C * size)
    in_order_BC.sort(axis=1)
    positions = in_order_BC[:, :k] & 0xFFFFFFFF
    for row in np.flatnonzero(many_B):
        positions[row] = np.argsort(-scores_BV[row], kind="stable")[:k]
    scores = scores_BV.ravel()[positions + np.arange(rows)[:, None] * size]
    return np.where(np.isneginf(scores), ABSENT, positions), scores


def _keys(scores_C: np.ndarray, position_C: np.ndarray) -> np.ndarray:
    """Whole numbers in the order of lists: falling by score, rising by position where scores are equal.

    The bits of a float of 32 rise with it, as a whole number, where it is not negative, and fall where it is.
    """
    bits_C = (scores_C + np.float32(0)).view(np.int32).astype(np.int64)  # -0 + 0 is 0, as they are equal
    rising_C = np.where(bits_C < 0, bits_C ^ 0x7FFFFFFF, bits_C)
    return (-1 - rising_C << 32) | position_C


def _on_device(
    scores_BV: torch.Tensor, k: int, banned_V: np.ndarray | None, seen: Sequence[np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray]:
    """`top_k` of scores that lie on a GPU."""
    import torch

    if bool(torch.isnan(scores_BV.sum())) and bool(torch.isnan(scores_BV).any()):
        raise ValueError(_BROKEN)
    if banned_V is not None or seen is not None:
        scores_BV = scores_BV.clone()
        if banned_V is not None:
            scores_BV[:, torch.from_numpy(banned_V).to(scores_BV.device)] = -torch.inf
        if seen is not None:
            moment, position = (torch.from_numpy(part).to(scores_BV.device) for part in _cells(seen))
            scores_BV[moment, position] = -torch.inf
    length = min(k, scores_BV.shape[1])
    if length == 0 or scores_BV.shape[0] == 0:
        return np.zeros((len(scores_BV), length), np.int64), np.zeros((len(scores_BV), length), np.float32)
    best_BK, position_BK = torch.topk(scores_BV, length, dim=1)
    # torch.topk takes any of those that tie at the last place: such rows are taken again, in order.
    tied_B = (scores_BV >= best_BK[:, -1:]).sum(dim=1) > length
    if bool(tied_B.any()):
        position_BK[tied_B] = torch.sort(scores_BV[tied_B], dim=1, descending=True, stable=True).indices[:, :length]
    position_BK = torch.sort(position_BK, dim=1).values
    score_BK = torch.gather(scores_BV, 1, position_BK)
    order_BK = torch.sort(score_BK, dim=1, descending=True, stable=True).indices
    scores = torch.gather(score_BK, 1, order_BK).cpu().numpy()
    positions = torch.gather(position_BK, 1, order_BK).cpu().numpy()
    return np.where(np.isneginf(scores), ABSENT, positions), scores
