"""Steps under spark-submit, on a standalone cluster of one worker on loopback: they leave what they leave on one machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from urllib.request import urlopen

import pyspark
import pytest

from conf.settings import Settings, load_settings
from jobs.lake.runs import pins
from tests.stored import rows_of

ROOT = Path(__file__).parents[2]
SPARK_HOME = Path(pyspark.__file__).parent
DAY = date(2024, 6, 16)

pytestmark = pytest.mark.timeout(1800)  # each step starts a JVM
QUICK = os.environ["SPARK_SUBMIT_OPTS"]  # for executors too


@dataclass(frozen=True, kw_only=True)
class Cluster:
    master: str
    status: str
    environment: dict[str, str]

    def state(self) -> dict:
        with urlopen(self.status, timeout=5) as answer:
            return json.load(answer)

    def submit(self, settings: Settings, *words: str) -> subprocess.Popen:
        """The command with the same arguments as ever, started by spark-submit."""
        command = [str(SPARK_HOME / "bin" / "spark-submit"), "--master", self.master, "--driver-memory", "512m"]
        command += ["--conf", "spark.executor.memory=512m", "--conf", "spark.driver.host=127.0.0.1"]
        command += ["--conf", f"spark.executor.extraJavaOptions={QUICK}"]
        return started([*command, "jobs/cli.py"], settings, *words, env=self.environment)


def started(command: list[str], settings: Settings, *words: str, env: dict[str, str]) -> subprocess.Popen:
    """The command on the settings' lake and log."""
    named = ["--set", f"lake={settings.lake}", "--set", f"sources.events.path={settings.sources['events'].path}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, *named, *words], cwd=ROOT, env=env, **pipes)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """Master and worker from pyspark's own files, each ended by its own process."""
    folder = tmp_path_factory.mktemp("cluster")
    port, status = free_port(), free_port()
    master = f"spark://127.0.0.1:{port}"
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SPARK_", "PYSPARK_"))}
    environment = {
        **kept,
        "SPARK_HOME": str(SPARK_HOME),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_DAEMON_JAVA_OPTS": QUICK,
        "SPARK_SUBMIT_OPTS": QUICK,
    }
    daemon = [str(SPARK_HOME / "bin" / "spark-class"), "org.apache.spark.deploy"]
    commands = {
        "master.Master": ["--host", "127.0.0.1", "--port", str(port), "--webui-port", str(status)],
        "worker.Worker": ["--host", "127.0.0.1", "--cores", "1", "--memory", "1g", "--work-dir", str(folder / "work"),
                          "--webui-port", str(free_port()), master],
    }  # fmt: skip
    processes = []
    try:
        for name, words in commands.items():
            with (folder / f"{name}.log").open("w") as log:
                command = [daemon[0], f"{daemon[1]}.{name}", *words]
                processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder))
        started = Cluster(master=master, status=f"http://127.0.0.1:{status}/json/", environment=environment)
        await_worker(started, processes)
        yield started
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(60)


def await_worker(cluster: Cluster, processes: list[subprocess.Popen]) -> None:
    deadline = time.monotonic() + 180
    while True:
        assert all(process.poll() is None for process in processes), "master or worker ended"
        assert time.monotonic() < deadline, "no worker within three minutes"
        try:
            if cluster.state()["aliveworkers"] == 1:
                return
        except OSError:
            pass
        time.sleep(0.2)


@pytest.fixture(scope="module")
def lakes(cluster, tmp_path_factory) -> tuple[Settings, Settings]:
    """Two lakes of one log, up to sequences: made on this machine, and on the cluster at the same time."""
    folder = tmp_path_factory.mktemp("lakes")
    land(folder / "landing")
    here, there = (
        load_settings(overrides=[f"lake={folder / name}", f"sources.events.path={folder / 'landing'}"])
        for name in ("here", "there")
    )
    words = ("run", "--day", str(DAY), "--bootstrap", "--only", "ingest,clean,sequences")
    running = [started([sys.executable, "-m", "jobs.cli"], here, *words, env=dict(os.environ)), cluster.submit(there, *words)]
    for process in running:
        said = process.communicate(timeout=900)
        assert process.returncode == 0, said[1][-4000:]
    return here, there


def land(root: Path) -> None:
    """Three days of twelve users who check in at six of twenty items each, and a broken line a day."""
    for back in range(3):
        day = DAY - timedelta(days=back)
        (root / str(day)).mkdir(parents=True)
        rows = [
            {"user_id": f"u{user}", "item_id": f"i{(5 * user + 7 * number + back) % 20}", "event_type": "check_in",
             "event_timestamp": f"{day}T{8 + 2 * number:02}:{4 * user:02}:00Z", "latitude": 40.7 + user / 1000,
             "longitude": -74.0 + number / 1000}
            for user in range(12) for number in range(6)
        ]  # fmt: skip
        lines = [*map(json.dumps, rows), f'{{"user_id": "u1", "event_timestamp": "{day}']
        (root / str(day) / "events.json").write_text("".join(f"{line}\n" for line in lines))


def test_steps_on_a_cluster_leave_what_they_leave_on_one_machine(cluster, lakes):
    """`clean` runs Python on the worker, `sequences` reads what it wrote."""
    for name, rows in {"raw_events": 219, "events": 216, "events_quarantine": 3, "user_sequences": 36}.items():
        one, other = (rows_of(settings, name, pins(settings.lake)[name]) for settings in lakes)
        assert one == other and len(one) == rows, name
    finished = cluster.state()["completedapps"]
    assert any(one["name"] == "wherewhen" and one["cores"] == 1 for one in finished), "it ran on the worker"


def test_a_refusal_keeps_its_exit_code(cluster, lakes):
    _, there = lakes
    done = cluster.submit(there, "run", "--day", str(DAY + timedelta(days=2)), "--only", "ingest")
    said, also = done.communicate(timeout=600)
    # spark-submit sends what Python says on stderr to stdout.
    assert done.returncode == 3, also[-4000:]
    assert said.splitlines()[-1].startswith("refused: ") and f"backfill --start {DAY + timedelta(days=1)}" in said
