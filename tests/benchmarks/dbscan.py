"""DBSCAN of events' positions on Spark, against scikit-learn's on the same cores, and how its memory grows.

Half of the points lie in towns of many sizes, half over the land between, so that 1 to 200 are near each.
Example: .venv/bin/python tests/benchmarks/dbscan.py --size 100000 --runs 1
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import harness
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

LIMIT = 1 / 3  # times the peer's time
NEIGHBOURS, MIN_WEIGHT, RADIUS_M = 50, 10, 150.0
_METRES_A_DEGREE = 111_195.0


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument(
        "--size", type=int, default=1_000_000, help="points; memory is taken of a quarter and a half of them too"
    )
    given.add_argument("--runs", type=int, default=3, help="of each, by turns")
    given = given.parse_args()
    here = {**os.environ, "PYTHONPATH": f"{harness.ROOT}", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="wherewhen-bench-") as scratch:
        write(Path(scratch) / "whole.parquet", given.size)
        runs: dict[str, list[harness.Measured]] = {"ours": [], "sklearn": []}
        for number in range(given.runs):
            for said, done in runs.items():
                done.append(measured(said, scratch, "whole", here))
                harness.progress(f"run {number + 1}, {said}: {done[-1].said}, peak {done[-1].peak_mb:.0f} MB")
        line = harness.line(
            name="dbscan", size=given.size, ours=runs["ours"], peer="scikit-learn", peers=runs["sklearn"], limit=LIMIT
        )
        ours, theirs = (pq.read_table(f"{scratch}/whole.{said}").sort_by("number") for said in runs)
        peaks = {}
        for name, share in (("quarter", 4), ("half", 2)):
            write(Path(scratch) / f"{name}.parquet", given.size // share)
            peaks[f"ours_peak_mb_{name}"] = round(measured("ours", scratch, name, here).peak_mb)
        neighbours = runs["sklearn"][0].said["neighbours"]
        harness.say({**line, **peaks, **differences(ours, theirs), "neighbours": neighbours})


def measured(said: str, scratch: str, name: str, environment: dict[str, str]) -> harness.Measured:
    script = f"tests/benchmarks/dbscan_{said}.py"
    return harness.measured([harness.OURS, script, f"{scratch}/{name}.parquet", f"{scratch}/{name}.{said}"], environment)


def write(path: Path, size: int) -> None:
    """Points with a mean of `NEIGHBOURS` within the radius, whatever their number: the land grows with it."""
    rng = np.random.default_rng(6)
    # A half that is spread evenly has a tenth of the mean, the towns have the rest.
    land = np.sqrt(size / 2 * np.pi * RADIUS_M**2 / (NEIGHBOURS / 10))
    sizes = rng.pareto(1.5, max(size // 4_000, 1)) + 1
    town = rng.choice(len(sizes), size // 2, p=sizes / sizes.sum())
    spread = np.sqrt(sizes / sizes.sum() * size / 2 / (1.7 * NEIGHBOURS)) * RADIUS_M / 2
    centres = rng.uniform(0, land, (len(sizes), 2))
    metres = np.concatenate(
        [rng.uniform(0, land, (size - size // 2, 2)), centres[town] + rng.normal(0, 1, (size // 2, 2)) * spread[town, None]]
    )
    metres = metres[rng.permutation(size)]
    latitude = 40 + metres[:, 0] / _METRES_A_DEGREE
    longitude = -74 + metres[:, 1] / _METRES_A_DEGREE / np.cos(np.radians(40))
    rows = pa.table({"number": np.arange(size), "latitude": latitude, "longitude": longitude})
    pq.write_table(rows, path, row_group_size=100_000)


def differences(ours: pa.Table, theirs: pa.Table) -> dict[str, object]:
    """How many labels differ beyond names; points at the borders of several clusters may be in either."""
    one, other = ours["cluster"].fill_null(-1).to_numpy(), theirs["cluster"].to_numpy()
    core = theirs["core"].to_numpy()
    names = np.unique(np.stack([one[core], other[core]]), axis=1)
    same = names.shape[1] == len(np.unique(names[0])) == len(np.unique(names[1]))
    name_of = dict(zip(names[1].tolist(), names[0].tolist(), strict=True)) | {-1: -1}
    borders = np.array([name_of[label] for label in other[~core].tolist()])
    noise = (one == -1) != (other == -1)
    return {
        "clusters": int(other.max()) + 1,
        "noise": int((other == -1).sum()),
        "same_core_clusters": bool(same),
        "noise_differs": int(noise.sum()),
        "borders_in_another_cluster": int((borders != one[~core]).sum()),
    }


if __name__ == "__main__":
    main()
