"""The step on a lake: which version serves, who is ranked and written on a night, what is never listed."""

import json
import sys
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from pyspark import cloudpickle
from pyspark.sql import functions as F

from conf.contracts import SLOTS
from conf.settings import SettingsError
from conf.tables import TABLES
from jobs import score
from jobs.lake import logs
from jobs.lake.context import Skipped
from jobs.pipeline import STEPS
from jobs.provenance import code_version, settings_hash
from jobs.score.blending import Blend
from jobs.score.items import counted
from models.queries import FIRST as FIRST_INDEX
from models.queries import Vocabulary
from tests import planting

ITEMS = tuple(f"i{n}" for n in range(12))
VOCABULARY = Vocabulary(
    items=ITEMS, item_categories=("Gym",) * 12, categories=("Gym", "Bar"), event_types=("check_in", "click", "impression")
)
FIRST = date(2024, 1, 30)
ROWS = {
    "user_sequences": {"user_id": "u0", "events": [{}], "seen": None, "events_total": 1},
    "user_places": {
        "user_id": "u0", "place_id": 0, "latitude": 40.75, "longitude": -73.98, "radius_m": 10.0, "visits": 3, "share": 1.0,
        "slot_visits": {}, "main_slots": ["weekday_morning"], "role": "home", "confidence": 1.0,
    },
    "items": {
        "item_id": "i0", "title": None, "description": None, "category": None, "brand": None, "price": None,
        "latitude": None, "longitude": None, "tags": None, "attributes": None,
    },
    "feedback": {**dict.fromkeys(TABLES["feedback"].names), "feedback_id": "f", "user_id": "u0", "item_id": "i2"},
}  # fmt: skip
EVENT = {
    "event_id": "e", "event_timestamp": datetime(2024, 1, 20, 13, tzinfo=UTC), "item_id": "i0", "event_type": "check_in",
    "category": "Bar", "latitude": 40.75, "longitude": -73.98, "region": None,
    "local_timestamp": datetime(2024, 1, 20, 8, tzinfo=UTC), "slot": "weekend_morning", "value": None, "device": None,
    "scene": None, "arrived_on": FIRST,
}  # fmt: skip
PUBLISHED = {
    "kind": "interest", "model_version": "v1", "decision": "published", "reason": "first", "run_id": "r",
    "decided_at": datetime(2024, 1, 30, tzinfo=UTC), "day": FIRST,
}  # fmt: skip


def write(context, name, *changes):
    """Rows of a state that changed on the context's day; `item_id`s of a sequence may be given as `took`."""
    if not changes and context.days.last.day != 1:  # on a keyframe day no rows are written either, but all that hold
        return context.clear(name)
    rows = []
    for change in changes:
        row = {**ROWS[name], "gone": False, "changed_on": context.days.last, "day": context.days.last, **change}
        if "took" in row:
            row["events"] = [{"item_id": item} for item in row.pop("took")]
        if name == "user_sequences":
            row["events"] = [{**EVENT, **event} for event in row["events"]]
            row["events_total"] = max(row["events_total"], len(row["events"]))
        rows.append({column: row[column] for column in TABLES[name].names})
    planting.write(context, name, rows)


class Habit:
    """Ranks what the user took last first, then items in their order."""

    method = "habit"
    vocabulary = VOCABULARY

    def scores(self, histories, queries):
        scores_BV = np.tile(-np.arange(len(ITEMS), dtype=np.float32), (len(queries.timestamp_B), 1))
        rows = np.flatnonzero(histories.item_BL[:, -1] >= FIRST_INDEX)
        scores_BV[rows, histories.item_BL[rows, -1] - FIRST_INDEX] = 1
        return scores_BV


