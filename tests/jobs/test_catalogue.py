"""`tables`, `describe`, `runs`: what is stored, what it means, what ran."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest

from conf.settings import SettingsError, load_settings
from conf.tables import TABLES
from jobs.catalogue import description, recorded, summaries, write_description, write_runs, write_summaries
from jobs.lake import logs
from jobs.lake.schema import create

JAN30, JAN31 = date(2024, 1, 30), date(2024, 1, 31)
RUN = {
    "run_id": "one", "step": "ingest", "day": JAN30, "first_day": JAN30, "status": "done", "settings_hash": "s",
    "code_version": "c",
    "inputs": {}, "outputs": {}, "rows_out": {}, "rows_in": None, "details": "{}", "seconds": 1.0, "peak_memory_mb": 512.4,
    "error": None, "finished_at": datetime(2024, 2, 1, 3, 0, 0, tzinfo=UTC),
}  # fmt: skip


@pytest.fixture
def lake(tmp_path):
    """Items of two days, the second of which no step has finished; runs of two days."""
    root = str(tmp_path / "lake")
    create(f"{root}/items", TABLES["items"])
    schema = pa.schema(deltalake.DeltaTable(f"{root}/items").schema().to_arrow())
    for day in (JAN30, JAN31):
        rows = [{"item_id": name, "gone": False, "changed_on": day, "day": day} for name in ("a", "b")]
        deltalake.write_deltalake(f"{root}/items", pa.Table.from_pylist(rows, schema=schema), mode="append")
    at = RUN["finished_at"]
    record(root, step="ingest", outputs={"items": 1}, rows_out={"items": 2}, rows_in=7)
    record(root, step="night", outputs={"items": 1}, finished_at=at.replace(minute=1))
    failed = {"run_id": "two", "day": JAN31, "status": "failed", "error": "ValueError: no such file"}
    record(root, finished_at=at.replace(day=2), **failed)
    record(root, run_id="three", day=JAN31, status="skipped", details='{"note": "no places"}', finished_at=at.replace(day=3))
    return root


def over(root):
    return load_settings(overrides=[f"lake={root}"])


def record(root, **more):
    logs.append(root, "runs", [{**RUN, **more}])


def test_every_table_is_listed_with_what_readers_see(lake):
    found = {one.name: one for one in summaries(over(lake))}
    assert list(found) == list(TABLES)
    items = found["items"]
    assert (items.rows, items.newest_day, items.version) == (2, JAN30, 1), "the unfinished day is not seen"
    assert items.size == sum(path.stat().st_size for path in files(lake, "items", version=1))
    assert (found["users"].rows, found["users"].version) == (None, None)
    assert found["runs"].rows == 4
    assert {one["name"]: one["rows"] for one in json.loads(write_summaries(summaries(over(lake)), "json", width=None))}[
        "items"
    ] == 2
    [line] = [
        line for line in write_summaries(summaries(over(lake)), "table", width=None).splitlines() if line.startswith("items ")
    ]
    assert line.split()[:3] == ["items", "state", "2"] and "2024-01-30" in line


def files(root, name, version):
    return [Path(uri) for uri in deltalake.DeltaTable(f"{root}/{name}", version=version).file_uris()]


def test_an_empty_table_and_a_lake_that_is_not_there(tmp_path):
    assert all(one.version is None for one in summaries(over(tmp_path / "nowhere")))
    root = str(tmp_path / "lake")
    create(f"{root}/items", TABLES["items"])
    record(root, outputs={"items": 0})
    items = next(one for one in summaries(over(root)) if one.name == "items")
    assert (items.rows, items.size, items.newest_day, items.version) == (0, 0, None, 0)


@pytest.mark.parametrize("name", TABLES)
def test_a_description_holds_the_whole_contract(lake, name):
    contract, found = TABLES[name], description(over(lake), name, 3)
    assert [column["name"] for column in found["columns"]] == list(contract.names)
    text = write_description(found, "table", width=None)
    for column in contract.columns:
        # The first line begins with the table's name, which a column may have too.
        line = next(line for line in text.splitlines()[1:] if line.split()[:1] == [column.name])
        assert column.comment in line and (column.unit or "") in line
        assert ("aged when read" in line) == (column.aged is not None)
    assert all(rule in text for rule in contract.checks.values())
    plain = json.loads(json.dumps(found, default=lambda one: one.isoformat()))
    assert json.loads(write_description(found, "json", width=None)) == plain


def test_a_description_says_how_fresh_a_table_is_and_shows_rows_of_its_newest_day(lake):
    found = description(over(lake), "items", 1)
    assert [(row["item_id"], row["day"]) for row in found["sample"]] == [("a", "2024-01-30")], "the unfinished day is not seen"
    age = datetime.now(UTC) - found["stored"]["written_at"]
    assert 0 <= age.total_seconds() < 600
    text = write_description(description(over(lake), "items", 2), "table", width=None)
    assert re.search(r"newest day 2024-01-30, version 1, written \d{4}-\d\d-\d\d \d\d:\d\d UTC", text)
    assert re.search(r"^item_id +a +b$", text, re.M) and re.search(r"^title +NULL +NULL$", text, re.M)
    assert description(over(lake), "items", 0)["sample"] == [] == description(over(lake), "users", 3)["sample"]
    logs.append(lake, "runs", [{**RUN, "outputs": {"items": 1, "vault": 0}}])
    assert description(over(lake), "runs", 2)["sample"] and description(over(lake), "vault", 2)["sample"] == []


def test_an_unknown_table_is_a_wrong_usage(lake):
    with pytest.raises(SettingsError, match="there is no table itms; did you mean items"):
        description(over(lake), "itms", 3)


def test_runs_come_newest_first_with_what_went_wrong(lake):
    rows = recorded(lake, None, 2)
    assert [row["run_id"] for row in rows] == ["three", "two"]
    text = write_runs(recorded(lake, None, 5), "table", width=None).splitlines()
    assert [line.split()[0] for line in text[1:]] == ["three", "two", "one", "one"]
    assert text[1].endswith("no places") and text[2].endswith("ValueError: no such file") and text[3].endswith("items 2")
    assert [row["step"] for row in recorded(lake, JAN30, 5)] == ["ingest", "night"]
    assert json.loads(write_runs(recorded(lake, JAN30, 5), "json", width=None))[0]["outputs"] == {"items": 1}
    assert write_runs([], "table", width=None) == "nothing has run yet\n"
