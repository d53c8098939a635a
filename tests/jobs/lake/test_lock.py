"""One holder of a lake at a time, or runs of one day that share no step: with processes that really end and stand still."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.lake import commits, lock, logs
from jobs.lake.refused import Refused

ROOT = Path(__file__).parents[3]
DAY = date(2024, 6, 30)
RUN = {
    "run_id": "r", "step": "ingest", "day": DAY, "first_day": DAY, "status": "done", "settings_hash": "", "code_version": "",
    "inputs": {}, "outputs": {}, "rows_out": {}, "details": "{}", "seconds": 0.0, "finished_at": logs.now(),
}  # fmt: skip


@contextmanager
def process(program, *arguments):
    """A process of its own that runs `program`; killed at the end."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    started = subprocess.Popen(command, cwd=ROOT, text=True, **pipes)
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


HOLD = """
import sys
from datetime import date
from jobs.lake import commits, lock
from jobs.lake.refused import Refused
lock.HOLD_SECONDS = float(sys.argv[2])
lock.RENEWAL_SECONDS = float(sys.argv[2]) / 5
with lock.held(sys.argv[1], "run of 2024-06-30: label", day=date(2024, 6, 30), steps=["label"]):
    print("held", flush=True)
    sys.stdin.readline()
    try:
        with commits.commit(sys.argv[1], "a table"):
            print("committing", flush=True)
            sys.stdin.readline()
    except Refused as refused:
        print(refused, flush=True)
"""


def told(other):
    return other.stdout.readline().strip()


def go_on(other):
    other.stdin.write("\n")
    other.stdin.flush()


def test_the_loser_is_told_who_does_what_since_when_and_what_to_do(tmp_path):
    with process(HOLD, tmp_path, 60) as other:
        assert told(other) == "held"
        with pytest.raises(Refused) as refused, lock.held(str(tmp_path), "maintain"):
            pass
    said = str(refused.value)
    assert f"{tmp_path} is held by run of 2024-06-30: label (pid {other.pid} on " in said
    assert ", since 20" in said and "wait until it has ended, or end that process" in said and "\n" not in said


def test_steps_of_one_day_go_together_and_nothing_else_does(tmp_path):
    def goes(**wanted):
        try:
            with lock.held(str(tmp_path), "x", **wanted):
                return True
        except Refused:
            return False

    with process(HOLD, tmp_path, 60) as other:
        assert told(other) == "held"
        assert goes(day=DAY, steps=["spatial", "text"])
        assert not goes(day=DAY, steps=["spatial", "label"])
        assert not goes(day=date(2024, 7, 1), steps=["spatial"])
        assert not goes()
    assert goes()


def test_a_dead_owner_is_taken_over_at_once_even_if_nobody_reaped_it(tmp_path, caplog):
    with process(HOLD, tmp_path, 600) as other:
        assert told(other) == "held"
        os.kill(other.pid, signal.SIGKILL)
        while Path(f"/proc/{other.pid}/stat").read_text().split()[2] != "Z":
            time.sleep(0.01)
        with caplog.at_level("INFO"), lock.held(str(tmp_path), "backfill"):
            pass
    assert "run of 2024-06-30: label" in caplog.text and "taken over" in caplog.text


def entry(tmp_path, **differs):
    """Write the entry of a holder that differs so from this very process's."""
    (tmp_path / lock.FILE).unlink(missing_ok=True)
    with lock.held(str(tmp_path), "run of 2024-06-30"):
        found = json.loads((tmp_path / lock.FILE).read_text())
    found["holders"][0] |= differs
    (tmp_path / lock.FILE).write_text(json.dumps(found))


def test_a_pid_that_another_process_has_by_now_is_no_owner(tmp_path):
    entry(tmp_path, started=1.0)
    with lock.held(str(tmp_path), "run"):
        pass
    entry(tmp_path)
    with pytest.raises(Refused), lock.held(str(tmp_path), "run"):
        pass


def test_an_owner_on_another_machine_is_taken_over_when_its_hold_has_run_out(tmp_path):
    entry(tmp_path, machine="another", host="elsewhere", pid=2**30)
    with (
        pytest.raises(Refused, match=r"on elsewhere.*if its process is no more, until 20.* UTC"),
        lock.held(str(tmp_path), "run"),
    ):
        pass
    entry(tmp_path, machine="another", host="elsewhere", pid=2**30, expires=time.time() - 1)
    with lock.held(str(tmp_path), "run"):
        pass


def test_a_hold_is_renewed_while_its_owner_lives_and_given_back_after(tmp_path):
    with process(HOLD, tmp_path, 0.5) as other:
        assert told(other) == "held"
        until = time.monotonic() + 1.2
        while time.monotonic() < until:
            with pytest.raises(Refused), lock.held(str(tmp_path), "run"):
                pass
            time.sleep(0.05)
        go_on(other)
        go_on(other)
        other.wait()
    assert not (tmp_path / lock.FILE).exists()


def test_an_owner_that_stood_still_too_long_is_taken_over_and_cannot_commit(tmp_path):
    with process(HOLD, tmp_path, 0.5) as other:
        assert told(other) == "held"
        os.kill(other.pid, signal.SIGSTOP)
        time.sleep(0.6)
        with lock.held(str(tmp_path), "run of another"):
            os.kill(other.pid, signal.SIGCONT)
            go_on(other)
            assert "was taken over while run of 2024-06-30: label" in told(other)
            other.wait()
            assert len(json.loads((tmp_path / lock.FILE).read_text())["holders"]) == 1, "the late one takes nothing away"


