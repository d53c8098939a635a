"""README's questions of when and where: each is answered by a small lake, as it stands there."""

from __future__ import annotations

import csv
import re
from datetime import date
from pathlib import Path

import pytest

from conf.settings import load_settings
from jobs.pipeline import choose
from jobs.query import answer
from jobs.query.rendering import plain_rows
from jobs.runner import run
from jobs.simulate import World, simulate

README = (Path(__file__).parents[1] / "README.md").read_text()
QUESTIONS = re.findall(r"^([^\n]+\?)\n```sql\n(.*?)```$", README, flags=re.M | re.S)
# A week of twenty-five people holds no anomaly beyond chance, no thirteen weeks of hotspots, and no interest that fades.
MAY_BE_EMPTY = ("time_series_features where is_anomaly", "hotspot_trends", "user_interests where label = 'long'")
END = date(2024, 6, 16)


@pytest.fixture(scope="module")
def lake(begun):
    """Settings of a bootstrapped lake, and the id of one of its users."""
    with open(begun.folder / "truth/users.csv", newline="") as file:
        users = [row["user_id"] for row in csv.DictReader(file) if row["is_bot"] == "false"]
    return begun.before, users[0]


@pytest.fixture(scope="module")
def three_weeks(spark, tmp_path_factory):
    """Settings of a lake in which series are so long: a shorter one has no slope. It holds nothing else."""
    folder = tmp_path_factory.mktemp("questions") / "world"
    simulate(spark, folder, World(users=60, items=60, days=21, end_day=END, seed=7, events_per_user_day=3.0))
    settings = load_settings(overrides=[f"lake={folder}/lake", f"sources.events.path={folder}/landing"])
    run(spark, settings, END, steps=choose(only=("ingest", "clean", "time_series")), bootstrap=True)
    return settings


def test_there_are_ten():
    section = README.partition("\n### Ten questions")[2].partition("\n### ")[0]
    assert len(QUESTIONS) == 10 == section.count("```sql")


@pytest.mark.parametrize(("question", "sql"), QUESTIONS, ids=[question for question, _ in QUESTIONS])
def test_a_question_is_answered_as_it_stands_in_the_readme(request, question, sql):
    if "slope" in sql:
        rows = plain_rows(answer(request.getfixturevalue("three_weeks"), sql))
    else:
        settings, user = request.getfixturevalue("lake")
        rows = plain_rows(answer(settings, sql, user=user if ":user" in sql else None))
    plain = " ".join(sql.split())
    assert rows or any(f"from {those}" in plain for those in MAY_BE_EMPTY), question
    assert all(value is not None for row in rows for value in row.values())


def test_the_answers_are_in_the_order_that_is_asked_for(lake):
    settings, _ = lake
    [hours] = [sql for question, sql in QUESTIONS if question.startswith("At which hours")]
    events = [row["events"] for row in plain_rows(answer(settings, hours))]
    assert len(events) == 3 and events == sorted(events, reverse=True)
