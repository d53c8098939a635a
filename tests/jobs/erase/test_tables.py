"""Erasing from every table of a lake that Spark has not touched: exact rows, versions, kills, hostile ids."""

from __future__ import annotations

import gzip
import json
from datetime import date
from pathlib import Path

import deltalake
import pyarrow.parquet as pq
import pytest

from conf.tables import TABLES
from jobs import erase as erasing
from jobs.erase import work
from jobs.lake import erasure, files, logs, runs
from jobs.lake.logs import table_path
from jobs.lake.person import WITHOUT_PERSONS, identifying
from models import registry
from tests.jobs.erase.planted import DAYS, Planted, as_of, done, nobodys, row

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
    checkpoint = registry.checkpoint_file(lake.settings.lake, "v1")
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"learnt so far")
    done = erasing.erase(lake.settings, lake.user)
    assert not checkpoint.exists()
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


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("when", "place", "name", "call"),
    [
        ("before", files, "exchanged", 1),  # the first table
        ("after", files, "exchanged", 6),  # some table
        ("after", work, "save", 1),
        ("before", logs, "append", 2),  # the row in runs; the first call is the tombstone
        ("after", logs, "append", 2),
        ("after", erasing, "delete", 1),
        ("before", erasing, "_sinks_erased", 1),
        ("before", erasing, "scan", 1),
        ("before", logs, "append", 3),  # the row that closes the erasure
        ("after", logs, "append", 3),
    ],
)
def test_a_killed_erasure_certifies_nothing_and_the_same_command_finishes_it(plant, monkeypatch, when, place, name, call):
    lake, undisturbed, calls = plant(), getattr(place, name), []

    def kill(*args, **more):
        calls.append(name)
        if len(calls) == call and when == "before":
            raise Killed
        result = undisturbed(*args, **more)
        if len(calls) == call:
            raise Killed
        return result

    monkeypatch.setattr(place, name, kill)
    with pytest.raises(Killed):
        erasing.erase(lake.settings, lake.user)
    monkeypatch.undo()
    is_closed = (name, call, when) == ("append", 3, "after")
    rows = logs.read(lake.root, "erasures")
    assert [row["status"] for row in rows].count("done") == is_closed and any(row["status"] == "begun" for row in rows)
    for table, version in runs.pins(lake.root).items():
        assert len(lake.stored(table, version)) >= len(lake.rows[table]), "what readers go by stays readable"
    said = assert_gone(lake, erasing.erase(lake.settings, lake.user).certificate)
    removed = {table: count for table, count in said["rows_removed"].items() if count}
    assert removed == ({} if is_closed else {table: count for table, count in lake.mine.items() if count})


def test_each_version_in_use_loses_the_person_and_what_a_killed_run_left_is_not_made_valid(plant):
    lake = plant()
    contract, day = TABLES["events"], date(2024, 2, 1)
    users = (lake.user, "somebody")
    later = [as_of(contract, row(contract, 40 + n, day), user) for n, user in enumerate(users)]
    pinned = lake.commit("events", later)
    logs.append(lake.root, "runs", [done("clean", {"events": pinned}, day)])
    killed = [as_of(contract, row(contract, 50 + n, day), user) for n, user in enumerate(users)]
    lake.commit("events", killed)
    table = Path(table_path(lake.root, "events"))
    before = set(erasure.on_disk(table))
    for user in users:  # written, and never committed
        orphan = Planted(settings=lake.settings, user=user, rows={}, mine={})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "exchanged", lambda *_: 0)
            orphan.commit("events", [as_of(contract, row(contract, 60, day), user)])
    cut = table / "batch=cut" / "part-00000.snappy.parquet"
    cut.parent.mkdir()
    cut.write_bytes(b"PAR1 and then the machine stopped")
    orphans = set(erasure.on_disk(table)) - before - {"batch=cut/part-00000.snappy.parquet"}
    mine, other = sorted(orphans, key=lambda path: _owner(table / path) != lake.pseudonym)

    erasing.erase(lake.settings, lake.user)
    night, pins = runs.newest_night(lake.root), runs.pins(lake.root)
    assert night.day == DAYS[1] and night.versions["events"] < pins["events"]
    assert lake.stored("events", night.versions["events"]) == lake.rows["events"]
    assert lake.stored("events", pins["events"]) == sorted([*lake.rows["events"], later[1]], key=repr)
    assert lake.stored("events") == lake.stored("events", pins["events"])
    assert not cut.exists() and not (table / mine).exists() and (table / other).exists()


