"""The join as of a moment, against DuckDB's."""

from datetime import date, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf.contracts import column, state
from jobs.features.asof import Known, as_of

FIRST = date(2024, 3, 1)
MADE = state(
    "made", "made", column("user_id", "string", "owner"), column("value", "double", "a value"),
    column("seen", "int", "days", aged="seen + age_days"), owner="user_id", key=("user_id",),
)  # fmt: skip


@pytest.mark.parametrize(("owners", "states", "asking"), [(30, 400, 2000), (1, 5, 50), (500, 100, 300)])
def test_equals_duckdbs_asof_join(spark, tmp_path, owners, states, asking):
    rng = np.random.default_rng(owners)
    taken = np.unique(rng.integers(0, owners * 40, states))
    day = [FIRST + timedelta(days=int(number) % 40) for number in taken]
    owner = [f"u{number // 40}" for number in taken]
    gone = rng.random(len(taken)) < 0.1
    rows = {
        "user_id": owner, "value": rng.random(len(taken)), "seen": pa.array(rng.integers(0, 9, len(taken)), "int32"),
        "gone": gone, "changed_on": day, "day": day,
    }  # fmt: skip
    pq.write_table(pa.table(rows), tmp_path / "states.parquet")
    since = (FIRST - date(1970, 1, 1)).days * 86_400
    moment = (since + rng.integers(-3 * 86_400, 45 * 86_400, asking)) * 1_000_000
    moment[::7] -= moment[::7] % (86_400 * 1_000_000)  # midnight belongs to the day that it begins
    who = [None if rng.random() < 0.05 else f"u{rng.integers(0, owners + 2)}" for _ in range(asking)]
    asked = {"row": np.arange(asking), "user_id": who, "event_timestamp": pa.array(moment, pa.timestamp("us", "UTC"))}
    pq.write_table(pa.table(asked), tmp_path / "asked.parquet")
    wanted = duckdb.execute(
        f"""select row, if(gone, null, value), if(gone, null, seen + (asked.day - 1 - states.day)) from
            (select *, (event_timestamp at time zone 'UTC')::date as day from '{tmp_path}/asked.parquet') as asked
            asof left join '{tmp_path}/states.parquet' as states
            on asked.user_id = states.user_id and asked.day > states.day order by row"""
    ).fetchall()
    known = Known(
        prefix="made", contract=MADE, rows=spark.read.parquet(f"{tmp_path}/states.parquet"), key="user_id", owner=("user_id",)
    )
    found = as_of(spark.read.parquet(f"{tmp_path}/asked.parquet"), [known]).orderBy("row").collect()
    assert [(row["row"], row.made__value, row.made__seen) for row in found] == wanted
    assert {row.made__value is None for row in found} == {True, False}
