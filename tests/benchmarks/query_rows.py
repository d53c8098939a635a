"""A lake of users' states as months of nights leave it: a keyframe of all users, then each day a tenth of them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import deltalake
import numpy as np
import pyarrow as pa

from conf.tables import TABLES
from jobs.lake import logs
from jobs.lake.schema import create

KEYFRAME, DAYS, INTERESTS = date(2024, 6, 1), 16, 8
# The lake sorts states by their owner, in row groups of 4 MiB.
_GROUPS = deltalake.WriterProperties(max_row_group_size=20_000)
LAST = KEYFRAME + timedelta(days=DAYS - 1)
USED = ("user_interests", "user_mobility")
# What both answer, ours of the tables by name, the peer of the same rows by hand.
COLUMNS = "i.category, i.label, i.trend, i.long_weight, m.pattern, m.radius_of_gyration_m"
JOINED = "AS i LEFT JOIN {mobility} AS m ON m.user_id = i.user_id WHERE i.user_id = '{user}' ORDER BY i.category"


def write(root: str, users: int) -> str:
    """Writes the lake; gives back one user's pseudonym."""
    rng = np.random.default_rng(5)
    names = [bytes(one).hex() for one in rng.integers(0, 256, (users, 32), dtype=np.uint8)]
    for name in USED:
        create(logs.table_path(root, name), TABLES[name])
    for number in range(DAYS):
        day = KEYFRAME + timedelta(days=number)
        changed = names if number == 0 else [names[at] for at in np.flatnonzero(rng.random(users) < 0.1)]
        for name in USED:
            owners = changed if name == "user_mobility" else [one for one in changed for _ in range(INTERESTS)]
            path = logs.table_path(root, name)
            schema = pa.schema(deltalake.DeltaTable(path).schema().to_arrow())
            rows = _rows(schema, owners, day, rng).sort_by("user_id")
            deltalake.write_deltalake(path, rows, mode="append", writer_properties=_GROUPS)
    row = {"run_id": "bench", "step": "night", "status": "done", "day": LAST, "first_day": KEYFRAME, "settings_hash": "",
           "code_version": "", "inputs": {}, "rows_out": {}, "details": "{}", "seconds": 0.0,
           "outputs": {name: deltalake.DeltaTable(logs.table_path(root, name)).version() for name in USED},
           "finished_at": datetime(2024, 6, 20, tzinfo=UTC)}  # fmt: skip
    logs.append(root, "runs", [row])
    return names[users // 2]


def _rows(schema: pa.Schema, owners: list[str], day: date, rng: np.random.Generator) -> pa.Table:
    known = {
        "user_id": owners,
        "category": [f"category {number % INTERESTS}" for number in range(len(owners))],
        "day": [day] * len(owners),
        "changed_on": [day] * len(owners),
        "gone": [False] * len(owners),
        "label": ["long"] * len(owners),
    }
    made = {pa.string(): "stable", pa.int32(): 3, pa.int64(): 3, pa.bool_(): False, pa.date32(): day}
    columns = []
    for field in schema:
        if field.name in known:
            columns.append(pa.array(known[field.name], field.type))
        elif field.type == pa.float64():
            columns.append(pa.array(1.0 + rng.random(len(owners))))
        else:
            columns.append(pa.array([made.get(field.type)] * len(owners), field.type))
    return pa.table(columns, schema=schema)
