"""A first ranker and a learned one: personal kernels order the catalogue, boosted trees the few candidates of a moment.

Trees are LambdaMART (Burges, "From RankNet to LambdaRank to LambdaMART", MSR-TR-2010-82) as LightGBM grows them.
Shape suffixes: B moments, V items, C candidates, F features, G moments that are learnt from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from conf.baselines import Baselines, Kernels
from conf.learning import HYBRID
from models import chance, cores
from models.baselines import Baseline, baseline
from models.candidates import FEATURES, Candidates, candidates, ways
from models.counts import count
from models.facts import KINDS, Facts, facts
from models.histories import name_indices
from models.queries import FIRST, PADDING, Histories, Queries, Vocabulary
from models.replay import Log, Options, batches

try:
    import lightgbm
except OSError as wrong:
    remedy = "install OpenMP (Debian: apt-get install libgomp1), or do without: ranker.by: network"
    raise ValueError(f"LightGBM cannot be loaded ({wrong}): {remedy}") from None

_ROUNDS = 150
_GROWN_AS = {
    "objective": "lambdarank", "lambdarank_truncation_level": 10, "learning_rate": 0.1, "num_leaves": 31, "max_bin": 63,
    "min_data_in_leaf": 50, "feature_fraction": 0.5, "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 5.0,
    "deterministic": True, "force_row_wise": True, "verbose": -1,
}  # fmt: skip
# Of the candidates that were not taken: as many of the best by the first ranker, and this share of the others.
_BEST_KEPT, _OTHERS_KEPT = 30, 0.25
# Of the moments that are learnt from this share is asked without a time too.
_HIDDEN = 0.25
# Candidates with equal trees stand as the first ranker has them.
_TIE = 1e-3
# Of moments and items together: what is known of each pair fills some arrays.
_PAIRS_AT_ONCE = 2_000_000
_DETAILS, _VOCABULARY, _TALLIES, _TREES = "version.json", "vocabulary.json", "tallies.npz", "trees.txt"


@dataclass(frozen=True, kw_only=True)
class Hybrid:
    """A `Ranker`. What is no candidate comes after all that are, in the order of the first.

    `details`: what else its folder is to say.
    """

    known: Facts
    trees: lightgbm.Booster
    kernels: Kernels = field(default_factory=Kernels)
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> str:
        return HYBRID

    @property
    def vocabulary(self) -> Vocabulary:
        return self.known.vocabulary

    @cached_property
    def first(self) -> Baseline:
        return first_ranker(self.known, self.kernels)

    def scores(self, histories: Histories, queries: Queries) -> np.ndarray:
        """Scores of all items, (B, V) float32."""
        scores_BV = np.zeros((len(queries.timestamp_B), len(self.vocabulary.items)), np.float32)
        for part in _parts(*scores_BV.shape):
            scores_BV[part] = self._scores(histories.part(part), queries.part(part))
        return scores_BV

    def _scores(self, histories: Histories, queries: Queries) -> np.ndarray:
        queries = as_asked(histories, queries)
        first_BV = self.first.scores(histories, queries)
        found = candidates(self.known, histories, queries, first_BV)
        below_BV = first_BV - first_BV.max(axis=1, keepdims=True)
        score_C = self.trees.predict(found.features_CF, num_threads=cores.allowed())
        below_C = below_BV[found.row_C, found.item_C]
        score_C = score_C + _TIE * below_C / (1.0 - below_C)
        least_B = np.full(len(first_BV), np.inf)
        np.minimum.at(least_B, found.row_C, score_C)
        scores_BV: np.ndarray = (below_BV + least_B[:, None] - 1.0).astype(np.float32)
        scores_BV[found.row_C, found.item_C] = score_C
        return scores_BV

    def ways(self, histories: Histories, queries: Queries, many: int) -> dict[str, np.ndarray]:
        """What else than its order speaks for items, see `models.candidates.ways`: (B, P) each."""
        queries = as_asked(histories, queries)
        parts = [
            ways(self.known, histories.part(part), queries.part(part), many)
            for part in _parts(len(queries.timestamp_B), len(self.vocabulary.items))
        ]
        return {name: np.concatenate([one[name] for one in parts]) for name in parts[0]} if parts else {}

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {f"{kind}_{part}": self.known.tallies[kind][part] for kind in KINDS for part in range(3)}
        np.savez_compressed(folder / _TALLIES, **arrays)
        self.vocabulary.save(folder / _VOCABULARY)
        self.trees.save_model(folder / _TREES)
        details = {"method": HYBRID, "target_types": self.known.target_types, "kernels": self.kernels.model_dump(mode="json")}
        (folder / _DETAILS).write_text(json.dumps({**self.details, **details}))

    @staticmethod
    def load(folder: Path) -> Hybrid:
        """
        Raises:
            ValueError: the folder is damaged, or its trees are of another release's features.
        """
        details = json.loads((folder / _DETAILS).read_text())
        trees = load_trees(folder)
        vocabulary = Vocabulary.load(folder / _VOCABULARY)
        with np.load(folder / _TALLIES, allow_pickle=False) as held:
            tallies = {kind: (held[f"{kind}_0"], held[f"{kind}_1"], held[f"{kind}_2"]) for kind in KINDS}
        target_types, kernels = tuple(details.pop("target_types")), Kernels.model_validate(details.pop("kernels"))
        return Hybrid(known=facts(vocabulary, target_types, tallies), trees=trees, kernels=kernels, details=details)


def load_trees(folder: Path) -> lightgbm.Booster:
    """
    Raises:
        ValueError: there are none, or they were grown on other features.
    """
    try:
        trees = lightgbm.Booster(model_file=folder / _TREES)
    except lightgbm.basic.LightGBMError as error:
        raise ValueError(f"{folder} holds no trees that can be read ({error}): publish another version") from None
    if tuple(trees.feature_name()) != FEATURES:
        raise ValueError(f"{folder} was learnt by another release, from other features: publish another version")
    return trees


def text_of(trees: lightgbm.Booster) -> str:
    """The trees, whatever they were grown with: the number of threads is among what LightGBM writes down."""
    return trees.model_to_string().partition("\nparameters:")[0]


def first_ranker(known: Facts, settings: Kernels) -> Baseline:
    """The user's own past under kernels, which needs of everybody only how often each item was taken."""
    items = known.vocabulary.items
    counts = count(known.vocabulary, known.target_types, (items, known.events_V, np.zeros(len(items))), ([], [], []))
    return baseline("kernels", counts, Baselines(kernels=settings))


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Candidates of moments, and which of them was taken; moments of which none was say nothing and are left out.

    `moment_G`: what tells moments apart, int64; `size_G`: how many candidates of each; `worth_G`: what each moment counts.
    """

    features_CF: np.ndarray  # float32
    is_taken_C: np.ndarray  # bool
    size_G: np.ndarray  # int64
    moment_G: np.ndarray
    worth_G: np.ndarray  # float64


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What was taken at moments.

    place_B: in the catalogue, -1 where it is not there. moment_B: what tells moments apart, int64. worth_B: what each counts,
    float64; None: 1. shown_B: the places that alone were there to choose from; None: all.
    """

    place_B: np.ndarray
    moment_B: np.ndarray
    worth_B: np.ndarray | None = None
    shown_B: Sequence[np.ndarray] | None = None

    def part(self, rows: slice | np.ndarray) -> Taken:
        worth_B = None if self.worth_B is None else self.worth_B[rows]
        shown_B = None if self.shown_B is None else [self.shown_B[row] for row in np.arange(len(self.place_B))[rows]]
        return Taken(place_B=self.place_B[rows], moment_B=self.moment_B[rows], worth_B=worth_B, shown_B=shown_B)


