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
import train_rates

from conf.learning import Model, Train
from models.descent import Descent
from models.examples import Objective, examples
from models.interest import new_network
from models.processes import Processes

BATCH, LENGTH, WIDTH, NEGATIVES, STEPS = 64, 64, 64, 512, 5


def step_seconds(items: int, *, sparse: bool) -> float:
    """The median step, after one to warm up."""
    vocabulary = train_ours.vocabulary(items)
    network = new_network(Model(window=LENGTH, width=WIDTH), vocabulary)
    network.item.sparse = sparse
    objective = Objective(network, Train(loss="sampled", negatives=NEGATIVES))
    descent, found = Descent(network, 1e-3, 0.01), []
    for step in range(STEPS + 1):
        batch = examples(train_rates.windows(BATCH, LENGTH, items, step), vocabulary)
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