class Patience(Habit):
    """Ranks first the item of which so many days have passed since the user's newest event, then likewise of the place."""

    def scores(self, histories, queries):
        scores_BV = super().scores(histories, queries)
        days_B = (queries.timestamp_B - histories.timestamp_BL[:, -1]) // 86_400
        scores_BV[np.arange(len(days_B)), days_B % len(ITEMS)] = 2
        placed_B = np.flatnonzero(np.isfinite(queries.latitude_B))
        scores_BV[placed_B, np.round(queries.latitude_B[placed_B]).astype(int) % len(ITEMS)] = 3
        return scores_BV


def load(folder):
    assert folder.endswith(("models/v1", "models/v2", "models/v4", "models/patience")), folder
    return Patience() if folder.endswith("patience") else Habit()


@pytest.fixture(autouse=True)
def ranker(monkeypatch):
    """Workers cannot import a test: what they need of it travels with the function."""
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    monkeypatch.setattr(score, "_load_ranker", load)
    yield
    cloudpickle.unregister_pickle_by_value(module)


def publish(context, version="v1", method="transformer", **more):
    folder = Path(context.lake.root) / "models" / version
    folder.mkdir(parents=True, exist_ok=True)
    VOCABULARY.save(folder / "vocabulary.json")
    if not logs.read(context.lake.root, "model_versions", f"model_version = '{version}'"):
        row = {
            "model_version": version, "kind": "interest", "method": method, "day": FIRST, "trained_until": logs.now(),
            "folder": f"models/{version}", "settings": "{}", "metrics": "{}", "items": 12, "created_at": logs.now(),
        }  # fmt: skip
        logs.append(context.lake.root, "model_versions", [row])
    logs.append(context.lake.root, "publications", [{**PUBLISHED, "model_version": version, **more}])


def stored(context, where="true"):
    rows = context.lake.read("recommendations", context.lake.version("recommendations")).where(where)
    return rows.orderBy("day", "user_id", "slot", "rank").collect()


def items_of(rows, user, slot="any"):
    return [row.item_id for row in rows if row.user_id == user and row.slot == slot]


def test_lists_of_everyone_for_every_slot(make_context, make_settings):
    context = make_context(FIRST, settings=make_settings("conf/local.yaml", "score.k=4"))
    write(context, "user_sequences", {"took": ["i7", "i7"]}, {"user_id": "u1", "took": ["i3"]})
    write(context, "user_places", {})
    write(context, "items", {"title": "Zero"}, {"item_id": "i1", "gone": True}, {"item_id": "new"})
    publish(context, method="user_frequency")
    score.run(context)
    rows = stored(context)
    assert {(row.user_id, row.slot) for row in rows} == {(user, slot) for user in ("u0", "u1") for slot in (*SLOTS, "any")}
    assert items_of(rows, "u0") == ["i7", "i0", "i2", "i3"], "withdrawn items are on no list"
    assert items_of(rows, "u1", "weekday_night") == ["i3", "i0", "i2", "i4"]
    assert [row.rank for row in rows] == [1, 2, 3, 4] * 18
    first = next(row for row in rows if (row.user_id, row.slot, row.rank) == ("u0", "any", 1))
    assert (first.source, first.model_version, first.policy_version, first.propensity) == (
        "baseline:user_frequency",
        "v1",
        None,
        1.0,
    )
    # i7 is in no items table: its category is the one it was learnt with.
    assert first.reason == "you visited this Gym twice, last on 2024-01-20"
    by_slot = {(row.slot, row.item_id): row.reason for row in rows if row.user_id == "u0"}
    assert by_slot["weekend_morning", "i7"] == "you visited this Gym twice, all on weekend mornings, last on 2024-01-20"
    assert by_slot["any", "i3"] == "chosen by 1 user" and by_slot["any", "i0"] == "new: not chosen by any user so far"
    assert context.details == {"model_version": "v1", "source": "baseline:user_frequency", "ranked": "everybody"}


