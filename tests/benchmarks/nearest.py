"""Lists of a hundred out of the items that an index finds (`models.nearest`), against the exact way: tiles of products and
`models.top_k`. One process, one thread each, by turns; one JSON line for each number of items looked at.

Items are drawn in clusters of uneven size, some longer and liked by more, as learnt ones are; moments lie between some
clusters. Recall is the share of the exact lists' items.

Example: make bench BENCH=nearest ARGS='--items 1000000'
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import harness
import numpy as np
import torch

from models import nearest
from models.bulk import _SCORES_AT_ONCE
from models.nearest import Nearest
from models.top_k import top_k

SIZE, K = 64, 100
PAST = 64  # events of a history, none of which pulls here


def drawn(items: int, users: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of items, what they have for everyone, vectors of moments."""
    rng = np.random.default_rng(5)
    clusters = int(items**0.5)
    centre_CD = rng.normal(size=(clusters, SIZE)).astype(np.float32)
    share_C = np.minimum(rng.zipf(1.3, clusters), 50).astype(float)
    share_C /= share_C.sum()
    liked_V = rng.pareto(1.2, items) + 1
    item_VD = centre_CD[rng.choice(clusters, items, p=share_C)]
    item_VD += 0.7 * rng.standard_normal((items, SIZE), dtype=np.float32)
    item_VD *= (0.35 + 0.05 * np.log(liked_V)).astype(np.float32)[:, None]
    among_B3 = rng.choice(clusters, (users, 3), p=share_C)
    vector_BD = np.einsum("bc,bcd->bd", rng.dirichlet([1.0] * 3, users), centre_CD[among_B3])
    vector_BD += 0.5 * rng.normal(size=vector_BD.shape)
    return item_VD, (0.7 * np.log(liked_V) - 6).astype(np.float32), vector_BD.astype(np.float32)


def exactly(vector_BD: np.ndarray, matrix_DV: torch.Tensor, bias_V: torch.Tensor) -> np.ndarray:
    rows = max(1, _SCORES_AT_ONCE // len(bias_V))
    parts = [torch.from_numpy(vector_BD[start : start + rows]) for start in range(0, len(vector_BD), rows)]
    return np.concatenate([top_k(torch.addmm(bias_V, part, matrix_DV), K)[0] for part in parts])


def by_index(vector_BD: np.ndarray, looking: Nearest) -> np.ndarray:
    rows, found = 128, []
    for start in range(0, len(vector_BD), rows):
        part = vector_BD[start : start + rows]
        found.append(looking.few(part, np.full((len(part), PAST), -1), np.zeros((len(part), PAST), np.float32)).top_k(K)[0])
    return np.concatenate(found)


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--items", type=int, default=100_000)
    given.add_argument("--users", type=int, default=1024)
    given.add_argument("--looked-at", default="400,1000,2000")
    given.add_argument("--runs", type=int, default=3, help="of each, by turns")
    given = given.parse_args()
    from usearch.index import Index

    torch.set_num_threads(1)
    item_VD, bias_V, vector_BD = drawn(given.items, given.users)
    matrix_DV, bias = torch.from_numpy(np.ascontiguousarray(item_VD.T)), torch.from_numpy(bias_V)
    with tempfile.TemporaryDirectory(prefix="wherewhen-bench-") as scratch:
        began = time.monotonic()
        busy = time.process_time()
        nearest.build(
            Path(scratch), matrix_DV.numpy(), bias_V, threads=1, tell=lambda done: harness.progress(f"{done:,} items")
        )
        built_s, built_cpu_s = time.monotonic() - began, time.process_time() - busy
        (file,) = Path(scratch).glob("*.usearch")
        looking = {}
        for many in map(int, given.looked_at.split(",")):
            index = Index.restore(file, view=True, expansion_search=many)
            looking[many] = Nearest(index, item_VD, bias_V, many=many)
        seconds: dict[int, list[float]] = {many: [] for many in (0, *looking)}
        wanted_BK, found = (
            exactly(vector_BD, matrix_DV, bias),
            {many: by_index(vector_BD, one) for many, one in looking.items()},
        )
        for _ in range(given.runs):
            for many, taken in seconds.items():
                # Of the processor's time: what else runs on the machine does not count.
                began = time.process_time()
                by_index(vector_BD, looking[many]) if many else exactly(vector_BD, matrix_DV, bias)
                taken.append(time.process_time() - began)
            harness.progress(", ".join(f"{many or 'all'}: {one[-1]:.2f} s" for many, one in seconds.items()))
        for many, found_BK in found.items():
            hits = [len(np.intersect1d(one, other)) for one, other in zip(found_BK, wanted_BK, strict=True)]
            first = [len(np.intersect1d(one, other[:20])) for one, other in zip(found_BK, wanted_BK, strict=True)]
            rate, exact_rate = (given.users / median(seconds[one]) for one in (many, 0))
            line = {"name": "nearest", "size": given.items, "looked_at": many, "users": given.users}
            line |= {
                "ours_per_s": round(rate),
                "peer": "exact",
                "peer_per_s": round(exact_rate),
                "ratio": round(rate / exact_rate, 2),
            }
            line |= {"recall_at_100": round(float(np.mean(hits)) / K, 4), "recall_at_20": round(float(np.mean(first)) / 20, 4)}
            line |= {
                "seconds": {"ours": [round(one, 2) for one in seconds[many]], "exact": [round(one, 2) for one in seconds[0]]}
            }
            line |= {
                "build_s": round(built_s),
                "build_cpu_s": round(built_cpu_s),
                "file_mb": round(file.stat().st_size / 2**20),
            }
            harness.say(line)


if __name__ == "__main__":
    main()
