"""Nights in which people answer the lists of the night before: what they earn moves the next lists, within bounds."""

import json
import shutil
import sys
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml

from conf.settings import find
from conf.tables import TABLES
from jobs import feedback, policy, score
from jobs.lake import logs
from jobs.lake.compare import compare
from jobs.lake.identities import load_key, pseudonym
from jobs.lake.store import Lake
from jobs.pipeline import choose
from jobs.runner import run
from jobs.score.blending import SOURCES, TOGETHER
from models.policy import EVERYWHERE, Policy
from tests.begun import NEXT

NIGHTS = 5
LIKED = "random"
COLUMNS = ("user_id", "event_type", "event_time", "list_day", "slot", "rank", "item_id", "model_version")
MIXED = ("policy.by=feedback", "policy.floor=0.05", "policy.shuffled=0.1", "policy.holdout=0.2", "policy.step=0.15")


@pytest.fixture(scope="module")
def nights(spark, begun, tmp_path_factory, make_context_of):
    """Settings of a lake after some nights; and of each night the lists that were made in it."""
    return lived(spark, begun, tmp_path_factory.mktemp("policy"), make_context_of, [LIKED] * NIGHTS)


def lived(spark, begun, folder, make_context_of, liked, *, whole=False):
    """As many nights as sources; lists of each are answered by who likes what that source alone gave.

    Unless they are whole, what people do after the first night does not matter: who is known then is known for a month.
    """
    shutil.copytree(begun.folder / "landing", folder / "landing")
    mapping = yaml.safe_load(find("conf/sources/simulated.yaml").read_text())
    feed = {"format": "csv", "files": "answers*", "options": {"header": "true"}, "columns": {name: name for name in COLUMNS}}
    (folder / "mapping.yaml").write_text(yaml.safe_dump({**mapping, "feedback": feed}))
    more = (
        f"sources.events.path={folder / 'landing'}",
        f"sources.events.mapping={folder / 'mapping.yaml'}",
        "completeness.accept=true",
    )
    settings = begun.copy(folder / "lake", *more, *MIXED)
    ids = {pseudonym(f"u{n:06}", load_key()): f"u{n:06}" for n in range(100)}
    made, rng = [], np.random.default_rng(1)
    for number, source in enumerate(liked):
        day = NEXT + timedelta(days=number)
        landing = folder / "landing" / str(day)
        landing.mkdir(exist_ok=True)
        if made:
            (landing / "answers.csv").write_text(answers_to(made[-1], ids, day, rng, source))
        run(spark, settings, day, steps=choose(only=("ingest", "clean", "sequences")[: 3 if whole or day == NEXT else 1]))
        for step in (feedback, policy, score):
            context = make_context_of(day, settings)
            step.run(context)
            if step is feedback:
                details = context.details
        made.append({"day": day, "lists": lists_of(spark, context), "details": details})
    return settings, made


@pytest.fixture(scope="module")
def make_context_of(spark):
    from jobs.lake.context import Context
    from jobs.lake.runs import pins
    from jobs.lake.store import Days

    def make(day, settings):
        lake = Lake(spark, settings.lake)
        there = [path.name for path in (Path(settings.lake)).glob("*") if (path / "_delta_log").is_dir()]
        known = {**pins(settings.lake), **{name: lake.version(name) for name in there}}
        first = min(row["first_day"] for row in logs.read(settings.lake, "runs", "step = 'ingest'"))
        days = Days(first=day, last=day)
        return Context(
            settings=settings, lake=lake, days=days, first_day=first, run_id=f"test-{day}", bootstrap=False, pins=known
        )

    return make


def lists_of(spark, context):
    return context.state("recommendations").collect()


def answers_to(night, ids, day, rng, liked=LIKED):
    """Everybody saw every list; entries that came of one source alone are liked more. Some lines are forged or told twice."""
    lines = [",".join(COLUMNS)]
    for row in night["lists"]:
        at, user = f"{day}T12:00:00Z", ids[row.user_id]
        entry = (night["day"], row.slot, row["rank"], row.item_id, row.model_version)
        lines.append(",".join(map(str, (user, "impression", at, *entry))))
        likes = 0.5 if liked in row.source.split(TOGETHER) else 0.02
        if rng.random() < likes:
            lines += [",".join(map(str, (user, "purchase", at, *entry)))] * 2
        if row["rank"] == 1:
            forged = (night["day"], row.slot, row["rank"], "i-of-mine", row.model_version)
            lines.append(",".join(map(str, (user, "purchase", at, *forged))))
    lines.append(f"nobody,purchase,{day}T12:00:00Z,{night['day']},any,1,i1,m")
    return "\n".join(lines) + "\n"


