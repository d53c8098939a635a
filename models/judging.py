"""Contenders judged side by side on the same moments, user by user, in sums that do not grow with the moments.

What a Spark worker runs: it imports neither Spark nor the steps, so that a worker starts fast.
Shape suffixes: Q moments, K items of a list, V items, M measures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models import metrics
from models.metrics import Tally
from models.queries import Ranker
from models.replay import Answers, Log, Options, answers, read_log

LISTED = 10  # length of the lists that coverage and likeness are measured on
EMPTY_LISTS = ("empty_lists", LISTED)
# The columns of a paired tally.
DIFFERENCE, REFERENCE, ALIKE = range(3)
PAIR = ""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """What is judged: a ranker itself (a baseline, small), or the folder of a version. One thread loads and runs it."""

    name: str
    ranker: Ranker | None = None
    folder: Path | None = None

    def load(self, threads: int = 1) -> Ranker:
        if self.ranker is not None:
            return self.ranker
        assert self.folder is not None
        return _loaded(str(self.folder), threads)


@lru_cache(maxsize=2)
def _loaded(folder: str, threads: int) -> Ranker:
    """Once per process and version."""
    import torch

    from models.registry import load_ranker

    torch.set_num_threads(threads)
    return load_ranker(Path(folder))


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How to judge. `compared`: our contender, the one it is held against, and the measure for it.

    `samples` are those of the bootstrap; `threads` what a ranker may compute with.
    """

    options: Options
    ks: tuple[int, ...]
    samples: int
    compared: tuple[str, str, tuple[str, int]] | None = None
    threads: int = 1

    @property
    def measures(self) -> list[tuple[str, int]]:
        return [*metrics.measures(self.ks), EMPTY_LISTS]


@dataclass(kw_only=True)
class Judged:
    """One contender over all moments: sums of `Terms.measures`, and which of its items were listed at all."""

    measures: Sequence[tuple[str, int]]
    tally: Tally
    covered_V: np.ndarray

    def mean(self, measure: tuple[str, int]) -> float:
        return float(self.tally.mean_M[list(self.measures).index(measure)])

    @property
    def coverage(self) -> float:
        """Share of the catalogue that is on any of the lists."""
        return float(self.covered_V.mean()) if len(self.covered_V) else 0.0


