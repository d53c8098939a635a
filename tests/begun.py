"""A small log and a lake with its first days, made once: tests of what comes after go on from a copy."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from conf.settings import Settings, load_settings
from jobs.runner import run
from jobs.simulate import World, simulate

NEXT = date(2024, 7, 1)  # a Monday and a month's first: snapshots are due, and states have a keyframe
END = NEXT + timedelta(days=1)
SMALL = (
    "train.tracking=null", "train.epochs=1", "model.width=16", "model.layers=1", "model.window=16",
    "evaluate.bootstrap_samples=20", "sequences.length=40",
    "spatial.planning_min_users=1",  # the trips of 25 people on the first day are alike in nothing
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Begun:
    """`folder` holds `landing` up to END, its `truth`, and the place `before`: a bootstrap has finished all steps up to NEXT.

    A place is a folder of a lake, its report and its lists.
    """

    folder: Path

    @property
    def before(self) -> Settings:
        return load_settings(overrides=self.overrides(self.folder / "before"))

    def overrides(self, place: Path) -> list[str]:
        return [
            f"lake={place / 'lake'}",
            f"report.path={place / 'report.html'}",
            f"sinks.files={{kind: csv, path: {place / 'lists'}}}",
            f"sources.events.path={self.folder / 'landing'}",
            *SMALL,
        ]

    def copy(self, place: Path, *more: str) -> Settings:
        """A place of its own as `before` stands."""
        shutil.copytree(self.folder / "before", place, symlinks=True)
        return load_settings(overrides=[*self.overrides(place), *more])


@pytest.fixture(scope="session")
def begun(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Begun:
    made = Begun(folder=tmp_path_factory.mktemp("begun"))
    simulate(spark, made.folder, World(users=25, items=40, days=9, end_day=END, seed=3))
    run(spark, made.before, NEXT - timedelta(days=1), bootstrap=True)
    return made
