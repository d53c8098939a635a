"""A night that was ended in between leaves every table at its last complete state, and the next run finishes it.

Some kills are simulated: an exception that nothing catches, raised at the commit point in the tests' own process, of
which all but the Spark session is thrown away. What it leaves differs from a SIGKILL in what `finally` clears away;
that too is tried, here once and in `make soak` (test_sweep.py) at every point.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

import deltalake
import psutil
import pytest

from jobs.lake import commits, lock, logs
from jobs.lake.failures import one_line
from jobs.lake.runs import pins
from jobs.pipeline import STEPS, order

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
    """simulated_kill(settings, step, point): the night from its first unfinished step on ends at this point of `step`."""

    def kill(settings, step, point):
        under_way = []

        def reached(name):
            if (under_way[-1:], name) == ([step], point):
                raise SimulatedKill(point)

        with monkeypatch.context() as patch:
            patch.setattr(commits, "reached", reached)
            with pytest.raises(SimulatedKill):
                night.run(settings, lambda name, report: under_way.append(name), from_step=unfinished(settings))

    return kill


def unfinished(settings):
    done = {row["step"] for row in logs.read(settings.lake, "runs", "status = 'done' AND day = date '2024-07-01'")}
    return next((step.name for step in order() if step.name not in done), "report")


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
    night.run(settings, from_step=unfinished(settings))
    assert night.differences(settings) == {}


@pytest.fixture(scope="module")
def cleaned(night):
    """A lake on which a second run, a process of its own, was started while the first was about to commit; what it said."""
    settings, ended = night.lake("cleaned"), []

    def reached(point):
        if point == "before raw_events":
            process = night.command("cleaned", "--to-step", "clean")
            ended.append((process.communicate(timeout=300)[1], process.returncode))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commits, "reached", reached)
        night.run(settings, to_step="clean")
    return settings, *ended


def test_of_two_runs_of_a_day_at_once_one_wins_and_the_other_says_so(night, cleaned):
    settings, (said, code) = cleaned
    assert code == 3, said
    [line] = said.strip().splitlines()
    assert line.startswith(f"refused: {settings.lake} is held by run of 2024-07-01: ingest, clean (pid "), line
    assert "since 20" in line and "wait until it has ended" in line
    assert night.differences(settings, to_step="clean") == {}


def test_a_driver_that_got_a_sigkill_leaves_tables_whole_and_a_lock_that_holds_nobody_up(night, cleaned, caplog):
    settings, _ = cleaned
    before, at = pins(settings.lake), night.points["label"].index("before user_interests")
    assert night.killed("cleaned", at + 1, "--only", "label") == "before user_interests"
    assert_complete(settings, "label", before)
    assert (Path(settings.lake) / lock.FILE).exists(), "nobody gave the lake back"
    with caplog.at_level("INFO"):
        night.run(settings, only=("label",))
    assert "was held by run of 2024-07-01: label" in caplog.text and "taken over" in caplog.text
    assert night.differences(settings, only=("label",)) == {}


def test_a_step_whose_python_workers_are_killed_fails_in_one_line_and_the_next_run_finishes(night):
    settings = night.lake("workers")
    before, stop = pins(settings.lake), threading.Event()
    assert daemons(), "Spark starts its workers from one"

    def kill_workers():
        """Each as soon as it is there; they live for longer than the pause."""
        found = daemons()
        while not stop.wait(0.005):
            try:
                workers = [worker for daemon in found for worker in daemon.children()]
            except psutil.NoSuchProcess:  # an idle daemon ends, and Spark starts another
                found = daemons()
                continue
            for process in workers:
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    killer = threading.Thread(target=kill_workers)
    killer.start()
    try:
        with pytest.raises(Exception, match=r"Python worker|EOFException") as raised:
            night.run(settings, to_step="ingest")
    finally:
        stop.set()
        killer.join()
    said = one_line(raised.value)
    assert "\n" not in said and said.startswith("out of memory"), "what mostly kills them"
    assert_complete(settings, "ingest", before)
    night.run(settings, to_step="clean")
    assert night.differences(settings, to_step="clean") == {}


def daemons():
    """Spark's processes from which Python workers are forked."""
    return [one for one in psutil.Process().children(recursive=True) if is_daemon(one) and not is_daemon(one.parent())]


def is_daemon(process):
    """Such a process, or a worker; the JVM, which starts them, names their module among its options too."""
    # One that ended meanwhile, a zombie included, is none.
    with suppress(psutil.NoSuchProcess):
        return process.cmdline()[1:3] == ["-m", "jobs.lake.daemon"]
    return False
