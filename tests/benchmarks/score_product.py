"""The product of users and items alone, tile by tile, with two threads; one JSON line. Called by score.py."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch

AT_ONCE = 512


def main(folder: str) -> dict[str, object]:
    torch.set_num_threads(2)
    user_US, item_VS = (torch.from_numpy(np.load(f"{folder}/{name}.npy")) for name in ("users", "items"))
    item_SV, tile_BV = item_VS.T.contiguous(), torch.empty(AT_ONCE, len(item_VS))
    torch.mm(user_US[:AT_ONCE], item_SV, out=tile_BV)
    started = time.monotonic()
    for start in range(0, len(user_US) - AT_ONCE + 1, AT_ONCE):
        torch.mm(user_US[start : start + AT_ONCE], item_SV, out=tile_BV)
    return {"seconds": time.monotonic() - started, "users": len(user_US) // AT_ONCE * AT_ONCE}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1])) + "\n")
