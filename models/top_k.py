"""The best k of a catalogue, exactly: what a full sort with ties by position would give.

Shape suffixes: B moments, V items of the catalogue, K the length of a list.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

ABSENT = -1


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
    worked on where it lies.

    Raises:
        ValueError: a score is NaN, or k < 1.
    """
    if k < 1:
        raise ValueError(f"a list holds at least one item, not {k}")
    given_BV = torch.as_tensor(scores_BV, dtype=torch.float32)
    if bool(torch.isnan(given_BV).any()):
        raise ValueError("the model scores NaN: its weights or inputs are broken; publish another version (wherewhen rollback)")
    allowed_BV = _masked(given_BV, banned_V, seen)
    length = min(k, allowed_BV.shape[1])
    if length == 0 or allowed_BV.shape[0] == 0:
        return np.zeros((len(allowed_BV), length), np.int64), np.zeros((len(allowed_BV), length), np.float32)
    best_BK, position_BK = torch.topk(allowed_BV, length, dim=1)
    # torch.topk takes any of those that tie at the last place: such rows are taken again, in order.
    tied_B = (allowed_BV >= best_BK[:, -1:]).sum(dim=1) > length
    if bool(tied_B.any()):
        position_BK[tied_B] = torch.sort(allowed_BV[tied_B], dim=1, descending=True, stable=True).indices[:, :length]
    position_BK = torch.sort(position_BK, dim=1).values
    score_BK = torch.gather(allowed_BV, 1, position_BK)
    order_BK = torch.sort(score_BK, dim=1, descending=True, stable=True).indices
    scores = torch.gather(score_BK, 1, order_BK).cpu().numpy()
    positions = torch.gather(position_BK, 1, order_BK).cpu().numpy()
    return np.where(np.isneginf(scores), ABSENT, positions), scores


def _masked(scores_BV: torch.Tensor, banned_V: np.ndarray | None, seen: Sequence[np.ndarray] | None) -> torch.Tensor:
    """A copy with -inf where an item may not be ranked; the scores themselves where all may."""
    if banned_V is None and seen is None:
        return scores_BV
    scores_BV = scores_BV.clone()
    if banned_V is not None:
        scores_BV[:, torch.from_numpy(banned_V).to(scores_BV.device)] = -torch.inf
    if seen is not None:
        moment = np.repeat(np.arange(len(seen)), [len(positions) for positions in seen])
        position = np.concatenate([*seen, np.zeros(0, np.int64)]).astype(np.int64)
        index = [torch.from_numpy(part).to(scores_BV.device) for part in (moment, position)]
        scores_BV[index[0], index[1]] = -torch.inf
    return scores_BV
