"""A night that was ended in between leaves every table at its last complete state, and the next run finishes it.

Some kills are simulated: an exception that nothing catches, raised at the commit point in the tests' own process, of
which all but the Spark session is thrown away. What it leaves differs from a SIGKILL in what `finally` clears away;
that too is tried, here once and in `make soak` (test_sweep.py) at every point.
"""

from __future__ import annotations

import threading
from pathlib import Path

import deltalake
import psutil
import pytest

from conf.settings import load_settings
from jobs.lake import commits, lock, logs
from jobs.lake.runs import pins
from jobs.pipeline import STEPS
from jobs.runner import one_line

# Before and after the commits of every way to write.
SIMULATED = (
    ("ingest", "before raw_events"),  # a fact
    ("ingest", "after raw_events"),
    ("ingest", "after items"),  # a state on a keyframe day
    ("ingest", "before vault"),  # a log that Spark appends to
    ("ingest", "after vault"),
    ("clean", "before runs"),  # a step's record, which commits it
    ("clean", "after runs"),
    ("label", "before user_interests"),
    ("label", "after user_interests"),
    ("spatial", "before hotspots"),  # a snapshot
    ("spatial", "after hotspots"),
    ("train", "before training_windows"),  # a fact of the newest day only
    ("train", "after a model folder"),
    ("train", "after model_versions"),  # the registry
    ("evaluate", "before publications"),
    ("evaluate", "after publications"),
    ("score", "before recommendations"),  # a state of the newest day only
    ("score", "after recommendations"),
    ("export", "before the folder sink"),
    ("export", "after the folder sink"),
    ("report", "before the report"),
    ("report", "after runs"),  # the night's own row is missing
)


class SimulatedKill(BaseException):
    """Not an Exception: nothing may handle it."""


@pytest.fixture
def simulated_kill(night, monkeypatch):
    """simulated_kill(settings, step, point): the night from `step` on ends at the first such point."""

    def kill(settings, step, point):
        def reached(name):
            if name == point:
                raise SimulatedKill(point)

        with monkeypatch.context() as patch:
            patch.setattr(commits, "reached", reached)
            with pytest.raises(SimulatedKill):
                night.run(settings, from_step=step)

    return kill


def assert_complete(settings, step, before):
    """Every table is readable at the version that counts, and that of a step without its `done` row is still the old one."""
    now = pins(settings.lake)
    for name, version in now.items():
        table = deltalake.DeltaTable(Path(settings.lake) / name, version=version)
        assert all(Path(uri.removeprefix("file://")).is_file() for uri in table.file_uris()), name
    if not logs.read(settings.lake, "runs", f"step = '{step}' AND day = date '2024-07-01' AND status = 'done'"):
        writes = next(one for one in STEPS if one.name == step).writes
        assert {name: now.get(name) for name in writes} == {name: before.get(name) for name in writes}


def test_a_night_that_is_killed_simulated_around_every_kind_of_commit_is_finished_by_the_next(night, simulated_kill):
    settings = night.lake("simulated")
    before = pins(settings.lake)
    for step, point in SIMULATED:
        simulated_kill(settings, step, point)
        assert_complete(settings, step, before)
    night.run(settings, from_step="report")
    assert night.differences(settings) == {}


def test_a_night_whose_driver_got_a_sigkill_is_finished_by_the_next_and_its_lock_holds_nobody_up(night, points, caplog):
    settings = night.lake("sigkill")
    night.run(settings, to_step="sequences")
    before = pins(settings.lake)
    found = points(lambda: night.run(night.lake("counted", like="sigkill"), only=("label",)))
    at = found.index("before user_interests")
    assert night.killed("sigkill", at + 1, "--only", "label") == "before user_interests"
    assert_complete(settings, "label", before)
    assert (Path(settings.lake) / lock.FILE).exists(), "nobody gave the lake back"
    with caplog.at_level("INFO"):
        night.run(settings, from_step="text")
    assert "was held by run of 2024-07-01: label" in caplog.text and "taken over" in caplog.text
    assert night.differences(settings) == {}


def test_a_step_whose_python_workers_are_killed_fails_in_one_line_and_the_next_run_finishes(night):
    settings = night.lake("workers")
    night.run(settings, to_step="clean")
    before, stop = pins(settings.lake), threading.Event()

    def kill_workers():
        """Children of Spark's Python daemon, again and again."""
        while not stop.wait(0.02):
            for process in psutil.Process().children(recursive=True):
                try:
                    if all("daemon" in " ".join(one.cmdline()) for one in (process, process.parent())):
                        process.kill()
                except (psutil.Error, AttributeError):
                    continue

    killer = threading.Thread(target=kill_workers)
    killer.start()
    try:
        with pytest.raises(Exception) as raised:
            night.run(settings, only=("label",))
    finally:
        stop.set()
        killer.join()
    assert "\n" not in one_line(raised.value)
    assert_complete(settings, "label", before)
    night.run(settings, from_step="sequences")
    assert night.differences(settings) == {}


def test_of_two_runs_of_a_day_at_once_one_wins_and_the_other_says_so(night, monkeypatch):
    """The second is a process of its own, started when the first is about to commit."""
    settings, ended = night.lake("twice"), []

    def reached(point):
        if point == "before raw_events":
            process = night.command("twice", "--to-step", "clean")
            ended.append((process.communicate(timeout=300)[1], process.returncode))

    with monkeypatch.context() as patch:
        patch.setattr(commits, "reached", reached)
        night.run(settings)
    [(said, code)] = ended
    assert code == 3, said
    [line] = said.strip().splitlines()
    assert line.startswith(f"refused: {settings.lake} is held by run of 2024-07-01 (pid "), line
    assert "since 20" in line and "wait until it has ended" in line
    assert night.differences(settings) == {}
    assert load_settings(overrides=night.overrides("twice")).lake == settings.lake
