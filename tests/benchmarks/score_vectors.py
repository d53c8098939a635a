"""Vectors of users and items, drawn; and which lists are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SIZE, K, COMPARED = 64, 100, 50


def write(folder: Path, users: int, items: int) -> None:
    """`users.parquet` (user, vector), in row groups of some thousand, and both matrices as .npy."""
    import pyarrow as pa  # which the peers' processes, who read numbers alone, do not have
    import pyarrow.parquet as pq

    rng = np.random.default_rng(5)
    user_US, item_VS = (rng.normal(size=(count, SIZE)).astype(np.float32) for count in (users, items))
    np.save(folder / "users.npy", user_US)
    np.save(folder / "items.npy", item_VS)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(user_US.ravel()), SIZE).cast(pa.list_(pa.float32()))
    table = pa.table({"user": pa.array(np.arange(users)), "vector": vectors})
    pq.write_table(table, folder / "users.parquet", row_group_size=5000)
