"""For catalogues of millions: an index of a version's items, and of each moment the scores of those nearest to it alone.

The index is a graph of near neighbours that is searched greedily (HNSW: Malkov and Yashunin, "Efficient and robust approximate
nearest neighbor search using Hierarchical Navigable Small World graphs", IEEE TPAMI 2020); it lies in a file beside the
version's, which processes of a machine share in memory. A score is an inner product once what an item has for everyone is one
more number of its vector, and a moment's has 1 there. By inner products alone such graphs find little, as a few long vectors
are everybody's neighbours: one number more makes items equally long and changes no product (Bachrach et al., "Speeding Up
the Xbox Recommender System Using a Euclidean Transformation for Inner-Product Spaces", RecSys 2014). What is found is scored
anew, exactly, together with all that a moment adds to by itself: items of the own past, and those that settings raise.

Shape suffixes: B moments, D width, V items, N nearest items, L events of history, R raised items, C candidates.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.queries import FIRST
from models.top_k import ABSENT, top_k

if TYPE_CHECKING:
    from usearch.index import Index

    from models.bulk import Asked, BulkScorer
    from models.queries import Histories, Queries

_INDEX, _DETAILS = "nearest.usearch", "nearest.json"
# An index that was made otherwise is made anew; raise `layout` with what vectors are made of.
_MADE = {"layout": 1, "dtype": "f16", "connectivity": 24, "expansion_add": 200}
_BROKEN = (
    "the model's numbers are NaN or infinite: its weights or inputs are broken; publish another version (wherewhen rollback)"
)
# Of items so many are made equally long; the few longest stay longer. By the very longest all others would look alike, and less
# is found: of 100,000 drawn in clusters, 400 looked at, 0.926 of the best hundred, and 0.961, 0.982, 0.831 by 0.999, 0.98, 0.8.
_EQUAL = 0.99
_ITEMS_AT_ONCE = 20_000
_NUMBERS_AT_ONCE = 8_000_000


def build(folder: Path, matrix_DV: np.ndarray, bias_V: np.ndarray, *, threads: int, tell: Callable[[int], None]) -> None:
    """Make the index of a version, whole or not at all; `tell` hears how many items it holds so far.

    With several threads no two are alike: lists that are to stay as they are need the file to stay.

    Raises:
        ValueError: a number of an item is none.
    """
    from usearch.index import Index

    if not (np.isfinite(matrix_DV).all() and np.isfinite(bias_V).all()):
        raise ValueError(_BROKEN)
    bias_V = bias_V - bias_V.mean()  # the same for all items orders nothing, and would be most of what items have in common
    squared_V = np.einsum("dv,dv->v", matrix_DV, matrix_DV) + bias_V**2
    longest = float(np.quantile(squared_V, _EQUAL)) or 1.0
    made: dict[str, Any] = {name: value for name, value in _MADE.items() if name != "layout"}
    index = Index(ndim=len(matrix_DV) + 2, metric="ip", **made)
    for start in range(0, len(bias_V), _ITEMS_AT_ONCE):
        part = slice(start, start + _ITEMS_AT_ONCE)
        rest_V = np.sqrt(np.maximum(longest - squared_V[part], 0.0))
        vector_VD = np.column_stack([matrix_DV[:, part].T, bias_V[part], rest_V]) / np.sqrt(longest)
        keys = np.arange(start, start + len(vector_VD))
        index.add(keys, np.ascontiguousarray(vector_VD, dtype=np.float32), threads=threads)
        tell(start + len(vector_VD))
    _replaced(folder / _INDEX, index.save)
    describe(folder, {**_MADE, "version": folder.name, "digest": _digest(folder / _INDEX)})


def described(folder: Path) -> dict[str, Any] | None:
    """What is known of a version's index, its `digest` among it; None: there is none that is whole and the version's own."""
    try:
        details: dict[str, Any] = json.loads((folder / _DETAILS).read_text())
        is_ours = details.items() >= {**_MADE, "version": folder.name, "digest": _digest(folder / _INDEX)}.items()
    except (OSError, ValueError, AttributeError):
        return None
    return details if is_ours else None


def describe(folder: Path, details: Mapping[str, Any]) -> None:
    _replaced(folder / _DETAILS, lambda file: file.write_text(json.dumps(details)))


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _replaced(file: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place and let it appear there whole."""
    beside = file.with_name(f".{file.name}.part")
    beside.unlink(missing_ok=True)  # of a run that was killed
    try:
        write(beside)
        os.replace(beside, file)
    finally:
        beside.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class Few:
    """Scores of some items of each moment; -inf where one may not be listed, or there is none."""

    position_BC: np.ndarray  # rising
    score_BC: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Few:
        return Few(position_BC=self.position_BC[rows], score_BC=self.score_BC[rows])

    @property
    def left_B(self) -> np.ndarray:  # noqa: N802
        """How many may be listed."""
        return np.asarray((self.score_BC > -np.inf).sum(axis=1))

    def top_k(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As `models.top_k` gives them: ties go by position, as candidates are in their order."""
        column_BK, score_BK = top_k(self.score_BC, k)
        position_BK = np.take_along_axis(self.position_BC, np.maximum(column_BK, 0), axis=1)
        return np.where(column_BK == ABSENT, ABSENT, position_BK), score_BK


class Nearest:
    """Looks at the `many` items nearest to a moment, its own and raised ones besides. On the CPU."""

    def __init__(
        self,
        index: Index,
        item_VD: np.ndarray,
        bias_V: np.ndarray,
        *,
        many: int,
        banned_V: np.ndarray | None = None,
        boost_V: np.ndarray | None = None,
        threads: int = 1,
    ) -> None:
        size = len(bias_V)
        self.index, self.item_VD, self.many, self.threads = index, item_VD, min(many, size), threads
        self.banned_V = np.zeros(size, bool) if banned_V is None else banned_V
        self.base_V = bias_V if boost_V is None else bias_V + boost_V
        self.raised_R = np.flatnonzero((boost_V > 0) & ~self.banned_V) if boost_V is not None else np.zeros(0, np.int64)
        self.raised_DR = item_VD[self.raised_R].T

    @staticmethod
    def of(folder: Path, bulk: BulkScorer, **options: Any) -> Nearest:
        """That of a version whose index was built.

        Raises:
            ValueError: it was not, or of other items.
        """
        import torch
        from usearch.index import Index

        item_VD = bulk.matrix_DV.T.contiguous()
        bulk.matrix_DV = item_VD.T  # so that items lie in memory once
        try:
            index = Index.restore(folder / _INDEX, view=True, expansion_search=options["many"])
        except (OSError, RuntimeError, ValueError):
            index = None
        if index is None or (len(index), index.ndim) != (len(item_VD), item_VD.shape[1] + 2):
            raise ValueError(f"{folder / _INDEX} is no index of its version's items: step score makes it anew when it is run")
        threads = torch.get_num_threads()
        return Nearest(index, item_VD.cpu().numpy(), bulk.bias_V.cpu().numpy(), threads=threads, **options)

    def tiles(
        self, bulk: BulkScorer, histories: Histories, queries: Queries, seen: Sequence[np.ndarray] | None
    ) -> Iterator[tuple[slice, Asked, Few]]:
        """Moments (a part of B), how the network reads them, and the scores of some items of each. Bounded memory."""
        for moments, asked in bulk.asked(histories, queries):
            length = asked.item_BL.shape[1] + self.many + min(self.many, len(self.raised_R))
            rows = max(1, _NUMBERS_AT_ONCE // max(length * self.item_VD.shape[1], len(self.raised_R)))
            for first in range(0, len(asked.vector_BD), rows):
                some = asked.part(slice(first, first + rows))
                part = slice(moments.start + first, moments.start + first + len(some.vector_BD))
                own_BL = (some.item_BL - FIRST).where(some.is_pull_BL, ABSENT)
                vector_BD, place_BL, pull_BL = (values.cpu().numpy() for values in (some.vector_BD, own_BL, some.pull_BL))
                yield part, some, self.few(vector_BD, place_BL, pull_BL, None if seen is None else seen[part])

    def few(
        self, vector_BD: np.ndarray, own_BL: np.ndarray, pull_BL: np.ndarray, seen: Sequence[np.ndarray] | None = None
    ) -> Few:
        """Scores as they are ranked by: pulls and boosts in them. `own_BL`: positions that a moment pulls, each once; -1: none.

        Raises:
            ValueError: a number of a moment, or a score, is none.
        """
        if not np.isfinite(vector_BD).all():  # nothing is near that
            raise ValueError(_BROKEN)
        parts = [self._near(vector_BD), own_BL, self._raised(vector_BD)]
        position_BC = np.sort(np.concatenate(parts, axis=1).astype(np.int64), axis=1)
        there_BC = np.maximum(position_BC, 0)
        # Each product by itself and in the same order, whatever is beside it.
        score_BC = np.einsum("bcd,bd->bc", self.item_VD[there_BC], vector_BD) + self.base_V[there_BC]
        # Whole numbers that rise through all moments say where a position of one is.
        place_B1 = np.arange(len(vector_BD))[:, None] * (len(self.base_V) + 1) + 1
        key_C, score_C = (position_BC + place_B1).ravel(), score_BC.ravel()
        is_own_BL = own_BL != ABSENT
        score_C[np.searchsorted(key_C, (own_BL + place_B1)[is_own_BL])] += pull_BL[is_own_BL]
        if np.isnan(score_C).any():
            raise ValueError(_BROKEN)
        score_C[(position_BC == ABSENT).ravel() | self.banned_V[there_BC].ravel()] = -np.inf
        score_C[1:][key_C[1:] == key_C[:-1]] = -np.inf
        for row, taken in enumerate(() if seen is None else seen):
            key_S = taken + place_B1[row]
            at_S = np.minimum(np.searchsorted(key_C, key_S), len(key_C) - 1)
            score_C[at_S[key_C[at_S] == key_S]] = -np.inf
        return Few(position_BC=position_BC, score_BC=score_C.reshape(position_BC.shape))

    def _near(self, vector_BD: np.ndarray) -> np.ndarray:
        """Positions (B, N) in no order; -1 where the index finds fewer."""
        vector_BD = np.pad(vector_BD, ((0, 0), (0, 2)))
        vector_BD[:, -2] = 1.0
        vector_BD /= np.linalg.norm(vector_BD, axis=1, keepdims=True)  # within half precision, and nothing is nearer for it
        # Of one moment by itself the answer has another shape.
        asked_BD = vector_BD if len(vector_BD) > 1 else np.repeat(vector_BD, 2, axis=0)
        found: Any = self.index.search(asked_BD, self.many, threads=self.threads)
        is_found_BN = np.arange(self.many) < found.counts[:, None]
        return np.where(is_found_BN, found.keys, ABSENT).astype(np.int64)[: len(vector_BD)]

    def _raised(self, vector_BD: np.ndarray) -> np.ndarray:
        """Positions of the raised items that score best."""
        if len(self.raised_R) <= self.many:
            return np.broadcast_to(self.raised_R, (len(vector_BD), len(self.raised_R)))
        return self.raised_R[top_k(vector_BD @ self.raised_DR + self.base_V[self.raised_R], self.many)[0]]
