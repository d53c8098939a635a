"""Our training on the same sequences as RecBole's, until it ranks as well; one JSON line. Called by train.py."""

from __future__ import annotations

import csv
import json
import logging
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from conf.learning import Model, Train
from models.batches import Source
from models.histories import EventColumns, first_of_owner
from models.processes import Processes
from models.queries import FIRST, Vocabulary
from models.tasks import Task
from models.training import train
from models.windows import ARRAYS, CONTEXT, FOLDS, TRAIN, VALIDATION, Windows, cut, histories_as_windows

UNTIL = datetime(2000, 1, 1, tzinfo=UTC)
# As RecBole's SASRec reads it: order alone, no times; what was taken before is ranked like all else.
MODEL = Model(window=200, width=64, layers=2, heads=2, dropout=0.3, query_dropout=0, times=False, places=False, repeats=False)
TRAIN_AS = Train(epochs=60, patience=60, batch_size=32, learning_rate=3e-3, max_seconds=3600)


def sequences(path: Path) -> tuple[EventColumns, np.ndarray, np.ndarray, int]:
    """Events by user and time, first row of each's user, their fold (last: none, the one before: validation), item count."""
    with path.open() as file:
        rows = [
            (row["user_id:token"], float(row["timestamp:float"]), row["item_id:token"])
            for row in csv.DictReader(file, delimiter="\t")
        ]
    rows = [row for _, row in sorted(enumerate(rows), key=lambda pair: (pair[1][0], pair[1][1], pair[0]))]
    items = {name: FIRST + number for number, name in enumerate(sorted({row[2] for row in rows}))}
    _, user_E = np.unique([row[0] for row in rows], return_inverse=True)
    count = len(rows)
    events = EventColumns(
        item_E=np.array([items[row[2]] for row in rows], np.int32),
        category_E=np.full(count, 1, np.int32),
        event_type_E=np.full(count, FIRST, np.int32),
        timestamp_E=np.array([row[1] for row in rows], np.int64),
        hour_of_week_E=np.full(count, -1, np.float32),
        latitude_E=np.full(count, np.nan, np.float32),
        longitude_E=np.full(count, np.nan, np.float32),
    )
    from_the_end_E = np.bincount(user_E)[user_E] - (np.arange(count) - first_of_owner(user_E)) - 1
    fold_E = np.select([from_the_end_E == 0, from_the_end_E == 1], [CONTEXT, VALIDATION], TRAIN).astype(np.int8)
    return events, first_of_owner(user_E), fold_E, len(items)


def stored(folder: Path, windows: Windows, fold_N: np.ndarray, group: int = 256) -> Source:
    """The windows as a Parquet file, as the step train writes them."""
    count, size = windows.item_NW.shape
    columns = {
        "until": pa.array([UNTIL] * count, pa.timestamp("us", tz="UTC")),
        "fold": pa.array([FOLDS[int(fold)] for fold in fold_N]),
        "shuffle": pa.array(np.random.default_rng(0).integers(-(2**63), 2**63 - 1, count)),
    }
    offsets = pa.array(np.arange(count + 1) * size, pa.int32())
    for name in ARRAYS:
        columns[name] = pa.ListArray.from_arrays(offsets, pa.array(getattr(windows, f"{name}_NW").ravel(), from_pandas=False))
    path = folder / "windows.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=group)
    counts = {name: int((fold_N == fold).sum()) for fold, name in FOLDS.items()}
    return Source(uris=(f"file://{path}",), until=UNTIL, size=size, counts=counts)


def vocabulary(items: int) -> Vocabulary:
    names = tuple(f"{number:07}" for number in range(items))
    return Vocabulary(items=names, item_categories=("",) * items, categories=(), event_types=("rating",))


def main(path: Path, wanted: float, folder: Path) -> dict[str, object]:
    started = time.monotonic()
    events, first_E, fold_E, items = sequences(path)
    made = cut(first_E, fold_E, MODEL.window + 1)
    source = stored(folder, histories_as_windows(events, made.row_NW, made.is_target_NW), made.fold_N)
    vocabulary(items).save(folder / "names.json")
    began, curve = time.monotonic(), []

    def after_epoch(_: int, measures: Mapping[str, float]) -> bool:
        curve.append((round(time.monotonic() - began, 1), measures["ndcg@10"]))
        return measures["ndcg@10"] >= wanted

    task = Task(
        name="ours", model=MODEL, train=TRAIN_AS, vocabulary=folder / "names.json", source=source, folder=folder / "made",
        after_epoch=after_epoch, learns_validation=False,
    )  # fmt: skip
    with Processes.alone().joined():
        train(task, Processes.alone())
    best = max(score for _, score in curve)
    reached = [second for second, score in curve if score >= wanted]
    return {
        "seconds": reached[0] if reached else curve[-1][0], "reached": bool(reached), "ndcg@10": best, "curve": curve,
        "startup_s": began - started,
        "windows": source.counts, "items": items, "threads": torch.get_num_threads(),
    }  # fmt: skip


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    with tempfile.TemporaryDirectory() as scratch:
        said = main(Path(sys.argv[1]), float(sys.argv[2]), Path(scratch))
    sys.stdout.write(json.dumps(said) + "\n")
