"""What is known of items besides their names, as of a moment: vectors of their texts, their tags, and what a feed told.

Read from the stored states without Spark: what comes is bounded by the catalogue. All are brought to unit length.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.context import Context
from jobs.lake.logs import table_path
from jobs.lake.store import keyframe_before
from jobs.query.rendering import as_arrow
from models.knowledge import Knowledge

TABLES_READ = ("item_texts", "text_semantics", "item_tags", "item_vectors")
# A tag has a vector of so many numbers, drawn by its name: tags of one item are added up (Weinberger et al., "Feature
# Hashing for Large Scale Multitask Learning", ICML 2009).
_TAG_NUMBERS = 64


@dataclass(frozen=True, kw_only=True)
class Told:
    """Of one kind what became known of items, a row per item and day in the order of the days; NaN: nothing any more.

    mark: tells two vectors apart where their numbers may differ by rounding; None: the numbers do.
    """

    item: np.ndarray  # str
    day: np.ndarray  # datetime64[D]
    vector: np.ndarray  # (rows, K) float16
    mark: np.ndarray | None = None

    def as_of(self, until: date, items: Sequence[str]) -> np.ndarray:
        """What was known of each item before the day `until`, (V, K)."""
        row_V = self._rows(until, items)
        known = np.full((len(items), self.vector.shape[1]), np.nan, np.float16)
        known[row_V >= 0] = self.vector[row_V[row_V >= 0]]
        return known

    def fingerprint(self, until: date, items: Sequence[str]) -> str:
        """Equal where the same was known of the same items."""
        if self.mark is None:
            return hashlib.sha256(self.as_of(until, items).tobytes()).hexdigest()
        marks = ["" if row < 0 else str(self.mark[row]) for row in self._rows(until, items)]
        return hashlib.sha256("\n".join(marks).encode()).hexdigest()

    def _rows(self, until: date, items: Sequence[str]) -> np.ndarray:
        """The newest row of each item before the day, -1 where there is none."""
        place, row_V = {item: number for number, item in enumerate(items)}, np.full(len(items), -1)
        for row in np.flatnonzero(self.day < np.datetime64(until)):
            if (at := place.get(self.item[row])) is not None:
                row_V[at] = row
        return row_V


def told(context: Context) -> dict[str, Told]:
    """Kind to what was told; kinds of which nothing was are left out, and all where `model.knowledge` is off.

    A night reads back to the last keyframe, a bootstrap all, as it learns as of an earlier day too.
    """
    if not context.settings.model.knowledge:
        return {}
    stored = {name: version for name in TABLES_READ if (version := context.version(name)) is not None}
    until = context.days.last + timedelta(days=0 if context.mapping.has_times else 1)
    since = context.first_day if context.bootstrap else keyframe_before(until - timedelta(days=1), context.first_day)
    days = f"day >= DATE '{since}' AND day < DATE '{until}'"
    if context.bootstrap:
        days += " AND changed_on = day"  # no copies: of a long history they would be many
    found: dict[str, Told] = {}
    if {"item_texts", "text_semantics"} <= stored.keys():
        found |= _texts(_answer(context, stored, _TEXTS.format(days=days), "item_texts", "text_semantics"))
    if "item_tags" in stored:
        found |= _tags(_answer(context, stored, _TAGS.format(days=days), "item_tags"))
    if "item_vectors" in stored:
        changes, vectors = (_answer(context, stored, sql.format(days=days), "item_vectors") for sql in (_CHANGES, _VECTORS))
        found |= _vectors(changes, vectors)
    return found


def knowledge(told: Mapping[str, Told], until: date, items: Sequence[str]) -> Knowledge:
    return Knowledge(vectors={kind: one.as_of(until, items) for kind, one in told.items()})


def sizes(told: Mapping[str, Told]) -> dict[str, int]:
    return {kind: one.vector.shape[1] for kind, one in sorted(told.items())}


def fingerprint(told: Mapping[str, Told], until: date, items: Sequence[str]) -> dict[str, str]:
    return {kind: one.fingerprint(until, items) for kind, one in sorted(told.items())}


_TEXTS = """
    SELECT t.item_id, t.day, t.text_hash, s.encoder, CASE WHEN NOT t.gone THEN s.vector END AS vector
    FROM item_texts AS t LEFT JOIN (
        SELECT text_hash, encoder, vector FROM (
            SELECT text_hash, encoder, vector, gone, row_number() OVER (PARTITION BY text_hash ORDER BY day DESC) AS place
            FROM text_semantics WHERE {days}
        ) AS ranked WHERE place = 1 AND NOT gone
    ) AS s ON t.text_hash = s.text_hash
    WHERE t.{days} ORDER BY t.day, t.item_id
"""
_TAGS = "SELECT item_id, day, tag, weight, gone FROM item_tags WHERE {days} ORDER BY day, item_id, tag"
_NUMBERED = """
    WITH numbered AS (
        SELECT item_id, day, vectors, row_number() OVER (ORDER BY day, item_id) - 1 AS row FROM item_vectors WHERE {days}
    )
