"""The step on a planted log: what it learns and from whom, what it says of the day, what it decides, when it does nothing."""

from __future__ import annotations

import json
import random
import shutil
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import functions as F

from conf.settings import load_settings
from conf.tables import TABLES
from jobs import label, labeller
from jobs.labeller import gate, reading, versions
from jobs.labeller.gate import LOSS
from jobs.lake import logs, runs
from jobs.lake.compare import compare
from jobs.lake.context import Context, Skipped
from jobs.lake.publications import in_force
from jobs.lake.refused import Refused
from jobs.lake.schema import spark_schema
from jobs.lake.store import Days, Lake
from jobs.pipeline import choose
from jobs.publishing import card, publish, rollback
from jobs.publishing import versions as listed
from models import labeller as learning
from models.labeller import Labeller

FIRST = date(2024, 1, 2)
LAST = FIRST + timedelta(days=177)  # a Thursday: nights learn on Mondays
MONDAY = LAST + timedelta(days=4)
[STEP] = choose(only=("labeller",))
EVENT = {"item_id": "i", "event_type": "check_in", "row_hash": "r"}


def planted(users=60, seed=2):
    """(user, category, day): habits s0..s7, one begun every thirty days and kept up once a week, and single days of fads.

    The rule calls nothing long before its fourth week: half of what lasts. Which are habits a category's past tells.
    """
    rng = random.Random(seed)
    found = set()
    for user in range(users):
        for number, start in enumerate(range(rng.randrange(30) - 60, 182, 30)):
            day, habit = start, f"s{(number + user) % 8}"
            while day < min(start + 110, 182):
                found.add((f"u{user}", habit, day))
                day += rng.randrange(5, 10)
        found |= {(f"u{user}", f"f{rng.randrange(8)}", day) for day in range(182) if rng.random() < 0.15}
    return sorted(row for row in found if row[2] >= 0)


def events_of(spark, rows):
    schema = spark_schema(TABLES["events"])
    made = []
    for number, (user, category, n) in enumerate(rows):
        day = FIRST + timedelta(days=n)
        at = datetime(day.year, day.month, day.day, 12)
        row = EVENT | {
            "event_id": f"e{number}", "user_id": user, "category": category, "day": day, "event_date": day,
            "event_timestamp": at, "consents": ["labels", "training"],
        }  # fmt: skip
        made.append(tuple(row.get(field.name) for field in schema))
    return spark.createDataFrame(made, schema)


def settings_of(root: Path, *more: str):
    return load_settings(overrides=[f"lake={root}", "evaluate.bootstrap_samples=50", "train.tracking=null", *more])


def context_of(spark, settings, day, *, bootstrap=False):
    lake = Lake(spark, settings.lake)
    there = [path.name for path in Path(settings.lake).glob("*") if (path / "_delta_log").is_dir()]
    return Context(
        settings=settings, lake=lake, days=Days(first=FIRST if bootstrap else day, last=day), first_day=FIRST,
        run_id=f"run {day}", bootstrap=bootstrap, pins={name: lake.version(name) for name in there},
    ).seen_by(STEP)  # fmt: skip


def ran(spark, settings, day, *, bootstrap=False):
    context = context_of(spark, settings, day, bootstrap=bootstrap)
    labeller.run(context)
    return context


@pytest.fixture(scope="module")
def labelled(spark, tmp_path_factory):
    """A lake in which the label step is through to the Monday after LAST; nothing is learnt yet."""
    settings = settings_of(tmp_path_factory.mktemp("labelled") / "lake")
    context = context_of(spark, settings, MONDAY, bootstrap=True)
    none = context.before("user_interests")
    labels, interests = label.advance(none, events_of(spark, planted()), context.days, settings.label)
    context.write("event_labels", labels)
    context.write("user_interests", interests)
    return settings


@pytest.fixture(scope="module")
def taught(spark, labelled, tmp_path_factory):
    """A copy in which a bootstrap up to LAST has learnt; and the step's context."""
    settings = copied(labelled, tmp_path_factory.mktemp("taught"))
    return settings, ran(spark, settings, LAST, bootstrap=True)