def test_only_users_whose_lists_changed_are_written_and_the_vanished_are_gone(make_context, make_settings):
    settings = make_settings("conf/local.yaml", "score.k=3")
    context = make_context(FIRST, settings=settings)
    write(context, "user_sequences", *[{"user_id": f"u{n}", "took": [f"i{n}"]} for n in range(4)])
    publish(context, method="user_frequency")
    score.run(context)
    written = {}
    changes = {
        date(2024, 1, 31): [{"user_id": "u1", "took": ["i1", "i9"]}],
        date(2024, 2, 1): [{"user_id": "u2", "took": ["i2"], "gone": True}],  # a keyframe
        date(2024, 2, 2): [],
        date(2024, 2, 3): [{"user_id": "u4", "took": ["i4"]}],
    }
    for day, rows in changes.items():
        context = make_context(day, first_day=FIRST, settings=settings)
        write(context, "user_sequences", *rows)
        score.run(context)
        written[day] = Counter((row.user_id, row.changed_on, row.gone) for row in stored(context, f"day = '{day}'"))
    assert written == {
        date(2024, 1, 31): {("u1", date(2024, 1, 31), False): 27},
        # u0 has i2 on its list, and the only user who had chosen it is gone: the reason is another.
        date(2024, 2, 1): {
            ("u0", date(2024, 2, 1), False): 27,
            ("u1", date(2024, 1, 31), False): 27,
            ("u2", date(2024, 2, 1), True): 1,
            ("u3", FIRST, False): 27,
        },
        date(2024, 2, 2): {},
        date(2024, 2, 3): {("u4", date(2024, 2, 3), False): 27},
    }
    state = context.state("recommendations")
    assert {row.user_id for row in state.select("user_id").distinct().collect()} == {"u0", "u1", "u3", "u4"}

    bootstrap = make_context(FIRST, date(2024, 2, 3), bootstrap=True, settings=settings)
    nights = Counter(map(tuple, state.drop("changed_on").collect()))
    score.run(bootstrap)
    assert Counter(map(tuple, bootstrap.state("recommendations").drop("changed_on").collect())) == nights


def finish(context, **more):
    """The run's record of the step, as done."""
    (step,) = [step for step in STEPS if step.name == "score"]
    row = {
        "run_id": f"of {context.days.last}", "step": "score", "day": context.days.last, "first_day": context.days.first,
        "status": "done", "settings_hash": settings_hash(step, context.settings), "code_version": code_version(step),
        "inputs": {}, "outputs": {}, "rows_out": {}, "details": json.dumps(context.details), "seconds": 1.0,
        "finished_at": logs.now(),
    }  # fmt: skip
    logs.append(context.lake.root, "runs", [{**row, **more}])


def ranking_everybody(night, monkeypatch):
    """What the night writes when nobody is left out."""
    with monkeypatch.context() as patched:
        patched.setattr(score, "told_before", lambda *given: None)
        score.run(night)
    return stored(night, f"day = '{night.days.last}'")


