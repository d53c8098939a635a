"""`models`, `publish`, `rollback`: what serves, what served before, and what is said of a version."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.settings import load_settings
from conf.tables import TABLES
from jobs.lake import logs, runs
from jobs.lake.publications import in_force
from jobs.lake.refused import Refused
from jobs.lake.schema import create
from jobs.publishing import card, publish, rollback, served, versions, write_versions

NIGHT = date(2024, 6, 16)
AT = datetime(2024, 6, 1, tzinfo=UTC)


def decision(model_version, **more):
    row = {
        "day": NIGHT, "kind": "interest", "model_version": model_version, "decision": "published", "candidate": model_version,
        "reason": "better", "run_id": "r", "decided_at": AT,
    }  # fmt: skip
    return {**row, **more}


def following(*decisions):
    """Decisions a day after each other, the last of them on the night."""
    first = NIGHT - timedelta(days=len(decisions) - 1)
    days = [first + timedelta(days=n) for n in range(len(decisions))]
    return [
        {**row, "day": day, "decided_at": AT + timedelta(days=n)}
        for n, (row, day) in enumerate(zip(decisions, days, strict=True))
    ]


def version(name, **more):
    row = {
        "model_version": name, "kind": "interest", "method": "transformer", "day": NIGHT, "trained_until": AT,
        "folder": f"models/{name}", "settings": json.dumps({"train": {"epochs": 8}}), "metrics": "{}", "items": 1234,
        "created_at": AT,
    }  # fmt: skip
    return {**row, **more}


@pytest.fixture
def lake(tmp_path):
    """Versions a, b, c of which a, then b was published and c refused; a finished night."""
    settings = load_settings(overrides=[f"lake={tmp_path / 'lake'}"])
    for number, name in enumerate("abc"):
        folder = Path(settings.lake) / "models" / name
        folder.mkdir(parents=True)
        (folder / "version.json").write_text("{}")
        logs.append(settings.lake, "model_versions", [version(name, created_at=AT + timedelta(hours=number))])
    refused = decision("b", decision="refused", candidate="c", reason="c may be too much worse")
    logs.append(settings.lake, "publications", following(decision("a"), decision("b"), refused))
    logs.append(
        settings.lake, "runs", [runs.row("night", runs.NIGHT, NIGHT, outputs={"model_quality": quality_of(settings.lake)})]
    )
    return settings


def quality_of(root):
    create(f"{root}/model_quality", TABLES["model_quality"])
    schema = pa.schema(deltalake.DeltaTable(f"{root}/model_quality").schema().to_arrow())
    same = {"evaluation": "day", "segment": "all", "metric": "ndcg", "k": 10, "events": 300, "users": 120}
    rows = [
        {**same, "model_version": "b", "value": 0.4, "lower": 0.35, "upper": 0.45, "day": NIGHT - timedelta(days=1)},
        {**same, "model_version": "b", "value": 0.5, "lower": 0.45, "upper": 0.55, "day": NIGHT},
        {**same, "model_version": "c", "value": 0.3, "lower": None, "upper": None, "day": NIGHT},
        {**same, "model_version": "c", "metric": "hit", "k": 50, "value": 0.9, "lower": 0.8, "upper": 1.0, "day": NIGHT},
        {**same, "model_version": "baseline:markov", "value": 0.2, "lower": 0.1, "upper": 0.3, "day": NIGHT},
    ]
    deltalake.write_deltalake(f"{root}/model_quality", pa.Table.from_pylist(rows, schema=schema), mode="append")
    return deltalake.DeltaTable(f"{root}/model_quality").version()


def serving(settings):
    return served(logs.read(settings.lake, "publications"))[-1][0]


def test_a_published_version_serves_from_the_next_run_on(lake):
    assert "c serves from the next run on in place of b" in publish(lake, "c")
    rows = logs.read(lake.lake, "publications")
    assert (
        serving(lake)
        == "c"
        == in_force(rows)["model_version"]
        == in_force(rows, before=NIGHT + timedelta(days=1))["model_version"]
    )
    assert in_force(rows, before=NIGHT)["model_version"] == "b", "what the night itself was judged against stays"
    assert publish(lake, "c") == f"c serves already, since {NIGHT}"
    assert len(logs.read(lake.lake, "publications")) == len(rows)


def test_each_rollback_goes_back_further_until_there_is_nothing_left(lake):
    publish(lake, "c")
    assert rollback(lake).startswith("b serves from the next run on in place of c")
    assert rollback(lake).startswith("a serves from the next run on in place of b")
    with pytest.raises(ValueError, match="only a ever served"):
        rollback(lake)
    assert serving(lake) == "a"
    publish(lake, "b")
    assert rollback(lake).startswith("a serves"), "what was rolled back from is not gone back to"


def test_each_kind_has_one_that_serves_and_goes_back_by_itself(lake):
    for name in ("old", "new"):
        (Path(lake.lake) / "models" / name).mkdir()
        (Path(lake.lake) / "models" / name / "version.json").write_text("{}")
        row = version(name, kind="labeller", method="boosting", items=35, metrics=json.dumps({"macro_f1": 0.8}))
        logs.append(lake.lake, "model_versions", [row])
    with pytest.raises(ValueError, match="no labeller version is published"):
        rollback(lake, "labeller")
    assert publish(lake, "old").startswith("old serves from the next run on; the labels of"), "in place of no ranker"
    assert publish(lake, "new").startswith("new serves from the next run on in place of old")
    assert {one.model_version for one in versions(lake) if one.serves_from} == {"b", "new"}
    rows = logs.read(lake.lake, "publications")
    assert in_force(rows)["model_version"] == "b" and in_force(rows, kind="labeller")["model_version"] == "new"
    assert rollback(lake).startswith("a serves") and rollback(lake, "labeller").startswith("old serves")
    assert {one.model_version for one in versions(lake) if one.serves_from} == {"a", "old"}
    assert publish(lake, "rule").startswith("rule serves from the next run on in place of old")
    assert rollback(lake, "labeller").startswith("old serves from the next run on in place of rule")
    said = card(lake, "old")
    assert "labels interests in 35 categories" in said and "- macro_f1: 0.8000" in said and "rolled back from new" in said


@given(st.lists(st.sampled_from(["a", "b", "c", "refused", "back"]), max_size=12))
def test_what_serves_is_what_the_newest_decision_says(acts):
    rows: list[dict] = []
    expected: list[str] = []
    for act in acts:
        if act == "back" and len(expected) > 1:
            expected.pop()
            rows.append(decision(expected[-1], decision="rollback"))
        elif act == "refused" and expected:
            rows.append(decision(expected[-1], decision="refused", candidate="other"))
        elif act in "abc":
            rows.append(decision(act))
            expected += [act] if expected[-1:] != [act] else []
    stack = served(following(*rows) if rows else [])
    assert [name for name, _ in stack] == expected
    if rows:
        assert stack[-1][0] == rows[-1]["model_version"]


def test_what_cannot_serve_is_refused_and_nothing_is_written(lake):
    before = len(logs.read(lake.lake, "publications"))
    with pytest.raises(ValueError, match="no model version d; the newest are a, b, c"):
        publish(lake, "d")
    (Path(lake.lake) / "models" / "a" / "version.json").unlink()
    with pytest.raises(Refused, match="the weights of a are gone"):
        rollback(lake)
    assert len(logs.read(lake.lake, "publications")) == before


def test_a_lake_without_a_night_has_nothing_to_publish(tmp_path):
    settings = load_settings(overrides=[f"lake={tmp_path / 'lake'}"])
    assert write_versions(versions(settings), "ndcg@10", "table", width=None).startswith("no model version yet")
    with pytest.raises(ValueError, match="no interest version is published"):
        rollback(settings)
    (Path(settings.lake) / "models" / "a").mkdir(parents=True)
    (Path(settings.lake) / "models" / "a" / "version.json").write_text("{}")
    logs.append(settings.lake, "model_versions", [version("a")])
    with pytest.raises(ValueError, match="no night is finished"):
        publish(settings, "a")


def test_every_version_is_listed_with_its_newest_judgement(lake):
    found = {one.model_version: one for one in versions(lake)}
    assert list(found) == ["c", "b", "a"], "the newest first"
    assert found["b"].judged == {"ndcg@10": (0.5, 0.45, 0.55)} and found["b"].serves_from == NIGHT - timedelta(days=1)
    assert found["c"].verdict == f"refused {NIGHT}" and found["a"].serves_from is None
    shown = write_versions(list(found.values()), "ndcg@10", "table", width=None)
    assert "0.5000 (0.4500..0.5500)" in shown and f"since {NIGHT - timedelta(days=1)}" in shown
    assert [one["model_version"] for one in json.loads(write_versions(versions(lake), "ndcg@10", "json", width=None))] == list(
        "cba"
    )


def test_a_card_says_what_was_learnt_how_it_was_judged_and_what_was_decided(lake):
    run = {
        "run_id": "r7", "day": NIGHT, "model_version": "c", "windows": 1147, "targets": 9000, "epochs": 8, "processes": 2,
        "seconds": 31.6, "train_loss": 1.25, "validation_loss": None, "finished_at": AT,
    }  # fmt: skip
    logs.append(lake.lake, "training_runs", [run])
    said = card(lake, "c")
    assert (
        "1,147 windows with 9,000 targets, 8 epochs in 32 s on 2 processes; loss 1.2500, on the validation fold unknown" in said
    )
    assert f"day {NIGHT}: 300 target events of 120 users" in said
    assert "| c | 0.3000 |" in said and "| baseline:markov | 0.2000 (0.1000..0.3000) |" in said
    assert "hit@50" not in said, "only the cut-off of the gate"
    assert f"- {NIGHT}: refused. c may be too much worse" in said
    assert f"- {NIGHT}: it goes on serving, c is refused." in card(lake, "b")
    assert card(lake, "a").endswith(f"- {NIGHT - timedelta(days=2)}: published. better\n")
    with pytest.raises(ValueError, match="no model version z"):
        card(lake, "z")