def copied(settings, place, *more):
    shutil.copytree(settings.lake, place / "lake")
    return settings_of(place / "lake", *more)


def rows_of(spark, settings, day):
    lake = Lake(spark, settings.lake)
    return lake.read("learned_labels", lake.version("learned_labels"), f"day = '{day}'")


def serving(settings):
    row = in_force(logs.read(settings.lake, "publications"), kind="labeller")
    return "rule" if row is None else row["model_version"]


def close(settings, day):
    """As if the night were finished."""
    logs.append(settings.lake, "runs", [runs.row("night", runs.NIGHT, day)])


def test_what_is_planted_is_learnt_passes_the_exam_and_labels_the_day(spark, taught):
    settings, context = taught
    [version] = logs.read(settings.lake, "model_versions")
    [decision] = logs.read(settings.lake, "publications")
    assert (version["kind"], version["items"], version["day"]) == ("labeller", 16, LAST)
    assert decision["decision"] == "published" and decision["model_version"] == version["model_version"] == serving(settings)
    measured = json.loads(version["metrics"])
    assert measured["macro_f1"] > measured["macro_f1_of_rule"] + 0.05 and measured["log_loss"] < measured["log_loss_of_rule"]
    rows = rows_of(spark, settings, LAST).collect()
    arrived = {(user, category) for user, category, n in planted() if n == (LAST - FIRST).days}
    assert {(row.user_id, row.category) for row in rows} == arrived and len(rows) == len(arrived) > 10
    assert {row.model_version for row in rows} == {version["model_version"]}
    habits = [row.lasting_probability for row in rows if row.category[0] == "s"]
    fads = [row.lasting_probability for row in rows if row.category[0] == "f"]
    assert np.mean(habits) > 0.7 and np.mean(fads) < 0.3
    cut = json.loads((Path(settings.lake) / version["folder"] / "version.json").read_text())["cut"]
    for row in rows:
        otherwise = "none" if row.rule_label == "none" else "short"
        assert row.label == ("long" if row.lasting_probability >= cut else otherwise)
    said = Lake(spark, settings.lake).read("event_labels", context.inputs["event_labels"], f"day = '{LAST}'").collect()
    assert {(row.user_id, row.category, row.rule_label) for row in rows} == {
        (row.user_id, row.category, row.label) for row in said
    }
    assert {row.label for row in rows} == {"long", "short", "none"}


def test_the_registry_shows_it_and_goes_back_to_the_rule(taught, tmp_path):
    settings = copied(taught[0], tmp_path)
    close(settings, LAST)
    [shown] = listed(settings)
    assert (shown.kind, shown.serves_from, shown.verdict) == ("labeller", LAST, f"published {LAST}")
    said = card(settings, shown.model_version)
    assert "labels interests in 16 categories" in said and "- macro_f1_of_rule: 0." in said and "beside the rule" in said
    assert publish(settings, "rule").startswith("rule serves from the next run on in place of labeller-")
    assert serving(settings) == "rule"
    assert rollback(settings, "labeller").startswith(f"{shown.model_version} serves")


def test_a_night_says_what_a_bootstrap_says_by_the_same_version_and_does_not_learn(spark, taught, tmp_path):
    bootstrapped = taught[0]
    settings = copied(bootstrapped, tmp_path)
    context = ran(spark, settings, LAST)
    one, other = rows_of(spark, bootstrapped, LAST), rows_of(spark, settings, LAST)
    found = compare(one, other, TABLES["learned_labels"])
    assert found.equal and found.rows > 10, str(found)
    assert set(context.outputs) == {"learned_labels"}


