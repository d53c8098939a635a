"""Sentence vectors of texts of 3 to 200 words by `models.encoder`, against sentence-transformers' `encode`, on a CPU.

The same weights, at most 128 tokens, as many threads each; ours in fp32 (`text`), in int8 (`text-int8`) and, on processors
that multiply such matrices, in bf16 (`text-bf16`). The last figure of a line is the greatest cosine distance from the peer's
vector of a text.
Example: .venv/bin/python tests/benchmarks/text.py --size 500 --runs 1
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import harness
import numpy as np

from models import encoder

LIMIT = 1 / 1.5  # times the peer's time


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--size", type=int, default=2000, help="texts")
    given.add_argument("--threads", type=int, default=1, help="of each; Spark's workers have one")
    given.add_argument("--runs", type=int, default=3, help="of each, by turns")
    given = given.parse_args()
    here = {**os.environ, "PYTHONPATH": f"{harness.ROOT}", "OMP_NUM_THREADS": str(given.threads)}
    with tempfile.TemporaryDirectory(prefix="wherewhen-bench-") as scratch:
        kinds = ["fp32", *({encoder.precision()} - {"fp32"}), "int8"]
        runs: dict[str, list[harness.Measured]] = {said: [] for said in (*kinds, "sentence-transformers")}
        for number in range(given.runs):
            for said, done in runs.items():
                command = [harness.OURS, "tests/benchmarks/text_encode.py", said, str(given.size), f"{scratch}/{said}.npy"]
                done.append(harness.measured(command, here))
                harness.progress(f"run {number + 1}, {said}: {done[-1].said}, peak {done[-1].peak_mb:.0f} MB")
        vectors = {said: np.load(Path(scratch) / f"{said}.npy") for said in runs}
    peers = runs.pop("sentence-transformers")
    for said, ours in runs.items():
        name = "text" if said == "fp32" else f"text-{said}"
        line = harness.line(name=name, size=given.size, ours=ours, peer="sentence-transformers", peers=peers, limit=LIMIT)
        apart = float((1 - np.einsum("nd,nd->n", vectors[said], vectors["sentence-transformers"])).max())
        harness.say({**line, "threads": given.threads, "cosine_distance": apart})


if __name__ == "__main__":
    main()
