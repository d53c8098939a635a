"""`make soak`: an Airflow as `make airflow` starts it, three nights by its REST API, a step of the second killed midway.

The scheduler, the API server and the tasks are real processes; the grid is looked at in Chromium.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from pathlib import Path

import psutil
import pytest

from conf.settings import load_settings
from jobs.lake import logs
from jobs.pipeline import STEPS, order
from jobs.runner import run
from jobs.simulate import World, simulate
from tests.begun import Begun
from tests.clusters import free_port
from tests.stored import differences

ROOT = Path(__file__).parents[2]
FIRST = date(2024, 7, 1)
NIGHTS = [FIRST + timedelta(days=days) for days in range(3)]
KILLED, STEP = NIGHTS[1], "time_series"
OPTIONS = ("spark.driver_memory=1g",)
RUNS = "/api/v2/dags/nightly/dagRuns"

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(0),
    pytest.mark.skipif(not (ROOT / ".venv-airflow/.ready").exists(), reason="needs .venv-airflow: make .venv-airflow/.ready"),
]


class Airflow:
    """Its REST API, as somebody who has logged in calls it."""

    def __init__(self, address: str, name: str, word: str) -> None:
        self.address, self.name, self.word = address, name, word
        self.token = asked(f"{address}/auth/token", {"username": name, "password": word})["access_token"]

    def call(self, path: str, given: object = None, method: str | None = None) -> dict:
        return asked(f"{self.address}{path}", given, method, {"Authorization": f"Bearer {self.token}"})

    def trigger(self, day: date, overrides: list[str]) -> str:
        conf = {"day": str(day), "overrides": overrides}
        return self.call(RUNS, {"logical_date": None, "conf": conf})["dag_run_id"]

    def state(self, run: str) -> str:
        return self.call(f"{RUNS}/{run}")["state"]

    def tries(self, run: str) -> dict[str, tuple[str, int]]:
        """Task -> its state, and how often it was tried."""
        tasks = self.call(f"{RUNS}/{run}/taskInstances?limit=100")["task_instances"]
        return {task["task_id"]: (task["state"], task["try_number"]) for task in tasks}


def asked(address: str, given: object = None, method: str | None = None, headers: dict[str, str] | None = None) -> dict:
    body = None if given is None else json.dumps(given).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json", **(headers or {})}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read() or "{}")


@contextmanager
def airflow_of(home: Path):
    """`make airflow`, until it is interrupted as by Ctrl-C."""
    port = free_port()
    command = ["make", "--no-print-directory", "airflow", f"AIRFLOW_HOME={home}", f"AIRFLOW__API__PORT={port}"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, start_new_session=True)
    try:
        told = next(line for line in process.stdout if " login " in line)  # after what make had to set up
        [address, _, name, _, word] = told.replace(",", "").split()
        assert address == f"http://127.0.0.1:{port}"
        yield Airflow(address, name, word)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(120)


def kill_midway(lake: str) -> None:
    """SIGKILL for the step and its JVM, once a step of that name is at work on the lake and has a session."""
    deadline = time.monotonic() + 1200
    while time.monotonic() < deadline:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                words = process.cmdline()
                is_step = words[-1:] == [STEP] and str(KILLED) in words and f"lake={lake}" in words
                # Its own session is led by it; Airflow's process above it has the same words in none.
                if is_step and os.getpgid(process.pid) == process.pid and has_jvm(process):
                    time.sleep(5)  # plans are on their way
                    os.killpg(process.pid, signal.SIGKILL)
                    return
        time.sleep(0.2)
    raise AssertionError(f"{STEP} of {KILLED} was not at work within 20 minutes")


def has_jvm(process: psutil.Process) -> bool:
    return any("java" in child.name() for child in process.children(recursive=True))


def ended(airflow: Airflow, run: str) -> str:
    while (state := airflow.state(run)) in ("queued", "running"):
        time.sleep(5)
    return state


@contextmanager
def browser():
    """asked(path, given) of a chromedriver's session."""
    port = free_port()
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}/session"
        deadline = time.monotonic() + 60
        while True:
            try:
                asked(f"http://127.0.0.1:{port}/status")
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1600,1100"]
        wanted = {"alwaysMatch": {"goog:chromeOptions": {"args": arguments}}}
        session = f"{address}/{asked(address, {'capabilities': wanted})['value']['sessionId']}"
        yield lambda path, given=None: asked(f"{session}/{path}", given)["value"]
        asked(session, method="DELETE")
    finally:
        driver.terminate()
        driver.wait(30)


def squares_of_the_grid(airflow: Airflow, picture: Path, wanted: int) -> list[tuple[int, int, int]]:
    """The colour of every task's square, once so many are there; the page is left as a picture."""
    script = """return [...document.querySelectorAll('a[data-testid^=grid-] [data-testid=task-state-badge]')].map((one) => {
      const canvas = document.createElement('canvas').getContext('2d');
      canvas.fillStyle = getComputedStyle(one).backgroundColor;
      canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    })"""
    with browser() as page:
        page("url", {"url": f"{airflow.address}/"})
        page("cookie", {"cookie": {"name": "_token", "value": airflow.token, "path": "/"}})
        page("url", {"url": f"{airflow.address}/dags/nightly"})
        deadline = time.monotonic() + 120
        while len(found := page("execute/sync", {"script": script, "args": []})) < wanted and time.monotonic() < deadline:
            time.sleep(1)
        picture.write_bytes(base64.b64decode(page("screenshot")))
    return [tuple(colour) for colour in found]


def test_three_nights_by_the_rest_api_one_with_a_step_killed(spark, tmp_path):
    made = Begun(folder=tmp_path)
    simulate(spark, tmp_path, World(users=25, items=40, days=10, end_day=NIGHTS[-1], seed=3))
    overrides = [*made.overrides(tmp_path / "scheduled"), *OPTIONS]
    settings = load_settings(overrides=overrides)
    run(spark, settings, FIRST - timedelta(days=1), bootstrap=True)
    shutil.copytree(tmp_path / "scheduled", tmp_path / "undisturbed", symlinks=True)
    with airflow_of(tmp_path / "airflow") as airflow:
        airflow.call("/api/v2/dags/nightly", {"is_paused": False}, "PATCH")
        for day in NIGHTS:
            triggered = airflow.trigger(day, overrides)
            if day == KILLED:
                kill_midway(settings.lake)
            assert ended(airflow, triggered) == "success", airflow.tries(triggered)
            tries = {step.name: ("success", 1) for step in order()}
            assert airflow.tries(triggered) == tries | ({STEP: ("success", 2)} if day == KILLED else {})
        if shutil.which("chromedriver"):
            squares = squares_of_the_grid(airflow, tmp_path / "grid.png", len(NIGHTS) * len(STEPS))
            assert len(squares) == len(NIGHTS) * len(STEPS)
            assert all(green > 1.5 * max(red, blue) for red, green, blue in squares), squares
    rows = logs.read(settings.lake, "runs", f"day = DATE '{KILLED}' AND step = '{STEP}'")
    assert sorted(row["status"] for row in rows)[0] == "done"
    undisturbed = load_settings(overrides=[*made.overrides(tmp_path / "undisturbed"), *OPTIONS])
    for day in NIGHTS:
        run(spark, undisturbed, day)
    assert differences(spark, settings, undisturbed, STEPS, whole=True) == {}
