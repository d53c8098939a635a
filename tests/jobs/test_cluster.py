"""Steps under spark-submit, on a standalone cluster of one worker on loopback: they leave what they leave on one machine."""

from __future__ import annotations

import json
import os
import shutil
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
from conf.tables import TABLES
from jobs.lake.compare import compare
from jobs.lake.store import Lake
from jobs.pipeline import choose
from jobs.runner import run
from jobs.simulate import World, simulate

ROOT = Path(__file__).parents[2]
SPARK_HOME = Path(pyspark.__file__).parent
DAY = date(2024, 6, 16)

pytestmark = pytest.mark.timeout(1800)  # each step starts a JVM
QUICK = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # as for the session of the other tests


@dataclass(frozen=True, kw_only=True)
class Cluster:
    master: str
    status: str
    environment: dict[str, str]

    def state(self) -> dict:
        with urlopen(self.status, timeout=5) as answer:
            return json.load(answer)

    def submit(self, settings: Settings, source: str, *words: str) -> subprocess.CompletedProcess:
        """The command with the same arguments as ever, started by spark-submit."""
        command = [str(SPARK_HOME / "bin" / "spark-submit"), "--master", self.master, "--driver-memory", "512m"]
        command += ["--conf", "spark.executor.memory=512m", "--conf", "spark.driver.host=127.0.0.1"]
        command += ["--driver-java-options", QUICK, "--conf", f"spark.executor.extraJavaOptions={QUICK}"]
        command += ["jobs/cli.py", "--set", f"lake={settings.lake}", "--set", f"sources.events.path={source}", *words]
        return subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)


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
def lakes(spark, tmp_path_factory) -> tuple[Settings, Settings, str]:
    """Two equal lakes that have ingested up to the day, and where their log landed."""
    folder = tmp_path_factory.mktemp("lakes")
    simulate(spark, folder / "world", World(users=12, items=20, days=3, end_day=DAY, seed=2))
    source = str(folder / "world" / "landing")
    one, other = (
        load_settings(overrides=[f"lake={folder / name}", f"sources.events.path={source}"]) for name in ("one", "other")
    )
    run(spark, one, DAY, steps=choose(only=("ingest",)), bootstrap=True)
    shutil.copytree(one.lake, other.lake)
    return one, other, source


def test_steps_on_a_cluster_leave_what_they_leave_on_one_machine(spark, cluster, lakes):
    """`clean` runs Python on the worker, `sequences` reads what it wrote."""
    here, there, source = lakes
    run(spark, here, DAY, steps=choose(only=("clean", "sequences")), bootstrap=True)
    done = cluster.submit(there, source, "run", "--day", str(DAY), "--bootstrap", "--only", "clean,sequences")
    assert done.returncode == 0, done.stderr[-4000:]
    for name in ("events", "user_sequences"):
        rows = [Lake(spark, lake.lake).read(name, Lake(spark, lake.lake).version(name)) for lake in (here, there)]
        comparison = compare(rows[0], rows[1], TABLES[name])
        assert comparison.equal and comparison.rows > 0, f"{name}: {comparison}"
    [finished] = cluster.state()["completedapps"]
    assert finished["name"] == "wherewhen" and finished["cores"] == 1, "it ran on the worker"


def test_a_refusal_keeps_its_exit_code(cluster, lakes):
    _, there, source = lakes
    done = cluster.submit(there, source, "run", "--day", str(DAY + timedelta(days=2)), "--only", "ingest")
    # spark-submit sends what Python says on stderr to stdout.
    assert done.returncode == 3, done.stderr[-4000:]
    assert done.stdout.splitlines()[-1].startswith("refused: ") and f"backfill --start {DAY + timedelta(days=1)}" in done.stdout