def test_nothing_that_came_later_is_read(spark, labelled, taught, tmp_path):
    """The same from a lake that ends with the day, and the lessons from one that ends before it."""
    settings, context = copied(labelled, tmp_path), taught[1]
    lake = Lake(spark, settings.lake)
    for name in ("event_labels", "user_interests"):
        lake.replace(name, lake.read(name, None), f"day > '{LAST}'")
    again = ran(spark, settings, LAST, bootstrap=True)
    assert again.details["versions"] == context.details["versions"]
    assert compare(rows_of(spark, settings, LAST), rows_of(spark, taught[0], LAST), TABLES["learned_labels"]).equal
    for name in ("event_labels", "user_interests"):
        lake.replace(name, lake.read(name, None), f"day >= '{LAST}'")
    ended = context_of(spark, settings, LAST)
    assert versions.name(reading.lessons(ended, reading.clock(ended)), settings) == again.details["versions"]["labeller"]


def test_a_monday_learns_anew_and_holds_it_against_what_serves(spark, taught, tmp_path, monkeypatch):
    settings = copied(taught[0], tmp_path)
    first = serving(settings)
    judged, real = [], gate.decided
    monkeypatch.setattr(gate, "decided", lambda *given: judged.append(given) or real(*given))
    monkeypatch.setattr(labeller, "LEAST_ASKED", 50)
    context = ran(spark, settings, MONDAY)
    [(candidate, before, by_rule, by_serving)] = judged
    unknown = range((LAST - FIRST).days - 56, (MONDAY - FIRST).days - 56)
    assert by_serving.moments == len([n for *_, n in planted() if n in unknown]) < by_rule.moments
    assert before == first and by_serving.values[LOSS][0] < 0.6
    made = logs.read(settings.lake, "model_versions")
    newest = max(made, key=lambda row: row["created_at"])
    assert len(made) == 2 and newest["day"] == MONDAY and newest["model_version"] == candidate != first
    decision = max(logs.read(settings.lake, "publications"), key=lambda row: row["decided_at"])
    assert (decision["kind"], decision["candidate"], decision["day"]) == ("labeller", newest["model_version"], MONDAY)
    assert {row.model_version for row in rows_of(spark, settings, MONDAY).collect()} == {decision["model_version"]}
    ran(spark, settings, MONDAY)
    assert len(logs.read(settings.lake, "model_versions")) == 2, "the same day makes the same version"
    assert serving(settings) == decision["model_version"] == context.details["serves"]


def test_one_that_learnt_shuffled_outcomes_does_not_serve(spark, labelled, tmp_path, monkeypatch):
    real = learning.grown

    def shuffled(inputs, lasted, seed):
        return real(inputs, np.random.default_rng(seed).permutation(lasted), seed)

    monkeypatch.setattr(learning, "grown", shuffled)
    settings = copied(labelled, tmp_path)
    context = ran(spark, settings, LAST, bootstrap=True)
    [decision] = logs.read(settings.lake, "publications")
    assert decision["decision"] == "refused" and decision["model_version"] == "rule" == serving(settings)
    assert decision["candidate"] == logs.read(settings.lake, "model_versions")[0]["model_version"]
    assert context.rows_out["learned_labels"] == 0 and "surely worse" in context.details["learned"]


def test_a_damaged_labeller_is_named_in_one_line_and_publish_rule_goes_on(spark, taught, tmp_path):
    settings = copied(taught[0], tmp_path)
    trees = Path(settings.lake) / "models" / serving(settings) / "trees.npz"
    trees.write_bytes(trees.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"holds no labeller .*: `wherewhen publish rule` goes on without one") as wrong:
        ran(spark, settings, LAST)
    assert "\n" not in str(wrong.value)
    close(settings, LAST)
    publish(settings, "rule")
    assert ran(spark, settings, LAST).rows_out["learned_labels"] == 0
    assert rows_of(spark, settings, LAST).isEmpty()


