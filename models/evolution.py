"""Where interests go: the interest model asked about the moments of the coming week, and what it expects there by category.

x(t + dt) = M(x(t), u(t), t, dt): x are a user's shares of categories, u the history, and M the model itself, which reads the
gap to the newest event, the clock and the place of a moment that has not come yet.

Shape suffixes: U users, D days ahead, P parts of a day, B = U x D x P moments (those of the first user first), V items,
C categories (indices).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from models.bulk import BulkScorer
from models.histories import EventColumns, Moments, clock_offsets, histories_from_events, local_hours, queries_before
from models.queries import FIRST

DAYS = 7
# Middles of the parts of a day in local hours; the night is that which follows the day.
_MIDDLES = np.array([9.0, 15.0, 20.0, 26.0])
_HOUR, _DAY = 3600, 86_400
# How often a user is out at an hour of the week is counted in the hours around it, beside so many events spread evenly.
_AROUND, _PRIOR_OUT = 3, 8.0
_SOON = 60  # a part of a day that has begun is asked about so many seconds ahead


@torch.inference_mode()
def expected(
    scorer: BulkScorer,
    events: EventColumns,
    first_U: np.ndarray,
    stop_U: np.ndarray,
    at: int,
    seen: Sequence[np.ndarray] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of categories on each of the next local days, (U, D, C), and how much of the user's week each is, (U, D).

    Both sum to 1. Categories that are padding or unknown have none.

    Args:
        first_U: each user's events are the rows `first_U .. stop_U - 1`, at least one.
        at: the end of a day, seconds since 1970; no event is later.
        seen: per user the catalogue places that are not taken again; (): all may be.
    """
    users = len(first_U)
    clocked = events.hour_of_week_E[stop_U - 1] >= 0
    offset_U = np.where(clocked, clock_offsets(events.timestamp_E[stop_U - 1], events.hour_of_week_E[stop_U - 1]), 0.0)
    ahead_U = (offset_U + 12.0) % 168.0 - 12.0
    begins_UD = at - ahead_U[:, None] * _HOUR + np.arange(DAYS) * _DAY
    at_UDP = np.maximum(begins_UD[:, :, None] + _MIDDLES * _HOUR, at + _SOON).astype(np.int64)
    hour_UDP = local_hours(at_UDP, offset_U[:, None, None])
    weight_UDP = _out(events, first_U, stop_U)[np.arange(users)[:, None, None], np.floor(hour_UDP).astype(np.int64) % 168]
    times = DAYS * len(_MIDDLES)
    queries = queries_before(
        events,
        Moments(
            first_B=np.repeat(first_U, times),
            stop_B=np.repeat(stop_U, times),
            timestamp_B=at_UDP.ravel(),
            hour_of_week_B=np.where(np.repeat(clocked, times), hour_UDP.ravel(), np.float32(-1.0)),
        ),
    )
    length = int(min(scorer.model.window, max(1, (stop_U - first_U).max(initial=1))))
    histories = histories_from_events(events, first_U, stop_U, length)
    vocabulary = scorer.model.vocabulary
    category_V = torch.from_numpy(vocabulary.category_of_item_V.astype(np.int64)).to(scorer.bias_V.device)
    found_BC = np.zeros((users * times, FIRST + len(vocabulary.categories)))
    for part, scores_BV in scorer.tiles(histories, queries):
        for row in range(part.stop - part.start) if seen else ():
            scores_BV[row, torch.from_numpy(seen[(part.start + row) // times])] = -torch.inf
        share_BV = scores_BV.softmax(dim=1).nan_to_num()
        share_BC = share_BV.new_zeros(len(share_BV), found_BC.shape[1]).index_add_(1, category_V, share_BV)
        found_BC[part] = share_BC.cpu().numpy()
    found_BC[:, :FIRST] = 0.0
    weighed_UDC = (found_BC.reshape(*weight_UDP.shape, found_BC.shape[1]) * weight_UDP[..., None]).sum(axis=2)
    total_UD = weighed_UDC.sum(axis=2)
    share_UDC = np.divide(weighed_UDC, total_UD[..., None], out=np.zeros_like(weighed_UDC), where=total_UD[..., None] > 0)
    weight_UD = weight_UDP.sum(axis=2)
    return share_UDC, weight_UD / weight_UD.sum(axis=1, keepdims=True)


def _out(events: EventColumns, first_U: np.ndarray, stop_U: np.ndarray) -> np.ndarray:
    """How often each user is out around each hour of the week, (U, 168), relatively."""
    length_U = stop_U - first_U
    row_E = np.repeat(first_U - np.cumsum(length_U) + length_U, length_U) + np.arange(length_U.sum())
    user_E = np.repeat(np.arange(len(first_U)), length_U)
    hour_E = events.hour_of_week_E[row_E]
    count_UH = np.full((len(first_U), 168), _PRIOR_OUT / 168)
    np.add.at(count_UH, (user_E[hour_E >= 0], np.floor(hour_E[hour_E >= 0]).astype(np.int64) % 168), 1.0)
    apart_HH = np.abs(np.arange(168)[:, None] - np.arange(168))
    around: np.ndarray = count_UH @ (np.minimum(apart_HH, 168 - apart_HH) <= _AROUND)
    return around
