"""Promises 1, 2 and 5 over the whole pipeline: nights, backfill, bootstrap and re-runs leave equal tables."""

from __future__ import annotations

import csv
import json
import shutil
from datetime import timedelta
from pathlib import Path
from statistics import mean

import pytest

from conf.settings import Settings, load_settings
from conf.tables import TABLES
from jobs import backfill
from jobs.lake import logs
from jobs.lake.context import Refused
from jobs.lake.identities import load_key, pseudonym
from jobs.lake.runs import pins
from jobs.pipeline import choose
from jobs.query import answer
from jobs.query.rendering import plain_rows
from jobs.runner import run
from jobs.simulate import taxonomy
from tests.begun import END, NEXT
from tests.stored import difference, rows_of

FEATURES = [name for name, table in TABLES.items() if table.kind != "log" and not table.newest_only]
# Forecasts are of the newest day only, and no feature is made of them.
STEPS = tuple(step for step in choose(to_step="interaction") if step.name != "forecast")


@pytest.fixture(scope="module")
def bootstrapped(spark, begun, tmp_path_factory) -> Settings:
    settings = load_settings(overrides=begun.overrides(tmp_path_factory.mktemp("bootstrapped")))
    run(spark, settings, END, steps=STEPS, bootstrap=True)
    return settings


@pytest.fixture(scope="module")
def nightly(spark, night) -> Settings:
    settings = night.lake("nightly", like="undisturbed")  # by NEXT
    run(spark, settings, END, steps=STEPS)
    return settings


def assert_equal(spark, one: Settings, other: Settings, where: str = "TRUE") -> None:
    # So few people leave no hotspot that is beyond chance, and too few rated texts; test_spatial and test_sentiment compare
    # those of more, test_consent consents, test_surroundings context, test_relations relations, test_vectors vectors,
    # test_tags tags that mean the same, test_policy_nights feedback.
    empty = {"hotspots", "hotspot_trends", "sentiment_models", "consents", "context", "item_relations", "item_vectors",
             "tag_synonyms", "raw_feedback"}  # fmt: skip
    written = pins(one.lake)
    for name in set(FEATURES) - empty:
        assert rows_of(one, name, written[name], where), f"{name} is empty: nothing was compared"
    found = {name: difference(spark, name, one, other, where) for name in FEATURES}
    assert not any(found.values()), found


def test_nights_and_bootstrap_leave_equal_tables(spark, bootstrapped, nightly):
    assert_equal(spark, bootstrapped, nightly)


def test_what_is_known_as_of_a_day_does_not_follow_from_later_days(spark, bootstrapped, begun):
    """All rows up to a day, made from a log that ends there and from one that goes on."""
    assert_equal(spark, begun.before, bootstrapped, where=f"day < '{NEXT}'")


def test_a_day_run_twice_and_a_backfill_leave_equal_tables(spark, bootstrapped, nightly, tmp_path):
    shutil.copytree(nightly.lake, tmp_path / "lake")
    again = nightly.model_copy(update={"lake": str(tmp_path / "lake")})
    run(spark, again, END, steps=STEPS)
    backfill.run_days(spark, again, NEXT, END, steps=STEPS, watch=lambda step, report: None)
    assert_equal(spark, bootstrapped, again)


def test_what_users_like_is_among_their_heaviest_tags(begun):
    """As `wherewhen query` reads them: of planted interests, of which no tag was told."""
    rows = plain_rows(answer(begun.before, "SELECT user_id, tag, long_weight FROM user_tags WHERE label != 'none'"))
    names = {name.lower() for name in taxonomy.NAMES}
    with (begun.folder / "truth/users.csv").open(newline="") as file:
        people = [row for row in csv.DictReader(file) if row["is_bot"] == "false"]
    liked, other = [], []
    for person in people:
        of_user = {row["tag"]: row["long_weight"] for row in rows if row["user_id"] == pseudonym(person["user_id"], load_key())}
        planted = set(person["interests"].lower().split("|"))
        liked += [of_user.get(name, 0.0) for name in planted]
        other += [of_user.get(name, 0.0) for name in names - planted]
    assert mean(liked) > 3 * mean(other), (mean(liked), mean(other))


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
    with pytest.raises(Refused, match=f"backfill --start {NEXT} --end {END}"):
        run(spark, nightly, NEXT, steps=STEPS)
    with pytest.raises(Refused, match=f"{END + timedelta(days=1)} would be skipped"):
        run(spark, nightly, END + timedelta(days=2), steps=STEPS)
    with pytest.raises(Refused, match=r"days up to .* are finished"):
        backfill.run_days(spark, nightly, NEXT, NEXT, steps=STEPS, watch=lambda step, report: None)
