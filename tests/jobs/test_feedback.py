"""What comes back of lists is matched to the lists as they were, or kept with the reason; what is told again counts once."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import pytest
from pyspark.sql import functions as F

from conf.contracts import AGAINST, ANY_SLOT, IMPRESSION
from conf.mapping import Feedback as Feed
from conf.tables import TABLES
from jobs.feedback import dismissed, matched, once, parsed
from jobs.lake.schema import spark_schema
from jobs.lake.store import Days
from jobs.policy import answered, surely_lost, told
from jobs.score.blending import SOURCES, TOGETHER, context_of
from models.policy import Feedback, Limits, Policy, evidence
from tests import planting

DAY = date(2024, 5, 10)
FEED = Feed.model_validate(
    {
        "columns": {
            "user_id": "u", "event_type": "t", "event_time": "at", "list_day": "d", "rank": "r", "item_id": "i", "slot": "s",
        },
        "event_types": {"shown": IMPRESSION},
    }
)  # fmt: skip
TOLD = {
    "row_hash": "h", "user_id": "anna", "event_type": "click", "event_time": "2024-05-10T08:00:00Z", "list_day": "2024-05-09",
    "slot": None, "rank": "1", "item_id": "i1", "model_version": None, "broken": None, "day": DAY,
}  # fmt: skip
LISTED = {
    "user_id": "anna", "slot": ANY_SLOT, "rank": 1, "item_id": "i1", "score": 1.0, "source": "own+popular", "reason": "",
    "model_version": "m1", "policy_version": "p1", "propensity": 0.25, "policy_context": "JP/Tokyo|new", "holdout": False,
    "gone": False, "changed_on": date(2024, 5, 6), "day": date(2024, 5, 6),
}  # fmt: skip
REWARDS = {"click": 0.5, "purchase": 1.0, "dismiss": -1.0}


def rows(spark, table, base, changes):
    schema = ", ".join(f"{one.name} {one.type}" for one in TABLES[table].columns)
    given = [{**base, "row_hash": f"h{n}", **change} for n, change in enumerate(changes)]
    return spark.createDataFrame([tuple(row[one.name] for one in TABLES[table].columns) for row in given], schema)


def looked_up(spark, changes, lists=({},)):
    told_ = parsed(rows(spark, "raw_feedback", TOLD, changes), FEED, [IMPRESSION, *AGAINST, *REWARDS])
    return matched(told_, rows(spark, "recommendations", LISTED, lists), answer_days=7)


REASONS = [
    ({}, None),
    ({"list_day": "2024-05-06"}, None),
    ({"event_type": "shown"}, None),
    ({"item_id": "i2"}, "other_item"),
    ({"rank": "2"}, "no_entry"),
    ({"slot": "weekday_morning"}, "no_entry"),
    ({"user_id": "bert"}, "no_entry"),
    ({"list_day": "2024-05-05"}, "no_entry"),
    ({"list_day": "2024-05-02"}, "too_old"),
    ({"list_day": "2024-05-10"}, "not_yet"),
    ({"model_version": "m2"}, "other_version"),
    ({"event_type": "stare"}, "unknown_type"),
    ({"event_type": None}, "unknown_type"),
    ({"event_time": "2024-05-11T00:00:00Z"}, "future"),
    ({"event_time": "2024-05-08T23:00:00Z"}, "before_its_list"),
    ({"rank": "first"}, "unreadable"),
    ({"rank": "99999999999"}, "unreadable"),
    ({"list_day": "yesterday"}, "unreadable"),
    ({"list_day": "300000-01-01"}, "unreadable"),
    ({"list_day": "10000-01-01"}, "unreadable"),
    ({"list_day": "0001-01-01"}, "unreadable"),
    ({"event_time": "300000-01-01T00:00:00Z"}, "unreadable"),
    ({"rank": "-1"}, "no_entry"),
    ({"event_time": "soon"}, "unreadable"),
    ({"user_id": None}, "unreadable"),
    ({"item_id": None}, "unreadable"),
    ({"broken": "{]"}, "broken"),
]


def test_what_cannot_be_matched_says_why(spark):
    found = {row.row_hash: row for row in looked_up(spark, [change for change, _ in REASONS]).collect()}
    assert len(found) == len(REASONS), "no row is lost"
    for number, (change, why) in enumerate(REASONS):
        assert found[f"h{number}"].unmatched == why, change
    good = found["h0"]
    assert (good.source, good.propensity, good.policy_context, good.list_day) == (
        "own+popular", 0.25, "JP/Tokyo|new", date(2024, 5, 6),
    )  # fmt: skip
    assert all(row.source is None for row in found.values() if row.unmatched)


def test_a_list_is_the_newest_made_up_to_the_day_and_none_after_it_is_gone(spark):
    lists = [
        {"day": date(2024, 5, 1)},  # a keyframe's copy of what was made before
        {"item_id": "i2", "changed_on": date(2024, 5, 8), "day": date(2024, 5, 8)},
        {"user_id": "bert", "changed_on": date(2024, 5, 6)},
        {"user_id": "bert", "item_id": "", "gone": True, "changed_on": date(2024, 5, 9), "day": date(2024, 5, 9)},
    ]
    changes = [
        {"item_id": "i2"},
        {"item_id": "i1"},
        {"item_id": "i1", "list_day": "2024-05-07"},
        {"user_id": "bert", "list_day": "2024-05-08"},
        {"user_id": "bert"},
    ]
    found = sorted(looked_up(spark, changes, lists).collect(), key=lambda row: row.row_hash)
    assert [row.unmatched for row in found] == [None, "other_item", None, None, "no_entry"]


def test_what_is_told_again_is_the_same_thing(spark):
    changes = [
        {},
        {"event_time": "2024-05-10T09:00:00Z"},
        {"list_day": "2024-05-07"},
        {"event_type": "purchase"},
    ]
    kept = once(looked_up(spark, [*changes, {"event_time": "2024-05-09T09:00:00Z"}, *[{"item_id": "i2"}] * 50])).collect()
    assert sorted((row.event_type, row.item_id, row.unmatched) for row in kept) == [
        ("click", "i1", None), ("click", "i1", None), ("click", "i2", "other_item"), ("purchase", "i1", None),
    ]  # fmt: skip
    matched_at = {row.event_timestamp for row in kept if row.unmatched is None}
    assert matched_at == {datetime(2024, 5, 10, 8), datetime(2024, 5, 9, 9)}


def fed(spark, changes):
    """Rows of `feedback`."""
    base = {
        "feedback_id": "f", "user_id": "anna", "event_type": IMPRESSION, "event_timestamp": datetime(2024, 5, 10),
        "item_id": "i1", "list_day": date(2024, 5, 9), "slot": ANY_SLOT, "rank": 1, "unmatched": None, "source": "ranked",
        "model_version": "m1", "policy_version": "p1", "propensity": 0.5, "policy_context": "JP/Tokyo|new", "day": DAY,
    }  # fmt: skip
    return rows(spark, "feedback", base, changes)


def test_entries_earn_what_was_done_to_them_within_0_and_1_and_once(spark):
    later = {"event_timestamp": datetime(2024, 5, 11)}
    click, purchase, dismiss = ({"event_type": name} for name in ("click", "purchase", "dismiss"))
    now = [
        {"rank": 1}, {**click, "rank": 1},
        {"rank": 2}, {**click, "rank": 2}, {**purchase, "rank": 2},
        {"rank": 3}, {**dismiss, "rank": 3},
        {**click, "rank": 4},  # nobody says that it was shown
        {**purchase, "rank": 5},  # clicked the day before
        {**click, "rank": 6}, {"rank": 6},
        {"rank": 7, "unmatched": "other_item"}, {"rank": 8, "policy_version": None},
        {"rank": 9},  # clicked before anybody said that it was shown
        {"rank": 11}, {**later, "rank": 11}, {**purchase, "rank": 11}, {**purchase, **later, "rank": 11},  # on two days
        {"rank": 12}, {**click, "rank": 12}, {**purchase, "rank": 12}, {**later, "rank": 12},  # more than enough on one of two
    ]  # fmt: skip
    before = [{"rank": 5}, {**click, "rank": 5}, {"rank": 10}, {**click, "rank": 10}, {**click, "rank": 9}, {"rank": 11}]
    found = answered(fed(spark, now), fed(spark, before), REWARDS).collect()
    assert sorted((row["rank"], row.shown, row.reward) for row in found) == [
        (1, 1, 0.5), (2, 1, 1.0), (3, 1, 0.0), (5, 0, 0.5), (6, 1, 0.5), (9, 1, 0.5), (11, 2, 2.0), (12, 2, 1.0),
    ]  # fmt: skip


def test_sums_over_entries_are_those_of_the_reference(spark):
    rng, entries = np.random.default_rng(1), 600
    policy, k = Policy.first(SOURCES, Limits(lists_per_user=0.5)), 8
    shuffled = np.array([2000.0, 2000.0, 2000.0]), np.array([300.0, 150.0, 100.0])
    nothing = np.zeros(0, int)
    empty = Feedback(
        contexts=(), context_E=nothing, user_E=nothing, rank_E=nothing, agreed_E=nothing, propensity_E=nothing,
        reward_E=nothing, shown_E=nothing,
    )  # fmt: skip
    policy = policy.after(evidence(empty, policy, np.ones(3), shuffled))
    examined = policy.examined(k)
    agreed = rng.integers(1, 1 << len(SOURCES), entries)
    contexts = [("JP/Tokyo|new", "any"), ("JP/Tokyo|active", "weekday_night"), ("|some", "any")]
    made = {
        "context": rng.integers(0, 3, entries), "user": rng.integers(0, 40, entries), "rank": rng.integers(0, k, entries),
        "propensity": rng.uniform(0.01, 1, entries), "reward": rng.choice([-0.5, 0, 0.5, 1], entries),
        "shown": rng.integers(0, 3, entries).astype(float), "shuffled": rng.random(entries) < 0.2,
    }  # fmt: skip
    given = [
        (
            f"u{made['user'][n]}", contexts[made["context"][n]][1], int(made["rank"][n]) + 1,
            "shuffled" if made["shuffled"][n] else TOGETHER.join(s for b, s in enumerate(SOURCES) if agreed[n] >> b & 1),
            float(made["propensity"][n]), contexts[made["context"][n]][0], float(made["shown"][n]), float(made["reward"][n]),
        )
        for n in range(entries)
    ]  # fmt: skip
    names = "user_id string, slot string, rank int, source string, propensity double, policy_context string"
    schema = f"{names}, shown double, reward double"
    found = told(spark.createDataFrame(given, schema).repartition(3), policy, k)
    again = told(spark.createDataFrame(given[::-1], schema).repartition(5, "rank"), policy, k)
    assert policy.after(found).version == policy.after(again).version, "in whatever order rows come"
    kept, at = ~made["shuffled"], made["shuffled"]
    # Of shuffled lists too nobody counts for more than so many.
    of_user = np.where(at, np.maximum(examined[made["rank"]] * made["shown"], np.abs(made["reward"])), 0.0)
    of_user = np.bincount(made["user"], weights=of_user)
    counts = np.minimum(1.0, policy.limits.lists_per_user * examined.sum() / np.maximum(of_user, 1e-12))[made["user"]]
    reference = evidence(
        Feedback(
            contexts=tuple(context_of(*one) for one in contexts), context_E=made["context"][kept], user_E=made["user"][kept],
            rank_E=made["rank"][kept], agreed_E=agreed[kept], propensity_E=made["propensity"][kept],
            reward_E=made["reward"][kept], shown_E=made["shown"][kept],
        ),
        policy,
        examined,
        (
            np.bincount(made["rank"][at], weights=made["shown"][at] * counts[at], minlength=k),
            np.bincount(made["rank"][at], weights=made["reward"][at] * counts[at], minlength=k),
        ),
    )  # fmt: skip
    order = [found.contexts.index(context) for context in reference.contexts]
    for name in ("seen_CS", "spread_CS", "earned_CS"):
        assert getattr(found, name)[order] == pytest.approx(getattr(reference, name), rel=1e-6, abs=1e-5), name
    for name in ("shown_K", "answered_K"):
        assert getattr(found, name) == pytest.approx(getattr(reference, name), rel=1e-6, abs=1e-5), name


def test_a_night_counts_what_came_and_keeps_what_came_before_apart(spark, make_context):
    """Through the step: what was told on an earlier day is not told again."""
    from jobs import feedback

    first_day = date(2024, 5, 6)
    context = make_context(first_day)
    context.lake.replace("recommendations", rows(spark, "recommendations", LISTED, [{}]), "day = '2024-05-06'")
    yesterday = DAY - timedelta(days=1)
    early = {"day": yesterday, "event_time": "2024-05-09T10:00:00Z", "list_day": "2024-05-06"}
    again = {"event_time": "2024-05-09T11:00:00Z"}
    context.lake.replace("raw_feedback", rows(spark, "raw_feedback", TOLD, [early, {}, {}, again, {"item_id": "i2"}]), "true")
    for day in (yesterday, DAY):
        context = make_context(day, first_day=first_day)
        mapping = context.settings.mapping.model_copy(update={"feedback": FEED})
        object.__setattr__(context, "settings", _Mapped(context.settings, mapping))
        feedback.run(context)
    assert context.details["feedback"] == {"matched": 1, "other_item": 1, "told_again": 2}
    assert context.details["unmatched_share"] == 0.5
    stored = context.lake.read("feedback", context.lake.version("feedback"))
    assert {(row.day.day, row.unmatched) for row in stored.collect()} == {(9, None), (10, None), (10, "other_item")}
    assert stored.where(F.col("feedback_id").isNull()).count() == 0


def test_what_users_turned_against_counts_whatever_entry_they_named(spark, make_context):
    plain = {name: None for name in TABLES["feedback"].names} | {"user_id": "anna", "event_type": "dismiss", "day": DAY}
    yesterday = DAY - timedelta(days=1)
    given = [
        {"item_id": "i1"}, {"item_id": "i2", "event_type": "dislike", "unmatched": "too_old", "day": yesterday},
        {"item_id": "i3", "unmatched": "other_item", "user_id": "bert"}, {"item_id": "i4", "unmatched": "future"},
        {"item_id": "i5", "event_type": "click"}, {"item_id": "i6", "unmatched": "not_yet"}, {"unmatched": "unreadable"},
    ]  # fmt: skip
    rows_ = [tuple({**plain, "feedback_id": str(number), **one}.values()) for number, one in enumerate(given)]
    context = make_context(yesterday)
    context.lake.replace("feedback", spark.createDataFrame(rows_, spark_schema(TABLES["feedback"])), "true")
    context = make_context(DAY, first_day=yesterday)
    found = {tuple(row) for row in dismissed(context, Days(first=yesterday, last=DAY)).collect()}
    assert found == {("anna", "i1", DAY), ("anna", "i2", yesterday), ("bert", "i3", DAY)}
    assert {row.item_id for row in dismissed(context, Days(first=DAY, last=DAY)).collect()} == {"i1", "i3"}


class _Mapped:
    """Settings under another mapping."""

    def __init__(self, settings, mapping):
        self._settings, self.mapping, self.feedback = settings, mapping, mapping.feedback

    def __getattr__(self, name):
        return getattr(self._settings, name)


def moved(policy, source, share):
    """That much of every list from a source, the rest as before."""
    place = SOURCES.index(source)
    others = 1.0 - policy.share_CS[:, place]
    share_CS = policy.share_CS * ((1.0 - share) / others)[:, None]
    share_CS[:, place] = share
    return replace(policy, share_CS=share_CS)


def test_shares_that_weeks_of_lists_speak_against_are_not_moved_to(make_context, make_settings):
    settings = make_settings("conf/local.yaml", "policy.by=feedback")
    before = moved(Policy.first(SOURCES), "random", 0.2)
    rng, told = np.random.default_rng(4), []
    for number in range(900):
        name = SOURCES[rng.choice(len(SOURCES), p=before.share_CS[0])]
        at = DAY - timedelta(days=1 + number % 20)
        row = {
            "feedback_id": f"{number}", "user_id": f"{number % 256:02x}{number}", "source": name, "day": at, "list_day": at,
            "propensity": float(before.share_CS[0, SOURCES.index(name)]), "event_timestamp": datetime.combine(at, time(9), UTC),
        }  # fmt: skip
        told.append(row)
        if rng.random() < (0.05 if name == "random" else 0.4):
            told.append({**row, "feedback_id": f"{number}p", "event_type": "purchase"})
    base = {
        "event_type": IMPRESSION, "item_id": "i1", "slot": ANY_SLOT, "rank": 1, "unmatched": None, "model_version": "m1",
        "policy_version": "p1", "policy_context": "JP/Tokyo|new",
    }  # fmt: skip
    first = DAY - timedelta(days=30)
    planting.write(make_context(first, DAY, bootstrap=True, settings=settings), "feedback", [{**base, **row} for row in told])
    night = make_context(DAY, first_day=first, settings=settings)
    assert "less each" in (surely_lost(night, before, moved(before, "random", 0.4)) or "")
    assert surely_lost(night, before, moved(before, "random", 0.05)) is None, "it would earn more"
    assert surely_lost(night, before, before) is None
    few = make_context(DAY - timedelta(days=20), first_day=first, settings=settings)
    assert surely_lost(few, before, moved(before, "random", 0.4)) is None, "of a day too few have answered"
