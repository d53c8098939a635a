"""Baselines made of the user's own past, against the same written out item by item."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest

from conf.baselines import Als, Baselines, Content, ItemCf, Kernels
from models.baselines import baseline
from models.collaborative import als, item_cf
from models.counts import count
from models.personal import content, kernels
from models.queries import FIRST, UNKNOWN, Histories, Queries, Vocabulary

ITEMS = ("a", "b", "c", "d", "e")
CATEGORIES = ("bar", "bar", "shop", "", "shop")
VOCABULARY = Vocabulary(items=ITEMS, item_categories=CATEGORIES, categories=("bar", "shop"), event_types=("visit", "view"))
EVENTS = (["a", "b", "c", "d"], [10, 7, 5, 1], [8, 4, 2, 0])
COUNTS = count(VOCABULARY, ("visit",), EVENTS, ([], [], []))
DAY = 86_400
NOW, HOUR = 100 * DAY, 34.0


def histories(*rows, length=6):
    """Each history a list of (item, days ago, hour of the week)."""
    shape = (len(rows), length)
    item, when = np.zeros(shape, np.int32), np.zeros(shape, np.int64)
    hour = np.full(shape, -1.0, np.float32)
    for number, row in enumerate(rows):
        for place, (name, days, clock) in enumerate(reversed(row), start=1):
            item[number, -place] = ITEMS.index(name) + FIRST if name in ITEMS else UNKNOWN
            when[number, -place], hour[number, -place] = NOW - days * DAY, clock
    nowhere = np.full(shape, np.nan, np.float32)
    return Histories(
        item_BL=item, category_BL=np.ones_like(item), event_type_BL=np.where(item > 0, FIRST, 0).astype(np.int32),
        timestamp_BL=when, hour_of_week_BL=hour, latitude_BL=nowhere, longitude_BL=nowhere,
    )  # fmt: skip


def queries(count, hour=HOUR):
    nowhere = np.full(count, np.nan, np.float32)
    clock = np.full(count, hour, np.float32)
    return Queries(timestamp_B=np.full(count, NOW), hour_of_week_B=clock, latitude_B=nowhere, longitude_B=nowhere)


HISTORIES = (
    [],
    [("a", 9, 34.0)],
    [("b", 30, 130.0), ("a", 8, 20.0), ("b", 2, 35.0), ("a", 1, 34.0)],
    [("zz", 5, 3.0), ("c", 4, 160.0), ("c", 3, -1.0), ("d", 0, 33.0)],
)


def shares():
    total = sum(EVENTS[1]) + len(ITEMS)
    return {name: (dict(zip(*EVENTS[:2], strict=True)).get(name, 0) + 1) / total for name in ITEMS}


def direct_kernels(history, given, hour):
    taken = [event for event in history if event[0] in ITEMS]
    before = [None, *(event[0] for event in taken)][:-1] if taken else []
    last = taken[-1][0] if taken else None

    def weights(kernel):
        for (_, days, clock), previous in zip(taken, before, strict=True):
            timed = clock >= 0 and hour >= 0
            apart = abs(clock - hour) % 24
            apart = min(apart, 24 - apart)
            yield {
                "frequency": 1.0,
                "recency": 0.5 ** (days / given.half_life_days),
                "hour": exp(-0.5 * (apart / given.hours) ** 2) if timed else 1.0,
                "weekday": float((clock >= 120) == (hour >= 120)) if timed else 1.0,
                "previous": float(previous is not None and previous == last),
            }[kernel]

    scores = []
    for name in ITEMS:
        score = 0.0
        for kernel in ("frequency", "recency", "hour", "weekday", "previous"):
            weight = list(weights(kernel))
            mine = sum(one for one, event in zip(weight, taken, strict=True) if event[0] == name)
            score += getattr(given, kernel) * log((mine + given.prior * shares()[name]) / (sum(weight) + given.prior))
        scores.append(score)
    return scores


@pytest.mark.parametrize("hour", [HOUR, 125.5, -1.0])
def test_kernels_equal_the_mix_written_out(hour):
    given = Kernels(frequency=0.7, recency=0.7, hour=1.3, weekday=0.4, previous=0.9, half_life_days=5.0, hours=3.0, prior=0.5)
    found = kernels(COUNTS, histories(*HISTORIES), queries(len(HISTORIES), hour), given)
    assert found.dtype == np.float32
    for history, row in zip(HISTORIES, found, strict=True):
        assert row.tolist() == pytest.approx(direct_kernels(history, given, hour), rel=1e-5)


def test_content_is_the_users_category_times_the_items_share_in_it():
    given = Content(half_life_events=2.0, prior=3.0)
    found = content(COUNTS, histories(*HISTORIES), given)
    share = shares()
    of_category = {
        name: sum(share[item] for item, own in zip(ITEMS, CATEGORIES, strict=True) if own == name) for name in CATEGORIES
    }
    for history, row in zip(HISTORIES, found, strict=True):
        ages = list(range(len(history) - 1, -1, -1))
        own = dict.fromkeys(CATEGORIES, 0.0)
        for (item, _, _), age in zip(history, ages, strict=True):
            if item in ITEMS:
                own[CATEGORIES[ITEMS.index(item)]] += 0.5 ** (age / 2.0)
        wanted = [
            log((own[name] + 3.0 * of_category[name]) / (sum(own.values()) + 3.0)) + log(share[item] / of_category[name])
            for item, name in zip(ITEMS, CATEGORIES, strict=True)
        ]
        assert row.tolist() == pytest.approx(wanted, rel=1e-5)


def test_item_cf_adds_up_likenesses_and_breaks_ties_by_popularity():
    neighbours = np.array([[1, 2], [0, -1], [0, 4], [-1, -1], [2, -1]], dtype=np.int32)
    likeness = np.array([[0.5, 0.25], [0.5, 0.0], [0.25, 0.75], [0.0, 0.0], [0.75, 0.0]])
    given = ItemCf(half_life_events=1.0, itself=0.1)
    found = item_cf(COUNTS, histories([], [("a", 3, 1.0), ("c", 2, 1.0)]), (neighbours, likeness), given)
    assert [ITEMS[place] for place in np.argsort(-found[0])] == ["a", "b", "c", "d", "e"], "nothing known: by popularity"
    # c is the newest (weight 1), a the one before it (one half).
    wanted = [0.25 + 0.05, 0.25, 0.125 + 0.1, 0.0, 0.75]
    assert found[1].tolist() == pytest.approx(wanted, abs=1e-5)


def test_als_gives_a_history_the_factors_that_least_squares_over_the_whole_catalogue_gives():
    rng = np.random.default_rng(3)
    factors = rng.normal(size=(5, 3))
    given = Als(regularisation=0.3, confidence=4.0, half_life_events=2.0)
    found = als(COUNTS, histories(*HISTORIES), factors, given)
    for history, row in zip(HISTORIES, found, strict=True):
        weight = np.zeros(5)
        for age, (item, _, _) in enumerate(reversed(history)):
            if item in ITEMS:
                weight[ITEMS.index(item)] += 0.5 ** (age / 2.0)
        some = weight > 0
        # Preferences are 1 where something was taken, each with confidence 1 + 4 x weight, else 0 with confidence 1.
        confidence = np.diag(1.0 + 4.0 * weight)
        left = factors.T @ confidence @ factors + 0.3 * some.sum() * np.eye(3)
        user = np.linalg.solve(left, factors.T @ confidence @ some.astype(float)) if some.any() else np.zeros(3)
        assert row.tolist() == pytest.approx((factors @ user).tolist(), abs=2e-6)


def test_settings_reach_the_scores():
    asked = histories(*HISTORIES), queries(len(HISTORIES))
    one = baseline("kernels", COUNTS, Baselines.model_validate({"kernels": {"hour": 0.0}})).scores(*asked)
    assert not np.allclose(one, baseline("kernels", COUNTS).scores(*asked))
    with pytest.raises(ValueError, match="popularity is what a first model must beat"):
        Baselines.model_validate({"judged": ["markov"]})