def test_nobody_takes_over_in_the_middle_of_a_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_GUARD_WAIT_SECONDS", 0.3)
    with process(HOLD, tmp_path, 0.2) as other:
        assert told(other) == "held"
        go_on(other)
        assert told(other) == "committing"
        os.kill(other.pid, signal.SIGSTOP)
        time.sleep(0.3)
        with pytest.raises(Refused, match="a process that was committing stands still"), lock.held(str(tmp_path), "run"):
            pass


def test_a_holders_own_parts_do_not_wait_for_it_but_another_thread_does(tmp_path):
    root, found = str(tmp_path), []

    def other():
        try:
            with lock.held(root, "another thread"):
                found.append("held")
        except Refused:
            found.append("refused")

    with lock.held(root, "backfill"), lock.held(f"{root}/../{tmp_path.name}", "run", day=DAY, steps=["label"]):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        with commits.commit(root, "a table"):
            pass
    assert found == ["refused"] and not (tmp_path / lock.FILE).exists()


def test_a_lock_that_somebody_edited_is_told_in_one_line(tmp_path):
    for text in ("", "{}", '{"holders": [{"pid": 1}]}', '{"holders": 3}', "[1]"):
        (tmp_path / lock.FILE).write_text(text)
        with (
            pytest.raises(ValueError, match=f"{lock.FILE} is not what a lock looks like: remove it"),
            lock.held(str(tmp_path), "x"),
        ):
            pass


def test_an_object_store_has_no_lock_yet_and_that_is_said(caplog):
    with caplog.at_level("INFO"), lock.held("s3://bucket/lake", "run"), commits.commit("s3://bucket/lake", "a table"):
        pass
    assert "s3://bucket/lake: an object store has no lock yet" in caplog.text


holders = st.builds(
    lambda day, steps: lock._holder("x", day if steps else None, steps),
    st.sampled_from([DAY, date(2024, 7, 1)]),
    st.sets(st.sampled_from("abc")),
)


@given(holders, holders)
def test_two_go_together_only_for_one_day_and_other_steps(one, other):
    assert one.goes_with(other) == other.goes_with(one)
    expected = bool(one.steps and other.steps) and one.day == other.day and not set(one.steps) & set(other.steps)
    assert one.goes_with(other) == expected


STRESS = """
import json, os, pathlib, random, signal, sys, time
from datetime import date
from jobs.lake import commits, lock
from jobs.lake.refused import Refused
root, seed, until = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
chance, inside = random.Random(seed), pathlib.Path(root) / "inside"
lock.RENEWAL_SECONDS = 0.02
seen = {"held": 0, "together": 0, "refused": 0, "died": 0}
while time.time() < until:
    steps = chance.sample("abcd", chance.randint(0, 2))
    day = date(2024, 6, chance.choice([29, 30])) if steps else None
    mark = inside / f"{os.getpid()}-{chance.random()}"
    try:
        with lock.held(root, "stress", day=day, steps=steps):
            mark.with_suffix(".new").write_text(json.dumps([str(day), steps]))
            mark.with_suffix(".new").rename(mark)
            for path in inside.glob("*-0.*"):
                try:
                    other_day, other_steps = json.loads(path.read_text())
                except (FileNotFoundError, ValueError):
                    continue
                if path != mark and path.suffix != ".new":
                    seen["together"] += 1
                    if not steps or not other_steps or other_day != str(day) or set(steps) & set(other_steps):
                        print(f"two at once: {day} {steps} and {other_day} {other_steps}", flush=True)
                        os._exit(1)
            time.sleep(chance.random() * 0.03)
            with commits.commit(root, "a table"):
                mark.unlink()
            seen["held"] += 1
            if chance.random() < 0.05:
                seen["died"] += 1
                print(json.dumps(seen), flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
    except Refused:
        seen["refused"] += 1
        time.sleep(chance.random() * 0.005)
print(json.dumps(seen), flush=True)
"""


def test_never_two_that_do_not_go_together(tmp_path):
    """Stress: six processes at a time, each new one for one that killed itself while it held the lake."""
    (tmp_path / "inside").mkdir()
    until, seeds, seen = time.time() + 5, iter(range(1000)), Counter()

    def started():
        command = [sys.executable, "-c", STRESS, str(tmp_path), str(next(seeds)), str(until)]
        return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE)

    running = [started() for _ in range(6)]
    while running:
        for one in [one for one in running if one.poll() is not None]:
            running.remove(one)
            said = one.stdout.read().strip()
            assert one.returncode in (0, -signal.SIGKILL), said
            seen.update(json.loads(said))
            if one.returncode and time.time() < until - 1:
                running.append(started())
        time.sleep(0.01)
    assert all(seen[name] > 0 for name in ("held", "together", "refused", "died")), seen
    with lock.held(str(tmp_path), "after all"):
        pass
    assert not (tmp_path / lock.FILE).exists()


APPEND = """
import datetime, sys
from jobs.lake import logs
sys.stdin.readline()
for number in range(20):
    logs.append(f"{sys.argv[1]}/{number}", "runs", [{**ROW, "run_id": sys.argv[2]}])
"""


def test_first_runs_at_once_make_a_table_once_and_lose_no_row(tmp_path):
    """Three processes go through twenty new lakes: none finds half a table, none's row is lost."""
    program = APPEND.replace("ROW", repr(RUN))
    with process(program, tmp_path, 0) as one, process(program, tmp_path, 1) as two, process(program, tmp_path, 2) as three:
        time.sleep(1)  # they import meanwhile
        for other in (one, two, three):
            go_on(other)
        assert [other.wait() for other in (one, two, three)] == [0, 0, 0]
    for number in range(20):
        assert {row["run_id"] for row in logs.read(str(tmp_path / str(number)), "runs")} == {"0", "1", "2"}
        assert not list((tmp_path / str(number)).glob(".*")), "what was made beside is cleared away"
