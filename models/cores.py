"""How many processor cores may be used here, without loading torch for it."""

from __future__ import annotations

import os
import sys


def allowed() -> int:
    """As many threads as torch is allowed where it is loaded; else as OMP_NUM_THREADS says, or all."""
    if (torch := sys.modules.get("torch")) is not None:
        return int(torch.get_num_threads())
    return int(os.environ.get("OMP_NUM_THREADS") or 0) or len(os.sched_getaffinity(0))
