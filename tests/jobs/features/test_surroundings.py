import random
from datetime import date, datetime, timedelta

import h3
import pyarrow as pa
import pytest

from conf.tables import TABLES
from jobs.features.stored import session
from jobs.features.surroundings import with_context
from jobs.lake.schema import arrow_schema

DAY = date(2024, 7, 4)
NOON = datetime(2024, 7, 4, 12)
HERE = h3.latlng_to_cell(40.7, -74.0, 9)
CITY = "US/New York/New York City"
ASKED = pa.schema(
    [
        ("_row", pa.int64()),
        ("_at", pa.timestamp("us", "UTC")),
        ("_day", pa.date32()),
        ("cell", pa.string()),
        ("region", pa.string()),
    ]
)


def told(context_id="a", **changed):
    """A valid row of `context`: everywhere, over noon of the day, told the day before."""
    row = {
        "context_id": context_id, "name": "weather", "value": "rain", "valid_from": NOON - timedelta(hours=1),
        "valid_until": NOON + timedelta(hours=1), "gone": False, "day": DAY - timedelta(days=1), **changed,
    }  # fmt: skip
    return {"changed_on": row["day"], **row}


def asked_of(rows, moments):
    """[(values, numbers)] for each moment (event_timestamp, cell, region)."""
    schema = arrow_schema(TABLES["context"])
    asked = [
        dict(zip(ASKED.names, (number, at, at.date(), cell, region), strict=True))
        for number, (at, cell, region) in enumerate(moments)
    ]
    with session("1g") as database:
        database.register("context", pa.Table.from_pylist(rows, schema=schema))
        database.register("asked", pa.Table.from_pylist(asked, schema=ASKED))
        found = sorted(database.sql(with_context(ASKED.names)).fetchall())
    assert [row for row, _, _ in found] == list(range(len(moments)))
    return [(values, numbers) for _, values, numbers in found]


def test_what_holds_at_the_moment_and_was_told_before_its_day():
    before = timedelta(days=1)
    rows = [
        told(),
        told("b", name="temperature", value="31.5", number=31.5),
        told("c", name="tomorrow", valid_from=NOON + before, valid_until=NOON + 2 * before),
        told("d", name="told too late", day=DAY),
        told("e", name="forecast", value="fine", day=DAY - 3 * before),
        told("e", name="forecast", value="storm", day=DAY - before),
        told("f", name="parade", day=DAY - 3 * before),
        told("f", name="parade", value=None, gone=True, day=DAY - before),
        told("g", name="off on the day itself", value=None, day=DAY - 2 * before),
        told("g", name="off on the day itself", value=None, gone=True, day=DAY),
    ]
    edges = [NOON - timedelta(hours=1), NOON + timedelta(hours=1)]
    noon, begins, ends = asked_of(rows, [(at, None, None) for at in (NOON, *edges)])
    values = {"weather": "rain", "temperature": "31.5", "forecast": "storm", "off on the day itself": None}
    assert noon == (values, {"temperature": 31.5}) and begins == noon
    assert ends == ({}, {}), "its end is no more in it"


def test_the_smallest_place_counts_and_other_places_do_not():
    city, county, town = h3.cell_to_parent(HERE, 5), h3.cell_to_parent(HERE, 7), h3.cell_to_parent(HERE, 9)
    rows = [told("a", value="world"), told("b", value="US", region="US"), told("c", value="NYC", region=CITY)]
    rows += [told("d", value="five", cell=city), told("e", value="seven", cell=county), told("f", value="nine", cell=town)]
    rows += [told("g", name="far", cell=h3.latlng_to_cell(51.5, -0.1, 5)), told("h", name="other", region="US/New")]
    other = h3.latlng_to_cell(40.7, -74.2, 9)
    moments = [(NOON, HERE, CITY), (NOON, other, CITY), (NOON, None, CITY), (NOON, None, "US/Ohio"), (NOON, None, None)]
    assert [values for values, _ in asked_of(rows, moments)] == [
        {"weather": name} for name in ("nine", "NYC", "NYC", "US", "world")
    ]
    assert asked_of(rows[:5], moments[:1])[0][0] == {"weather": "seven"}
    assert asked_of(rows[:4], moments[:1])[0][0] == {"weather": "five"}
    later = told("i", value="newer", cell=town, valid_from=NOON - timedelta(minutes=1))
    assert asked_of([*rows, later], moments[:1])[0][0] == {"weather": "newer"}, "of one place what began last"


def test_it_agrees_with_its_definition_on_random_rows():
    rng = random.Random(4)
    cells = [h3.cell_to_parent(HERE, size) for size in (4, 8)] + [h3.latlng_to_cell(40.8, -73.9, 9), None, None]
    rows = {}
    for _ in range(150):
        owner, day = f"c{rng.randrange(40)}", DAY + timedelta(days=rng.randrange(-4, 4))
        of_owner = random.Random(owner)
        begin = NOON + timedelta(hours=of_owner.randrange(-90, 90))
        cell = of_owner.choice(cells)
        row = told(owner, name=of_owner.choice("xy"), cell=cell, region=None if cell else of_owner.choice([None, "US", CITY]))
        row |= {"valid_from": begin, "valid_until": begin + timedelta(hours=rng.randrange(1, 60)), "value": owner}
        rows[owner, day] = row | {"day": day, "changed_on": day, "gone": rng.random() < 0.2}
    moments = [
        (NOON + timedelta(hours=rng.randrange(-80, 80)), rng.choice([HERE, None]), rng.choice([CITY, None])) for _ in range(40)
    ]
    for (at, cell, region), (values, _) in zip(moments, asked_of(list(rows.values()), moments), strict=True):
        known = {}
        for (owner, day), row in sorted(rows.items(), key=lambda one: one[0][1]):
            if day < at.date():
                known[owner] = row
        sizes = {}
        for row in known.values():
            if row["gone"] or not row["valid_from"] <= at < row["valid_until"]:
                continue
            if row["cell"] is not None:
                size = h3.get_resolution(row["cell"]) + 10
                holds = cell is not None and h3.cell_to_parent(cell, size - 10) == row["cell"]
            elif row["region"] is not None:
                size, holds = len(row["region"].split("/")), region is not None and f"{region}/".startswith(f"{row['region']}/")
            else:
                size, holds = 0, True
            if holds:
                sizes.setdefault(row["name"], []).append((size, row["valid_from"], row["valid_until"], row["value"]))
        best = {name: max(found)[:3] for name, found in sizes.items()}
        allowed = {name: {one[3] for one in found if one[:3] == best[name]} for name, found in sizes.items()}
        assert values.keys() == allowed.keys() and all(values[name] in allowed[name] for name in values)
    assert any(values for values, _ in asked_of(list(rows.values()), moments))


def test_rows_that_ask_alike_are_all_answered():
    assert asked_of([told()], [(NOON, None, None)] * 3) == [({"weather": "rain"}, {})] * 3


@pytest.mark.parametrize("rows", [[], [told(gone=True)]])
def test_nothing_holds(rows):
    assert asked_of(rows, [(NOON, HERE, CITY)]) == [({}, {})]