def test_who_is_left_out_would_have_got_the_very_lists_that_are_there(make_context, make_settings, monkeypatch):
    settings, asked = make_settings("conf/local.yaml", "score.k=3"), {}
    chosen = score.users_due
    monkeypatch.setattr(score, "users_due", lambda context, *given: noted(context, chosen(context, *given)))

    def noted(context, users):
        asked[context.days.last] = {row.user_id for row in users.select("user_id").collect()}
        return users

    context = make_context(FIRST, settings=settings)
    took = {"u0": "i0", "u1": "i1", "u2": "i2", "idle": "i3", "far": "i4"}
    since = {"idle": datetime(2024, 1, 13, 12, tzinfo=UTC), "far": datetime(2024, 1, 27, 12, tzinfo=UTC)}
    for user, item in took.items():
        at = since.get(user, datetime(2024, 1, 29, 13, tzinfo=UTC))
        row = {"user_id": user, "events": [{"item_id": item, "event_timestamp": at, "latitude": None, "longitude": None}]}
        took[user] = row
    write(context, "user_sequences", *took.values())
    write(context, "items", *[{"item_id": item, "title": item} for item in ITEMS])
    publish(context, "patience", method="user_frequency")
    score.run(context)
    finish(context, step="sequences", code_version="1+older")  # it stands, whatever would be made today
    finish(context)
    nights = {
        1: {"user_sequences": [{**took["u1"], "events": [*took["u1"]["events"], {"item_id": "i1"}]}]},
        2: {"items": [{"item_id": "i0", "title": "Zero"}, {"item_id": "i2", "gone": True}]},  # a keyframe
        3: {},
        4: {"user_places": [{"user_id": "u2", "latitude": 7.0, "main_slots": list(SLOTS)}]},
        5: {"items": [{"item_id": "i2", "title": "back"}]},
        6: {"user_sequences": [{**took["u0"], "gone": True}]},
        7: {},
    }
    for number, changes in nights.items():
        night = make_context(FIRST + timedelta(days=number), first_day=FIRST, settings=settings)
        for name in ROWS:
            write(night, name, *changes.get(name, ()))
        score.run(night)
        served = night.snapshot("served_items").drop("day").collect()
        recounted = served_facts(night, counted(night.state("user_sequences"), ("check_in",)))
        assert sorted(map(tuple, served)) == recounted, number
        if night.days.last in asked:  # else everybody was ranked
            found = stored(night, f"day = '{night.days.last}'")
            everybody = make_context(FIRST + timedelta(days=number), first_day=FIRST, settings=settings)
            assert ranking_everybody(everybody, monkeypatch) == found, number
        finish(night)
    days = {(day - FIRST).days: users for day, users in asked.items()}
    assert 5 not in days, "an item may be listed again, on anybody's list"
    assert "u1" in days[1] and "idle" not in days[1]
    assert days[2] >= {"u0", "u1", "u2"}
    assert days[3] < {"u0", "u1", "u2", "idle", "far"}
    assert "u2" in days[4] and "u0" in days[6] and len(days[7]) < 4
    lists = {row.user_id: row.changed_on for row in night.state("recommendations").collect()}
    assert set(lists) == {"u1", "u2", "idle", "far"} and len(set(lists.values())) > 1
    everybody_again(make_context, make_settings, night, asked)


def everybody_again(make_context, make_settings, night, asked):
    """After other settings, other code, and a day before that was made again."""
    settings = night.settings
    for other in (make_settings("conf/local.yaml", "score.k=2"), settings):
        night = make_context(FIRST + timedelta(days=8), first_day=FIRST, settings=other)
        asked.clear()
        score.run(night)
        assert bool(asked) == (other is settings), "other settings: everybody"
    finish(night, code_version="1+other")
    night = make_context(FIRST + timedelta(days=9), first_day=FIRST, settings=settings)
    asked.clear()
    score.run(night)
    assert not asked, "other code: everybody"
    finish(night)
    finish(night, step="sequences", run_id="again")
    night = make_context(FIRST + timedelta(days=10), first_day=FIRST, settings=settings)
    score.run(night)
    assert not asked, "the day before was made again: everybody"


def test_items_are_counted_on_from_the_day_before_until_somebody_is_erased(make_context):
    context = make_context(FIRST)
    write(context, "user_sequences", {"took": ["i1"]}, {"user_id": "u1", "took": ["i1", "i2"]})
    write(context, "items", {"item_id": "i3"})
    publish(context)
    score.run(context)
    finish(context)
    write(make_context(FIRST + timedelta(days=1), first_day=FIRST), "user_sequences", {"took": ["i1", "i4"]})
    write(context, "user_sequences", {"took": ["i1"]})  # u1 is in no sequence any more, and in none that changed
    night = make_context(FIRST + timedelta(days=1), first_day=FIRST)

    def held():
        counts = score.items_counted(night, score.served_before(night)).where("item_id is not null")
        return {row.item_id: row.users for row in counts.collect()}

    assert held() == {"i1": 2, "i2": 1, "i4": 1}
    erasure = {"erasure_id": "e", "tombstone": "t", "key_check": "k", "pieces": 1, "status": "begun", "recorded_at": logs.now()}
    logs.append(night.lake.root, "erasures", [erasure])
    assert held() == {"i1": 1, "i4": 1}


