"""Training windows read back in batches, by one process or by many.

The windows lie in SHARDS virtual shards: equal ranges of their key `shuffle`, a hash. A rank reads and keeps its shards
alone. Which windows make a batch, and in which order, follows from the windows, the seed and the epoch: not from the
number of ranks, nor from how the files were cut. Shape suffixes: N windows.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from models.windows import ARRAYS, Windows

SHARDS = 64  # so many ranks at most have something to do
# Windows that one process holds at once; a fold that fits is read once and kept for all epochs.
BUFFER_BYTES = 512 * 2**20
_BITS = 20  # of the place of a window in its shard, by which it is put into a part


@dataclass(frozen=True, kw_only=True)
class Source:
    """Windows of one training and fold in the Parquet files that a pinned table version lists; `counts` per fold."""

    uris: tuple[str, ...]
    until: datetime
    size: int
    counts: Mapping[str, int] = field(default_factory=dict)
    fold: str = "train"

    @property
    def count(self) -> int:
        return self.counts.get(self.fold, 0)

    def of(self, fold: str) -> Source:
        return replace(self, fold=fold)


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """Shards from `first` to before `stop`; of each the part `part` of `parts`."""

    first: int = 0
    stop: int = SHARDS
    part: int = 0
    parts: int = 1

    @staticmethod
    def of(rank: int, ranks: int) -> Ranges:
        return Ranges(first=SHARDS * rank // ranks, stop=SHARDS * (rank + 1) // ranks)

    def holds(self, shuffle_N: np.ndarray) -> np.ndarray:
        shard_N, part_N = shard_of(shuffle_N), part_of(shuffle_N, self.parts)
        return (shard_N >= self.first) & (shard_N < self.stop) & (part_N == self.part)

    def meets(self, least: int, most: int) -> bool:
        """Whether keys from `least` to `most` may lie in it."""
        ends = np.array([least, most])
        first, last = shard_of(ends)
        if last < self.first or first >= self.stop:
            return False
        first_part, last_part = part_of(ends, self.parts)
        return bool(first != last or first_part <= self.part <= last_part)


def shard_of(shuffle_N: np.ndarray) -> np.ndarray:
    """The shard of each key: equal ranges, in the order of the keys."""
    return (_unsigned(shuffle_N) >> np.uint64(58)).astype(np.int64)


def part_of(shuffle_N: np.ndarray, parts: int) -> np.ndarray:
    """The part of its shard in which each key lies: equal ranges, in the order of the keys."""
    place_N = (_unsigned(shuffle_N) >> np.uint64(58 - _BITS)) & np.uint64(2**_BITS - 1)
    return (place_N * np.uint64(parts) >> np.uint64(_BITS)).astype(np.int64)


def _unsigned(shuffle_N: np.ndarray) -> np.ndarray:
    # From the least to the greatest signed key.
    unsigned_N: np.ndarray = shuffle_N.astype(np.int64).view(np.uint64) ^ np.uint64(1 << 63)
    return unsigned_N


def files_of(source: Source, ranges: Ranges) -> list[str]:
    """The files that may hold windows of these ranges, as their footers say."""
    return [uri for uri in source.uris if any(ranges.meets(*ends) for ends in _key_ranges(uri))]


@cache
def _key_ranges(uri: str) -> list[tuple[int, int]]:
    """The least and the greatest key of each row group. Read once: files of a table never change."""
    with fsspec.open(uri, "rb") as file:
        footer = pq.read_metadata(file)
    known = [_column(footer.row_group(number), "shuffle").statistics for number in range(footer.num_row_groups)]
    # Without statistics a group may hold any.
    return [(one.min, one.max) if one is not None and one.has_min_max else (-(2**63), 2**63 - 1) for one in known]


def _column(group: pq.RowGroupMetaData, name: str) -> pq.ColumnChunkMetaData:
    return next(column for n in range(group.num_columns) if (column := group.column(n)).path_in_schema == name)


def read_petastorm(source: Source, ranges: Ranges | None = None) -> Iterator[Windows]:
    """Blocks of windows (of a row group each), in the order of the files."""
    from petastorm import make_batch_reader

    # It warns of Arrow's names on every read; the versions are pinned together.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"petastorm\.")
    ranges = ranges or Ranges()
    uris = files_of(source, ranges)
    if not uris:
        return
    until = np.datetime64(source.until.replace(tzinfo=None), "us")
    names = [f"^{name}$" for name in ("until", "fold", "shuffle", *ARRAYS)]
    # Its own shuffling depends on the pool; ours is by seed and epoch, in `Batches`.
    reader = make_batch_reader(uris, schema_fields=names, reader_pool_type="dummy", shuffle_row_groups=False, num_epochs=1)
    # Not as a context manager: that prints to stdout when it ends.
    try:
        for block in reader:
            chosen = (block.fold == source.fold) & (block.until.astype("datetime64[us]") == until)
            chosen &= ranges.holds(block.shuffle)
            if chosen.any():
                arrays = {f"{name}_NW": getattr(block, name)[chosen] for name in ARRAYS}
                yield Windows(**arrays, shuffle_N=block.shuffle[chosen])
    finally:
        reader.stop()
        reader.join()


def read_arrow(source: Source, ranges: Ranges | None = None) -> Iterator[Windows]:
    """The same by a plain Arrow scan: the reference that the other is tested against."""
    if not source.uris:
        return
    ranges = ranges or Ranges()
    files = ds.dataset([uri.removeprefix("file://") for uri in source.uris], format="parquet")
    chosen = (ds.field("fold") == source.fold) & (ds.field("until") == pa.scalar(source.until, pa.timestamp("us", tz="UTC")))
    for batch in files.scanner(columns=["shuffle", *ARRAYS], filter=chosen).to_batches():
        if len(batch):
            flat = {name: batch.column(name).flatten().to_numpy(zero_copy_only=False) for name in ARRAYS}
            arrays = {f"{name}_NW": values.reshape(len(batch), -1) for name, values in flat.items()}
            windows = Windows(**arrays, shuffle_N=batch.column("shuffle").to_numpy())
            yield windows[ranges.holds(windows.shuffle_N)]


class Batches:
    """Shuffled global batches of one source, of which each rank is given what lies in its shards.

    Every shard is shuffled for itself and spread evenly over the steps of an epoch, so that batches are of `batch_size`
    windows but for a few more or less. Where the windows do not fit into memory an epoch goes through parts of all
    shards, in an order of its own; how many parts follows from the count of all windows.
    """

    def __init__(self, source: Source, *, batch_size: int, seed: int, rank: int = 0, ranks: int = 1) -> None:
        self.source = source
        self.seed = seed
        self.ranges = Ranges.of(rank, ranks)
        row_bytes = Windows.none(source.size).padded(1).nbytes
        self.parts = max(1, -(-source.count * row_bytes // BUFFER_BYTES))
        self.steps_per_part = max(1, -(-source.count // (self.parts * batch_size)))
        self._kept: Windows | None = None

    @property
    def steps(self) -> int:
        """Of an epoch, equal for all ranks."""
        return self.parts * self.steps_per_part if self.source.count else 0

    def epoch(self, number: int, skip: int = 0) -> Iterator[Windows]:
        """This rank's windows of every step of the epoch but the first `skip`; at least one, if only an empty one."""
        order = np.random.default_rng([self.seed, number]).permutation(self.parts)
        for place, part in enumerate(order if self.steps else ()):
            first = max(0, skip - place * self.steps_per_part)
            if first >= self.steps_per_part:
                continue
            windows = self._part(int(part))
            for rows in self._steps(windows, number, int(part))[first:]:
                yield windows[rows].padded(1)

    def _steps(self, windows: Windows, number: int, part: int) -> list[np.ndarray]:
        """The rows of each step of a part."""
        shard_N, shares = shard_of(windows.shuffle_N), np.arange(self.steps_per_part + 1) / self.steps_per_part
        found, step_of = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for shard in range(self.ranges.first, self.ranges.stop):
            rows = np.flatnonzero(shard_N == shard)
            found.append(np.random.default_rng([self.seed, number, part, shard]).permutation(rows))
            # The fractions that shards are ahead by are spread too, or all would give their odd window in one step.
            bounds = np.floor(len(rows) * shares + (shard + 0.5) / SHARDS)
            step_of.append(np.searchsorted(bounds, np.arange(len(rows)), side="right") - 1)
        step_N = np.concatenate(step_of)
        order = np.argsort(step_N, kind="stable")
        return np.split(np.concatenate(found)[order], np.searchsorted(step_N[order], np.arange(1, self.steps_per_part)))

    def _part(self, part: int) -> Windows:
        if self._kept is not None:
            return self._kept
        ranges = replace(self.ranges, part=part, parts=self.parts)
        windows = Windows.together([Windows.none(self.source.size), *read_petastorm(self.source, ranges)])
        # By the key: however the files were cut, the order is the same.
        windows = windows[np.lexsort((*windows.timestamp_NW.T[-2:], windows.shuffle_N))]
        if self.parts == 1:
            self._kept = windows
        return windows


def in_pieces(windows: Windows, places: int, at_once: int | None = None) -> list[Windows]:
    """All the windows once, those of like length together.

    A piece holds `places` places at most, the padding of shorter windows to its longest included, and `at_once` windows at
    most; one window it holds in any case. No windows are one piece of none.
    """
    length_N = windows.lengths
    found: list[list[int]] = [[]]
    # From the shortest, so that the newest is the longest of its piece.
    for place in np.argsort(length_N, kind="stable").tolist():
        after = len(found[-1]) + 1
        if after > 1 and (after * int(length_N[place]) > places or after > (at_once or after)):
            found.append([])
        found[-1].append(place)
    return [windows[np.array(piece, dtype=np.int64)] for piece in found]
