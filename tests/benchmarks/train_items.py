"""Steps of a training by the size of the catalogue, with dense and with sparse gradients of the item table.

Example: .venv/bin/python tests/benchmarks/train_items.py --items 10000 1000000
"""

from __future__ import annotations

import argparse
import time

import harness
import numpy as np
import torch
import train_ours

from conf.learning import Model, Train
from models.descent import Descent
from models.examples import Objective, examples
from models.interest import new_network
from models.processes import Processes
from models.queries import FIRST
from models.windows import Windows

BATCH, LENGTH, WIDTH, NEGATIVES, STEPS = 64, 64, 64, 512, 5


def windows(items: int, seed: int) -> Windows:
    random, shape = np.random.default_rng(seed), (BATCH, LENGTH + 1)
    hours = np.cumsum(random.integers(1, 40, shape), axis=1)
    return Windows(
        item_NW=random.integers(FIRST, FIRST + items, shape).astype(np.int32),
        category_NW=np.full(shape, 1, np.int32),
        event_type_NW=np.full(shape, FIRST, np.int32),
        timestamp_NW=hours.astype(np.int64) * 3600,
        hour_of_week_NW=(hours % 168).astype(np.float32),
        latitude_NW=random.uniform(40, 41, shape).astype(np.float32),
        longitude_NW=random.uniform(-74, -73, shape).astype(np.float32),
        is_target_NW=np.ones(shape, np.int32),
        shuffle_N=np.zeros(BATCH, np.int64),
    )


def step_seconds(items: int, *, sparse: bool) -> float:
    """The median step, after one to warm up."""
    vocabulary = train_ours.vocabulary(items)
    network = new_network(Model(window=LENGTH, width=WIDTH), vocabulary)
    network.item.sparse = sparse
    objective = Objective(network, Train(loss="sampled", negatives=NEGATIVES))
    descent, found = Descent(network, 1e-3, 0.01), []
    for step in range(STEPS + 1):
        batch = examples(windows(items, step), vocabulary)
        began = time.monotonic()
        objective(*batch).backward()
        descent.step(1.0)
        found.append(time.monotonic() - began)
    return float(np.median(found[1:]))


def table_bytes(items: int, *, sparse: bool) -> int:
    """Weights and both moments of the item table; and its gradient, where that is dense."""
    return items * WIDTH * 4 * (3 if sparse else 4)


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 4_000_000])
    given = given.parse_args()
    with Processes.alone().joined():
        for items in given.items:
            for sparse in (False, True):
                seconds = step_seconds(items, sparse=sparse)
                said = {"items": items, "gradients": "sparse" if sparse else "dense", "step_s": round(seconds, 3)}
                harness.say({"name": "train_items", **said, "table_gb": round(table_bytes(items, sparse=sparse) / 2**30, 2)})
    harness.progress(f"threads {torch.get_num_threads()}")


if __name__ == "__main__":
    main()