"""
_CHANGES = _NUMBERED + "SELECT item_id, day FROM numbered ORDER BY row"
_VECTORS = (
    _NUMBERED
    + """
    SELECT row, unnest(map_keys(vectors)) AS kind, unnest(map_values(vectors)) AS vector
    FROM numbered WHERE vectors IS NOT NULL
"""
)


def _answer(context: Context, stored: Mapping[str, int], sql: str, *names: str) -> pa.Table:
    engine = deltalake.QueryBuilder()
    for name in names:
        engine = engine.register(name, deltalake.DeltaTable(table_path(context.lake.root, name), version=stored[name]))
    return as_arrow(engine.execute(sql).read_all())


def _texts(rows: pa.Table) -> dict[str, Told]:
    """By the encoder that read most of them: vectors of two do not compare."""
    counted = pc.value_counts(rows["encoder"].drop_null()).to_pylist()
    if not counted:
        return {}
    mine = max(counted, key=lambda one: (one["counts"], one["values"]))["values"]
    is_mine = pc.fill_null(pc.equal(rows["encoder"], mine), False)
    vectors = pc.if_else(is_mine, rows["vector"], pa.scalar(None, rows["vector"].type))
    found = _told(f"text_{_plain(mine)}", rows, vectors)
    # A bootstrap run again reads texts in other batches: its vectors are equal but for rounding.
    return {kind: replace(one, mark=np.array(rows["text_hash"].to_pylist(), dtype=object)) for kind, one in found.items()}


def _tags(rows: pa.Table) -> dict[str, Told]:
    """The sum of the vectors of an item's tags, each times its weight."""
    tag = np.array(["" if one is None else one for one in rows["tag"].to_pylist()], dtype=object)
    weight = np.array(rows["weight"].to_pylist(), dtype=np.float64)
    is_told = ~np.array(rows["gone"].to_pylist(), dtype=bool) & (tag != "")
    if not is_told.any():
        return {}
    names, place = np.unique(tag.astype(str), return_inverse=True)
    drawn = np.stack([_drawn(name) for name in names])
    item, day = _names(rows)
    begins = np.flatnonzero((item != np.roll(item, 1)) | (day != np.roll(day, 1)) | (np.arange(len(item)) == 0))
    summed = np.add.reduceat(np.where(is_told[:, None], weight[:, None] * drawn[place], 0.0), begins)
    return {"tags": Told(item=item[begins], day=day[begins], vector=_unit(summed))}


def _drawn(tag: str) -> np.ndarray:
    """Signs drawn by the name."""
    bits = np.frombuffer(hashlib.sha256(tag.encode()).digest()[: _TAG_NUMBERS // 8], np.uint8)
    return np.unpackbits(bits).astype(np.float64) * 2.0 - 1.0


def _vectors(changes: pa.Table, vectors: pa.Table) -> dict[str, Told]:
    """A change takes back the vectors that it does not name."""
    row, kind, vector = (vectors[name].combine_chunks() for name in ("row", "kind", "vector"))
    found: dict[str, Told] = {}
    for name in sorted(pc.unique(kind).to_pylist()):
        at = np.flatnonzero(pc.equal(kind, name).to_numpy(zero_copy_only=False))
        places = np.full(changes.num_rows, -1)
        places[row.to_numpy(zero_copy_only=False).astype(np.int64)[at]] = at
        found |= _told(f"vectors_{_plain(name)}", changes, vector.take(pa.array(places, mask=places < 0)))
    return found


def _told(kind: str, rows: pa.Table, vectors: pa.ChunkedArray | pa.Array) -> dict[str, Told]:
    """Vectors of another length than most are none."""
    vectors = vectors.combine_chunks() if isinstance(vectors, pa.ChunkedArray) else vectors
    length = pc.fill_null(pc.list_value_length(vectors), 0).to_numpy()
    if not length.any():
        return {}
    size = int(np.bincount(length[length > 0]).argmax())
    values = np.full((len(length), size), np.nan, np.float32)
    flat, begins = pc.list_flatten(vectors).to_numpy(zero_copy_only=False), np.cumsum(length) - length
    usual = np.flatnonzero(length == size)
    values[usual] = flat[begins[usual][:, None] + np.arange(size)]
    item, day = _names(rows)
    return {kind: Told(item=item, day=day, vector=_unit(values))}


def _names(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    return np.array(rows["item_id"].to_pylist(), dtype=object), np.array(rows["day"].to_pylist(), dtype="datetime64[D]")


def _unit(values: np.ndarray) -> np.ndarray:
    """Of unit length; a vector of zeros says nothing."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    unit: np.ndarray = np.divide(values, length, out=np.full(values.shape, np.nan, values.dtype), where=length > 0).astype(
        np.float16
    )
    return unit


def _plain(name: str) -> str:
    """As part of a parameter's name; no two names are one."""
    plain = re.sub(r"\W", "_", name)
    return plain if plain == name else f"{plain}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