def examples(found: Candidates, taken: Taken) -> Examples:
    """Of moments with these candidates; where some alone were shown of these.

    Which candidates are kept depends on the moment and the item alone.
    """
    found = found if taken.shown_B is None else found.among(taken.shown_B)
    moment_B, many = taken.moment_B, len(taken.place_B)
    is_taken_C = found.item_C == taken.place_B[found.row_C]
    told_B = np.bincount(found.row_C, weights=is_taken_C, minlength=many) > 0
    score_C = found.features_CF[:, FEATURES.index("first_score")]
    order = np.lexsort((-score_C, found.row_C))
    size_B = np.bincount(found.row_C, minlength=many)
    place_C = np.empty(len(order), np.int64)
    place_C[order] = np.arange(len(order)) - np.repeat(np.cumsum(size_B) - size_B, size_B)
    drawn_C = chance.uniform(moment_B[found.row_C], found.item_C) < _OTHERS_KEPT
    kept = np.flatnonzero(told_B[found.row_C] & (is_taken_C | (place_C < _BEST_KEPT) | drawn_C))
    size_B = np.bincount(found.row_C[kept], minlength=many)
    return Examples(
        features_CF=found.features_CF[kept],
        is_taken_C=is_taken_C[kept],
        size_G=size_B[size_B > 0],
        moment_G=moment_B[size_B > 0].astype(np.int64),
        worth_G=(np.ones(many) if taken.worth_B is None else taken.worth_B)[size_B > 0],
    )


def lessons(log: Log, known: Facts, kernels: Kernels, options: Options) -> Iterator[Examples]:
    """The moments of a log (see `models.replay`), asked as they are judged; told apart by the numbers of their rows."""
    place_Q = name_indices(log.item_Q, known.vocabulary.items) - FIRST
    yield from _taught(
        log, known, kernels, options, Taken(place_B=place_Q, moment_B=log.row_Q, worth_B=options.worth_of(log.event_type_Q))
    )


