"""The step with an index of the items, which lies with the version: the exact lists, and what the run's record says of it."""

import json
import logging
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import torch

from conf.learning import Model
from conf.tables import TABLES
from jobs import score
from jobs.lake import logs
from jobs.pipeline import STEPS
from jobs.provenance import code_version, settings_hash
from jobs.score import approximate
from models import nearest, registry
from models.interest import InterestModel, new_network
from models.queries import Vocabulary
from tests import planting

FIRST = date(2024, 1, 30)
ITEMS = tuple(f"i{n:03}" for n in range(300))
VOCABULARY = Vocabulary(items=ITEMS, item_categories=("Gym",) * 300, categories=("Gym",), event_types=("check_in",))
EVENT = {
    "event_id": "e", "event_timestamp": datetime(2024, 1, 18, 13, tzinfo=UTC), "item_id": "i000", "event_type": "check_in",
    "category": "Gym", "latitude": 40.75, "longitude": -73.98, "region": None,
    "local_timestamp": datetime(2024, 1, 18, 8, tzinfo=UTC), "slot": "weekend_morning", "value": None, "device": None,
    "scene": None, "arrived_on": FIRST,
}  # fmt: skip


def sequence(user, *took):
    events = [{**EVENT, "item_id": item} for item in took]
    return {"user_id": user, "events": events, "seen": None, "events_total": len(events)}


def write(context, name, *rows):
    day = context.days.last
    whole = [{**dict.fromkeys(TABLES[name].names), **row, "gone": False, "changed_on": day, "day": day} for row in rows]
    planting.write(context, name, whole)


def publish(context, method="transformer"):
    torch.manual_seed(1)
    model = InterestModel(new_network(Model(window=8, width=16, layers=1, heads=2), VOCABULARY), VOCABULARY)
    for weight in model.network.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    root = context.lake.root
    registry.save(model, registry.version_folder(root, "v1"))
    version = {
        "model_version": "v1", "kind": "interest", "method": method, "day": FIRST, "trained_until": logs.now(),
        "folder": "models/v1", "settings": "{}", "metrics": "{}", "items": 300, "created_at": logs.now(),
    }  # fmt: skip
    logs.append(root, "model_versions", [version])
    decision = {"decision": "published", "reason": "first", "run_id": "r", "decided_at": datetime(2024, 1, 30, tzinfo=UTC)}
    logs.append(root, "publications", [{"kind": "interest", "model_version": "v1", "day": FIRST, **decision}])


def finish(context):
    (step,) = [step for step in STEPS if step.name == "score"]
    row = {
        "run_id": f"of {context.days.last}", "step": "score", "day": context.days.last, "first_day": context.days.first,
        "status": "done", "settings_hash": settings_hash(step, context.settings), "code_version": code_version(step),
        "inputs": {}, "outputs": {}, "rows_out": {}, "details": json.dumps(context.details), "seconds": 1.0,
        "finished_at": logs.now(),
    }  # fmt: skip
    logs.append(context.lake.root, "runs", [row])


def listed(context, day):
    rows = context.lake.read("recommendations", context.lake.version("recommendations")).where(f"day = '{day}'")
    return {(row.user_id, row.slot, row.rank): (row.item_id, pytest.approx(row.score, abs=1e-4)) for row in rows.collect()}


def test_lists_by_an_index_are_the_exact_ones_and_its_loss_ranks_everybody(make_context, make_settings, monkeypatch, caplog):
    rules = ["score.k=6", "score.block=item_id < 'i100'", "score.boost={\"item_id = 'i299'\": 50.0}"]
    settings = make_settings("conf/local.yaml", *rules, "score.nearest=150")
    context = make_context(FIRST, settings=settings)
    write(context, "user_sequences", *[sequence(f"u{n}", ITEMS[n], ITEMS[120 + n]) for n in range(9)])
    write(context, "items", *[{"item_id": item} for item in ITEMS])
    publish(context)
    folder = Path(context.lake.root) / "models/v1"
    with caplog.at_level(logging.INFO, "wherewhen"):
        score.run(context)
    assert context.details["nearest"] == 150 and context.details["recall"] > 0.99
    assert context.details["index"] == (nearest.described(folder) or {})["digest"]
    assert "index of the items: 300 in" in caplog.text and "lists by the index hold" in caplog.text
    finish(context)
    found = listed(context, FIRST)
    assert len(found) == 9 * 9 * 6 and {item for (_, _, rank), (item, _) in found.items() if rank == 1} == {"i299"}
    exact = make_context(
        FIRST, settings=settings.model_copy(update={"score": settings.score.model_copy(update={"nearest": None})})
    )
    score.run(exact)
    assert not {"nearest", "index", "recall"} & set(exact.details)
    assert listed(exact, FIRST) == found

    # Another night by the same file ranks who has new events; measured is it no more, and said again.
    due, chosen = [], score.users_due
    monkeypatch.setattr(score, "users_due", lambda *given: due.append(chosen(*given)) or due[-1])
    monkeypatch.setattr(approximate, "_recall", lambda *given: pytest.fail("measured again"))
    night = make_context(FIRST + timedelta(days=1), first_day=FIRST, settings=settings)
    write(night, "user_sequences", sequence("u1", "i140"))
    write(night, "items")
    score.run(night)
    assert [row.user_id for row in due.pop().collect()] == ["u1"]
    assert {user for user, _, _ in listed(night, night.days.last)} == {"u1"}
    assert {name: night.details[name] for name in ("index", "recall")} == {
        name: context.details[name] for name in ("index", "recall")
    }
    finish(night)

    (folder / "nearest.usearch").write_bytes(b"half")
    monkeypatch.setattr(nearest, "_MADE", {**nearest._MADE, "connectivity": 8})
    monkeypatch.setattr(approximate, "_recall", lambda *given: 0.5)
    night = make_context(FIRST + timedelta(days=2), first_day=FIRST, settings=settings)
    write(night, "user_sequences")
    write(night, "items")
    score.run(night)
    assert not due and night.details["ranked"] == "everybody" and night.details["index"] != context.details["index"]
    assert "50.0% of the items of exact ones; raise score.nearest" in caplog.text


@pytest.mark.parametrize(
    ("method", "nearest_items", "said"), [("hybrid", 150, "all: hybrid has no item vectors"), ("gru", 300, 300)]
)
def test_every_item_is_scored_where_there_is_nothing_to_index(make_context, make_settings, method, nearest_items, said):
    settings = make_settings("conf/local.yaml", "score.slots=false", f"score.nearest={nearest_items}")
    context = make_context(FIRST, settings=settings)
    write(context, "user_sequences", sequence("u0", "i001"))
    publish(context, method)
    score.run(context)
    assert context.details["nearest"] == said and "index" not in context.details
    assert len(listed(context, FIRST)) == 20
    assert not list((Path(context.lake.root) / "models/v1").glob("*nearest*"))