def test_lists_are_mixed_as_the_policy_says(nights):
    settings, made = nights
    known = {row["model_version"]: row for row in logs.read(settings.lake, "model_versions", "kind = 'policy'")}
    for night in made:
        mixed = [row for row in night["lists"] if row.policy_version and row.source != "shuffled"]
        assert {name for row in mixed for name in row.source.split(TOGETHER)} <= set(SOURCES)
        in_force = Policy.load(Path(settings.lake) / known[mixed[0].policy_version]["folder"])
        for row in mixed[::7]:
            region, _, activity = row.policy_context.rpartition("|")
            share = in_force.shares([(region, row.slot, activity)])[0]
            agreed = [SOURCES.index(name) for name in row.source.split(TOGETHER)]
            assert row.propensity == pytest.approx(share[agreed].sum())
        held = [row for row in night["lists"] if row.holdout]
        assert held and all(row.policy_version is None and row.propensity == 1.0 for row in held)
        assert {row.user_id for row in held} == {row.user_id for row in made[0]["lists"] if row.holdout}, "the same every night"
        places = {}
        for row in night["lists"]:
            places.setdefault((row.user_id, row.slot), []).append((row["rank"], row.item_id))
        for entries in places.values():
            ranks, items = zip(*sorted(entries), strict=True)
            assert ranks == tuple(range(1, len(ranks) + 1)) and len(set(items)) == len(items)


def test_every_answer_is_matched_once_and_forged_ones_are_not(nights, make_context_of):
    settings, made = nights
    for before, night in pairwise(made):
        found = night["details"]["feedback"]
        first = sum(row["rank"] == 1 for row in before["lists"])
        assert found["other_item"] == first and found["no_entry"] == 1
        assert found["matched"] > len(before["lists"]), "impressions and more"
        assert found["told_again"] == found["matched"] - len(before["lists"]), "every purchase was told twice"
    stored = make_context_of(made[-1]["day"], settings).history("feedback")
    seen = stored.where("event_type = 'impression' AND unmatched IS NULL").count()
    assert seen == sum(len(night["lists"]) for night in made[:-1])


def policies(settings):
    """Those of the nights, in their order."""
    folders = {row["model_version"]: row["folder"] for row in logs.read(settings.lake, "model_versions", "kind = 'policy'")}
    rows = sorted(logs.read(settings.lake, "publications", "kind = 'policy'"), key=lambda row: row["day"])
    return [Policy.load(Path(settings.lake) / folders[row["model_version"]]) for row in rows]


def within_bounds(versions):
    for before, after in pairwise(versions):
        far = 0.5 * np.abs(after.share_CS - before.shares(after.contexts)).sum(axis=1)
        assert far.max() <= 0.15 + 1e-9
        assert (after.share_CS >= 0.05 - 1e-9).all()


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_sixty_nights_follow_tastes_that_turn_and_no_night_goes_further_than_it_may(
    spark, begun, tmp_path, make_context_of, capsys
):
    liked = ["random"] * 30 + ["own"] * 30
    settings, made = lived(spark, begun, tmp_path, make_context_of, liked, whole=True)
    versions = policies(settings)
    assert len(versions) == len(made) == 60
    within_bounds(versions)
    random_N, own_N = ([one.shares([EVERYWHERE])[0, SOURCES.index(source)] for one in versions] for source in ("random", "own"))
    with capsys.disabled():
        sys.stdout.write(f"random {np.round(random_N, 2).tolist()}\nown {np.round(own_N, 2).tolist()}\n")
    assert all(len(night["lists"]) > 1000 for night in made), "there is something to answer every night"
    assert random_N[29] > 0.4 and own_N[29] < 0.2
    assert own_N[59] > 0.4 and random_N[59] < 0.2


def test_what_is_liked_is_drawn_more_and_no_night_moves_a_context_further_than_it_may(nights):
    settings, _ = nights
    versions = policies(settings)
    assert len(versions) == NIGHTS
    within_bounds(versions)
    liked = SOURCES.index(LIKED)
    assert versions[-1].shares([EVERYWHERE])[0, liked] > versions[0].shares([EVERYWHERE])[0, liked] + 0.3
    assert versions[-1].shown_K.sum() > 0, "shuffled lists were answered"


def test_what_came_back_is_the_same_when_it_is_taken_at_once(spark, nights, tmp_path):
    settings, made = nights
    whole = settings.model_copy(update={"lake": str(tmp_path / "lake")})
    run(spark, whole, made[-1]["day"], steps=choose(only=("ingest",)), bootstrap=True)
    lakes = [Lake(spark, one.lake) for one in (settings, whole)]
    rows = [lake.read("raw_feedback", lake.version("raw_feedback")) for lake in lakes]
    found = compare(*rows, TABLES["raw_feedback"])
    assert found.rows > 1_000 and found.equal, str(found)


def test_the_kill_switch_leaves_the_ranking_alone(nights, make_context_of):
    settings, made = nights
    off = settings.model_copy(update={"policy": settings.policy.model_copy(update={"by": "none"})})
    context = make_context_of(made[-1]["day"], off)
    with pytest.raises(policy.Skipped):
        policy.run(context)
    score.run(context)
    rows = context.state("recommendations").collect()
    assert rows and all(row.policy_version is None and row.propensity == 1.0 and row.holdout is None for row in rows)


def test_a_night_told_again_makes_the_same_policy(nights, make_context_of):
    settings, made = nights
    context = make_context_of(made[-1]["day"], settings)
    feedback.run(context)
    policy.run(context)
    rows = [row for row in logs.read(settings.lake, "publications", "kind = 'policy'") if row["day"] == made[-1]["day"]]
    assert len({row["model_version"] for row in rows}) == 1 and len(rows) == 2
    assert json.loads(json.dumps(context.details["versions"])) == {"policy": rows[0]["model_version"]}
