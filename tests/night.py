"""A lake before a night of every step, what the undisturbed night leaves, and ways to end one in between."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from conf.settings import Settings, load_settings
from jobs.lake import commits
from jobs.pipeline import choose
from jobs.runner import Watcher, run
from tests.begun import NEXT, Begun
from tests.stored import differences

ROOT = Path(__file__).parents[1]
DAY = NEXT
OF_ITS_OWN = ("spark.driver_memory=1g",)  # of a process that starts a JVM


@dataclass(frozen=True, kw_only=True)
class Night:
    """`folder` holds the lake `before` the night, as it was begun, and the one that was left `undisturbed`.

    `points` are the commit points that each step reached in it, in order.
    """

    spark: SparkSession
    begun: Begun
    folder: Path
    points: dict[str, list[str]]

    def overrides(self, name: str) -> list[str]:
        return [*self.begun.overrides(self.folder / name), *OF_ITS_OWN]

    def lake(self, name: str, like: str = "before") -> Settings:
        """A lake of its own as another stands."""
        shutil.copytree(self.folder / like, self.folder / name, symlinks=True)
        return load_settings(overrides=self.overrides(name))

    def run(self, settings: Settings, watch: Watcher = lambda step, report: None, **which: object) -> None:
        run(self.spark, settings, DAY, steps=choose(**which), watch=watch)

    def command(self, name: str, *words: str, kill_at: int | None = None) -> subprocess.Popen[str]:
        """`wherewhen run` of the night on the lake `name` in a process of its own, in a group of its own."""
        options = [word for override in self.overrides(name) for word in ("--set", override)]
        command = [sys.executable, "-m", "jobs.cli", *options, "run", "--day", str(DAY), *words]
        armed = {} if kill_at is None else {commits.KILL_AT: str(kill_at)}
        pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
        return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **armed}, text=True, start_new_session=True, **pipes)

    def killed(self, name: str, kill_at: int, *words: str) -> str:
        """The point at which such a process got its SIGKILL; the JVM below it ends by itself, or here."""
        process = self.command(name, *words, kill_at=kill_at)
        said = process.communicate(timeout=600)[1]
        end_group(process)
        assert process.returncode == -signal.SIGKILL, said
        return said.strip().splitlines()[-1].removeprefix(f"{commits.KILL_AT}: ")

    def differences(self, settings: Settings, **which: object) -> dict[str, str]:
        """Where what these steps wrote (all, if none are named) differs from what the undisturbed ones did."""
        other = load_settings(overrides=self.overrides("undisturbed"))
        return differences(self.spark, settings, other, choose(**which), whole=not which)


def end_group(process: subprocess.Popen[str]) -> None:
    """All processes that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def night(spark: SparkSession, begun: Begun, tmp_path_factory: pytest.TempPathFactory) -> Night:
    made = Night(spark=spark, begun=begun, folder=tmp_path_factory.mktemp("kills"), points={})
    begun.copy(made.folder / "before")
    under_way = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commits, "reached", lambda point: made.points.setdefault(under_way[-1], []).append(point))
        made.run(made.lake("undisturbed"), lambda name, report: under_way.append(name))
    return made
