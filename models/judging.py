"""Contenders judged side by side on the same moments, user by user, in sums that do not grow with the moments.

What a Spark worker runs: it imports neither Spark nor the steps, so that a worker starts fast.
Shape suffixes: Q moments, K items of a list, V items, M measures, C categories.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models import lists, metrics
from models.baselines import Baseline
from models.histories import event_columns
from models.metrics import Tally
from models.queries import FIRST, Ranker
from models.replay import Answers, Log, Options, answers, queries, read_log, sight
from models.segments import segments

LISTED = 10  # length of the lists that coverage and likeness are measured on
EMPTY_LISTS = ("empty_lists", LISTED)
# What is measured of each segment.
BY_SEGMENT = (("ndcg", LISTED), ("hit", LISTED))
# The columns of a paired tally.
DIFFERENCE, REFERENCE, ALIKE = range(3)
PAIR = ""
ALL = ""  # the segment of all moments; comes before any other by name
BEHIND = "behind"  # no segment, but kept as one
# What a worker gives back; `size` and what follows only of all moments.
ROW = ["name", "segment", "numbers", "size", "covered", "classes"]
_KINDS = (pa.string(), pa.string(), pa.list_(pa.float64()), pa.int64(), pa.binary(), pa.list_(pa.float64()))


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

    `ahead`: the contender whose lead over each of the others is measured, event by event, by ndcg.
    `samples` are those of the bootstrap; `threads` what a ranker may compute with.
    """

    options: Options
    ks: tuple[int, ...]
    samples: int
    compared: tuple[str, str, tuple[str, int]] | None = None
    ahead: str | None = None
    threads: int = 1

    @property
    def measures(self) -> list[tuple[str, int]]:
        return [*metrics.measures(self.ks), EMPTY_LISTS, *((name, LISTED) for name in lists.MEASURES)]


@dataclass(kw_only=True)
class Judged:
    """One contender over all moments: sums of `Terms.measures`, and which of its items were listed at all.

    `segments`: sums of `BY_SEGMENT` under `DIMENSION=NAME`. `behind`: the sum by which `Terms.ahead` is ahead.
    `classes_3C`: how often each category was the target's,
    the best item's, and both; targets without a category count in none.
    """

    measures: Sequence[tuple[str, int]]
    tally: Tally
    covered_V: np.ndarray
    segments: dict[str, Tally] = field(default_factory=dict)
    behind: Tally | None = None
    classes_3C: np.ndarray = field(default_factory=lambda: np.zeros((3, 0)))

    def mean(self, measure: tuple[str, int]) -> float:
        return float(self.tally.mean_M[list(self.measures).index(measure)])

    @property
    def coverage(self) -> float:
        """Share of the catalogue that is on any of the lists."""
        return float(self.covered_V.mean()) if len(self.covered_V) else 0.0

    @property
    def category_accuracy(self) -> float:
        """Share of the targets whose category is that of the best item; NaN without any."""
        actual_C, _, right_C = self.classes_3C
        return float(right_C.sum() / actual_C.sum()) if actual_C.sum() else float("nan")

    @property
    def category_macro_f1(self) -> float:
        """Mean over the categories that were a target's of the harmonic mean of precision and recall; NaN without any."""
        actual_C, said_C, right_C = self.classes_3C
        some_C = actual_C > 0
        return float((2 * right_C / np.maximum(actual_C + said_C, 1))[some_C].mean()) if some_C.any() else float("nan")


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
    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict)
    covered: dict[str, np.ndarray] = field(default_factory=dict)
    classes: dict[str, np.ndarray] = field(default_factory=dict)
    shares: dict[str, np.ndarray] = field(default_factory=dict)
    translation: np.ndarray | None = None

    def add(self, log: Log) -> None:
        if len(log.row_Q) == 0:
            return
        users, worth_Q = log.users[log.user_Q], self.terms.options.worth_of(log.event_type_Q)
        kinds = self._segments(log)
        found: dict[str, Answers] = {}
        for contender in self.contenders:
            ranker = contender.load(self.terms.threads)
            answer = found[contender.name] = answers(log, ranker, self.terms.options, k=LISTED)
            category_V, share_V = ranker.vocabulary.category_of_item_V, self._share(contender.name, ranker)
            values = [
                metrics.values(answer.rank_Q, metrics.measures(self.terms.ks)),
                (answer.candidates_Q == 0).astype(np.float64),
                lists.measures(answer.best_QK, answer.recent_QN, category_V, share_V),
            ]
            # What a list is like is no matter of what came of it.
            weights = np.ones((len(users), len(self.terms.measures)))
            weights[:, : values[0].shape[1]] = worth_Q[:, None]
            self._count(contender.name, ALL, np.column_stack(values), users, weights)
            some = metrics.values(answer.rank_Q, BY_SEGMENT)
            for name, rows in kinds.items():
                self._count(contender.name, name, some[rows], users[rows], worth_Q[rows, None])
            covered = self.covered.setdefault(contender.name, np.zeros(len(category_V), dtype=bool))
            covered[answer.best_QK[answer.best_QK >= 0]] = True
            before = self.classes.setdefault(contender.name, np.zeros((3, FIRST + len(ranker.vocabulary.categories))))
            before += _classes(answer, category_V, before.shape[1])
        if self.terms.compared is not None:
            self._compare(found, users, worth_Q)
        if self.terms.ahead is not None:
            best = metrics.ndcg(found[self.terms.ahead].rank_Q, LISTED)
            for name, answer in found.items():
                lead = best - metrics.ndcg(answer.rank_Q, LISTED)
                self._count(name, BEHIND, lead[:, None], users, worth_Q[:, None])

    def _segments(self, log: Log) -> dict[str, np.ndarray]:
        """The moments of each segment, by `DIMENSION=NAME`; the same for all contenders."""
        vocabulary = self.contenders[0].load(self.terms.threads).vocabulary
        seen, events = sight(log, freeze_history=False), event_columns(vocabulary, log.columns)
        names = segments(log, seen, events, queries(log, seen, events, hide_time=False), vocabulary)
        if len(self.terms.options.target_types) > 1:
            names["action"] = log.event_type_Q.to_numpy()
        return {
            f"{dimension}={name}": np.flatnonzero(name_Q == name)
            for dimension, name_Q in names.items()
            for name in sorted({str(name) for name in name_Q if name is not None})
        }

    def _share(self, name: str, ranker: Ranker) -> np.ndarray:
        """The share of each of the contender's items in all target events, as the first baseline has counted them."""
        if name not in self.shares:
            counted = next((one.ranker.counts for one in self.contenders if isinstance(one.ranker, Baseline)), None)
            ours = ranker.vocabulary.items
            if counted is None:
                self.shares[name] = np.full(len(ours), 1.0 / max(len(ours), 1))
            else:
                place_V = translation(ours, counted.vocabulary.items)
                least = counted.share_V.min(initial=1.0)
                self.shares[name] = np.where(place_V >= 0, np.append(counted.share_V, least)[place_V], least)
        return self.shares[name]

    def _compare(self, found: dict[str, Answers], users: np.ndarray, worth_Q: np.ndarray) -> None:
        assert self.terms.compared is not None
        ours, theirs, (metric, k) = self.terms.compared
        if self.translation is None:
            by_name = {contender.name: contender.load(self.terms.threads).vocabulary.items for contender in self.contenders}
            self.translation = translation(by_name[theirs], by_name[ours])
        value, other = (metrics.METRICS[metric](found[name].rank_Q, k) for name in (ours, theirs))
        like = likeness(found[ours].best_QK, found[theirs].best_QK, self.translation)
        weights = np.column_stack([worth_Q, worth_Q, np.ones(len(users))])
        self._count(PAIR, ALL, np.column_stack([value - other, other, like]), users, weights)

    def _count(self, name: str, segment: str, values_QM: np.ndarray, users: np.ndarray, weight_QM: np.ndarray) -> None:
        more, key = metrics.tally(values_QM, users, self.terms.samples, weight_NM=weight_QM), (name, segment)
        self.tallies[key] = self.tallies[key] + more if key in self.tallies else more

    def rows(self) -> Iterator[pa.RecordBatch]:
        """A row per contender and segment (`ROW`), and one named `PAIR`; `verdicts` reads them back."""
        for (name, segment), summed in self.tallies.items():
            is_whole = segment == ALL and name != PAIR
            covered = np.packbits(self.covered[name]).tobytes() if is_whole else None
            size = len(self.covered[name]) if is_whole else None
            classes = self.classes[name].ravel().tolist() if is_whole else None
            values = [name, segment, summed.flat(), size, covered, classes]
            yield pa.RecordBatch.from_arrays(
                [pa.array([one], kind) for one, kind in zip(values, _KINDS, strict=True)], names=ROW
            )