def lessons_of_lists(log: Log, known: Facts, kernels: Kernels, options: Options) -> Iterator[Examples]:
    """The same of lists that were answered: moments whose `groups` tell what was `passed`, a JSON array of items, and their
    `worth`. What was taken stands against these alone.
    """
    items = known.vocabulary.items
    place_Q = name_indices(log.item_Q, items) - FIRST
    told = [dict(pairs) for pairs in log.groups_Q.to_pylist()]
    names = [json.loads(one["passed"]) for one in told]
    place_N = name_indices([name for some in names for name in some], items) - FIRST
    passed_Q = np.split(place_N, np.cumsum([len(some) for some in names])[:-1])
    yield from _taught(
        log,
        known,
        kernels,
        options,
        Taken(
            place_B=place_Q,
            moment_B=log.row_Q,
            worth_B=np.array([float(one["worth"]) for one in told]),
            shown_B=[np.append(passed, own) for passed, own in zip(passed_Q, place_Q, strict=True)] if told else [],
        ),
    )


def _taught(log: Log, known: Facts, kernels: Kernels, options: Options, taken: Taken) -> Iterator[Examples]:
    first = first_ranker(known, kernels)
    for chosen, histories, queries in batches(log, first, options):
        yield from lesson(known, first, histories, queries, taken.part(chosen))


def lesson(known: Facts, first: Baseline, histories: Histories, queries: Queries, taken: Taken) -> Iterator[Examples]:
    """Of moments whose items are known, each as it is, and a share of them without their time too (see `examples`)."""
    for part in _parts(len(taken.place_B), len(known.vocabulary.items)):
        past, asked, some = histories.part(part), queries.part(part), taken.part(part)
        # So that trees know what to do where the time is hidden.
        again = np.flatnonzero(chance.uniform(some.moment_B, np.zeros_like(some.moment_B)) < _HIDDEN)
        hidden = asked.part(again)
        hidden = replace(hidden, hour_of_week_B=np.full_like(hidden.hour_of_week_B, -1.0))
        without_time = some.part(again)
        for own, given, wanted in (
            (past, asked, some),
            (past.part(again), hidden, replace(without_time, moment_B=~without_time.moment_B)),
        ):
            now = as_asked(own, given)
            yield examples(candidates(known, own, now, first.scores(own, now)), wanted)


def as_asked(histories: Histories, queries: Queries) -> Queries:
    """The queries, those without a time all in one way: at the newest event's time, the hour hidden.

    A query at the very time of the newest event says nothing of when it is asked for.
    """
    known_BL = histories.item_BL != PADDING
    newest_B = np.where(known_BL, histories.timestamp_BL, np.iinfo(np.int64).min).max(axis=1, initial=np.iinfo(np.int64).min)
    some_B = known_BL.any(axis=1)
    hidden_B = (queries.hour_of_week_B < 0) | (some_B & (queries.timestamp_B == newest_B))
    return replace(
        queries,
        timestamp_B=np.where(hidden_B & some_B, newest_B, queries.timestamp_B),
        hour_of_week_B=np.where(hidden_B, np.float32(-1.0), queries.hour_of_week_B),
    )


def _parts(moments: int, size: int) -> Iterator[slice]:
    """Of so many moments as many at once as memory allows; none of an empty catalogue."""
    at_once = max(1, _PAIRS_AT_ONCE // max(size, 1))
    for start in range(0, moments if size else 0, at_once):
        yield slice(start, start + at_once)


def grow(parts: Iterable[Examples], seed: int = 1) -> lightgbm.Booster:
    """Trees that order the candidates of such moments: the same for the same moments, in whatever parts and order.

    Raises:
        ValueError: there is no moment to learn from.
    """
    given = list(parts)
    if not sum(len(part.size_G) for part in given):
        raise ValueError("there is no moment whose item was among the candidates: nothing to learn an order from")
    size_G, moment_G, worth_G = (
        np.concatenate([getattr(part, name) for part in given]) for name in ("size_G", "moment_G", "worth_G")
    )
    order = np.argsort(moment_G, kind="stable")
    begin_G = np.cumsum(size_G) - size_G
    size_G, begin_G, worth_G = size_G[order], begin_G[order], worth_G[order]
    row_C = np.repeat(begin_G - np.cumsum(size_G) + size_G, size_G) + np.arange(size_G.sum())
    data = lightgbm.Dataset(
        np.concatenate([part.features_CF for part in given])[row_C],
        np.concatenate([part.is_taken_C for part in given])[row_C].astype(np.int32),
        # In the mean 1: how far leaves are shrunk is to depend on the moments, not on the unit of their worth.
        weight=None if (worth_G == worth_G[0]).all() else np.repeat(worth_G / worth_G.mean(), size_G),
        group=size_G,
        feature_name=list(FEATURES),
    )
    return lightgbm.train({**_GROWN_AS, "seed": seed, "num_threads": cores.allowed()}, data, num_boost_round=_ROUNDS)