def _owner(path: Path) -> str:
    return pq.ParquetFile(path).read().column("user_id")[0].as_py()


def test_an_error_that_quotes_the_person_is_blotted_out_of_logs_and_their_statistics(plant, monkeypatch):
    lake = plant()
    failed = {**done("clean", {}, DAYS[1]), "status": "failed", "error": f"broken in {lake.pseudonym} or {lake.user}"}
    logs.append(lake.root, "runs", [failed])
    delivered = logs.read(lake.root, "export_log")[0]
    logs.append(lake.root, "export_log", [{**delivered, "error": f"user {lake.pseudonym}"}])  # after the night
    written = Path(lake.root) / "runs" / "_delta_log"
    assert not any(lake.pseudonym in path.read_text() for path in written.glob("*.json")), "no statistics of columns"
    [newest] = sorted(written.glob("*.json"))[-1:]
    newest.write_text(newest.read_text() + json.dumps({"commitInfo": {"before": lake.pseudonym}}) + "\n")  # an older lake's

    lake.rows["export_log"] = sorted([*lake.rows["export_log"], {**delivered, "error": "user (erased)"}], key=repr)
    said = assert_gone(lake, erasing.erase(lake.settings, lake.user).certificate)
    assert said["blotted_out_in_logs"] == {"export_log": 1, "runs": 1} and "runs" not in said["rows_removed"]
    [row] = logs.read(lake.root, "runs", "status = 'failed'")
    assert row["error"] == "broken in (erased) or (erased)" and row["run_id"] == "r"


def test_unreadable_lines_go_where_they_name_the_person(plant):
    lake = plant()
    gone = [f'{{"user_id": "{lake.user}", "item', f"{lake.user},i1,", f'"{lake.user}"', "\\u0075000012 x"]
    lines = [*gone, f"x{lake.user},i1", "somebody,i1"]
    for name, made in (("raw_events", {"broken": None}), ("events_quarantine", {"row": None})):
        contract, [column] = TABLES[name], made
        nobody = nobodys(row(contract, 1, DAYS[1]))
        rows = [nobody | {column: line if column == "broken" else json.dumps({"broken": line})} for line in lines]
        version = lake.commit(name, rows)
        logs.append(lake.root, "runs", [done("ingest", {name: version}, DAYS[1])])
        lake.rows[name] = [*lake.rows[name], *rows[len(gone) :]]
    erasing.erase(lake.settings, lake.user)
    for name in ("raw_events", "events_quarantine"):
        assert lake.stored(name) == sorted(lake.rows[name], key=repr), name


def test_another_key_or_lake_erases_nothing(plant, monkeypatch):
    lake = plant()
    with monkeypatch.context() as other, pytest.raises(ValueError, match="WHEREWHEN_KEY is not the key"):
        other.setenv("WHEREWHEN_KEY", "ab" * 32)
        erasing.erase(lake.settings, lake.user)
    with pytest.raises(ValueError, match="there is no lake at"):
        erasing.erase(lake.settings.model_copy(update={"lake": lake.root + "x"}), lake.user)
    erasing.erase(lake.settings, "never seen")
    with monkeypatch.context() as other, pytest.raises(ValueError, match="set WHEREWHEN_TOMBSTONE_KEY to that key"):
        other.setenv("WHEREWHEN_TOMBSTONE_KEY", "ab" * 32)
        erasing.erase(lake.settings, lake.user)
    assert lake.stored("users") != lake.rows["users"], "the others' rows were not touched either"


def test_a_scan_that_finds_the_person_certifies_nothing(plant):
    lake = plant()
    for name, content in (("note.txt", lake.user.encode()), ("x.json.gz", gzip.compress(lake.pseudonym.encode()))):
        (Path(lake.root) / "models").mkdir(exist_ok=True)
        forgotten = Path(lake.root) / name
        forgotten.write_bytes(content)
        with pytest.raises(ValueError, match=f"still found in .*{name}; nothing is certified"):
            erasing.erase(lake.settings, lake.user)
        forgotten.unlink()
    assert_gone(lake, erasing.erase(lake.settings, lake.user).certificate)