def whole_users(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The rows of a partition in tables that split no user. Users lie together; a user's rows fit into memory."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        if len(batch) == 0:
            continue
        users = batch.column("user_id")
        start = pc.index(users, users[len(batch) - 1]).as_py()
        if start > 0 or (held and held[-1].column("user_id")[0] != users[0]):
            held.append(batch.slice(0, start))
            yield pa.Table.from_batches(held)
            held = []
        held.append(batch.slice(start))
    if held:
        yield pa.Table.from_batches(held)


@dataclass
class Sums:
    """What is added up over users, a log of whole users at a time."""

    contenders: Sequence[Contender]
    terms: Terms
    tallies: dict[str, Tally] = field(default_factory=dict)
    covered: dict[str, np.ndarray] = field(default_factory=dict)
    translation: np.ndarray | None = None

    def add(self, log: Log) -> None:
        if len(log.row_Q) == 0:
            return
        users = log.users[log.user_Q]
        found: dict[str, Answers] = {}
        for contender in self.contenders:
            ranker = contender.load(self.terms.threads)
            size = len(ranker.vocabulary.items)
            answer = found[contender.name] = answers(log, ranker, self.terms.options, k=LISTED)
            empty = (answer.candidates_Q == 0).astype(np.float64)
            values = np.column_stack([metrics.values(answer.rank_Q, metrics.measures(self.terms.ks)), empty])
            self._count(contender.name, metrics.tally(values, users, self.terms.samples))
            covered = self.covered.setdefault(contender.name, np.zeros(size, dtype=bool))
            covered[answer.best_QK[answer.best_QK >= 0]] = True
        if self.terms.compared is not None:
            self._compare(found, users)

    def _compare(self, found: dict[str, Answers], users: np.ndarray) -> None:
        assert self.terms.compared is not None
        ours, theirs, (metric, k) = self.terms.compared
        if self.translation is None:
            by_name = {contender.name: contender.load(self.terms.threads).vocabulary.items for contender in self.contenders}
            self.translation = translation(by_name[theirs], by_name[ours])
        value, other = (metrics.METRICS[metric](found[name].rank_Q, k) for name in (ours, theirs))
        like = likeness(found[ours].best_QK, found[theirs].best_QK, self.translation)
        self._count(PAIR, metrics.tally(np.column_stack([value - other, other, like]), users, self.terms.samples))

    def _count(self, name: str, more: Tally) -> None:
        self.tallies[name] = self.tallies[name] + more if name in self.tallies else more

    def rows(self) -> Iterator[pa.RecordBatch]:
        """A row per contender (`name, numbers, covered`), and one named `PAIR`; `verdicts` reads them back."""
        for name, summed in self.tallies.items():
            covered = self.covered.get(name)
            bits = None if covered is None else np.packbits(covered).tobytes()
            numbers = summed.flat() if covered is None else [*summed.flat(), float(len(covered))]
            arrays = [pa.array([name]), pa.array([numbers], pa.list_(pa.float64())), pa.array([bits], pa.binary())]
            yield pa.RecordBatch.from_arrays(arrays, names=["name", "numbers", "covered"])


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """All contenders by name; and where two were compared, the sums of difference, the other's value, and likeness."""

    judged: dict[str, Judged]
    paired: Tally | None = None


def verdicts(rows: Iterable[tuple[str, Sequence[float], bytes | None]], terms: Terms) -> Verdicts:
    """What the rows of any number of `Sums` over disjoint users come to; nothing for a contender without rows."""
    found: dict[str, list[tuple[Sequence[float], bytes | None]]] = {}
    for name, numbers, covered in rows:
        found.setdefault(name, []).append((numbers, covered))
    pair = found.pop(PAIR, [])
    judged = {}
    for name, parts in found.items():
        bits = np.bitwise_or.reduce([np.frombuffer(covered or b"", dtype=np.uint8) for _, covered in parts])
        total = _total([numbers[:-1] for numbers, _ in parts], len(terms.measures))
        covered_V = np.unpackbits(bits, count=int(parts[0][0][-1])).astype(bool)
        judged[name] = Judged(measures=terms.measures, tally=total, covered_V=covered_V)
    return Verdicts(judged=judged, paired=_total([numbers for numbers, _ in pair], 3) if pair else None)


def _total(parts: Sequence[Sequence[float]], measured: int) -> Tally:
    tallies = [Tally.unflat(numbers, measured) for numbers in parts]
    total = tallies[0]
    for part in tallies[1:]:
        total = total + part
    return total


def ranks(tables: Iterable[pa.Table], contender: Contender, options: Options, threads: int) -> Iterator[pa.RecordBatch]:
    """`row, rank, candidates` of every moment; rank 0 where the item is not in the catalogue."""
    for table in tables:
        log = read_log(table)
        if len(log.row_Q):
            found = answers(log, contender.load(threads), options)
            columns = [pa.array(column) for column in (log.row_Q, found.rank_Q, found.candidates_Q)]
            yield pa.RecordBatch.from_arrays(columns, names=["row", "rank", "candidates"])


def translation(names: Sequence[str], ours: Sequence[str]) -> np.ndarray:
    """Where each of the names stands among ours, -2 where it does not."""
    found = pc.index_in(pa.array(names, pa.string()), value_set=pa.array(ours, pa.string()))
    return pc.fill_null(found, -2).to_numpy(zero_copy_only=False)


def likeness(ours_QK: np.ndarray, theirs_QK: np.ndarray, ours_of_theirs_V: np.ndarray) -> np.ndarray:
    """Share of each of our lists that is on their list too, (Q,); 0 for an empty list. -1 pads the lists."""
    translated_QK = np.full(theirs_QK.shape, -2)
    some = theirs_QK >= 0
    translated_QK[some] = ours_of_theirs_V[theirs_QK[some]]
    shared_QK = (ours_QK[:, :, None] == translated_QK[:, None, :]).any(axis=2) & (ours_QK >= 0)
    return shared_QK.sum(axis=1) / np.maximum((ours_QK >= 0).sum(axis=1), 1)