def test_where_there_is_nothing_to_learn_it_says_so_and_starts_no_job(spark, labelled, tmp_path):
    settings = copied(labelled, tmp_path)
    young = FIRST + timedelta(days=labeller.LEAST_DAYS - labeller.LEAST_DAYS % 7 - 1)
    assert young.weekday() == 0
    ran(spark, settings, LAST)  # makes the empty table
    spark.sparkContext.setJobGroup("nothing", "nothing to learn")
    try:
        monday, thursday = ran(spark, settings, young), ran(spark, settings, LAST)
        off = ran(spark, settings_of(tmp_path / "lake", "labeller.by=rule"), MONDAY)
    finally:
        spark.sparkContext.setLocalProperty("spark.jobGroup.id", None)
    assert not spark.sparkContext.statusTracker().getJobIdsForGroup("nothing")
    assert f"of the {labeller.LEAST_DAYS + 1} that learning and an exam take" in monday.details["learned"]
    assert "learned" not in thursday.details and thursday.details["serves"] == "rule"
    assert off.details["labeller"] == "off: labeller.by is rule"
    assert serving(settings) == "rule" and not logs.read(settings.lake, "model_versions")


def test_users_are_sampled_where_there_are_more_than_it_takes(spark, labelled, tmp_path):
    settings = copied(labelled, tmp_path)
    context = context_of(spark, settings, LAST)
    every = reading.lessons(context, reading.clock(context)).moments
    fewer = settings.model_copy(update={"labeller": settings.labeller.model_copy(update={"max_moments": len(every) // 3})})
    context = context_of(spark, fewer, LAST)
    some = reading.lessons(context, reading.clock(context)).moments
    assert 0.15 * len(every) < len(some) < 0.6 * len(every)
    counts = [dict(zip(*np.unique(one.user_M, return_counts=True), strict=True)) for one in (every, some)]
    assert all(counts[0][user] == count for user, count in counts[1].items()), "of a user all or nothing"


def test_only_who_allows_labels_and_training_teaches_and_only_labels_are_asked_for_the_day(spark, taught, tmp_path):
    settings = copied(taught[0], tmp_path, "sources.consents={mapping: conf/sources/simulated.yaml}")
    assert settings.asks_consent
    days = {"labels": FIRST, "training": FIRST}
    since = {f"u{number}": days for number in range(60)}
    since |= {"u1": {"labels": FIRST}, "u2": {"training": FIRST}, "u3": days | {"training": FIRST + timedelta(days=100)}}
    told = {"purposes": [], "notice_version": None, "stated_at": datetime(2024, 1, 2), "gone": False, "changed_on": LAST}
    names = TABLES["consents"].names
    rows = [
        tuple((told | {"user_id": who, "since": known, "day": LAST})[name] for name in names) for who, known in since.items()
    ]
    context_of(spark, settings, LAST).write("consents", spark.createDataFrame(rows, spark_schema(TABLES["consents"])))
    context = context_of(spark, settings, LAST)
    hashed = spark.range(60).select(F.concat(F.lit("u"), "id").alias("who"))
    name_of = {row.hash: row.who for row in hashed.withColumn("hash", F.xxhash64("who")).collect()}
    teachers = {name_of[user] for user in reading.lessons(context, reading.clock(context)).moments.user_M.tolist()}
    assert teachers == set(since) - {"u1", "u2", "u3"}
    asked = {row.user_id for row in reading.of_day(context).collect()}
    arrived = {user for user, _, n in planted() if n == (LAST - FIRST).days}
    assert asked == arrived - {"u2"}


def test_a_log_without_times_is_skipped(spark, make_settings):
    settings = make_settings("conf/movielens.yaml")
    with pytest.raises(Skipped, match="no times"):
        labeller.run(context_of(spark, settings, date(2000, 1, 1), bootstrap=True))


def test_a_version_that_was_deleted_cannot_be_published(taught, tmp_path):
    settings = copied(taught[0], tmp_path)
    close(settings, LAST)
    version = serving(settings)
    publish(settings, "rule")
    shutil.rmtree(Path(settings.lake) / "models" / version)
    with pytest.raises(Refused, match="are gone"):
        publish(settings, version)
    with pytest.raises(ValueError, match="wherewhen publish rule"):
        Labeller.load(Path(settings.lake) / "models" / version)
