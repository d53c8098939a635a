"""The presets: each is whole, its rules mean what they say of an item, and (`make soak`) a simulated log runs with it."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml

from conf.settings import find, load_settings
from jobs.query import answer, render
from jobs.runner import run
from jobs.score.items import ruled
from jobs.simulate import World, simulate
from tests.begun import SMALL

ROOT = Path(__file__).parents[2]
PRESETS = sorted(path.stem for path in (ROOT / "conf/presets").glob("*.yaml") if "." not in path.stem)
DAY = date(2024, 6, 16)
# Preset -> what an item's attributes say that must not be listed on that day, and of one that may.
OUT = {
    "shop": [({"available": "No"}, {"available": "yes"}), ({"until": "2024-06-15"}, {"until": "2024-06-16"})],
    "video": [
        ({"available_from": "2024-06-17"}, {"available_from": "2024-06-16"}),
        ({"available_until": "2024-06-15"}, {"available_until": "2024-06-16"}),
    ],
    "music": [({"released": "2024-06-17"}, {"released": "2024-06-16"})],
    "news": [({"published": "2024-06-12"}, {"published": "2024-06-13"})],
    "games": [({"withdrawn": "yes"}, {"withdrawn": "no"})],
    "travel": [
        ({"open_from": "2024-06-17"}, {"open_from": "2024-06-16"}),
        ({"open_until": "2024-06-15"}, {"open_until": "2024-06-16"}),
    ],
}
# What stands for the preset's events in a simulated log, which knows searches, views, clicks, carts, purchases and visits.
PLAYED = {
    "shop": {"search": "search", "view": "view", "click": "click", "check_in": "click", "cart": "cart",
             "purchase": "purchase", "review": "review"},
    "video": {"search": "search", "view": "view", "click": "play", "check_in": "play", "cart": "like", "purchase": "finish",
              "review": "rating"},
    "music": {"search": "search", "view": "skip", "click": "play", "check_in": "play", "cart": "save", "purchase": "save",
              "review": "save"},
    "news": {"search": "search", "view": "view", "click": "read", "check_in": "read", "cart": "share", "purchase": "share",
             "review": "share"},
    "games": {"search": "search", "view": "view", "click": "play", "check_in": "play", "cart": "install",
              "purchase": "purchase", "review": "rating"},
    "travel": {"search": "search", "view": "view", "click": "click", "check_in": "check_in", "cart": "save",
               "purchase": "booking", "review": "rating"},
}  # fmt: skip


def rows_of(settings, statement):
    return json.loads(render(answer(settings, statement), "json"))


def source_of(preset):
    return yaml.safe_load(find(f"conf/presets/{preset}.source.yaml").read_text())


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_whole(preset):
    settings = load_settings(f"conf/presets/{preset}.yaml")
    mapping = settings.mapping
    weighed, rewarded = settings.label.event_weights, settings.policy.rewards
    assert set(mapping.target_events) <= set(weighed), "what is predicted is weighed by name"
    assert min(weighed.values()) < 0 < max(weighed.values()) and set(rewarded) - set(load_settings().policy.rewards) <= set(
        weighed
    )
    told = (ROOT / "README.md").read_text()
    assert f"[{preset}](conf/presets/{preset}.yaml)" in told
    # What its rules ask of items is mapped.
    rules = " ".join([settings.score.block or "", *settings.score.boost])
    asked = {part.split("'")[0] for part in rules.split("attributes['")[1:]}
    assert asked <= set(mapping.items.attributes)


def test_each_has_its_case_here():
    assert sorted(OUT) == sorted(PLAYED) == PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_its_rules_block_what_must_not_be_listed(spark, preset):
    rules = load_settings(f"conf/presets/{preset}.yaml").score
    cases = [("nothing said", None), ("nonsense", dict.fromkeys(source_of(preset)["items"]["attributes"], "?"))]
    for number, (out, fine) in enumerate(OUT[preset]):
        cases += [(f"out {number}", out), (f"fine {number}", fine)]
    items = spark.createDataFrame(cases, "item_id string, attributes map<string,string>")
    found = {row["item_id"]: row["blocked"] for row in ruled(items, rules, DAY).collect()}
    assert found == {name: name.startswith("out") for name, _ in cases}


@pytest.mark.soak
@pytest.mark.parametrize("preset", PRESETS)
def test_a_simulated_log_runs_with_it(spark, tmp_path, preset):
    """Two nights: the lists keep the preset's limits, and hold nothing that was taken where items do not repeat."""
    simulate(spark, tmp_path, World(users=40, items=80, days=28, end_day=DAY, seed=4))
    played, source = source_of(preset), yaml.safe_load(find("conf/sources/simulated.yaml").read_text())
    source |= {"target_events": played["target_events"], "repeats": played["repeats"]}
    source["events"] |= {"event_types": PLAYED[preset]}
    (tmp_path / "log.yaml").write_text(yaml.safe_dump(source))
    more = [f"lake={tmp_path / 'lake'}", f"report.path={tmp_path / 'report.html'}"]
    more += [f"sources.events.path={tmp_path / 'landing'}", f"sources.events.mapping={tmp_path / 'log.yaml'}"]
    settings = load_settings(f"conf/presets/{preset}.yaml", [*more, *SMALL])
    run(spark, settings, DAY - timedelta(days=1), bootstrap=True)
    run(spark, settings, DAY)
    check_lists(settings, played)


def check_lists(settings, played):
    lists = rows_of(
        settings, "SELECT r.user_id, r.slot, r.item_id, i.category, i.brand FROM recommendations r JOIN items i USING (item_id)"
    )
    assert lists
    for key, most in settings.score.caps.items():
        counts = {}
        for row in lists:
            if row[key] is not None:
                place = (row["user_id"], row["slot"], row[key])
                counts[place] = counts.get(place, 0) + 1
        assert max(counts.values()) <= most
    if not played["repeats"]:
        types = ", ".join(f"'{kind}'" for kind in played["target_events"])
        taken = rows_of(settings, f"SELECT DISTINCT user_id, item_id FROM events WHERE event_type IN ({types})")
        assert taken
        assert not {(row["user_id"], row["item_id"]) for row in lists} & {(row["user_id"], row["item_id"]) for row in taken}
