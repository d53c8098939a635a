"""implicit's `recommend` for every user, with two threads, nothing filtered; one JSON line. Called by score.py."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix
from score_vectors import COMPARED, SIZE, K

AT_ONCE = 5000


def main(folder: str) -> dict[str, object]:
    user_US, item_VS = (np.load(f"{folder}/{name}.npy") for name in ("users", "items"))
    model = AlternatingLeastSquares(factors=SIZE, num_threads=2)
    model.user_factors, model.item_factors = user_US, item_VS
    nothing = csr_matrix((len(user_US), len(item_VS)), dtype=np.float32)
    model.recommend(np.arange(256), nothing[:256], N=K, filter_already_liked_items=False)
    found, started = [], time.monotonic()
    for start in range(0, len(user_US), AT_ONCE):
        users = np.arange(start, min(start + AT_ONCE, len(user_US)))
        found.append(model.recommend(users, nothing[users], N=K, filter_already_liked_items=False)[0])
    seconds = time.monotonic() - started
    return {"seconds": seconds, "users": len(user_US), "sample": found[0][:COMPARED].tolist()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1])) + "\n")
