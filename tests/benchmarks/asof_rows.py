"""A state table of 20 features, some changes per owner over two months, and moments that ask for them."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FEATURES, DAYS, FIRST = 20, 60, date(2024, 1, 1)
_CHANGES = 5  # of an owner


def write(folder: Path, size: int) -> int:
    """`states.parquet` and `asked.parquet` (user_id, event_timestamp); gives back how many states there are."""
    rng = np.random.default_rng(3)
    owners = max(size // 10, 1)
    since = (FIRST - date(1970, 1, 1)).days
    changed = np.unique(rng.integers(0, owners, owners * _CHANGES) * DAYS + rng.integers(0, DAYS, owners * _CHANGES))
    day = pa.array((since + changed % DAYS).astype(np.int32)).cast(pa.date32())
    # Whole numbers, so that sums are equal in any order.
    values = rng.integers(0, 1000, (FEATURES, len(changed))).astype(np.float64)
    states = {
        "user_id": pa.array(_names(changed // DAYS)),
        **{f"f{number}": pa.array(one) for number, one in enumerate(values)},
    }
    states |= {"gone": pa.array(np.zeros(len(changed), np.bool_)), "changed_on": day, "day": day}
    pq.write_table(pa.table(states), folder / "states.parquet")
    moment = (since * 86_400 + rng.integers(0, DAYS * 86_400, size)) * 1_000_000
    asked = {
        "user_id": pa.array(_names(rng.integers(0, owners, size))),
        "event_timestamp": pa.array(moment, pa.timestamp("us", "UTC")),
    }
    pq.write_table(pa.table(asked), folder / "asked.parquet")
    return len(changed)


def _names(numbers: np.ndarray) -> list[str]:
    return [f"{number:064x}" for number in numbers]
