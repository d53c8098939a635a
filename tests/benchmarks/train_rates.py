"""How much of the machine a training uses, and how fast windows are read; one JSON line. Called by train.py."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
import train_ours
from torch.utils.flop_counter import FlopCounterMode

from conf.learning import Model, Train
from models import encoder, training
from models.batches import Batches, read_arrow, read_petastorm
from models.processes import Processes
from models.queries import FIRST
from models.windows import TRAIN, Windows

WIDTH, LENGTH, WINDOWS, ITEMS, EPOCHS = 256, 200, 512, 3_416, 3
ORDER_ALONE = {"times": False, "places": False, "repeats": False}


def windows(count: int, length: int = LENGTH, items: int = ITEMS, seed: int = 0) -> Windows:
    """Full windows of events at random times and places: what is learnt does not matter here."""
    random, size = np.random.default_rng(seed), length + 1
    hours = np.cumsum(random.integers(1, 40, (count, size)), axis=1)
    return Windows(
        item_NW=random.integers(FIRST, FIRST + items, (count, size)).astype(np.int32),
        category_NW=np.full((count, size), 1, np.int32),
        event_type_NW=np.full((count, size), FIRST, np.int32),
        timestamp_NW=hours.astype(np.int64) * 3600,
        hour_of_week_NW=(hours % 168).astype(np.float32),
        latitude_NW=random.uniform(40, 41, (count, size)).astype(np.float32),
        longitude_NW=random.uniform(-74, -73, (count, size)).astype(np.float32),
        is_target_NW=np.ones((count, size), np.int32),
        shuffle_N=np.zeros(count, np.int64),
    )


class Timed(Batches):
    """Batches that know for how long they were waited for."""

    waited = 0.0

    def epoch(self, number: int, skip: int = 0) -> Iterator[Windows]:
        batches = super().epoch(number, skip)
        while True:
            began = time.monotonic()
            found = next(batches, None)
            Timed.waited += time.monotonic() - began
            if found is None:
                return
            yield found


def matmul_rate(kind: torch.dtype, size: int = 2048, times: int = 8) -> float:
    """Floating-point operations per second of one large product, the best of some."""
    one, other = torch.randn(size, size).to(kind), torch.randn(size, size).to(kind)
    found = []
    for _ in range(times):
        began = time.monotonic()
        one @ other
        found.append(2 * size**3 / (time.monotonic() - began))
    return max(found)


def step_rates(folder: Path, name: str, precision: str, more: Mapping[str, bool]) -> dict[str, float]:
    """Of the training itself, after an epoch to warm up: operations per second (counted, matrix products and attention)."""
    source = train_ours.stored(folder, windows(WINDOWS), np.full(WINDOWS, TRAIN))
    train_ours.vocabulary(ITEMS).save(folder / "names.json")
    model = Model(window=LENGTH, width=WIDTH, layers=2, heads=4, dropout=0.1, **more)
    ends: list[float] = []

    def trained(epochs: int) -> None:
        ends.clear()
        task = training.Task(
            name=name, model=model, train=Train(epochs=epochs, batch_size=64, precision=precision), source=source,
            vocabulary=folder / "names.json", folder=folder / "made",
            after_epoch=lambda _, measures: bool(ends.append(measures["seconds"])),
        )  # fmt: skip
        training.train(task, Processes.alone())

    with FlopCounterMode(display=False) as counted:
        trained(1)
    operations = counted.get_total_flops()
    Timed.waited = 0.0
    trained(EPOCHS)
    seconds = (ends[-1] - ends[0]) / (EPOCHS - 1)
    return {"operations_per_s": operations / seconds, "seconds_per_epoch": seconds, "waited": Timed.waited / ends[-1]}


def row_rate(read: Callable[..., Iterator[Windows]], folder: Path, count: int = 20_000) -> float:
    """Windows of the training's size read per second, the best of three."""
    source = train_ours.stored(folder, windows(count), np.full(count, TRAIN), group=2048)
    found = []
    for _ in range(3):
        began = time.monotonic()
        rows = sum(len(block) for block in read(source))
        found.append(rows / (time.monotonic() - began))
    assert rows == count
    return max(found)


def main(folder: Path) -> dict[str, object]:
    training.Batches = Timed  # type: ignore[misc]
    said: dict[str, object] = {}
    with Processes.alone().joined():
        kinds = [("fp32", torch.float32)]
        if encoder.precision() == "bf16":  # a processor without such a unit would take the night
            kinds.append(("bf16", torch.bfloat16))
        for precision, kind in kinds:
            for name, more in (("order alone", ORDER_ALONE), ("when and where", {})):
                # By turns with the step: the machine's speed varies.
                rates = [matmul_rate(kind)]
                step = step_rates(folder, name, precision, more)
                rates.append(matmul_rate(kind))
                said[f"{name}, {precision}"] = {
                    "share": round(step["operations_per_s"] / max(rates), 3),
                    "matmul_gflops": [round(rate / 1e9, 1) for rate in rates],
                    "step_s": round(step["seconds_per_epoch"] * 64 / WINDOWS, 3),
                    "waited": round(step["waited"], 4),
                }
                sys.stderr.write(f"{name}, {precision}: {said[f'{name}, {precision}']}\n")
    for name, read in (("petastorm", read_petastorm), ("arrow", read_arrow)):
        said[f"{name}_rows_per_s"] = round(row_rate(read, folder))
    return {**said, "threads": torch.get_num_threads()}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        found = main(Path(scratch))
    sys.stdout.write(json.dumps(found) + "\n")