@pytest.mark.parametrize("diversity", [0.0, 0.2])
def test_what_is_diverse_depends_on_items_that_are_on_no_list(make_context, make_settings, monkeypatch, diversity):
    settings = make_settings("conf/local.yaml", "score.k=1", "score.slots=false", f"score.diversity={diversity}")
    context = make_context(FIRST, settings=settings)
    write(context, "user_sequences", {"took": ["i7"]})
    write(context, "items", *[{"item_id": item} for item in ITEMS])
    publish(context)
    score.run(context)
    finish(context)
    answers = []
    monkeypatch.setattr(score, "told_before", lambda *given, ask=score.told_before: answers.append(ask(*given)) or answers[-1])
    night = make_context(FIRST + timedelta(days=1), first_day=FIRST, settings=settings)
    for name in ROWS:
        write(night, name, *([{"item_id": "i9", "gone": True}] if name == "items" else ()))
    score.run(night)
    assert (answers[0] is None) == (diversity > 0)


def test_another_version_changes_everyone_and_the_newest_of_a_day_serves(make_context):
    context = make_context(FIRST)
    write(context, "user_sequences", {}, {"user_id": "u1"})
    publish(context, day=FIRST - timedelta(days=3))
    publish(context, "v2", decided_at=datetime(2024, 1, 30, 3, tzinfo=UTC))
    publish(context, "v3", decided_at=datetime(2024, 1, 30, 2, tzinfo=UTC))
    publish(context, "v4", day=FIRST + timedelta(days=1))
    score.run(context)
    assert {row.model_version for row in stored(context)} == {"v2"}
    context = make_context(FIRST + timedelta(days=1), first_day=FIRST)
    score.run(context)
    rows = stored(context, "day = '2024-01-31'")
    assert {(row.user_id, row.model_version) for row in rows} == {("u0", "v4"), ("u1", "v4")}


def test_what_was_dismissed_is_off_the_lists_for_so_long_and_nobody_else_is_ranked(make_context, make_settings):
    settings = make_settings("conf/local.yaml", "score.k=4", "score.slots=false", "score.dismissed_days=2")
    answers = [{"event_type": "dismiss"}, {"event_type": "click", "user_id": "u1", "feedback_id": "g"}]
    found = {}
    for number in range(5):
        night = make_context(FIRST + timedelta(days=number), first_day=FIRST, settings=settings)
        began = {("user_sequences", 0): [{"took": ["i0"]}, {"user_id": "u1"}], ("feedback", 1): answers}
        for name in ROWS:
            write(night, name, *began.get((name, number), ()))
        if number == 0:
            publish(night)
        score.run(night)
        finish(night)
        written = stored(night, f"day = '{night.days.last}' and changed_on = day")
        found[number] = {user: items_of(written, user) for user in {row.user_id for row in written}}
    whole, without = ["i0", "i1", "i2", "i3"], ["i0", "i1", "i3", "i4"]
    assert found == {0: {"u0": whole, "u1": whole}, 1: {"u0": without}, 2: {}, 3: {"u0": whole}, 4: {}}


def test_nothing_published_is_skipped_and_an_unknown_version_is_named(make_context):
    context = make_context(FIRST)
    with pytest.raises(Skipped, match="published"):
        score.run(context)
    logs.append(context.lake.root, "publications", [{**PUBLISHED, "model_version": "lost"}])
    with pytest.raises(ValueError, match="version lost is published but not in model_versions"):
        score.run(context)


def test_no_events_at_all(make_context):
    context = make_context(FIRST)
    publish(context)
    score.run(context)
    assert stored(context) == []


