"""An interest model asked many times about each history: the history is read once, the catalogue's matrix made once.

`InterestModel.scores` reads a history for every moment and makes the matrix for every batch; where
everybody is asked about every slot, that is most of the work. The scores are the same.

Shape suffixes: U histories, T moments of each, B = U x T moments (those of the first history first),
L events of a history, D width, V items, P pulls.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from models.events import Moments
from models.interest import InterestModel, events_of
from models.queries import FIRST, PADDING, Histories, Queries

_HISTORIES_AT_ONCE = 128
_SCORES_AT_ONCE = 16_000_000


class BulkScorer:
    """All weights that are the same for everybody lie on the model's device."""

    def __init__(self, model: InterestModel) -> None:
        self.model = model
        self.matrix_DV = torch.from_numpy(model.item_matrix()).to(model.device)
        self.bias_V = torch.from_numpy(model.item_bias()).to(model.device)

    @torch.inference_mode()
    def tiles(self, histories: Histories, queries: Queries) -> Iterator[tuple[slice, torch.Tensor]]:
        """Moments (a part of B) and their scores (part of B, V) float32, in order. Bounded memory.

        `queries` are B moments, T for each of the U `histories`.
        """
        count = len(histories.item_BL)
        times = len(queries.timestamp_B) // max(count, 1)
        assert count * times == len(queries.timestamp_B), "every history is asked about equally often"
        rows = max(1, _SCORES_AT_ONCE // max(len(self.bias_V), 1))
        for start in range(0, count, _HISTORIES_AT_ONCE):
            part = slice(start, min(start + _HISTORIES_AT_ONCE, count))
            vector_BD, pull_BL, item_BL = self._read(histories, queries, part, times)
            for first in range(0, len(vector_BD), rows):
                tile = slice(first, min(first + rows, len(vector_BD)))
                scores_BV = torch.addmm(self.bias_V, vector_BD[tile], self.matrix_DV)
                # Padding and unknown items pull nothing; an item pulls at the first of its places only.
                row_P, place_P = torch.nonzero((pull_BL[tile] != 0) & (item_BL[tile] != PADDING), as_tuple=True)
                scores_BV[row_P, item_BL[tile][row_P, place_P] - FIRST] += pull_BL[tile][row_P, place_P]
                offset = part.start * times
                yield slice(offset + tile.start, offset + tile.stop), scores_BV

    def _read(
        self, histories: Histories, queries: Queries, part: slice, times: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Vectors (B, D), pulls (B, L) and the items that they pull (B, L) of some histories' moments."""
        model = self.model
        length = min(model.window, histories.item_BL.shape[1])
        events = events_of(histories, part, length, model.vocabulary)
        last_U = torch.where(events.item_BL[:, -1] != PADDING, length - 1, -1)

        def moments(values_B: np.ndarray, kind: type) -> torch.Tensor:
            asked: np.ndarray = values_B[part.start * times : part.stop * times].astype(kind)
            return torch.from_numpy(asked.reshape(-1, times)).to(model.device)

        reading = model.network(
            events.to(model.device),
            Moments(
                timestamp_BT=moments(queries.timestamp_B, np.int64),
                hour_of_week_BT=moments(queries.hour_of_week_B, np.float32),
                latitude_BT=moments(queries.latitude_B, np.float32),
                longitude_BT=moments(queries.longitude_B, np.float32),
                last_BT=last_U[:, None].expand(-1, times).to(model.device),
            ),
        )
        item_BL = reading.item_BL.repeat_interleave(times, dim=0)
        return reading.vector_BTD.float().flatten(0, 1), reading.pull_BTL.float().flatten(0, 1), item_BL
