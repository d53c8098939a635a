"""The work of one Spark worker: lists with reasons for batches of users.

Shape suffixes: U users of a batch, S slots (`any` last), B = U x S moments, V items, K list, E events, C entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conf.contracts import ANY_SLOT, SLOTS
from jobs.score.reasons import ANY, NO_DATE, Entries, Names, Past, Places, reasons

if TYPE_CHECKING:
    from conf.settings import Capped
    from models.bulk import BulkScorer
    from models.histories import EventColumns
    from models.queries import Histories, Queries, Ranker

ALL_SLOTS = (*SLOTS, ANY_SLOT)
EVENT_FIELDS = (
    "item_id", "category", "event_type", "event_timestamp", "local_timestamp", "slot", "latitude", "longitude",
)  # fmt: skip
# Whole days since a user's newest event; whoever is between two is asked as on the lower one, so that a list that nothing
# else changes holds for a while. Half an octave: the interest model's buckets of gaps are as wide.
ASKED_FROM = np.unique(np.array([0, *2.0 ** (np.arange(32) / 2)]).astype(np.int64))
_DAY_S = 86_400
# Where lists are to be diverse, out of so many times as many items.
_LOOKED_AT = 4
_SCORES_AT_ONCE = 16_000_000
_USERS_AT_ONCE = 128
_LIST = "array<struct<slot:string,rank:int,item_id:string,score:double,reason:string>>"


def slot_hour(slot: str) -> float:
    """The middle of a slot in local hours since Monday 00:00.

    >>> slot_hour("weekday_morning"), slot_hour("weekday_night"), slot_hour("weekend_night")
    (57.0, 74.0, 146.0)
    """
    part_of_week, _, part_of_day = slot.partition("_")
    day = {"weekday": 2, "weekend": 5}[part_of_week]
    return day * 24.0 + {"night": 26.0, "morning": 9.0, "afternoon": 15.0, "evening": 20.0}[part_of_day]


def end_of(day: date) -> int:
    """Of a day in UTC, seconds since 1970."""
    return int(datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC).timestamp())


def asked_from(end: int, newest_B: np.ndarray) -> np.ndarray:
    """The ends of the days that moments are asked from: `end` itself, or earlier, by how long before it each newest event was.

    >>> [int(end - asked_from(end, np.array([end - 86_400 * days]))[0]) // 86_400 for end in [10**6] for days in (1, 3, 4, 7)]
    [0, 1, 0, 2]
    """
    idle_B = np.maximum(end - newest_B, 0) // _DAY_S
    return np.asarray(end - (idle_B - ASKED_FROM[np.searchsorted(ASKED_FROM, idle_B, side="right") - 1]) * _DAY_S)


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

    def tiles(self, histories: Histories, queries: Queries) -> Iterator[tuple[slice, Any]]:
        """Scores (part of B, V), tile by tile; of each history the same number of moments is asked."""
        if self.bulk is not None:
            yield from self.bulk.tiles(histories, queries)
            return
        times = len(queries.timestamp_B) // len(histories.item_BL)
        arrays = {name: np.repeat(values, times, axis=0) for name, values in vars(histories).items() if name != "seen"}
        yield slice(0, len(queries.timestamp_B)), self.ranker.scores(replace(histories, **arrays, seen=None), queries)  # type: ignore[arg-type]


def keep_to_own_cores() -> None:
    """One thread of torch per core that Spark counts for the task: its neighbours compute as well. Outside of tasks all."""
    from pyspark import TaskContext

    task = TaskContext.get()
    if task is not None:
        import torch

        torch.set_num_threads(int(task.cpus()))


@lru_cache(maxsize=1)
def _catalogue(folder: str, load: Callable[[str], Ranker], facts: Any, targets: tuple[str, ...]) -> Catalogue:
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
    return Catalogue(
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


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When all are asked, in place of slots: seconds since 1970, None: as a night asks for `any`, hour hidden; and where.

    `offset` is by how many hours the clocks there are ahead of UTC; None: as the user's own were last.
    """

    timestamp: int | None = None
    latitude: float | None = None
    longitude: float | None = None
    offset: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Scorer:
    """`mapInArrow` function: rows of `scoring_input` to `user_id, digest_before, lists`.

    `moment`: everybody is asked then and there, those without events as well.
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

    schema = f"user_id string, digest_before bigint, lists {_LIST}"

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        catalogue = None
        for batch in batches:
            if batch.num_rows:
                catalogue = catalogue or _catalogue(self.folder, self.load, self.facts, self.targets)
                yield self.score(batch, catalogue)

    def score(self, batch: pa.RecordBatch, catalogue: Catalogue) -> pa.RecordBatch:
        """Lists of the users of one batch."""
        users = _Users.read(batch, catalogue, self)
        position_USK, score_USK = self._rank(users, catalogue)
        user_C, slot_C, place_C = np.nonzero(position_USK >= 0)
        item_C = position_USK[user_C, slot_C, place_C]
        slot_code_C = slot_C if self.slots else np.full_like(slot_C, ANY)
        entries = Entries(user_C=user_C, slot_C=slot_code_C, item_C=item_C, category_C=catalogue.category_V[item_C])
        entry = pa.StructArray.from_arrays(
            [
                pa.array(ALL_SLOTS, pa.string()).take(pa.array(slot_code_C)),
                pa.array(place_C + 1, pa.int32()),
                pa.array(catalogue.names.items, pa.string()).take(pa.array(item_C)),
                pa.array(score_USK[user_C, slot_C, place_C].astype(np.float64)),
                pa.array(reasons(users.past(self, catalogue), users.places, entries, catalogue.names), pa.string()),
            ],
            names=["slot", "rank", "item_id", "score", "reason"],
        )
        ends = np.searchsorted(user_C, np.arange(len(position_USK) + 1)).astype(np.int32)
        lists = pa.ListArray.from_arrays(pa.array(ends), entry)
        return pa.RecordBatch.from_arrays(
            [batch.column("user_id"), batch.column("digest_before"), lists], names=["user_id", "digest_before", "lists"]
        )

    def _rank(self, users: _Users, catalogue: Catalogue) -> tuple[np.ndarray, np.ndarray]:
        """Positions and scores of every user's lists, (U, S, K); -1 where a list is shorter."""
        from models.top_k import ABSENT

        slots = len(ALL_SLOTS) if self.slots else 1
        size = len(catalogue.ranker.vocabulary.items)
        shape = (len(users.first_U), slots, min(self.k, size))
        position_USK, score_USK = np.full(shape, ABSENT, np.int64), np.zeros(shape, np.float32)
        bound = _USERS_AT_ONCE if catalogue.bulk is not None else _SCORES_AT_ONCE // (size * slots or 1)
        at_once = max(1, min(_USERS_AT_ONCE, bound))
        # Users without events were listed before and have vanished: their lists stay empty.
        present = np.flatnonzero((users.stop_U > users.first_U) | (self.moment is not None))
        for start in range(0, len(present) if size else 0, at_once):
            user_T = present[start : start + at_once]
            histories, queries = users.moments(user_T, self)
            seen = None if histories.seen is None else [taken for taken in histories.seen for _ in range(slots)]
            best = [
                self._best(catalogue, scores, None if seen is None else seen[part])
                for part, scores in catalogue.tiles(histories, queries)
            ]
            position_USK[user_T] = np.concatenate([positions for positions, _ in best]).reshape(-1, *shape[1:])
            score_USK[user_T] = np.concatenate([values for _, values in best]).reshape(-1, *shape[1:])
        return position_USK, score_USK

    def _best(self, catalogue: Catalogue, scores: Any, seen: Sequence[np.ndarray] | None) -> tuple[np.ndarray, np.ndarray]:
        """The lists of moments with these scores (B, V): positions and scores, (B, K)."""
        from models.top_k import top_k

        if catalogue.boost_V is not None:
            scores = scores + (catalogue.boost_V if isinstance(scores, np.ndarray) else scores.new_tensor(catalogue.boost_V))
        if self.caps or self.diversity:
            return self._diverse(catalogue, scores, seen, _LOOKED_AT * self.k)
        return top_k(scores, self.k, banned_V=catalogue.banned_V, seen=seen)

    def _diverse(
        self, catalogue: Catalogue, scores: Any, seen: Sequence[np.ndarray] | None, depth: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lists out of the best `depth`. One that caps leave short though there is more is made again, out of more; no other
        is, as what is diverse depends on what it is chosen from."""
        from models.diverse import diverse
        from models.top_k import ABSENT, top_k

        best = top_k(scores, depth, banned_V=catalogue.banned_V, seen=seen)
        size = scores.shape[1]
        caps = np.array([self.caps.get("category", size), self.caps.get("brand", size)])
        kinds = np.stack([catalogue.category_V, catalogue.brand_V])
        position_BK, score_BK = diverse(*best, self.k, kind_AV=kinds, cap_A=caps, weight=self.diversity)
        short = np.flatnonzero((position_BK[:, -1] == ABSENT) & (best[0][:, -1] != ABSENT))
        if len(short) and depth < size:
            some = None if seen is None else [seen[row] for row in short]
            position_BK[short], score_BK[short] = self._diverse(catalogue, scores[short], some, _LOOKED_AT * depth)
        return position_BK, score_BK


@dataclass(frozen=True, kw_only=True)
class _Users:
    """One batch: the users' events in columns, user u's in rows first_U[u] .. stop_U[u] - 1."""

    columns: dict[str, pa.Array]
    events: EventColumns
    first_U: np.ndarray
    stop_U: np.ndarray
    kept_U: np.ndarray
    seen: list[np.ndarray] | None
    places: Places

    @staticmethod
    def read(batch: pa.RecordBatch, catalogue: Catalogue, scorer: Scorer) -> _Users:
        from models.histories import Moments, event_columns, queries_before

        columns = {name: batch.column(name).flatten() for name in EVENT_FIELDS}
        vocabulary = catalogue.ranker.vocabulary
        events = event_columns(vocabulary, columns)
        length_U = pc.fill_null(pc.list_value_length(batch.column("item_id")), 0).to_numpy(zero_copy_only=False)
        stop_U = np.cumsum(length_U, dtype=np.int64)
        first_U = stop_U - length_U
        seen = None
        if not scorer.repeats:
            seen = places_of(batch.column("seen"), vocabulary.items)
        nowhere_U = np.zeros(len(first_U))
        last = queries_before(events, Moments(first_B=first_U, stop_B=stop_U, timestamp_B=nowhere_U, hour_of_week_B=nowhere_U))
        main = [_by_slot(batch.column(f"place_{axis}")) for axis in ("latitude", "longitude")]
        is_main_US = np.pad(~np.isnan(main[0]), ((0, 0), (0, 1)))
        latitude_U, longitude_U = last.latitude_B, last.longitude_B
        if scorer.moment is not None and scorer.moment.latitude is not None:
            latitude_U, longitude_U = (
                np.full(len(first_U), degrees) for degrees in (scorer.moment.latitude, scorer.moment.longitude)
            )
        return _Users(
            columns=columns,
            events=events,
            first_U=first_U,
            stop_U=stop_U,
            kept_U=pc.fill_null(batch.column("kept"), 0).to_numpy(zero_copy_only=False),
            seen=seen,
            places=Places(
                latitude_US=np.where(is_main_US, np.pad(main[0], ((0, 0), (0, 1))), latitude_U[:, None]),
                longitude_US=np.where(is_main_US, np.pad(main[1], ((0, 0), (0, 1))), longitude_U[:, None]),
                is_main_US=is_main_US,
            ),
        )

    def moments(self, user_T: np.ndarray, scorer: Scorer) -> tuple[Histories, Queries]:
        """The histories of some users, and their queries: all slots of the first user, then of the next."""
        from models.histories import histories_from_events, local_hours
        from models.queries import Queries

        slots = np.arange(len(ALL_SLOTS)) if scorer.slots else np.array([ANY])
        user_B, slot_B = np.repeat(user_T, len(slots)), np.tile(slots, len(user_T))
        # No longer than needed: padding costs the encoder as much as events do.
        length = int(min(scorer.length, max(1, (self.stop_U - self.first_U)[user_T].max())))
        histories = histories_from_events(
            self.events,
            self.first_U[user_T],
            self.stop_U[user_T],
            length,
            None if self.seen is None else [self.seen[user] for user in user_T],
        )
        hour_B = np.array([*[slot_hour(slot) for slot in SLOTS], -1.0])[slot_B]
        timestamp_B = self._timestamps(user_B, hour_B, scorer)
        if scorer.moment is not None and scorer.moment.timestamp is not None:
            timestamp_B = np.full(len(user_B), scorer.moment.timestamp, dtype=np.int64)
            offset_B = self._offsets(user_B, scorer.moment.offset)
            hour_B = np.where(np.isnan(offset_B), -1.0, local_hours(timestamp_B, offset_B))
        return histories, Queries(
            timestamp_B=timestamp_B,
            hour_of_week_B=hour_B.astype(np.float32),
            latitude_B=self.places.latitude_US[user_B, slot_B].astype(np.float32),
            longitude_B=self.places.longitude_US[user_B, slot_B].astype(np.float32),
        )

    def _timestamps(self, user_B: np.ndarray, hour_B: np.ndarray, scorer: Scorer) -> np.ndarray:
        """When each moment is, seconds since 1970: the first such local hour after the day asked from; `any` as that ends."""
        from models.histories import local_hours

        some_B = self.stop_U[user_B] > self.first_U[user_B]
        newest_B = np.where(some_B, self._of_rows(self.events.timestamp_E, self.stop_U[user_B] - 1), 0)
        if not scorer.has_times:
            return newest_B + 1
        end_B = asked_from(end_of(scorer.day), newest_B)
        local_B = local_hours(end_B, np.nan_to_num(self._offsets(user_B)))
        ahead_B = np.where(hour_B < 0, 0.0, (hour_B - local_B) % 168.0)
        return end_B + np.round(ahead_B * 3600.0).astype(np.int64)

    def _offsets(self, user_B: np.ndarray, given: float | None = None) -> np.ndarray:
        """Hours by which the clocks of users were ahead of UTC at their newest event with one, or as given; else NaN."""
        from models.histories import clock_offsets

        if given is not None:
            return np.full(len(user_B), given)
        clocked_E = np.maximum.accumulate(np.where(self.events.hour_of_week_E >= 0, np.arange(len(self.events)), -1))
        row_B = self._of_rows(clocked_E, self.stop_U[user_B] - 1)
        known_B = (self.stop_U[user_B] > self.first_U[user_B]) & (row_B >= self.first_U[user_B])
        times_B, hours_B = (self._of_rows(values, row_B) for values in (self.events.timestamp_E, self.events.hour_of_week_E))
        return np.where(known_B, clock_offsets(times_B, hours_B), np.nan)

    def _of_rows(self, values_E: np.ndarray, row_B: np.ndarray) -> np.ndarray:
        """Of a row before the first, as if it were the first; of no events, zeros."""
        return values_E[np.maximum(row_B, 0)] if len(values_E) else np.zeros(len(row_B), values_E.dtype)

    def past(self, scorer: Scorer, catalogue: Catalogue) -> Past:
        """The target events, for the reasons."""
        from models.queries import FIRST

        type_E = _codes(self.columns["event_type"], scorer.targets)
        kept = np.flatnonzero(type_E >= 0)
        local = self.columns["local_timestamp"].cast(pa.timestamp("us")).cast(pa.date32()).cast(pa.int32())
        position = {name: place for place, name in enumerate(catalogue.names.categories)}
        return Past(
            user_E=np.repeat(np.arange(len(self.first_U)), self.stop_U - self.first_U)[kept],
            item_E=self.events.item_E[kept] - FIRST,
            category_E=_codes(self.columns["category"], tuple(position))[kept],
            slot_E=_codes(self.columns["slot"], SLOTS)[kept],
            type_E=type_E[kept],
            date_E=pc.fill_null(local, NO_DATE).to_numpy(zero_copy_only=False)[kept],
            latitude_E=self.events.latitude_E[kept].astype(np.float64),
            longitude_E=self.events.longitude_E[kept].astype(np.float64),
            kept_U=self.kept_U,
        )


def places_of(lists: pa.Array, items: tuple[str, ...]) -> list[np.ndarray]:
    """The catalogue places of each list of item ids; those that are not in the catalogue are left out."""
    from models.histories import name_indices
    from models.queries import FIRST

    ends = np.cumsum(pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False))
    place_T = name_indices(lists.flatten(), items) - FIRST
    return [part[part >= 0] for part in np.split(place_T, ends[:-1])]


def _by_slot(places: pa.Array) -> np.ndarray:
    """(U, slots) from lists of one value per slot; NaN where a user has none."""
    filled = pc.fill_null(places.flatten(), np.nan).to_numpy(zero_copy_only=False).reshape(-1, len(SLOTS))
    by_slot = np.full((len(places), len(SLOTS)), np.nan)
    by_slot[places.is_valid().to_numpy(zero_copy_only=False)] = filled
    return by_slot


def _codes(names: pa.Array, known: tuple[str, ...]) -> np.ndarray:
    """Position of each name in `known`; -1 where it is null or not there."""
    return pc.fill_null(pc.index_in(names, value_set=pa.array(known, pa.string())), -1).to_numpy(zero_copy_only=False)
