"""An interest model asked many times about each history: the history is read once, the catalogue's matrix made once.

`InterestModel.scores` reads a history for every moment and makes the matrix for every batch; where
everybody is asked about every slot, that is most of the work. The scores are the same.

Shape suffixes: U histories, T moments of each, B = U x T moments (those of the first history first),
L events of a history, D width, V items, P pulls.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from models.events import Moments
from models.interest import InterestModel, events_of
from models.queries import FIRST, PADDING, Histories, Queries

_HISTORIES_AT_ONCE = 128
# So many as caches hold are made and read at once, 1.5 to 2.4 times as fast as from memory (2,000 to 10,000 items); of large
# catalogues so many moments as a product needs, while memory allows.
_CACHED, _MOMENTS_AT_ONCE, _SCORES_AT_ONCE = 1_000_000, 64, 16_000_000


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Moments as the network reads them: their vectors, and what the own past adds to its items, which are indices."""

    vector_BD: torch.Tensor
    pull_BL: torch.Tensor
    item_BL: torch.Tensor

    def part(self, chosen: slice | np.ndarray) -> Asked:
        return Asked(**{name: values[chosen] for name, values in vars(self).items()})

    @property
    def is_pull_BL(self) -> torch.Tensor:  # noqa: N802
        """Padding and unknown items pull nothing; an item pulls at the first of its places only."""
        return (self.pull_BL != 0) & (self.item_BL != PADDING)


class BulkScorer:
    """All weights that are the same for everybody lie on the model's device."""

    def __init__(self, model: InterestModel) -> None:
        self.model = model
        self.matrix_DV = torch.from_numpy(model.item_matrix()).to(model.device)
        self.bias_V = torch.from_numpy(model.item_bias()).to(model.device)

    def tiles(self, histories: Histories, queries: Queries) -> Iterator[tuple[slice, torch.Tensor]]:
        """Moments (a part of B) and their scores (part of B, V) float32, in order. Bounded memory.

        `queries` are B moments, T for each of the U `histories`.
        """
        for part, asked in self.asked(histories, queries):
            for tile, scores_BV in self.scored(asked):
                yield slice(part.start + tile.start, part.start + tile.stop), scores_BV

    @torch.inference_mode()
    def asked(self, histories: Histories, queries: Queries) -> Iterator[tuple[slice, Asked]]:
        """Moments (a part of B) as the network reads them, in order."""
        count = len(histories.item_BL)
        times = len(queries.timestamp_B) // max(count, 1)
        assert count * times == len(queries.timestamp_B), "every history is asked about equally often"
        for start in range(0, count, _HISTORIES_AT_ONCE):
            part = slice(start, min(start + _HISTORIES_AT_ONCE, count))
            yield slice(part.start * times, part.stop * times), self._read(histories, queries, part, times)

    @torch.inference_mode()
    def scored(self, asked: Asked) -> Iterator[tuple[slice, torch.Tensor]]:
        """Moments (a part of those asked) and their scores (part of B, V) float32, in order."""
        count, size = len(asked.vector_BD), max(len(self.bias_V), 1)
        rows = max(1, min(_SCORES_AT_ONCE // size, max(_CACHED // size, _MOMENTS_AT_ONCE)))
        for first in range(0, count, rows):
            tile = slice(first, min(first + rows, count))
            some = asked.part(tile)
            scores_BV = torch.addmm(self.bias_V, some.vector_BD, self.matrix_DV)
            row_P, place_P = torch.nonzero(some.is_pull_BL, as_tuple=True)
            scores_BV[row_P, some.item_BL[row_P, place_P] - FIRST] += some.pull_BL[row_P, place_P]
            yield tile, scores_BV

    def _read(self, histories: Histories, queries: Queries, part: slice, times: int) -> Asked:
        """Some histories' moments."""
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
        return Asked(
            vector_BD=reading.vector_BTD.float().flatten(0, 1),
            pull_BL=reading.pull_BTL.float().flatten(0, 1),
            item_BL=reading.item_BL.repeat_interleave(times, dim=0),
        )
