"""Erasing from every table of a lake that Spark has not touched: exact rows, versions, kills, hostile ids."""

from __future__ import annotations

import json
from pathlib import Path

import deltalake
import pytest

from conf.tables import TABLES
from jobs import erase as erasing
from jobs.erase import work
from jobs.lake import logs, runs
from jobs.lake.logs import table_path
from jobs.lake.person import WITHOUT_PERSONS, identifying

PERSONAL = [name for name, table in TABLES.items() if identifying(table)]


def assert_gone(lake, certificate: Path) -> dict:
    """Nothing of the person in the tables; all else as it was, at the versions that readers and the next step see."""
    pins, night = runs.pins(lake.root), runs.newest_night(lake.root)
    for name, kept in lake.rows.items():
        for version in {None, pins[name], night.versions[name]}:
            assert lake.stored(name, version) == kept, (name, version)
    said = json.loads(certificate.read_text())
    assert said["scan"]["hits"] == 0 and said["scan"]["files"] > 50
    assert bool(said["scan"]["mentions"]) == (lake.user == "item_id 1"), "an item of that name is an item"
    assert lake.pseudonym not in certificate.read_text() and f'"{lake.user}"' not in certificate.read_text()
    for path in Path(lake.root).rglob("*"):
        assert not path.is_file() or lake.pseudonym.encode() not in path.read_bytes(), path
    return said


def versions(lake) -> dict[str, int]:
    return {name: deltalake.DeltaTable(table_path(lake.root, name)).version() for name in lake.rows}


def test_every_personal_column_is_in_a_table_that_is_covered_or_explained():
    assert set(PERSONAL) | set(WITHOUT_PERSONS) == set(TABLES) and not set(PERSONAL) & set(WITHOUT_PERSONS)
    for name, table in TABLES.items():
        personal = [column.name for column in table.columns if column.personal]
        assert not personal or identifying(table) or name == "erasures", f"{name}: {personal}"
        assert table.personal == bool(personal), name


def test_the_persons_rows_go_and_all_others_stay(plant):
    lake = plant()
    done = erasing.erase(lake.settings, lake.user)
    said = assert_gone(lake, done.certificate)
    assert {name: count for name, count in said["rows_removed"].items() if count} == {
        name: count for name, count in lake.mine.items() if count
    }
    begun, certified = sorted(logs.read(lake.root, "erasures"), key=lambda row: row["recorded_at"])
    assert (begun["status"], certified["status"]) == ("begun", "done") and certified["rows_removed"] == said["rows_removed"]
    assert not list((Path(lake.root) / work.FOLDER).glob("*.work.json"))
    before = {name: deltalake.DeltaTable(table_path(lake.root, name)).version() for name in lake.rows}
    again = erasing.erase(lake.settings, lake.user)
    assert again.rows == 0 and before == {
        name: deltalake.DeltaTable(table_path(lake.root, name)).version() for name in lake.rows
    }


@pytest.mark.parametrize(
    "user", ["12", "o'hara\"; DROP TABLE events; --", "%_*?[a-z]", "zwei\nzeilen", "東京 🍜 é", " x ", "item_id 1"]
)
def test_hostile_ids(plant, user):
    lake = plant(user)
    assert_gone(lake, erasing.erase(lake.settings, user).certificate)


@pytest.mark.parametrize(("user", "said"), [("", "is empty"), ("  ", "is empty"), ("\udcff", "no valid UTF-8")])
def test_what_is_no_id_is_refused_before_anything_is_written(plant, user, said):
    lake = plant()
    with pytest.raises(ValueError, match=said):
        erasing.erase(lake.settings, user)
    assert not (Path(lake.root) / "erasures").exists()
