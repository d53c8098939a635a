"""What the simulator planted, and what the rules caught of it: precision and recall by hand-made keys."""

from __future__ import annotations

import json
from collections import Counter
from datetime import date

import pandas as pd
import pytest
from pyspark.sql import functions as F

from conf.settings import load_settings
from jobs.lake.identities import load_key, pseudonym
from jobs.lake.runs import pins
from jobs.lake.store import Lake
from jobs.pipeline import choose
from jobs.runner import run
from jobs.simulate import World, simulate

END = date(2024, 5, 12)
KIND_OF = {"near_duplicate": "near_duplicate", "impossible_speed": "position_jump"}
RATES = {
    "few": {"bot_rate": 0.005, "position_rate": 0.003, "near_duplicate_rate": 0.003},
    "many": {"bot_rate": 0.05, "position_rate": 0.06, "near_duplicate_rate": 0.05},
}


@pytest.fixture(scope="module", params=[pytest.param("few", marks=pytest.mark.soak), "many"])
def caught(request, spark, tmp_path_factory):
    """Reason -> (precision, recall, planted) in a world with these rates."""
    folder = tmp_path_factory.mktemp(request.param) / "world"
    simulate(spark, folder, World(users=400, items=150, days=7, end_day=END, seed=11, **RATES[request.param]))
    lake = tmp_path_factory.mktemp("lake")
    settings = load_settings(overrides=[f"lake={lake}", f"sources.events.path={folder / 'landing'}"])
    run(spark, settings, END, steps=choose(to_step="clean"), bootstrap=True)
    refused = Lake(spark, str(lake)).read("events_quarantine", pins(str(lake))["events_quarantine"])
    refused = refused.select("user_id", "row", "day", F.explode("reasons").alias("reason"))
    found = refused.toPandas()
    return {reason: scores(found[found["reason"] == reason], planted(folder, kind)) for reason, kind in KIND_OF.items()} | {
        "bot": scores(found[found["reason"].str.startswith("bot_")].drop_duplicates(["row", "day"]), bots(folder), by_user=True)
    }


def key_of(user, item, kind, at, day):
    return (user, item or "", kind or "", at or "", str(day))


def planted(folder, kind) -> Counter:
    rows = pd.read_csv(folder / "truth" / "defective_rows.csv", dtype=str, keep_default_na=False)
    rows = rows[rows["kind"] == kind]
    users = {user: pseudonym(user, load_key()) for user in rows["user_id"].unique()}
    return Counter(
        key_of(users[row.user_id], row.item_id, row.event_type, row.event_timestamp, row.day) for row in rows.itertuples()
    )


def bots(folder) -> Counter:
    """Every row of a bot, by user and landing day."""
    users = pd.read_csv(folder / "truth" / "users.csv", dtype=str)
    names = {user: pseudonym(user, load_key()) for user in users.loc[users["is_bot"] == "true", "user_id"]}
    rows: Counter = Counter()
    for file in sorted((folder / "landing").glob("*/events*")):
        for line in file.read_text().splitlines():
            try:
                user = json.loads(line).get("user_id")
            except ValueError:
                continue
            if user in names:
                rows[names[user], file.parent.name] += 1
    return rows


def scores(found, truth: Counter, by_user: bool = False) -> tuple[float, float, int]:
    if by_user:
        ours = Counter((row.user_id, str(row.day)) for row in found.itertuples())
    else:
        rows = [(row.user_id, json.loads(row.row), row.day) for row in found.itertuples()]
        ours = Counter(key_of(user, of.get("item_id"), of.get("event_type"), of["event_time"], day) for user, of, day in rows)
    hits = sum((ours & truth).values())
    return hits / max(sum(ours.values()), 1), hits / max(sum(truth.values()), 1), sum(truth.values())


@pytest.mark.parametrize(
    ("reason", "precision", "recall"), [("near_duplicate", 0.9, 0.95), ("impossible_speed", 0.95, 0.8), ("bot", 0.99, 0.95)]
)
def test_planted_defects_are_caught_and_little_else(caught, reason, precision, recall, record_property):
    found_precision, found_recall, rows = caught[reason]
    record_property(reason, f"precision {found_precision:.3f}, recall {found_recall:.3f} of {rows} rows")
    assert rows >= 5, "nothing was planted"
    assert found_precision >= precision and found_recall >= recall, (reason, caught[reason])