def _classes(answer: Answers, category_V: np.ndarray, size: int) -> np.ndarray:
    """See `Judged.classes_3C`; indices below `FIRST` are no categories and stay 0."""
    said_Q = answer.best_QK[:, 0] if answer.best_QK.shape[1] else np.full(len(answer.target_Q), -1)
    counts = np.zeros((3, size))
    if len(category_V):
        actual_Q = np.where(answer.target_Q >= 0, category_V[np.maximum(answer.target_Q, 0)], 0)
        known_Q = actual_Q >= FIRST
        best_Q = np.where(said_Q >= 0, category_V[np.maximum(said_Q, 0)], 0)[known_Q]
        actual_Q = actual_Q[known_Q]
        for row, index in enumerate((actual_Q, best_Q, actual_Q[actual_Q == best_Q])):
            counts[row] = np.bincount(index, minlength=size)
    return counts


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """All contenders by name; and where two were compared, the sums of difference, the other's value, and likeness."""

    judged: dict[str, Judged]
    paired: Tally | None = None


def verdicts(rows: Iterable[Sequence[Any]], terms: Terms) -> Verdicts:
    """What the rows (see `ROW`) of any number of `Sums` over disjoint users come to; nothing for a contender without rows."""
    found: dict[tuple[str, str], list[Sequence[Any]]] = {}
    for row in rows:
        found.setdefault((row[0], row[1]), []).append(row)
    pair = found.pop((PAIR, ALL), [])
    judged: dict[str, Judged] = {}
    for (name, segment), parts in sorted(found.items(), key=lambda one: one[0]):
        numbers = [part[2] for part in parts]
        if segment == BEHIND:
            judged[name].behind = _total(numbers, 1)
            continue
        if segment != ALL:
            judged[name].segments[segment] = _total(numbers, len(BY_SEGMENT))
            continue
        bits = np.bitwise_or.reduce([np.frombuffer(part[4] or b"", dtype=np.uint8) for part in parts])
        judged[name] = Judged(
            measures=terms.measures,
            tally=_total(numbers, len(terms.measures)),
            covered_V=np.unpackbits(bits, count=int(parts[0][3])).astype(bool),
            classes_3C=np.sum([np.asarray(part[5]).reshape(3, -1) for part in parts], axis=0),
        )
    return Verdicts(judged=judged, paired=_total([part[2] for part in pair], 3) if pair else None)


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