def test_a_log_without_times_and_repeats(make_context, make_settings):
    day = date(2000, 1, 1)
    context = make_context(day, bootstrap=True, settings=make_settings("conf/movielens.yaml", "score.k=3"))
    timeless = {"event_type": "rating", "local_timestamp": None, "slot": None, "latitude": None, "longitude": None}
    write(context, "user_sequences", {"events": [{**timeless, "item_id": "i2"}], "seen": ["i0", "i2", "x"]})
    publish(context, day=day)
    score.run(context)
    rows = stored(context)
    assert [(row.slot, row.item_id, row.reason) for row in rows] == [
        ("any", "i1", "new: not chosen by any user so far"),
        ("any", "i3", "new: not chosen by any user so far"),
        ("any", "i4", "new: not chosen by any user so far"),
    ]


def test_public_counts_are_those_of_the_kept_target_events(make_context, spark):
    context = make_context(FIRST)
    write(
        context,
        "user_sequences",
        {"took": ["i1", "i1"], "events_total": 9},
        {"user_id": "u1", "events": [{"item_id": "i1"}, {"item_id": "i2", "event_type": "impression"}]},
        {"user_id": "u2", "took": ["i2"]},
    )
    write(context, "items", {"item_id": "i2", "title": "Two"}, {"item_id": "i3"}, {"item_id": "i4", "gone": True})
    assert served_facts(context, counted(context.state("user_sequences"), ("check_in",))) == [
        ("i1", None, None, 2, 2, False, None, None),
        ("i2", "Two", None, 1, 2, False, None, None),
        ("i3", None, None, 0, 2, False, None, None),
        ("i4", None, None, 0, 2, True, None, None),
    ]


def served_facts(context, counts):
    """Rows of `served_items` but for the day."""
    items = score.ruled(context.state("items"), context.settings.score, context.days.last)
    facts = score.collected(score.item_facts(counts, items, context.history("items")), context.settings.score)
    return sorted(tuple(row.values()) for row in facts.to_pylist())


def test_the_settings_block_and_boost_items_by_what_is_known_of_them(make_context, make_settings, monkeypatch):
    rules = {"score.k": 12, "score.slots": False, "score.block": "price > 9 OR try_cast(attributes['until'] AS date) < day"}
    rules |= {"score.boost": '{"brand = \'Acme\'": 20.5, "price < 2": 0.25}'}
    settings = make_settings("conf/local.yaml", *[f"{key}={value}" for key, value in rules.items()])
    context = make_context(FIRST, settings=settings)
    write(context, "user_sequences", {"took": ["i7"]})
    declared = {
        "i1": {"price": 10.0}, "i2": {"price": 9.0}, "i3": {"brand": "Acme", "price": 1.0}, "i4": {"brand": "Other"},
        "i5": {"attributes": {"until": "2024-01-29"}}, "i6": {"attributes": {"until": "2024-01-30"}},
        "i8": {"attributes": {"until": "soon"}},
        "i11": {"brand": "Acme"},
    }  # fmt: skip
    write(context, "items", *[{"item_id": item, **columns} for item, columns in declared.items()])
    publish(context)
    score.run(context)
    rows = stored(context)
    assert items_of(rows, "u0") == ["i3", "i11", "i7", "i0", "i2", "i4", "i6", "i8", "i9", "i10"]
    assert {row.item_id: row.score for row in rows}["i3"] == 17.75
    known = {row.item_id: (row.withdrawn, row.brand, row.boost) for row in context.snapshot("served_items").collect()}
    assert known["i1"] == (True, None, 0.0) and known["i3"] == (False, "Acme", 20.75) and known["i7"] == (False, None, None)

    broken = make_settings("conf/local.yaml", "score.block=to_date(attributes['until']) < day")
    with pytest.raises(ValueError, match=r"score.block or score.boost: .*soon.*try_cast"):
        score.run(make_context(FIRST, settings=broken))

    # An item that the version does not know is no reason to rank everybody. Another brand is: nobody's events changed, and
    # yet everybody's list does.
    finish(context)
    asked = []
    monkeypatch.setattr(score, "told_before", lambda *given, ask=score.told_before: asked.append(ask(*given)) or asked[-1])
    quiet = make_context(FIRST + timedelta(days=1), first_day=FIRST, settings=settings)
    for name in ROWS:
        write(quiet, name, *([{"item_id": "unknown", "brand": "Acme", "price": 1.0}] if name == "items" else ()))
    score.run(quiet)
    assert asked[0] is not None
    left = ["i3", "i11", "i7", "i0", "i2", "i4", "i8", "i9", "i10"]
    assert items_of(stored(quiet, "day = '2024-01-31'"), "u0") == left, "the day of i6 is over"
    night = make_context(FIRST + timedelta(days=1), first_day=FIRST, settings=settings)
    for name in ROWS:
        write(night, name, *([{"item_id": "i4", "brand": "Acme"}] if name == "items" else ()))
    score.run(night)
    assert items_of(stored(night, "day = '2024-01-31'"), "u0")[:3] == ["i3", "i4", "i11"] and asked[1] is None


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("score.block", "prize > 9", "score.block: no condition over the columns of items.*prize"),
        ("score.block", "price >", "score.block: no condition"),
        ("score.block", "price + 1", "score.block: a condition is true or false, price . 1 is of type double"),
        ("score.block", "max(price) > 3", "score.block: no condition"),
        ("score.boost", '{"brand": 2.0}', "score.boost: a condition is true or false, brand is of type string"),
    ],
)
def test_what_is_no_condition_over_items_is_named(make_context, make_settings, key, value, said):
    context = make_context(FIRST, settings=make_settings("conf/local.yaml", f"{key}={value}"))
    write(context, "items", {})
    with pytest.raises(SettingsError, match=said):
        score.ruled(context.state("items"), context.settings.score, FIRST)


