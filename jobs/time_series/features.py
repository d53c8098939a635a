"""Arrow batches of series in, rows of features out: one vectorised pass over all series of a batch.

Legend: H hours, N days, P series (see `jobs.time_series.series`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conf.contracts import SERIES_DAYS, SERIES_WINDOWS
from conf.tables import TABLES
from jobs.time_series.gaps import gaps
from jobs.time_series.rhythm import rhythm
from jobs.time_series.series import HOURS, Floats, Increments, Ints, Series, cut
from jobs.time_series.shape import WEEK, Features, slope, sum_days, trend_and_season, volatility, weekly, windows
from jobs.time_series.surprise import change_point, last_day

# What is added later, and what names a series.
_LATER = ("entity_type", "entity_id", "is_anomaly", "changed_on", "day")
_NAMES = ("entity", "event_type")
_TYPES = {"int": pa.int32(), "bigint": pa.int64(), "double": pa.float64(), "boolean": pa.bool_()}
_COLUMNS = [column for column in TABLES["time_series_features"].columns if column.name not in _LATER]
_FEATURES = [column for column in _COLUMNS if column.name not in (*_NAMES, "gone")]
DESCRIBED = ", ".join(f"{column.name} {column.type}" for column in _COLUMNS) + ", n int"
# Series taken at once: their days fit a core's cache.
_AT_ONCE = 2048
_INCREMENTS_AT_ONCE = 50_000
LOW_HALF = 2**32 - 1
HOUR_BITS, NO_HOUR = 5, HOURS


def describing(first: int, first_day: int) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For mapInArrow over `entity, event_type, dates, counts`, sorted by the first two: rows `DESCRIBED`.

    An element of `dates` is the day of arrival, in days since 1970, in the upper 32 bits and the own date in the lower ones;
    of `counts` the events above `HOUR_BITS` bits of the local hour (or NO_HOUR). `n` is the day of a row; as of each day
    from `first` on, on which something of the entity arrived. `first_day` is the lake's.
    """

    def describe(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        pending: list[pa.RecordBatch] = []
        for batch in batches:
            if batch.num_rows == 0:
                continue
            rows = pa.Table.from_batches([*pending, batch])
            # The last entity may go on in the next batch.
            last = pc.index(rows["entity"], rows["entity"][-1]).as_py()
            pending = rows.slice(last).to_batches()
            for piece in _pieces(rows.slice(0, last)):
                yield from _described(piece, first, first_day)
        if pending:
            yield from _described(pa.Table.from_batches(pending), first, first_day)

    return describe


def _pieces(rows: pa.Table) -> Iterator[pa.Table]:
    """Whole entities, some thousand increments at once: each may be in as many series as there are days to describe."""
    if rows.num_rows == 0:
        return
    upto = np.cumsum(pc.list_value_length(rows["dates"]).to_numpy())
    begins = np.flatnonzero(np.diff(_numbers(rows["entity"]), prepend=-1))
    piece = (upto[begins] - 1) // _INCREMENTS_AT_ONCE
    starts = [*begins[np.flatnonzero(np.diff(piece, prepend=-1))].tolist(), rows.num_rows]
    for start, end in pairwise(starts):
        yield rows.slice(start, end - start)


def _described(rows: pa.Table, first: int, first_day: int) -> Iterator[pa.RecordBatch]:
    length = pc.list_value_length(rows["dates"]).to_numpy()
    group = np.repeat(np.arange(rows.num_rows), length)
    entity_of_group = _numbers(rows["entity"])
    entity = entity_of_group[group]
    dates, counts = (pc.list_flatten(rows[name]).to_numpy() for name in ("dates", "counts"))
    arrived, dated = dates >> 32, (dates & LOW_HALF).astype(np.int32).astype(np.int64)
    events, hour = counts >> HOUR_BITS, counts & (2**HOUR_BITS - 1)
    series = cut(Increments(entity=entity, group=group, arrived=arrived, dated=dated), first=first, window=SERIES_DAYS)
    names = rows.select(_NAMES)
    if len(series.day):
        features = features_of(series.counts(events), series.hours(events, hour), series.day, first_day)
        yield _batch(names.take(pa.array(series.group)), series.day, features)
    if len(series.emptied[0]):
        of_entity = np.unique(entity_of_group, return_index=True)[1]
        yield _gone(names.take(pa.array(of_entity[series.emptied[0]])), series)


def _numbers(names: pa.ChunkedArray) -> Ints:
    """Names as numbers from 0 on, in order of appearance."""
    numbers: Ints = names.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    return numbers


def features_of(counts_NP: Floats, hours_HP: Floats, day: Ints, first_day: int) -> Features:
    """All features of series of `SERIES_DAYS` days; NaN where there is not enough to tell.

    Args:
        counts_NP: events per day.
        hours_HP: events per local hour.
        day: the last day of each series, (P,), days since 1970.
        first_day: what was before it nobody has seen.
    """
    observed = np.minimum(day - first_day + 1, SERIES_DAYS)
    found: Features = dict(rhythm(hours_HP))
    for at in range(0, len(day), _AT_ONCE):
        piece = np.arange(at, min(at + _AT_ONCE, len(day)))
        counts_NS = counts_NP[:, piece]
        _put(found, piece, _of_days(counts_NS, observed[piece]))
        # By whole weeks seen, up to the day and up to the day before it.
        for weeks, rows in _alike(observed[piece] // WEEK):
            _put(found, piece[rows], _of_weeks(counts_NS[SERIES_DAYS - weeks * WEEK :, rows], day[piece[rows]]))
        for weeks, rows in _alike((observed[piece] - 1) // WEEK):
            if weeks >= 2:
                _put(found, piece[rows], last_day(counts_NS[-1 - weeks * WEEK : -1, rows], counts_NS[-1, rows]))
    return found


def _of_days(counts_NP: Floats, observed: Ints) -> Features:
    """What any days can tell; those that nobody has seen hold nothing."""
    recent = windows(counts_NP, max(SERIES_WINDOWS))
    return {
        "observed_days": observed,
        "recent": recent,
        "level": sum_days(counts_NP) / observed,
        **{f"events_{days}d": recent[:, days - 1] for days in SERIES_WINDOWS},
        **gaps(counts_NP),
    }


def _of_weeks(counts_NP: Floats, day: Ints) -> Features:
    """What so many whole weeks can tell."""
    weeks = len(counts_NP) // WEEK
    found: Features = {}
    if weeks >= 2:
        found |= weekly(counts_NP, day) | {"volatility": volatility(counts_NP)}
    if weeks >= 3:
        found |= {"slope": slope(counts_NP)}
    if weeks >= 4:
        found |= trend_and_season(counts_NP, day) | change_point(counts_NP)
    return found


def _alike(lengths: Ints) -> Iterator[tuple[int, Ints]]:
    """Each length and the series that have it."""
    for length in np.unique(lengths):
        yield int(length), np.flatnonzero(lengths == length)


def _put(found: Features, rows: Ints, features: Features) -> None:
    """Into these rows of what was found; NaN in the others."""
    size = len(found["daily_strength"])
    for name, values in features.items():
        if name not in found:
            found[name] = np.zeros((size, *values.shape[1:]), values.dtype)
            if values.dtype.kind == "f":
                found[name][:] = np.nan
        found[name][rows] = values


def _batch(names: pa.Table, day: Ints, features: Features) -> pa.RecordBatch:
    nothing = np.full(len(day), np.nan)
    columns = {name: column.combine_chunks() for name, column in zip(names.column_names, names.columns, strict=True)}
    columns |= {column.name: _array(features.get(column.name, nothing), column.type) for column in _FEATURES}
    columns |= {"gone": pa.array(np.zeros(len(day), np.bool_)), "n": pa.array(day.astype(np.int32))}
    order = [*(column.name for column in _COLUMNS), "n"]
    return pa.RecordBatch.from_arrays([columns[name] for name in order], names=order)


def _array(values: Floats | Ints, kind: str) -> pa.Array:
    """As the contract has it; NaN is null, in a list of seven or ninety as well."""
    element = _TYPES[kind.removeprefix("array<").removesuffix(">")]
    flat = pa.array(values.ravel(), from_pandas=True).cast(element)
    if not kind.startswith("array<"):
        return flat
    if values.ndim == 1:
        return pa.nulls(len(values), pa.list_(element))
    offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1])
    lists = pa.ListArray.from_arrays(offsets, flat)
    return pc.if_else(pa.array(np.isfinite(values[:, 0])), lists, pa.scalar(None, lists.type))


def _gone(names: pa.Table, series: Series) -> pa.RecordBatch:
    """A row per entity and day that left it with nothing."""
    size = len(series.emptied[1])
    zeros: Features = {
        column.name: np.zeros((size, max(SERIES_WINDOWS)) if column.type == "array<bigint>" else size)
        for column in _FEATURES
        if not column.nullable
    }
    batch = _batch(names, series.emptied[1], zeros)
    gone = {"gone": pa.array(np.ones(size, np.bool_)), "event_type": pa.array([""] * size)}
    return pa.RecordBatch.from_arrays([gone.get(name, batch[name]) for name in batch.schema.names], names=batch.schema.names)
