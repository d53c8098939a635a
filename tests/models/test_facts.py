"""What is known of items, against the same counted by hand."""

import numpy as np
import pytest

from models import facts as made_of
from models.facts import KINDS, added, facts, tallied
from models.histories import EventColumns
from models.queries import FIRST, Vocabulary

HOUR, DAY = 3600, 86_400
NOW = 1_700_000_000
VOCABULARY = Vocabulary(
    items=("a", "b", "c"), item_categories=("bar", "bar", ""), categories=("bar", "shop"), event_types=("visit",)
)
# user, hours before now, item, hour of the week, latitude
EVENTS = [
    ("u", 300, "a", 9, 40.0), ("u", 290, "b", 20, 41.0), ("u", 270, "c", 9, np.nan), ("u", 10, "a", 129, 40.2),
    ("v", 100, "a", 10, 40.1), ("v", 99, "a", 11, 40.1), ("v", 98, "b", 21, 41.0), ("v", 97, "other", 22, 50.0),
]  # fmt: skip


def columns(events):
    users = [user for user, *_ in events]
    items = [VOCABULARY.items.index(item) + FIRST if item in VOCABULARY.items else 1 for _, _, item, _, _ in events]
    made = EventColumns(
        item_E=np.array(items, np.int32),
        category_E=np.ones(len(events), np.int32),
        event_type_E=np.full(len(events), FIRST, np.int32),
        timestamp_E=np.array([NOW - hours * HOUR for _, hours, *_ in events], np.int64),
        hour_of_week_E=np.array([hour for *_, hour, _ in events], np.float32),
        latitude_E=np.array([latitude for *_, latitude in events], np.float32),
        longitude_E=np.array([-74.0 + 0 * latitude for *_, latitude in events], np.float32),
    )
    return made, np.array([users.index(user) for user in users], np.int64)


def known_of(events):
    return facts(VOCABULARY, ("visit",), tallied(VOCABULARY, *columns(events), NOW))


def equal(one, other):
    return all(np.array_equal(*pair) for kind in KINDS for pair in zip(one[kind], other[kind], strict=True))


def test_counts_and_positions():
    known = known_of(EVENTS)
    assert known.events_V.tolist() == [4, 2, 1] and known.users_V.tolist() == [2, 2, 1]
    ages = np.array([300, 10, 100, 99]) / 24
    assert known.lately_V[0] == pytest.approx(np.exp(-ages / 30).sum(), abs=4e-6)
    np.testing.assert_allclose(known.latitude_V, [40.1, 41.0, np.nan], rtol=1e-6)


def test_what_follows_within_half_a_day_of_the_same_user_leads_on():
    known = known_of(EVENTS)
    # b to c took twenty hours, c to a ten days; from a to a is no move.
    assert known.moves_VV.toarray().tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 0]]
    bar, share = 2, known.category_share_C
    assert np.exp(known.category_moves_CC[bar, bar]) == pytest.approx((2 + 20 * share[bar]) / 22 / share[bar])
    assert (np.exp(known.category_moves_CC) * share).sum(axis=1) == pytest.approx(1.0)


def test_items_are_alike_by_their_users():
    likeness = known_of(EVENTS).likeness_VV.toarray()
    assert likeness[0, 1] == likeness[1, 0] == pytest.approx(2 / 7)
    assert likeness[0, 2] == pytest.approx(1 / np.sqrt(7 * 6)) and not likeness.diagonal().any()


def test_hours_are_the_items_own_as_far_as_it_has_any():
    known = known_of(EVENTS)
    a, b, c = known.clock_VSH
    assert a[0, 9] > b[0, 9] and b[0, 20] > a[0, 20] and a[1, 9] > b[1, 9]
    assert a[0, 9] > a[0, 3] and known.category_clock_CSH[2, 0, 20] > known.category_clock_CSH[2, 1, 20]
    assert np.isfinite(known.clock_VSH).all() and np.isfinite(c).all()


def test_a_log_without_events_times_and_places():
    known = known_of([])
    assert known.events_V.tolist() == [0, 0, 0] and not known.clock_VSH.any() and np.isnan(known.latitude_V).all()
    bare = [(user, hours, item, -1, np.nan) for user, hours, item, _, _ in EVENTS]
    known = known_of(bare)
    assert known.events_V.tolist() == [4, 2, 1] and known.moves_VV.sum() == 2
    np.testing.assert_allclose(known.clock_VSH, 0.0, atol=1e-12)


def test_tallies_of_users_add_up_in_any_order():
    whole = tallied(VOCABULARY, *columns(EVENTS), NOW)
    parts = [tallied(VOCABULARY, *columns([one for one in EVENTS if one[0] == user]), NOW) for user in "uv"]
    assert equal(added(parts), whole) and equal(added(parts[::-1]), whole) and equal(added([whole]), whole)
    assert not any(len(one) for tally in added([]).values() for one in tally)


def test_only_the_newest_of_a_user_are_taken_together_and_the_most_frequent_kept(monkeypatch):
    monkeypatch.setattr(made_of, "_TOGETHER", 2)
    one, other, times = tallied(VOCABULARY, *columns(EVENTS), NOW)["both"]
    # The newest two of u are a and c, of v b and a.
    assert list(zip(one, other, times, strict=True)) == [(0, 1, 1), (0, 2, 1), (1, 0, 1), (2, 0, 1)]
    monkeypatch.setattr(made_of, "MOST", {"both": 1})
    assert known_of(EVENTS).likeness_VV.toarray()[0, 2] == 0, "ties by the catalogue's order"
