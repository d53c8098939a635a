"""Promises 1, 2 and 5 over the whole pipeline: nights, backfill, bootstrap and re-runs leave equal tables."""

from __future__ import annotations

import json
import shutil
from datetime import date, timedelta
from pathlib import Path

import pytest

from conf.settings import Settings, load_settings
from conf.tables import TABLES
from jobs import backfill
from jobs.lake import logs
from jobs.lake.compare import compare
from jobs.lake.context import Refused
from jobs.lake.store import Lake
from jobs.pipeline import choose
from jobs.runner import run
from jobs.simulate import World, simulate

END = date(2024, 7, 2)  # a Tuesday; the range holds a month's first day and a Monday
FEATURES = [name for name, table in TABLES.items() if table.kind != "log" and not table.newest_only]
STEPS = choose(to_step="interaction")


@pytest.fixture(scope="module")
def world(spark, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    shutil.rmtree(folder)
    simulate(spark, folder, World(users=25, items=40, days=9, end_day=END, seed=3))
    return folder / "landing"


def settings_for(lake: Path, world: Path, *more: str) -> Settings:
    return load_settings(
        overrides=[
            f"lake={lake}",
            f"sources.events.path={world}",
            f"report.path={lake}.html",
            "sequences.length=40",
            "spatial.planning_min_users=1",  # the trips of 25 people on the first day are alike in nothing
            *more,
        ]
    )


@pytest.fixture(scope="module")
def bootstrapped(spark, world, tmp_path_factory) -> Settings:
    settings = settings_for(tmp_path_factory.mktemp("bootstrapped") / "lake", world)
    run(spark, settings, END, steps=STEPS, bootstrap=True)
    return settings


@pytest.fixture(scope="module")
def nightly(spark, world, tmp_path_factory) -> Settings:
    settings = settings_for(tmp_path_factory.mktemp("nightly") / "lake", world)
    run(spark, settings, END - timedelta(days=2), steps=STEPS, bootstrap=True)
    shutil.copytree(settings.lake, f"{settings.lake}-first")  # as it ends there
    for back in (1, 0):
        run(spark, settings, END - timedelta(days=back), steps=STEPS)
    return settings


def assert_equal(spark, one: Settings, other: Settings, where: str | None = None) -> None:
    lakes = [Lake(spark, one.lake), Lake(spark, other.lake)]
    found = {}
    for name in FEATURES:
        rows = [lake.read(name, lake.version(name), where) for lake in lakes]
        comparison = compare(rows[0], rows[1], TABLES[name])
        # So few people leave no hotspot that is beyond chance; test_spatial compares those of more, test_consent consents,
        # test_surroundings context.
        is_compared = comparison.rows > 0 or name in ("hotspots", "hotspot_trends", "consents", "context")
        assert is_compared, f"{name} is empty: nothing was compared"
        if not comparison.equal:
            found[name] = str(comparison)
    assert not found, found


def test_nights_and_bootstrap_leave_equal_tables(spark, bootstrapped, nightly):
    assert_equal(spark, bootstrapped, nightly)


def test_what_is_known_as_of_a_day_does_not_follow_from_later_days(spark, bootstrapped, nightly):
    """All rows up to a day, made from a log that ends there and from one that goes on."""
    ended = nightly.model_copy(update={"lake": f"{nightly.lake}-first"})
    assert_equal(spark, ended, bootstrapped, where=f"day <= '{END - timedelta(days=2)}'")


def test_a_day_run_twice_and_a_backfill_leave_equal_tables(spark, bootstrapped, nightly, tmp_path):
    shutil.copytree(nightly.lake, tmp_path / "lake")
    again = nightly.model_copy(update={"lake": str(tmp_path / "lake")})
    run(spark, again, END, steps=STEPS)
    backfill.run_days(spark, again, END - timedelta(days=1), END, steps=STEPS, watch=lambda step, report: None)
    assert_equal(spark, bootstrapped, again)


def test_every_row_is_accounted_for(bootstrapped, nightly):
    for settings in (bootstrapped, nightly):
        for row in logs.read(settings.lake, "runs", "step = 'clean'"):
            days = json.loads(row["details"])["conservation"]
            assert days
            for day, count in days.items():
                assert count["rows"] == count["accepted"] + count["quarantined"] + count["duplicates"], day
    written = sum(len(path.read_text().splitlines()) for path in Path(bootstrapped.sources["events"].path).glob("*/events*"))
    [row] = logs.read(bootstrapped.lake, "runs", "step = 'ingest'")
    assert row["rows_in"] == written


def test_days_out_of_order_are_refused_and_the_backfill_is_named(spark, nightly):
    with pytest.raises(Refused, match=f"backfill --start {END - timedelta(days=1)} --end {END}"):
        run(spark, nightly, END - timedelta(days=1), steps=STEPS)
    with pytest.raises(Refused, match=f"{END + timedelta(days=1)} would be skipped"):
        run(spark, nightly, END + timedelta(days=2), steps=STEPS)
    with pytest.raises(Refused, match=r"days up to .* are finished"):
        day = END - timedelta(days=1)
        backfill.run_days(spark, nightly, day, day, steps=STEPS, watch=lambda step, report: None)
