"""The product of users and items by tiles, two threads, alone or with torch.topk; one JSON line. Called by score.py."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch
from score_vectors import COMPARED, K

AT_ONCE = 128


def main(folder: str, what: str) -> dict[str, object]:
    torch.set_num_threads(2)
    user_US, item_VS = (torch.from_numpy(np.load(f"{folder}/{name}.npy")) for name in ("users", "items"))
    item_SV, tile_BV = item_VS.T.contiguous(), torch.empty(AT_ONCE, len(item_VS))
    best = torch.mm(user_US[:AT_ONCE], item_SV, out=tile_BV).topk(K).indices
    started = time.monotonic()
    for start in range(0, len(user_US) - AT_ONCE + 1, AT_ONCE):
        torch.mm(user_US[start : start + AT_ONCE], item_SV, out=tile_BV)
        if what == "topk":
            torch.topk(tile_BV, K)
    seconds = time.monotonic() - started
    return {"seconds": seconds, "users": len(user_US) // AT_ONCE * AT_ONCE, "sample": best[:COMPARED].tolist()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*sys.argv[1:])) + "\n")
