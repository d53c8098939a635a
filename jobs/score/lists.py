"""The work of one Spark worker: lists with reasons for batches of users.

Shape suffixes: U users of a batch, S slots (`any` last), B = U x S moments, V items, K list, E events, C entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conf.contracts import ANY_SLOT
from jobs.score.blending import PART, SOURCE_NAMES, Blend, Blender, Drawn, activity, favourites, wide_region
from jobs.score.moments import ALL_SLOTS, Moment, Users
from jobs.score.reasons import ANY, Entries, Names, reasons

if TYPE_CHECKING:
    from conf.settings import Capped
    from models.bulk import Asked, BulkScorer
    from models.nearest import Few, Nearest
    from models.queries import Histories, Queries, Ranker

# Where lists are to be diverse, out of so many times as many items.
_LOOKED_AT = 4
_SCORES_AT_ONCE = 16_000_000
_USERS_AT_ONCE = 128
_LIST = "array<struct<slot:string,rank:int,item_id:string,score:double,reason:string,source:string,propensity:double>>"


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """The ranker and what is known of its items, by catalogue position."""

    ranker: Ranker
    names: Names
    category_V: np.ndarray  # code of the item's category, -1 = none
    brand_V: np.ndarray  # likewise
    banned_V: np.ndarray | None
    boost_V: np.ndarray | None  # added to scores, float32
    bulk: BulkScorer | None
    nearest: Nearest | None = None  # None: all items are scored

    def by_index(self, folder: str, many: int) -> Catalogue:
        """The same, of which only so many items are scored for each moment; all where there are no more.

        Raises:
            ValueError: the version has no index.
        """
        from models.nearest import Nearest

        if self.bulk is None or many >= len(self.category_V):
            return self
        rules = {"banned_V": self.banned_V, "boost_V": self.boost_V}
        return replace(self, nearest=Nearest.of(Path(folder), self.bulk, many=many, **rules))

    def boosted(self, scores: Any) -> Any:
        """Scores (B, V) with what the settings add to them."""
        if self.boost_V is None:
            return scores
        return scores + (self.boost_V if isinstance(scores, np.ndarray) else scores.new_tensor(self.boost_V))

    def ways(self, histories: Histories, queries: Queries, part: slice, many: int) -> dict[str, np.ndarray]:
        """What the ranker knows besides its order, of some of the moments, (B, P) each; nothing where it knows none."""
        if not hasattr(self.ranker, "ways"):
            return {}
        return self.ranker.ways(self._each(histories, queries).part(part), queries.part(part), many)  # type: ignore[no-any-return]

    def _each(self, histories: Histories, queries: Queries) -> Histories:
        """Of each moment its history."""
        times = len(queries.timestamp_B) // len(histories.item_BL)
        arrays = {name: np.repeat(values, times, axis=0) for name, values in vars(histories).items() if name != "seen"}
        return replace(histories, **arrays, seen=None)  # type: ignore[arg-type]

    def tiles(self, histories: Histories, queries: Queries) -> Iterator[tuple[slice, Any]]:
        """Scores (part of B, V), tile by tile; of each history the same number of moments is asked."""
        if self.bulk is not None:
            yield from self.bulk.tiles(histories, queries)
            return
        yield slice(0, len(queries.timestamp_B)), self.ranker.scores(self._each(histories, queries), queries)


def keep_to_own_cores() -> None:
    """One thread of torch per core that Spark counts for the task: its neighbours compute as well. Outside of tasks all."""
    from pyspark import TaskContext

    task = TaskContext.get()
    if task is not None:
        import torch

        torch.set_num_threads(int(task.cpus()))


@lru_cache(maxsize=1)
def _catalogue(
    folder: str, load: Callable[[str], Ranker], facts: Any, targets: tuple[str, ...], nearest: int | None
) -> Catalogue:
    """Loaded once per worker process and version; `facts` is the broadcast of `item_facts`."""
    keep_to_own_cores()
    ranker = load(folder)
    table: pa.Table = facts.value
    row_V = pc.index_in(pa.array(ranker.vocabulary.items, pa.string()), value_set=table["item_id"].combine_chunks())

    def of_item(name: str, absent: Any = None) -> list[Any]:
        return [absent if value is None else value for value in table[name].combine_chunks().take(row_V).to_pylist()]

    known = zip(of_item("category"), ranker.vocabulary.item_categories, strict=True)
    category_of_item = pa.array([now or learnt or None for now, learnt in known], pa.string()).dictionary_encode()
    brand_of_item = pa.array(of_item("brand"), pa.string()).dictionary_encode()
    boost_V = np.array(of_item("boost", 0.0), dtype=np.float32)
    banned_V = np.array(of_item("withdrawn", False), dtype=bool)
    catalogue = Catalogue(
        ranker=ranker,
        names=Names(
            titles=of_item("title"),
            items=list(ranker.vocabulary.items),
            categories=category_of_item.dictionary.to_pylist(),
            types=targets,
            chosen_by=np.array(of_item("users", 0), dtype=np.int64),
            kept=pc.max(table["kept"]).as_py() or 0,
        ),
        category_V=pc.fill_null(category_of_item.indices, -1).to_numpy(zero_copy_only=False),
        brand_V=pc.fill_null(brand_of_item.indices, -1).to_numpy(zero_copy_only=False),
        banned_V=banned_V if banned_V.any() else None,
        boost_V=boost_V if boost_V.any() else None,
        bulk=ranker.bulk() if hasattr(ranker, "bulk") else None,
    )
    return catalogue if nearest is None else catalogue.by_index(folder, nearest)


def forget_catalogue() -> None:
    """Gives back the memory of a process that has listed what it was to list."""
    _catalogue.cache_clear()


@dataclass(frozen=True, kw_only=True, eq=False)
class Scorer:
    """`mapInArrow` function: rows of `scoring_input` to `user_id, digest_before, lists`.

    `moment`: everybody is asked then and there, those without events as well. `blend`: the policy that mixes lists; None: none.
    """

    folder: str
    load: Callable[[str], Ranker]
    facts: Any  # broadcast of item_facts
    day: date
    k: int
    slots: bool
    has_times: bool
    repeats: bool
    length: int
    targets: tuple[str, ...]
    caps: Mapping[Capped, int] = field(default_factory=dict)  # category, brand: so many of one at most on a list
    diversity: float = 0.0
    moment: Moment | None = None
    blend: Blend | None = None
    nearest: int | None = None  # so many items are scored for each moment, which an index finds; None: all

    schema = f"user_id string, digest_before bigint, policy_context string, holdout boolean, lists {_LIST}"

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        catalogue = None
        for batch in batches:
            if batch.num_rows:
                catalogue = catalogue or self.catalogue()
                yield self.score(batch, catalogue)

    def catalogue(self) -> Catalogue:
        """What ranks; kept by the process."""
        return _catalogue(self.folder, self.load, self.facts, self.targets, self.nearest)

    def score(self, batch: pa.RecordBatch, catalogue: Catalogue) -> pa.RecordBatch:
        """Lists of the users of one batch."""
        users = Users.read(batch, catalogue, self)
        blender = None if self.blend is None else self._blender(self.blend, batch, users, catalogue)
        lists = self._rank(users, catalogue, blender)
        user_C, slot_C, place_C = np.nonzero(lists.position_USK >= 0)
        item_C = lists.position_USK[user_C, slot_C, place_C]
        slot_code_C = slot_C if self.slots else np.full_like(slot_C, ANY)
        entries = Entries(user_C=user_C, slot_C=slot_code_C, item_C=item_C, category_C=catalogue.category_V[item_C])
        entry = pa.StructArray.from_arrays(
            [
                pa.array(ALL_SLOTS, pa.string()).take(pa.array(slot_code_C)),
                pa.array(place_C + 1, pa.int32()),
                pa.array(catalogue.names.items, pa.string()).take(pa.array(item_C)),
                pa.array(lists.score_USK[user_C, slot_C, place_C].astype(np.float64)),
                pa.array(reasons(users.past(self, catalogue), users.places, entries, catalogue.names), pa.string()),
                pa.array(SOURCE_NAMES, pa.string()).take(pa.array(lists.source_USK[user_C, slot_C, place_C])),
                pa.array(lists.propensity_USK[user_C, slot_C, place_C]),
            ],
            names=["slot", "rank", "item_id", "score", "reason", "source", "propensity"],
        )
        ends = np.searchsorted(user_C, np.arange(batch.num_rows + 1)).astype(np.int32)
        context, held = (None, None) if blender is None else (blender.contexts, blender.is_held_U)
        columns = {
            "user_id": batch.column("user_id"),
            "digest_before": batch.column("digest_before"),
            "policy_context": pa.nulls(batch.num_rows, pa.string()) if context is None else pa.array(context, pa.string()),
            "holdout": pa.nulls(batch.num_rows, pa.bool_()) if held is None else pa.array(held),
            "lists": pa.ListArray.from_arrays(pa.array(ends), entry),
        }
        return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))

    def _rank(self, users: Users, catalogue: Catalogue, blender: Blender | None) -> _Lists:
        """Every user's lists."""
        slots = len(ALL_SLOTS) if self.slots else 1
        size = len(catalogue.ranker.vocabulary.items)
        lists = _Lists.empty((len(users.first_U), slots, min(self.k, size)))
        bound = _USERS_AT_ONCE if catalogue.bulk is not None else _SCORES_AT_ONCE // (size * slots or 1)
        at_once = max(1, min(_USERS_AT_ONCE, bound))
        # Users without events were listed before and have vanished: their lists stay empty.
        present = np.flatnonzero((users.stop_U > users.first_U) | (self.moment is not None))
        for start in range(0, len(present) if size else 0, at_once):
            user_T = present[start : start + at_once]
            histories, queries = users.moments(user_T, self)
            seen = None if histories.seen is None else [taken for taken in histories.seen for _ in range(slots)]
            row_B = (user_T[:, None] * slots + np.arange(slots)).ravel()
            if catalogue.nearest is not None:
                assert blender is None and catalogue.bulk is not None, "what is mixed needs every score"
                for part, asked, few in catalogue.nearest.tiles(catalogue.bulk, histories, queries, seen):
                    own = None if seen is None else seen[part]
                    lists.put(row_B[part], *self._best_of_few(catalogue, catalogue.bulk, asked, few, own))
                continue
            for part, plain in catalogue.tiles(histories, queries):
                own, scores = None if seen is None else seen[part], catalogue.boosted(plain)
                best = self._best(catalogue, scores, own)
                if blender is None:
                    lists.put(row_B[part], *best)
                    continue
                ways = catalogue.ways(histories, queries, part, lists.position_USK.shape[-1])
                lists.draw(row_B[part], blender.drawn(row_B[part], best, scores, ways, own))
        return lists

    def _best(self, catalogue: Catalogue, scores: Any, seen: Sequence[np.ndarray] | None) -> tuple[np.ndarray, np.ndarray]:
        """The lists of moments with these scores (B, V): positions and scores, (B, K)."""
        if self.caps or self.diversity:
            return self._diverse(catalogue, scores, seen, self._depth)
        return _top_k(catalogue, scores, self._depth, seen)

    @property
    def _depth(self) -> int:
        """Out of how many of the best lists are made."""
        return _LOOKED_AT * self.k if self.caps or self.diversity else self.k

    def _best_of_few(
        self, catalogue: Catalogue, bulk: BulkScorer, asked: Asked, few: Few, seen: Sequence[np.ndarray] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lists of the items that were scored; of all items where rules leave too few of these, so that none is short."""
        from models.top_k import ABSENT

        position_BK, score_BK = self._best(catalogue, few, None)
        short = np.flatnonzero((few.left_B < self._depth) | (position_BK[:, -1] == ABSENT))
        for tile, plain in bulk.scored(asked.part(short)):
            rows = short[tile]
            own = None if seen is None else [seen[row] for row in rows]
            position_BK[rows], score_BK[rows] = self._best(catalogue, catalogue.boosted(plain), own)
        return position_BK, score_BK

    def _blender(self, blend: Blend, batch: pa.RecordBatch, users: Users, catalogue: Catalogue) -> Blender:
        """What else than the ranking the batch's lists are mixed from."""
        events_U = users.stop_U - users.first_U
        regions = batch.column("region").to_pylist()
        size = len(catalogue.ranker.vocabulary.items)
        past = users.past(self, catalogue)
        own = favourites(past.user_E, past.item_E, len(events_U), self.k if self.repeats else 0)
        banned_V = np.zeros(size, bool) if catalogue.banned_V is None else catalogue.banned_V
        chosen_V = np.where(banned_V, -1, catalogue.names.chosen_by)
        return Blender.of(
            blend,
            batch.column("user_id").to_pylist(),
            tuple(f"{wide_region(one)}{PART}{activity(int(n))}" for one, n in zip(regions, events_U, strict=True)),
            ALL_SLOTS if self.slots else (ANY_SLOT,),
            own_UP=own,
            popular_P=np.argsort(-chosen_V, kind="stable")[: _LOOKED_AT * self.k],
            banned_V=banned_V,
            kind_AV=np.stack([catalogue.category_V, catalogue.brand_V]) if self.caps else None,
            cap_A=[self.caps.get("category", size), self.caps.get("brand", size)],
        )

    def _diverse(
        self, catalogue: Catalogue, scores: Any, seen: Sequence[np.ndarray] | None, depth: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lists out of the best `depth`. One that caps leave short though there is more is made again, out of more; no other
        is, as what is diverse depends on what it is chosen from."""
        from models.diverse import diverse
        from models.top_k import ABSENT

        best = _top_k(catalogue, scores, depth, seen)
        size = len(catalogue.category_V)
        caps = np.array([self.caps.get("category", size), self.caps.get("brand", size)])
        kinds = np.stack([catalogue.category_V, catalogue.brand_V])
        position_BK, score_BK = diverse(*best, self.k, kind_AV=kinds, cap_A=caps, weight=self.diversity)
        short = np.flatnonzero((position_BK[:, -1] == ABSENT) & (best[0][:, -1] != ABSENT))
        if len(short) and depth < size:
            some = None if seen is None else [seen[row] for row in short]
            position_BK[short], score_BK[short] = self._diverse(catalogue, scores[short], some, _LOOKED_AT * depth)
        return position_BK, score_BK


def _top_k(catalogue: Catalogue, scores: Any, k: int, seen: Sequence[np.ndarray] | None) -> tuple[np.ndarray, np.ndarray]:
    """The best of scores (B, V), or of few, among which is none that may not be listed."""
    from models.top_k import top_k

    if hasattr(scores, "top_k"):
        return scores.top_k(k)  # type: ignore[no-any-return]
    return top_k(scores, k, banned_V=catalogue.banned_V, seen=seen)


@dataclass(frozen=True, kw_only=True)
class _Lists:
    """Every list of a batch, (U, S, K) each; positions are -1 where a list is shorter. `source_USK`: in `SOURCE_NAMES`."""

    position_USK: np.ndarray
    score_USK: np.ndarray
    source_USK: np.ndarray
    propensity_USK: np.ndarray

    @staticmethod
    def empty(shape: tuple[int, int, int]) -> _Lists:
        from models.top_k import ABSENT

        return _Lists(
            position_USK=np.full(shape, ABSENT, np.int64),
            score_USK=np.zeros(shape, np.float32),
            source_USK=np.zeros(shape, np.int64),
            propensity_USK=np.ones(shape),
        )

    def put(self, row_B: np.ndarray, position_BK: np.ndarray, score_BK: np.ndarray) -> None:
        """The lists of some moments, which are numbered through all users and slots."""
        for values, given in ((self.position_USK, position_BK), (self.score_USK, score_BK)):
            values.reshape(-1, values.shape[-1])[row_B] = given

    def draw(self, row_B: np.ndarray, drawn: Drawn) -> None:
        self.put(row_B, drawn.position_BK, drawn.score_BK)
        for values, given in ((self.source_USK, drawn.source_BK), (self.propensity_USK, drawn.propensity_BK)):
            values.reshape(-1, values.shape[-1])[row_B] = given
