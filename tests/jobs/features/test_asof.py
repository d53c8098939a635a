"""The join as of a moment, against its definition."""

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from conf.contracts import column, state
from jobs.features.asof import Known, as_of
from jobs.features.stored import session

FIRST = date(2024, 3, 1)
MADE = state(
    "made", "made", column("user_id", "string", "owner"), column("value", "double", "a value"),
    column("seen", "int", "days", aged="seen + age_days"), owner="user_id", key=("user_id",),
)  # fmt: skip


@pytest.mark.parametrize(("owners", "states", "asking"), [(30, 400, 2000), (1, 5, 50), (500, 100, 300)])
def test_equals_the_definition(owners, states, asking):
    rng = np.random.default_rng(owners)
    taken = np.unique(rng.integers(0, owners * 40, states))
    day = [FIRST + timedelta(days=int(number) % 40) for number in taken]
    rows = {
        "user_id": [f"u{number // 40}" for number in taken],
        "value": rng.random(len(taken)),
        "seen": pa.array(rng.integers(0, 9, len(taken)), "int32"),
        "gone": rng.random(len(taken)) < 0.1,
        "changed_on": day,
        "day": day,
    }
    asked_on = [FIRST + timedelta(days=int(number)) for number in rng.integers(-3, 45, asking)]
    who = [None if rng.random() < 0.05 else f"u{rng.integers(0, owners + 2)}" for _ in range(asking)]
    known = Known(prefix="made", contract=MADE, rows="made", key="user_id", owner=("user_id",))
    with session("1g") as database:
        database.register("made", pa.table(rows))
        database.register("asked", pa.table({"_row": np.arange(asking), "_day": asked_on, "user_id": who}))
        found = {row: (value, seen) for row, value, seen, _ in database.sql(as_of(known)).fetchall()}
    wanted = {}
    for row, (owner, on) in enumerate(zip(who, asked_on, strict=True)):
        before = [place for place, one in enumerate(rows["user_id"]) if one == owner and day[place] < on]
        if before and not rows["gone"][before[-1]]:
            place = before[-1]
            wanted[row] = rows["value"][place], rows["seen"][place].as_py() + (on - timedelta(days=1) - day[place]).days
    assert found == wanted and 0 < len(found) < asking


def test_of_several_rows_of_an_owner_only_those_of_its_newest_day_are_known():
    contract = state(
        "made", "made", column("user_id", "string", "owner"), column("category", "string", "which"),
        column("value", "double", "a value"), owner="user_id", key=("user_id", "category"),
    )  # fmt: skip
    days = [FIRST + timedelta(days=number) for number in (0, 0, 2, 4)]
    rows = {
        "user_id": ["a"] * 4, "category": ["tea", "cake", "tea", None], "value": [1.0, 2.0, 3.0, None],
        "gone": [False, False, False, True], "changed_on": days, "day": days,
    }  # fmt: skip
    asked = [(category, FIRST + timedelta(days=later)) for later in (0, 1, 2, 3, 5) for category in ("tea", "cake")]
    known = Known(prefix="made", contract=contract, rows="made", key="user_id", owner=("user_id",), rest=("category",))
    with session("1g") as database:
        database.register("made", pa.table(rows))
        columns = {
            "_row": range(10),
            "_day": [on for _, on in asked],
            "user_id": ["a"] * 10,
            "category": [one for one, _ in asked],
        }
        database.register("asked", pa.table({name: list(values) for name, values in columns.items()}))
        found = {row: value for row, value, _ in database.sql(as_of(known)).fetchall()}
    assert found == {2: 1.0, 3: 2.0, 4: 1.0, 5: 2.0, 6: 3.0}, "by day 3 there is no more cake, by day 5 nothing is left"
