"""scikit-learn's DBSCAN on both cores, from a file to a file; one JSON line. Called by dbscan.py."""

from __future__ import annotations

import json
import sys
import time

import dbscan as bench
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.cluster import DBSCAN
from sklearn.neighbors import BallTree

from jobs.spatial.sphere import EARTH_RADIUS_M


def main(points: str, to: str) -> dict[str, object]:
    began = time.monotonic()
    radius = bench.RADIUS_M / EARTH_RADIUS_M
    started = time.monotonic()
    rows = pq.read_table(points)
    radians = np.radians(np.stack([rows["latitude"].to_numpy(), rows["longitude"].to_numpy()], axis=1))
    model = DBSCAN(eps=radius, min_samples=bench.MIN_WEIGHT, metric="haversine", n_jobs=2).fit(radians)
    core = np.zeros(len(radians), dtype=bool)
    core[model.core_sample_indices_] = True
    pq.write_table(pa.table({"number": rows["number"], "cluster": model.labels_, "core": core}), to)
    seconds = time.monotonic() - started
    sample = radians[:: max(len(radians) // 2000, 1)]
    neighbours = BallTree(radians, metric="haversine").query_radius(sample, radius, count_only=True).mean()
    return {"seconds": seconds, "startup_s": started - began, "neighbours": round(float(neighbours), 1)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*sys.argv[1:])) + "\n")