@pytest.mark.parametrize("source", ["CAST(NULL AS STRING)", "'own+popular'"])
def test_the_digest_of_stored_rows_is_that_of_scored_ones(spark, source):
    entry = (
        f"array(struct('any' AS slot, 1 AS rank, 'i' AS item_id, 0.1D AS score, 'why' AS reason, {source} AS source, "
        "0.25D AS propensity))"
    )
    user = ("user_id", "policy_context", "holdout")
    scored = spark.range(1).select(
        F.lit("u").alias("user_id"), F.lit("|new").alias("policy_context"), F.lit(False).alias("holdout"),
        F.lit(None).cast("bigint").alias("digest_before"), F.expr(entry).alias("lists"),
    )  # fmt: skip
    served = score.Served(model_version="v", folder="", source="s")
    blend = Blend(folder="", version="p", week=1, shuffled=0.0, holdout=0.0)
    rows = score.changed_lists(scored, served, blend, FIRST)
    is_mixed = source.startswith("'")
    assert [(row.source, row.policy_version) for row in rows.collect()] == [("own+popular", "p") if is_mixed else ("s", None)]
    again = scored.drop("digest_before").join(score.digests(rows), on="user_id").select(*user, "digest_before", "lists")
    assert score.changed_lists(again, served, blend, FIRST).count() == 0
    for other in (
        score.Served(model_version="w", folder="", source="s"),
        *([] if is_mixed else [score.Served(model_version="v", folder="", source="t")]),
    ):
        assert score.changed_lists(again, other, blend, FIRST).count() == 1
    for value in ("0.1D", "0.25D"):
        nudged = again.withColumn("lists", F.expr(entry.replace(value, f"{np.nextafter(float(value[:-1]), 1)}D")))
        assert score.changed_lists(nudged, served, blend, FIRST).count() == 1
    for name, other in (("policy_context", F.lit("|some")), ("holdout", F.lit(True))):
        assert score.changed_lists(again.withColumn(name, other), served, blend, FIRST).count() == 1
