"""Baselines fitted by Spark, against the same by plain numpy; and the hold-out compared again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from conf.baselines import Als, Baselines, ItemCf
from jobs.evaluate.fitting import baselines, fit
from models.queries import FIRST, Histories, Queries, Vocabulary

START = datetime(2024, 1, 1, tzinfo=UTC)
ITEMS = tuple(f"i{number}" for number in range(8))
VOCABULARY = Vocabulary(items=ITEMS, item_categories=("",) * 8, categories=(), event_types=("visit",))


def targets(spark, histories):
    """Each history the items that a user took, in their order."""
    rows = [
        (f"u{user}", item, START + timedelta(hours=hour), f"{user}/{hour:04}")
        for user, history in enumerate(histories)
        for hour, item in enumerate(history)
    ]
    return spark.createDataFrame(rows, "user_id string, item_id string, event_timestamp timestamp, event_id string")


def drawn(users=40, seed=1):
    random = np.random.default_rng(seed)
    return [[f"i{item}" for item in random.integers(0, 9, 14)] for _ in range(users)]  # i8 is in no catalogue


def fitted(spark, histories, names, settings):
    rows = targets(spark, histories)
    return baselines(names, rows, fit(rows, ("visit",), VOCABULARY), settings)


def test_neighbours_are_the_shrunk_cosines_of_the_items_newest_users(spark):
    histories = drawn()
    given = ItemCf(last=5, neighbours=3, shrinkage=2.0)
    made = fitted(spark, histories, ["item_cf"], Baselines(item_cf=given))["item_cf"]
    takes = np.zeros((len(histories), 8))
    for user, history in enumerate(histories):
        distinct = list(dict.fromkeys(item for item in reversed(history) if item in ITEMS))
        takes[user, [ITEMS.index(item) for item in distinct[:5]]] = 1.0
    both = takes.T @ takes
    users = np.diag(both)
    likeness = both / np.sqrt(np.outer(users, users)) * both / (both + 2.0)
    np.fill_diagonal(likeness, -1.0)
    for item in range(8):
        best = np.argsort(-likeness[item], kind="stable")[:3]
        assert made.arrays["neighbour_VK"][item].tolist() == best.tolist()
        assert made.arrays["likeness_VK"][item].tolist() == pytest.approx(likeness[item, best].tolist())


def test_factors_tell_two_tastes_apart(spark):
    random = np.random.default_rng(2)
    histories = [[ITEMS[item] for item in random.permutation(4)[:3] + 4 * (user % 2)] for user in range(60)]
    settings = Baselines(als=Als(factors=4, iterations=8))
    made = fitted(spark, histories, ["als", "popularity"], settings)
    assert made["als"].arrays["factors_VR"].shape == (8, 4)
    item = np.array([[FIRST, FIRST + 1], [FIRST + 5, FIRST + 6]], dtype=np.int32)
    nothing = np.full(item.shape, np.nan, dtype=np.float32)
    asked = Histories(
        item_BL=item, category_BL=np.ones_like(item), event_type_BL=np.full_like(item, FIRST),
        timestamp_BL=np.zeros(item.shape, np.int64), hour_of_week_BL=nothing, latitude_BL=nothing, longitude_BL=nothing,
    )  # fmt: skip
    none = np.full(2, np.nan, np.float32)
    moments = Queries(timestamp_B=np.zeros(2, np.int64), hour_of_week_B=none, latitude_B=none, longitude_B=none)
    scores = made["als"].scores(asked, moments)
    assert scores[0, :4].min() > scores[0, 4:].max() + 0.05 and scores[1, 4:].min() > scores[1, :4].max() + 0.05


def test_nothing_to_fit_to(spark):
    names = ["popularity", "kernels", "content", "item_cf", "als"]
    made = fitted(spark, [], names, Baselines())
    assert list(made) == names and made["als"].arrays["factors_VR"].shape == (8, 64)
