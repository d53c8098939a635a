"""Training windows: how they are cut from events, and read back in batches.

A window holds up to W = model.window + 1 events of one user, oldest first, padding in front. Every
target event is marked in exactly one window, with at least W // 2 earlier events before it (or all
there are). Shape suffixes: E events of many users, N windows, W events of a window.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from models.histories import EventColumns, histories_of_rows

CONTEXT, TRAIN, VALIDATION = 0, 1, 2
FOLDS = {TRAIN: "train", VALIDATION: "validation"}
ARRAYS = ("item", "category", "event_type", "timestamp", "hour_of_week", "latitude", "longitude", "is_target")
# Windows held in memory at once; a fold that fits is read once and kept for all epochs.
BUFFER_BYTES = 512 * 2**20


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows in columns; units and absent values as in `models.queries.Histories`."""

    item_NW: np.ndarray  # int32
    category_NW: np.ndarray  # int32
    event_type_NW: np.ndarray  # int32
    timestamp_NW: np.ndarray  # int64
    hour_of_week_NW: np.ndarray  # float32
    latitude_NW: np.ndarray  # float32
    longitude_NW: np.ndarray  # float32
    is_target_NW: np.ndarray  # int32
    shuffle_N: np.ndarray  # int64: an order that has nothing to do with users or time

    def __len__(self) -> int:
        return len(self.item_NW)

    def __getitem__(self, rows: Any) -> Windows:
        return Windows(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @property
    def nbytes(self) -> int:
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    @staticmethod
    def together(blocks: Sequence[Windows]) -> Windows:
        return Windows(**{field.name: np.concatenate([getattr(b, field.name) for b in blocks]) for field in fields(Windows)})

    @staticmethod
    def none(size: int) -> Windows:
        return histories_as_windows(_NO_EVENTS, np.zeros((0, size), dtype=np.int64), np.zeros((0, size), dtype=np.int32))

    def padded(self, count: int) -> Windows:
        """With empty windows appended up to `count`: nothing in them, no target."""
        missing = count - len(self)
        if missing <= 0:
            return self
        row_NW = np.full((missing, self.item_NW.shape[1]), -1)
        return Windows.together([self, histories_as_windows(_NO_EVENTS, row_NW, np.zeros(row_NW.shape, dtype=np.int32))])


_NO_EVENTS = EventColumns(
    item_E=np.zeros(0, np.int32), category_E=np.zeros(0, np.int32), event_type_E=np.zeros(0, np.int32),
    timestamp_E=np.zeros(0, np.int64), hour_of_week_E=np.zeros(0, np.float32),
    latitude_E=np.zeros(0, np.float32), longitude_E=np.zeros(0, np.float32),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Where windows lie in the events: one entry per window."""

    row_NW: np.ndarray  # int64, rows of the events, -1 = padding
    owner_row_N: np.ndarray  # int64, any row of the window's user
    number_N: np.ndarray  # int32, number of the window in the user's history
    fold_N: np.ndarray  # int8, TRAIN or VALIDATION
    is_target_NW: np.ndarray  # int32


def cut(first_E: np.ndarray, fold_E: np.ndarray, size: int) -> Cut:
    """Windows of `size` events over the rows that are to be learnt (fold TRAIN) or judged (VALIDATION).

    `first_E` is the row at which the user of each row begins. A user's first `size` events share window
    0; after that every `size // 2` events make one, so that a target sees at least the half of a window
    before it, and no event is read more than three times. Windows end with their last target.
    """
    step = max(size // 2, 1)
    wanted = np.flatnonzero(fold_E != CONTEXT)
    place = wanted - first_E[wanted]
    number = np.where(place < size, 0, 1 + (place - size) // step)
    keys = np.stack([first_E[wanted], number, fold_E[wanted].astype(np.int64)], axis=1)
    windows, window_of = np.unique(keys, axis=0, return_inverse=True)
    last = np.zeros(len(windows), dtype=np.int64)
    np.maximum.at(last, window_of.reshape(-1), wanted)
    row_NW = last[:, None] + 1 - size + np.arange(size)
    row_NW = np.where(row_NW >= windows[:, :1], row_NW, -1)
    safe = np.maximum(row_NW, 0)
    # A target belongs to one window: later windows of the user show it as what came before.
    number_E = np.full(len(fold_E), -1)
    number_E[wanted] = number
    own_NW = (fold_E[safe] == windows[:, 2:]) & (number_E[safe] == windows[:, 1:2]) if len(fold_E) else safe
    return Cut(
        row_NW=row_NW,
        owner_row_N=windows[:, 0],
        number_N=windows[:, 1].astype(np.int32),
        fold_N=windows[:, 2].astype(np.int8),
        is_target_NW=((row_NW >= 0) & (own_NW == 1)).astype(np.int32),
    )


def histories_as_windows(events: EventColumns, row_NW: np.ndarray, is_target_NW: np.ndarray) -> Windows:
    """The events at the rows of a cut; `shuffle_N` is left zero."""
    taken = histories_of_rows(events, row_NW)
    return Windows(
        item_NW=taken.item_BL,
        category_NW=taken.category_BL,
        event_type_NW=taken.event_type_BL,
        timestamp_NW=taken.timestamp_BL,
        hour_of_week_NW=taken.hour_of_week_BL,
        latitude_NW=taken.latitude_BL,
        longitude_NW=taken.longitude_BL,
        is_target_NW=is_target_NW,
        shuffle_N=np.zeros(len(row_NW), dtype=np.int64),
    )


@dataclass(frozen=True, kw_only=True)
class Source:
    """Windows of one training and fold in the Parquet files that a pinned table version lists."""

    uris: tuple[str, ...]
    until: datetime
    size: int
    fold: str = "train"

    def of(self, fold: str) -> Source:
        return replace(self, fold=fold)


def read_petastorm(source: Source) -> Iterator[Windows]:
    """Blocks of windows (a row group each), in the order of the files."""
    from petastorm import make_batch_reader

    if not source.uris:
        return
    until = np.datetime64(source.until.replace(tzinfo=None), "us")
    names = [f"^{name}$" for name in ("until", "fold", "shuffle", *ARRAYS)]
    # It warns of Arrow's names on every read; the versions are pinned together.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"petastorm\.")
    # Its own shuffling depends on the pool; ours is by seed and epoch, in `Batches`.
    reader = make_batch_reader(
        list(source.uris), schema_fields=names, reader_pool_type="dummy", shuffle_row_groups=False, num_epochs=1
    )
    # Not as a context manager: that prints to stdout when it ends.
    try:
        for block in reader:
            chosen = (block.fold == source.fold) & (block.until.astype("datetime64[us]") == until)
            if chosen.any():
                arrays = {f"{name}_NW": getattr(block, name)[chosen] for name in ARRAYS}
                yield Windows(**arrays, shuffle_N=block.shuffle[chosen])
    finally:
        reader.stop()
        reader.join()


def read_arrow(source: Source) -> Iterator[Windows]:
    """The same by a plain Arrow scan: the reference that the other is tested against."""
    if not source.uris:
        return
    files = ds.dataset([uri.removeprefix("file://") for uri in source.uris], format="parquet")
    chosen = (ds.field("fold") == source.fold) & (ds.field("until") == pa.scalar(source.until, pa.timestamp("us", tz="UTC")))
    for batch in files.scanner(columns=["shuffle", *ARRAYS], filter=chosen).to_batches():
        if len(batch):
            flat = {name: batch.column(name).flatten().to_numpy(zero_copy_only=False) for name in ARRAYS}
            arrays = {f"{name}_NW": values.reshape(len(batch), -1) for name, values in flat.items()}
            yield Windows(**arrays, shuffle_N=batch.column("shuffle").to_numpy())


class Batches:
    """Shuffled global batches of one source, of which each rank is given its share.

    The order follows from seed and epoch alone where the windows fit into memory (they are then read
    once); where they do not, also from the order of the files. All ranks read the same and take every
    `ranks`-th window, padded to equal numbers: so one process and many learn from the same batches.
    """

    def __init__(self, source: Source, *, batch_size: int, seed: int, rank: int = 0, ranks: int = 1) -> None:
        self.source = source
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.ranks = ranks
        self._kept: Windows | None = None

    def epoch(self, number: int, skip: int = 0) -> Iterator[Windows]:
        """This rank's part of every batch of the epoch but the first `skip`."""
        generator = np.random.default_rng([self.seed, number])
        left = Windows.none(self.source.size)
        for buffer, ends in self._buffers():
            rows = Windows.together([left, buffer])
            order = generator.permutation(len(rows))
            whole = len(rows) if ends else len(rows) // self.batch_size * self.batch_size
            for start in range(0, whole, self.batch_size):
                if skip > 0:
                    skip -= 1
                    continue
                yield self._share(rows, order[start : min(start + self.batch_size, whole)])
            left = rows[order[whole:]]

    def _share(self, rows: Windows, batch: np.ndarray) -> Windows:
        mine = rows[batch[self.rank :: self.ranks]]
        return mine.padded(-(-len(batch) // self.ranks))

    def _buffers(self) -> Iterator[tuple[Windows, bool]]:
        """Buffers to shuffle within, and whether each is the last."""
        if self._kept is not None:
            yield self._kept, True
            return
        blocks: list[Windows] = []
        held, first = 0, True
        for block in read_petastorm(self.source):
            if held + block.nbytes > BUFFER_BYTES and blocks:
                yield Windows.together(blocks), False
                blocks, held, first = [], 0, False
            blocks.append(block)
            held += block.nbytes
        buffer = Windows.together(blocks) if blocks else Windows.none(self.source.size)
        if first:
            # Sorted by the shuffle key: however the files were cut, the order is the same.
            buffer = buffer[np.lexsort((*buffer.timestamp_NW.T[-2:], buffer.shuffle_N))]
            self._kept = buffer
        yield buffer, True
