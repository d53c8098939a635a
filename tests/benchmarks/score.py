"""The best hundred items of every user: tiles and `models.top_k` in Spark's workers, against MLlib's recommendForAllUsers,
implicit's recommend, the product of the two matrices with torch.topk, and the product alone, with the same two threads.

Vectors of users and items are drawn; each side keeps its lists in memory until they are counted. Of MLlib, which is slow, so
many users are asked as `--mllib` says. Lists of ours and of implicit are compared item by item.

Example: make bench BENCH=score ARGS='--users 50000 --items 10000'
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import harness
import score_vectors

LIMITS = {"mllib": 25.0, "implicit": 1.0, "topk": 1.0, "product": 0.5}  # times the peer's users per second


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--users", type=int, default=50_000)
    given.add_argument("--items", type=int, default=10_000)
    given.add_argument("--mllib", type=int, default=1_000, help="users of which MLlib is asked; 0: not at all")
    given.add_argument("--runs", type=int, default=3, help="of each, by turns; of MLlib one")
    given = given.parse_args()
    here = {**os.environ, "PYTHONPATH": f"{harness.ROOT}", "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="wherewhen-bench-") as scratch:
        score_vectors.write(Path(scratch), given.users, given.items)
        sides = {"ours": [harness.OURS, "tests/benchmarks/score_ours.py", scratch]}
        sides |= {what: [harness.OURS, "tests/benchmarks/score_product.py", scratch, what] for what in ("product", "topk")}
        sides["implicit"] = [harness.PEER, "tests/benchmarks/score_implicit.py", scratch]
        runs: dict[str, list[harness.Measured]] = {name: [] for name in sides}
        for number in range(given.runs):
            for name, command in sides.items():
                runs[name].append(harness.measured(command, here))
                harness.progress(f"run {number + 1}, {name}: {runs[name][-1].said['seconds']:.2f} s")
        if given.mllib:
            command = [harness.OURS, "tests/benchmarks/score_mllib.py", scratch, str(min(given.mllib, given.users))]
            runs["mllib"] = [harness.measured(command, here)]
            harness.progress(f"mllib, {given.mllib:,} users: {runs['mllib'][0].said['seconds']:.1f} s")
    rate = {name: max(one.said["users"] / one.said["seconds"] for one in done) for name, done in runs.items()}
    for peer in [name for name in runs if name != "ours"]:
        line = {"name": "score", "users": given.users, "items": given.items, "peer": peer}
        line |= {"ours_per_s": round(rate["ours"]), "peer_per_s": round(rate[peer]), "limit": LIMITS[peer]}
        line |= {"ratio": round(rate["ours"] / rate[peer], 2), "ours_mb": round(max(one.peak_mb for one in runs["ours"]))}
        line |= {"seconds": {name: [round(one.said["seconds"], 2) for one in runs[name]] for name in ("ours", peer)}}
        if peer != "product":
            line["same_items"] = runs["ours"][0].said["sample"] == runs[peer][0].said["sample"]
        harness.say(line)


if __name__ == "__main__":
    main()
