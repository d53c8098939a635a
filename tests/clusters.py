"""A Spark standalone cluster on loopback, of pyspark's own files: master and workers, each a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import psutil
import pyspark

from conf.settings import Settings

ROOT = Path(__file__).parents[1]
SPARK_HOME = Path(pyspark.__file__).parent
QUICK = os.environ["SPARK_SUBMIT_OPTS"]  # for executors too


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """`processes`: the master, and workers of one core each, the oldest first."""

    folder: Path
    master: str
    status: str
    environment: dict[str, str]
    processes: list[subprocess.Popen] = field(default_factory=list)

    def state(self) -> dict:
        with urlopen(self.status, timeout=5) as answer:
            return json.load(answer)

    def submit(self, settings: Settings, *words: str) -> subprocess.Popen:
        """The command with the same arguments as ever, started by spark-submit."""
        return started(self.submitting(), settings, *words, env=self.environment)

    def submitting(self) -> list[str]:
        command = [str(SPARK_HOME / "bin" / "spark-submit"), "--master", self.master, "--driver-memory", "512m"]
        command += ["--conf", "spark.executor.memory=512m", "--conf", "spark.driver.host=127.0.0.1"]
        return [*command, "--conf", f"spark.executor.extraJavaOptions={QUICK}", "jobs/cli.py"]

    def add_worker(self) -> None:
        words = ["--host", "127.0.0.1", "--cores", "1", "--memory", "1g", "--work-dir", str(self.folder / "work")]
        self._start("worker.Worker", *words, "--webui-port", str(free_port()), self.master)

    def kill_worker(self) -> None:
        """The oldest, and its executors, by SIGKILL."""
        worker = self.processes.pop(1)
        below = psutil.Process(worker.pid).children(recursive=True)
        for process in [worker, *below]:
            with suppress(psutil.NoSuchProcess):
                os.kill(process.pid, signal.SIGKILL)
        worker.wait(60)

    def await_workers(self) -> None:
        """Until all are known to the master."""
        deadline = time.monotonic() + 180
        while True:
            assert all(process.poll() is None for process in self.processes), "master or worker ended"
            assert time.monotonic() < deadline, "no workers within three minutes"
            with suppress(OSError):
                if self.state()["aliveworkers"] == len(self.processes) - 1:
                    return
            time.sleep(0.2)

    def _start(self, name: str, *words: str) -> None:
        command = [str(SPARK_HOME / "bin" / "spark-class"), f"org.apache.spark.deploy.{name}", *words]
        with (self.folder / f"{name}{len(self.processes)}.log").open("a") as log:
            self.processes.append(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, cwd=self.folder))


@contextmanager
def cluster_of(workers: int, folder: Path) -> Iterator[Cluster]:
    """With so many workers; each is ended by its own process."""
    port, status = free_port(), free_port()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SPARK_", "PYSPARK_"))}
    environment = {
        **kept,
        "SPARK_HOME": str(SPARK_HOME),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_DAEMON_JAVA_OPTS": QUICK,
        "SPARK_SUBMIT_OPTS": QUICK,
    }
    made = Cluster(
        folder=folder, master=f"spark://127.0.0.1:{port}", status=f"http://127.0.0.1:{status}/json/", environment=environment
    )  # fmt: skip
    try:
        made._start("master.Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", str(status))
        for _ in range(workers):
            made.add_worker()
        made.await_workers()
        yield made
    finally:
        for process in reversed(made.processes):
            process.terminate()
            process.wait(60)


def started(command: list[str], settings: Settings, *words: str, env: dict[str, str]) -> subprocess.Popen:
    """The command on the settings' lake and log."""
    named = ["--set", f"lake={settings.lake}", "--set", f"sources.events.path={settings.sources['events'].path}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, *named, *words], cwd=ROOT, env=env, **pipes)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
