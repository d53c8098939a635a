"""A night is run again from its record, and features are made again with a changed future: both equal what is stored."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import deltalake
import pytest
from pyspark.sql import functions as F

from conf.settings import Settings, load_settings
from conf.tables import TABLES
from jobs import label, sequences
from jobs.audit import audit, scrambled
from jobs.lake import logs
from jobs.lake.context import Refused
from jobs.lake.maintenance import maintain
from jobs.lake.runs import pins
from jobs.lake.scratch import copy_tables, orphans, scratch
from jobs.lake.store import Lake
from jobs.pipeline import choose
from jobs.replay import replay, steps_of
from jobs.runner import run
from jobs.simulate import World, simulate

END = date(2024, 7, 2)  # a Tuesday; the range holds a month's first day and a Monday
FIRST = END - timedelta(days=5)
STEPS = choose(only=("ingest", "clean", "sequences", "label", "time_series"))


@pytest.fixture(scope="module")
def world(spark, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    shutil.rmtree(folder)
    simulate(spark, folder, World(users=20, items=30, days=6, end_day=END, seed=5))
    return folder / "landing"


@pytest.fixture(scope="module")
def lake(spark, world, tmp_path_factory) -> Settings:
    """A bootstrap and a night, with the record that closes it (its later steps are left out for the time they take)."""
    root = tmp_path_factory.mktemp("proofs") / "lake"
    settings = load_settings(overrides=[f"lake={root}", f"sources.events.path={world}", "sequences.length=40"])
    run(spark, settings, END - timedelta(days=1), steps=STEPS, bootstrap=True)
    run(spark, settings, END, steps=STEPS)
    close(settings)
    return settings


def close(settings: Settings) -> None:
    row = logs.read(settings.lake, "runs", f"step = 'time_series' AND day = DATE '{END}'")[0]
    row |= {"step": "night", "first_day": FIRST, "outputs": pins(settings.lake), "inputs": {}, "finished_at": logs.now()}
    logs.append(settings.lake, "runs", [row])


@pytest.fixture
def copied(lake, tmp_path) -> Settings:
    shutil.copytree(lake.lake, tmp_path / "lake")
    return lake.model_copy(update={"lake": str(tmp_path / "lake")})


def run_of(settings: Settings, day: date, step: str) -> logs.Row:
    return max(logs.read(settings.lake, "runs", f"day = DATE '{day}' AND step = '{step}'"), key=lambda row: row["finished_at"])


def tree(root: str) -> dict[str, tuple[int, int]]:
    """Every file of a lake with its size and time of change."""
    files = [path for path in Path(root).rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def test_a_step_records_what_it_read_and_not_what_it_wrote(lake):
    bootstrap, night = (run_of(lake, day, "clean") for day in (END - timedelta(days=1), END))
    assert night["inputs"]["events"] == bootstrap["outputs"]["events"], "read back after the write, but not an input"
    assert night["inputs"]["raw_events"] == run_of(lake, END, "ingest")["outputs"]["raw_events"]
    assert "events" not in bootstrap["inputs"] and "runs" in run_of(lake, END, "ingest")["inputs"]


def test_a_night_and_a_bootstrap_are_repeated_equal_and_nothing_is_written(spark, lake):
    before = tree(lake.lake)
    for day in (END, END - timedelta(days=1)):
        found = list(replay(spark, lake, run_of(lake, day, "ingest")["run_id"]))
        assert all(one.equal for one in found), [one.line() for one in found if not one.equal]
        rows = logs.read(lake.lake, "runs", f"day = DATE '{day}' AND step <> 'night'")
        assert {(one.step, one.what) for one in found} == {(row["step"], name) for row in rows for name in row["outputs"]}
        full = {one.what for one in found if one.said.startswith("equal, ") and one.said != "equal, 0 rows"}
        assert {"raw_events", "events", "user_sequences", "event_labels", "time_series_features"} <= full
    assert tree(lake.lake) == before and not orphans(lake.lake)


def test_a_difference_is_told_by_column_and_expected_where_settings_changed(spark, copied, monkeypatch):
    run(spark, copied, END, steps=choose(only=("label",)))
    again = run_of(copied, END, "label")["run_id"]
    other = load_settings(overrides=[f"lake={copied.lake}", "sequences.length=40", "label.short_half_life_days=8"])
    note, labels, interests = replay(spark, other, again)
    assert note.what == "settings" and "differences are to be expected" in note.said and note.equal is None
    assert labels.equal, "they are judged by the state before the day"
    assert not interests.equal and "short_weight in " in interests.said
    assert "long_weight in" not in interests.said
    real = label.advance

    def forgetful(*given):
        labels, interests = real(*given)
        return labels.limit(1), interests

    monkeypatch.setattr(label, "advance", forgetful)
    labels, interests = replay(spark, copied, again)
    assert not labels.equal and " rows missing, 0 added" in labels.said and interests.equal


def test_what_is_no_longer_stored_is_refused_by_name(spark, copied):
    night = run_of(copied, END, "label")
    table, version = "events", night["inputs"]["events"]
    path = Path(copied.lake) / table
    file = deltalake.DeltaTable(str(path), version=version).file_uris(file_pruning_predicate=f"day = '{END}'")[0]
    Path(file.removeprefix("file://")).unlink()
    with pytest.raises(Refused, match=f"{table} version {version} is no longer stored"):
        list(replay(spark, copied, night["run_id"]))
    assert not list((Path(copied.lake) / ".scratch").iterdir())
    with pytest.raises(ValueError, match=r"no run 20240101-0 finished a step in .*; the newest are 20240702-"):
        list(replay(spark, copied, "20240101-0"))
    with pytest.raises(ValueError, match="no run"):
        steps_of(copied.lake, "' OR true OR '")


def test_a_landing_that_changed_or_is_gone_is_refused_by_day(spark, copied, world, tmp_path):
    logs.append(copied.lake, "runs", [run_of(copied, END, "ingest") | {"run_id": "only-ingest"}])
    landing = tmp_path / "landing"
    shutil.copytree(world, landing)
    elsewhere = copied.model_copy(
        update={"sources": {"events": copied.sources["events"].model_copy(update={"path": str(landing)})}}
    )
    [events] = (landing / str(END)).glob("events*")
    events.write_text("".join(events.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(Refused, match=f"the source rows of {END} changed or are gone"):
        list(replay(spark, elsewhere, "only-ingest"))
    shutil.rmtree(landing)
    with pytest.raises(Refused, match=r"ingest cannot be repeated: sources.events.path: .* does not exist"):
        list(replay(spark, elsewhere, "only-ingest"))


def test_a_maintained_lake_reads_as_before_and_old_runs_are_refused(spark, copied):
    old = run_of(copied, END, "label")["run_id"]
    for _ in range(2):  # the second rests on what the first left
        run(spark, copied, END, steps=choose(only=("label",)))
    age(copied, run_of(copied, END, "label")["run_id"], days=60)
    close(copied)
    shown = {name: rows(spark, copied, name) for name in ("events", "user_interests", "user_sequences")}
    done = maintain(copied, now=datetime.now(UTC) + timedelta(days=2))
    assert sum(one.freed.files for one in done) > 0
    assert {name: rows(spark, copied, name) for name in shown} == shown
    with pytest.raises(Refused, match=r"\w+ version \d+ is no longer stored"):
        list(replay(spark, copied, old))
    assert all(found.equal for found in replay(spark, copied, run_of(copied, END, "label")["run_id"]))
    run(spark, copied, END, steps=STEPS[:2])  # and the next run finds all it needs


def age(settings: Settings, newest: str, *, days: int) -> None:
    """As if all runs but the newest had been long ago."""
    known, back = logs.read(settings.lake, "runs"), timedelta(days=days)
    shutil.rmtree(f"{settings.lake}/runs")
    aged = [row | ({} if row["run_id"] == newest else {"finished_at": row["finished_at"] - back}) for row in known]
    logs.append(settings.lake, "runs", aged)


def rows(spark, settings: Settings, name: str) -> list[str]:
    read = Lake(spark, settings.lake).read(name, pins(settings.lake)[name])
    return sorted(row.value for row in read.select(F.to_json(F.struct(*read.columns)).alias("value")).collect())


def test_a_changed_future_moves_nothing_and_a_planted_leak_is_caught(spark, lake, monkeypatch):
    """The leak looks only at the last day, so that nights (which end before it) write what they would without it."""
    before, real = tree(lake.lake), sequences.sequences

    def leaky(arrived, *more, **named):
        ahead = arrived.where(F.col("day") == F.lit(END)).groupBy("user_id").agg(F.count("*").alias("ahead"))
        made = real(arrived, *more, **named).join(ahead, on="user_id", how="left")
        return made.withColumn("events_total", F.col("events_total") + F.coalesce("ahead", F.lit(0))).drop("ahead")

    monkeypatch.setattr(sequences, "sequences", leaky)
    found = {one.table: one for one in audit(spark, lake, END, steps=STEPS[1:])}
    made = {name for step in STEPS[1:] for name in step.writes}
    assert set(found) == {*made, "training_windows"}
    assert {name for name, one in found.items() if not one.equal} == {"user_sequences"}
    assert "differing: events_total in " in found["user_sequences"].said
    still = {name for name, one in found.items() if not one.moved}
    assert still == {"value_ranges"}, "that is fitted on a month's first day; features that nothing can move prove nothing"
    assert all(one.said.startswith("equal, ") for one in found.values() if one.equal)
    assert found["events"].said != "equal, 0 rows" and tree(lake.lake) == before


def test_an_audit_that_could_not_fail_is_refused(spark, lake, copied, monkeypatch):
    with pytest.raises(ValueError, match=f"the lake holds {FIRST} to {END}"):
        list(audit(spark, lake, FIRST))
    with pytest.raises(ValueError, match="cut after the first"):
        list(audit(spark, lake, END + timedelta(days=1)))
    monkeypatch.setattr("jobs.audit.scrambled", lambda rows, contract: rows)
    with pytest.raises(ValueError, match="would prove nothing"):
        list(audit(spark, lake, END, steps=choose(only=("clean",))))
    dropped = {"step": "maintain", "details": json.dumps({"retention": {"raw_events": str(END)}})}
    logs.append(copied.lake, "runs", [run_of(copied, END, "night") | dropped | {"outputs": {}}])
    with pytest.raises(Refused, match=f"retention has removed the days of raw_events before {END}"):
        list(audit(spark, copied, END))


def test_the_changes_reach_every_kind_of_column(spark, lake):
    raw = Lake(spark, lake.lake).read("raw_events", pins(lake.lake)["raw_events"], f"day = '{END}'").persist()
    other = scrambled(raw, TABLES["raw_events"]).persist()
    assert other.columns == raw.columns
    assert {row.day for row in other.select("day").distinct().collect()} == {END}
    for name in ("item_id", "event_time", "latitude", "event_type"):
        pairs = [{(row.user_id, row[name]) for row in frame.collect()} for frame in (raw, other)]
        assert len(pairs[1] - pairs[0]) > len(pairs[1]) / 3, f"{name} stayed with its users"
    assert not {row.row_hash for row in raw.collect()} & {row.row_hash for row in other.collect()}
    users = [frame.groupBy("user_id").count().collect() for frame in (raw, other)]
    assert {tuple(row) for row in users[0]} != {tuple(row) for row in users[1]}, "some are dropped, some doubled"


def test_a_scratch_lake_touches_no_file_of_the_lake_and_an_orphan_is_found(spark, copied):
    version = pins(copied.lake)["events"]
    before = tree(copied.lake)
    with scratch(copied.lake) as folder:
        assert copy_tables(copied.lake, {"events": version}, folder / "a") == {"events": 1 + bool(TABLES["events"].checks)}
        other = Lake(spark, str(folder / "a"))
        rows_then = other.read("events", other.version("events"))
        other.replace("events", rows_then.where("false"), f"day <= '{END}'")
        shutil.rmtree(folder / "a" / "events" / next((folder / "a" / "events").glob("batch=*")).name)
        assert not orphans(copied.lake)
    assert {path: known for path, known in tree(copied.lake).items() if ".scratch" not in path} == before
    program = (
        "import os\nfrom jobs.lake.scratch import *\n"
        f"with scratch({copied.lake!r}) as folder:\n"
        f"    copy_tables({copied.lake!r}, {{'events': {version}}}, folder)\n"
        "    os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, cwd=Path(__file__).parents[1]).returncode == 9
    [orphan] = orphans(copied.lake)
    assert any(orphan.rglob("*.parquet"))
    [done] = [one for one in maintain(copied) if one.name == ".scratch/"]
    assert done.freed.files > 1 and not orphans(copied.lake)
    with pytest.raises(Refused, match="events version 99 is no longer stored"), scratch(copied.lake) as folder:
        copy_tables(copied.lake, {"events": 99}, folder)
    with pytest.raises(ValueError, match="not a folder of this machine"), scratch("s3://bucket/lake"):
        pass
