"""Segments of moments, and that sums over parts of the users are the sums over all."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from models import judging, metrics
from models.baselines import baseline
from models.counts import count
from models.histories import event_columns
from models.judging import Contender, Sums, Terms, verdicts
from models.queries import Vocabulary
from models.replay import LAKE, NEW, TAKEN, Options, answers, queries, read_log, sight
from models.segments import segments

ITEMS = ("a", "b", "c", "d")
VOCABULARY = Vocabulary(items=ITEMS, item_categories=("x", "y", "x", ""), categories=("x", "y"), event_types=("visit",))
START = datetime(2024, 1, 1, 9, tzinfo=UTC)  # a Monday
SCHEMA = pa.schema(
    {
        "user_id": pa.string(), "origin": pa.int32(), "row": pa.int64(), "event_timestamp": pa.timestamp("us", tz="UTC"),
        "event_id": pa.string(), "item_id": pa.string(), "event_type": pa.string(), "category": pa.string(),
        "local_timestamp": pa.timestamp("us", tz="UTC"), "latitude": pa.float64(), "longitude": pa.float64(),
        "region": pa.string(), "groups": pa.map_(pa.string(), pa.string()),
    }
)  # fmt: skip


def event(hours, item, row=None, user="u", **more):
    when = START + timedelta(hours=hours)
    return {
        "user_id": user, "origin": LAKE if row is None else NEW, "row": row, "event_timestamp": when, "event_id": f"{hours:05}",
        "item_id": item, "event_type": "visit", "category": "x", "local_timestamp": when, "latitude": None,
        "longitude": None, "region": "R", "groups": None, **more,
    }  # fmt: skip


def taken(item, user="u"):
    return event(0, item, user=user, event_timestamp=None, origin=TAKEN, event_id="")


def table(*rows):
    rows = sorted(rows, key=lambda row: (row["user_id"], row["event_timestamp"] or datetime.min.replace(tzinfo=UTC)))
    return pa.table({name: [row[name] for row in rows] for name in SCHEMA.names}, schema=SCHEMA)


def segments_of(*rows):
    log = read_log(table(*rows))
    seen, events = sight(log, freeze_history=False), event_columns(VOCABULARY, log.columns)
    found = segments(log, seen, events, queries(log, seen, events, hide_time=False), VOCABULARY)
    order = np.argsort(log.row_Q)
    return {name: values[order].tolist() for name, values in found.items()}


def test_moments_are_told_apart_by_what_was_known_before_them():
    month = 24 * 29
    found = segments_of(
        taken("c"),
        event(0, "a", row=0),
        event(1, "b", row=1, region="S"),
        event(2, "c", row=2),
        event(month, "a", row=3),
        event(month + 1, "new in town", row=4),
        event(month + 1, "b", row=5, user="another"),
    )
    assert found["item"] == ["new", "new", "again", "again", "cold", "new"]
    assert found["known"] == ["0", "1-9", "1-9", "1-9", "1-9", "0"]
    assert found["active"] == ["0-4"] * 6
    assert found["region"] == [None, "R", "S", "R", "R", None], "where the user was last, not where the event is"
    # The clock is known from the first event on: 10 and 11 h of a Monday; 29 days later it is Tuesday.
    assert found["slot"] == [None, "weekday_morning", "weekday_morning", "weekday_morning", "weekday_morning", None]


def test_activity_counts_the_28_days_before():
    rows = [event(hours, "a") for hours in range(30)]
    found = segments_of(*rows, event(28 * 24 + 10, "b", row=0), event(28 * 24 + 25.5, "b", row=1), event(60 * 24, "b", row=2))
    assert found["active"] == ["20+", "5-19", "0-4"] and found["known"] == ["10-49"] * 3


def test_a_log_without_times_and_places_has_no_such_segments():
    rows = [event(hours, "a", row=hours, local_timestamp=None, region=None) for hours in range(3)]
    assert set(segments_of(*rows)) == {"known", "item"}


def test_attributes_of_users_are_dimensions_and_who_has_none_is_in_none():
    young, other = {"band": "young", "language": "pt"}, {"band": None}
    rows = [event(1, "a", row=0, groups=young), event(2, "b", row=1, user="v", groups=other), event(3, "c", row=2, user="w")]
    found = segments_of(event(0, "a"), *rows)
    assert found["band"] == ["young", None, None] and found["language"] == ["pt", None, None]


def week(seed, users=12):
    random = np.random.default_rng(seed)
    items = [*ITEMS, "elsewhere"]
    return {
        f"u{user}": [
            event(hours, items[random.integers(5)], row=1000 * user + hours if hours > 40 else None, user=f"u{user}")
            for hours in sorted(random.choice(100, 15, replace=False).tolist())
        ]
        for user in range(users)
    }


def contenders():
    counts = count(VOCABULARY, ("visit",), (ITEMS, [9, 5, 3, 1], [9, 5, 3, 1]), (["a", "b"], ["c", "d"], [3, 2]))
    names = ("popularity", "user_frequency", "markov")
    return [Contender(name=name, ranker=baseline(name, counts)) for name in names]


TERMS = Terms(
    options=Options(length=10, target_types=("visit",)), ks=(1, 10), samples=20, compared=("markov", "popularity", ("ndcg", 10))
)


def judged(*parts, terms=TERMS):
    rows = []
    for part in parts:
        sums = Sums(contenders(), terms)
        for user in part:
            sums.add(read_log(table(*user)))
        for batch in sums.rows():
            rows += [tuple(row[name] for name in judging.ROW) for row in batch.to_pylist()]
    return verdicts(rows, terms)


def test_sums_over_parts_of_the_users_are_the_sums_over_all():
    log = week(5)
    users = list(log.values())
    whole, parts = judged(users), judged(users[:3], users[3:4], users[4:])
    assert whole.paired is not None and parts.paired is not None
    assert whole.paired.flat() == pytest.approx(parts.paired.flat())
    for name, one in whole.judged.items():
        other = parts.judged[name]
        assert one.tally.flat() == pytest.approx(other.tally.flat()) and one.coverage == other.coverage
        assert one.classes_3C.tolist() == other.classes_3C.tolist()
        assert {key: tally.flat() for key, tally in one.segments.items()} == {
            key: pytest.approx(tally.flat()) for key, tally in other.segments.items()
        }


def test_the_segments_of_a_dimension_add_up_to_all_and_hold_the_means_of_their_moments():
    rows = [row for user in week(6).values() for row in user]
    log = read_log(table(*rows))
    found = judged([rows]).judged["markov"]
    ranks = answers(log, contenders()[2].ranker, TERMS.options).rank_Q
    kinds = segments_of(*rows)
    order = np.argsort(log.row_Q)
    for dimension, names in kinds.items():
        mine = {key.split("=")[1]: tally for key, tally in found.segments.items() if key.startswith(f"{dimension}=")}
        assert {name: tally.events for name, tally in mine.items()} == Counter(name for name in names if name is not None)
        for name, tally in mine.items():
            own = ranks[order][np.array(names) == name]
            assert tally.mean_M.tolist() == pytest.approx(metrics.values(own, judging.BY_SEGMENT).mean(axis=0).tolist())
    assert sum(found.segments[f"item={kind}"].events for kind in ("again", "new", "cold")) == found.tally.events


def test_moments_count_what_their_events_are_worth_and_actions_are_told_apart():
    rows = [
        row | {"event_type": "buy" if number % 3 == 0 else "visit"}
        for user in week(8).values()
        for number, row in enumerate(user)
    ]
    options = Options(length=10, target_types=("visit", "buy"), worth={"visit": 0.25})
    found = judged([rows], terms=replace(TERMS, options=options))
    log = read_log(table(*rows))
    bought = np.array(log.event_type_Q.to_pylist()) == "buy"
    worth = np.where(bought, 1.0, 0.25)
    assert 0 < bought.sum() < len(bought)
    rank = {one.name: answers(log, one.ranker, options).rank_Q for one in contenders()}
    plain = judged([rows], terms=replace(TERMS, options=replace(options, worth={}))).judged
    for name, one in found.judged.items():
        ndcg = metrics.ndcg(rank[name], 10)
        assert one.mean(("ndcg", 10)) == pytest.approx((ndcg * worth).sum() / worth.sum())
        assert one.tally.events == len(worth) and one.tally.weight_M[0] == pytest.approx(worth.sum())
        assert one.mean(("diversity", 10)) == pytest.approx(plain[name].mean(("diversity", 10))), (
            "of what lists are like each counts 1"
        )
        for action, chosen in (("buy", bought), ("visit", ~bought)):
            part = one.segments[f"action={action}"]
            assert part.events == chosen.sum() and part.mean_M[0] == pytest.approx(ndcg[chosen].mean())
    lead = metrics.ndcg(rank["markov"], 10) - metrics.ndcg(rank["popularity"], 10)
    assert found.paired.mean_M[judging.DIFFERENCE] == pytest.approx((lead * worth).sum() / worth.sum())
    of_one = judged([rows]).judged["markov"]
    assert not any(name.startswith("action") for name in of_one.segments), "of one action there is nothing to tell apart"


def test_categories_of_the_best_item_against_those_of_the_target():
    rows = [row for user in week(7).values() for row in user]
    log = read_log(table(*rows))
    found = judged([rows]).judged["markov"]
    answer = answers(log, contenders()[2].ranker, TERMS.options, k=10)
    of = dict(zip(ITEMS, VOCABULARY.item_categories, strict=True))
    pairs = [
        (of[target], of[ITEMS[best]])
        for target, best in zip(log.item_Q.to_pylist(), answer.best_QK[:, 0], strict=True)
        if of.get(target)
    ]
    assert found.category_accuracy == pytest.approx(np.mean([one == other for one, other in pairs]))
    f1 = []
    for name in ("x", "y"):
        right = sum(one == other == name for one, other in pairs)
        f1.append(2 * right / (sum(one == name for one, _ in pairs) + sum(other == name for _, other in pairs)))
    assert found.category_macro_f1 == pytest.approx(np.mean(f1))
