"""A refresh: readers and sinks see what landed since the night, and a night afterwards leaves what it would have left."""

import json
import logging
import shutil
from datetime import date, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conf.tables import TABLES
from jobs import runner
from jobs.cli import app, register
from jobs.export import export
from jobs.lake import logs, runs
from jobs.lake.identities import load_key, pseudonym
from jobs.lake.refused import Refused
from jobs.pipeline import choose
from jobs.query import answer
from jobs.query.versions import seen
from jobs.refresh import refresh
from jobs.subject import subject
from tests.begun import NEXT
from tests.jobs.test_export import read_csv
from tests.stored import difference

NIGHT = NEXT - timedelta(days=1)
NEWCOMER = (
    '{{"user_id":"newcomer","item_id":"i00005","event_type":"view","event_timestamp":"{day}T00:30:00.000Z","latitude":40.72,'
    '"longitude":-73.98,"device":"ios","scene":"map","session_id":"s1"}}\n'
)
# So that the night ranks only some, as a refresh does.
NO_TRAINING = ("train.only_on=sunday", "train.from_scratch_on=null")
# What writes the tables that a refresh writes, and what these are made of.
SEEN = ("ingest", "clean", "sequences", "spatial", "train", "ranker", "evaluate", "feedback", "policy", "score")


@pytest.fixture
def place(begun, tmp_path):
    """A lake whose next folder is filled by and by: the settings, and what lets so much of its events land."""
    landing = tmp_path / "landing"
    shutil.copytree(begun.folder / "landing", landing)
    whole, part = begun.folder / "landing" / str(NEXT), landing / str(NEXT)
    for day in landing.iterdir():
        if date.fromisoformat(day.name) >= NEXT:
            shutil.rmtree(day)
    settings = begun.copy(tmp_path / "place", f"sources.events.path={landing}", *NO_TRAINING)

    def land(share):
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(whole, part)
        [events] = part.glob("events*")
        lines = events.read_text().splitlines(keepends=True)
        lines = [NEWCOMER.format(day=NEXT), *lines[: int(share * len(lines))]]
        events.write_text("".join(lines))
        return {json.loads(line)["user_id"] for line in lines}

    return settings, land


def rows(settings, sql, **more):
    found = answer(settings, sql, **more)
    return sorted(zip(*[column.to_pylist() for column in found.columns], strict=True), key=repr)


def changed(settings):
    found = rows(settings, f"SELECT DISTINCT user_id FROM recommendations WHERE changed_on = DATE '{NEXT}'")
    return {user for (user,) in found}


def test_what_landed_is_seen_and_delivered_and_the_night_is_as_without(spark, place, begun, tmp_path, caplog):
    settings, land = place
    before = {name: rows(settings, f"SELECT * FROM {name}") for name in ("user_places", "user_interests", "recommendations")}
    assert refresh(spark, settings).run_id is None and not changed(settings), "no folder, nothing landed"
    landed = land(0.4)
    first = refresh(spark, settings)
    assert first.days.last == NEXT and [report.step for report in first.reports][-1] == "export"
    key = load_key()
    mine = {pseudonym(user, key) for user in landed}
    arrived = rows(settings, f"SELECT DISTINCT user_id FROM user_sequences WHERE changed_on = DATE '{NEXT}'")
    assert {user for (user,) in arrived} <= mine and arrived
    users = changed(settings)
    assert users & {user for (user,) in arrived}
    [scored] = logs.read(settings.lake, "runs", "step = 'score' AND status = 'refreshed'")
    assert json.loads(scored["details"])["ranked"] == "who may get other lists"
    # What was not made stays the night's, though the first of a month is a keyframe.
    for name in ("user_places", "user_interests"):
        assert rows(settings, f"SELECT * FROM {name}") == before[name] != []
    delivered = {row["user_id"] for row in read_csv(settings.sinks["files"].path) if row["changed_on"] == str(NEXT)}
    assert {pseudonym(user, key) for user in delivered} == users
    assert runs.newest_night(settings.lake).day == NIGHT and seen(settings.lake, {}, None)["recommendations"].day == NEXT

    # Who is new since the night is known to the commands that come after as well.
    assert answer(settings, "SELECT 1 FROM recommendations WHERE user_id = :user", user="newcomer").num_rows > 0
    assert "newcomer" in delivered
    export(spark, settings, check=True)
    assert "events" in subject(settings, "newcomer")["tables"] and "user_sequences" in subject(settings, "newcomer")["tables"]
    shutil.rmtree(Path(settings.sinks["files"].path).resolve())  # a sink that lost it: the next refresh delivers, new or not
    with caplog.at_level(logging.INFO):
        assert refresh(spark, settings).run_id is None and f"nothing landed for {NEXT} since" in caplog.text
    assert "newcomer" in {row["user_id"] for row in read_csv(settings.sinks["files"].path)}
    land(0.8)
    second = refresh(spark, settings)
    assert second.run_id not in (None, first.run_id) and len(changed(settings)) >= len(users)
    sent = [row["sent"] for row in logs.read(settings.lake, "export_log") if "refresh" in row["run_id"]]
    assert sent == ["everything"] * 3, "a folder is written whole"
    # No day is done by it: going back is going back to the night.
    assert {row["day"] for row in logs.read(settings.lake, "runs", "status = 'done'")} == {NIGHT}

    # The night, with a refresh before it and without, over every table that a refresh writes.
    at_night, refreshed = runs.newest_night(settings.lake).versions, runs.newest_refresh(settings.lake).versions
    wrote = {name for name, version in refreshed.items() if version != at_night.get(name) and TABLES[name].kind != "log"}
    land(1.0)
    without = begun.copy(tmp_path / "without", f"sources.events.path={tmp_path / 'landing'}", *NO_TRAINING)
    assert not runner.run(spark, settings, NEXT).refusals
    runner.run(spark, without, NEXT, steps=choose(only=SEEN))
    assert runs.newest_refresh(settings.lake) is None and runs.newest_night(settings.lake).day == NEXT
    names = [name for step in choose(only=SEEN) for name in step.writes if TABLES[name].kind != "log"]
    assert {"recommendations", "user_sequences"} <= wrote <= set(names)
    found = {name: difference(spark, name, settings, without) for name in names}
    assert not any(found.values()), found


def test_a_refresh_waits_for_a_night_that_has_begun_and_for_a_first_one(spark, place, make_settings):
    settings, land = place
    land(0.5)
    runner.run(spark, settings.accepting(), NEXT, steps=choose(only=("ingest",)))
    with pytest.raises(Refused, match=f"the night of {NEXT} has begun .ingest is done.: finish it with run --day {NEXT}"):
        refresh(spark, settings)
    with pytest.raises(ValueError, match="has no finished day"):
        refresh(spark, make_settings())
    register()
    said = CliRunner().invoke(app, ["refresh", "--help"])
    assert said.exit_code == 0 and "Example: wherewhen" in said.output
