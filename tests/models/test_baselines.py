from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from conf.baselines import Baselines
from models import counts
from models.baselines import BASELINES, Baseline, baseline
from models.counts import count
from models.queries import FIRST, UNKNOWN, Histories, Queries, Vocabulary

ITEMS = ("a", "b", "c", "d", "e")
VOCABULARY = Vocabulary(items=ITEMS, item_categories=("",) * 5, categories=(), event_types=("visit", "view"))
EVENTS = {"a": 10, "b": 7, "c": 5, "d": 1}
MOVES = {"a": 8, "b": 4, "c": 2, "d": 0}
ITEM_COUNTS = (list(EVENTS), list(EVENTS.values()), list(MOVES.values()))
NO_TRANSITIONS = ([], [], [])


def histories(*rows, length=4):
    """Each history a list of items (visits), or of (item, type)."""
    item = np.zeros((len(rows), length), dtype=np.int32)
    kind = np.zeros((len(rows), length), dtype=np.int32)
    for number, row in enumerate(rows):
        for place, event in enumerate(reversed(row), start=1):
            name, event_type = event if isinstance(event, tuple) else (event, "visit")
            item[number, -place] = VOCABULARY.items.index(name) + FIRST if name in VOCABULARY.items else UNKNOWN
            kind[number, -place] = VOCABULARY.event_type_index.get(event_type, 1)
    floats = np.full(item.shape, np.nan, dtype=np.float32)
    return Histories(
        item_BL=item,
        category_BL=np.ones_like(item),
        event_type_BL=kind,
        timestamp_BL=np.zeros(item.shape, dtype=np.int64),
        hour_of_week_BL=floats,
        latitude_BL=floats,
        longitude_BL=floats,
    )


def queries(count):
    nothing = np.full(count, np.nan, dtype=np.float32)
    return Queries(timestamp_B=np.zeros(count, np.int64), hour_of_week_B=nothing, latitude_B=nothing, longitude_B=nothing)


def scored(name, *rows, transitions=NO_TRANSITIONS, length=4):
    made = baseline(name, count(VOCABULARY, ("visit",), ITEM_COUNTS, transitions))
    found = made.scores(histories(*rows, length=length), queries(len(rows)))
    assert found.shape == (len(rows), 5) and found.dtype == np.float32 and np.isfinite(found).all()
    return found


def best_first(row):
    return "".join(ITEMS[position] for position in np.argsort(-row, kind="stable"))


def test_popularity_is_the_same_for_all():
    found = scored("popularity", [], ["d", "e"])
    assert found.tolist() == [[10, 7, 5, 1, 0]] * 2


def test_own_items_come_first_by_count_then_newest_then_the_popular():
    found = scored("user_frequency", ["d", "c", "d"], ["e", "d"], [], ["d", "e", "d", "e"])
    assert [best_first(row) for row in found] == ["dcabe", "deabc", "abcde", "edabc"]


def test_only_target_events_of_the_catalogue_count_in_a_history():
    found = scored("user_frequency", [("d", "view"), ("d", "view"), "c", "not in the catalogue"])
    assert [best_first(row) for row in found] == ["cabde"]


def direct_markov(history, transitions):
    """The hierarchy written out for one history."""
    visits = [item for item in history if item in ITEMS]
    total = sum(EVENTS.values())
    popular = {item: (EVENTS.get(item, 0) + 1) / (total + 5) for item in ITEMS}
    out = Counter()
    for before, after, times in zip(*transitions, strict=True):
        if before in ITEMS and after in ITEMS:
            out[before, after] += times
    last = visits[-1] if visits else None
    leaving = MOVES.get(last, 0)
    everyone = {item: (out[last, item] + 10 * popular[item]) / (leaving + 10) for item in ITEMS}
    own = {item: (visits.count(item) + 5 * everyone[item]) / (len(visits) + 5) for item in ITEMS}
    moves = Counter(after for before, after in pairwise(visits) if before == last)
    return [(moves[item] + 2 * own[item]) / (sum(moves.values()) + 2) for item in ITEMS]


def test_markov_equals_the_hierarchy_written_out():
    transitions = (["a", "a", "b", "x", "b", "c"], ["b", "c", "a", "a", "y", "c"], [5, 2, 4, 9, 9, 1])
    rows = [[], ["a"], ["a", "b", "a"], ["b", "a", "c", "b"], ["d", "d"], ["zz", "a"], ["a", "c", "a", "b", "a", "c", "a"]]
    found = scored("markov", *rows, transitions=transitions, length=8)
    for history, row in zip(rows, found, strict=True):
        assert row.tolist() == pytest.approx(direct_markov(history, transitions), rel=1e-5), history
        assert row.sum() <= 1.0 + 1e-5, "a probability; what leads out of the catalogue is missing from it"


def test_an_event_between_that_is_no_target_does_not_break_a_transition():
    assert scored("markov", ["a", ("e", "view"), "b", "a"])[0] == pytest.approx(scored("markov", ["a", "b", "a"])[0])


def test_only_the_most_frequent_successors_are_kept(monkeypatch):
    monkeypatch.setattr(counts, "SUCCESSORS", 2)
    made = count(VOCABULARY, ("visit",), ITEM_COUNTS, (["a", "a", "a", "b"], ["d", "c", "b", "a"], [3, 1, 3, 1]))
    assert made.successor_VK.tolist() == [[1, 3], [0, -1], [-1, -1], [-1, -1], [-1, -1]]
    assert made.successor_count_VK[0].tolist() == [3, 3] and made.transitions_V.tolist() == [8, 4, 2, 0, 0]


def fitted(size):
    """Arrays of any numbers, as the Spark fits give them."""
    rng = np.random.default_rng(7)
    neighbours = np.array([[(row + 1) % size, -1] for row in range(size)], dtype=np.int32).reshape(size, 2)
    return {"neighbour_VK": neighbours, "likeness_VK": rng.random((size, 2)), "factors_VR": rng.normal(size=(size, 3))}


@pytest.mark.parametrize("name", BASELINES)
def test_a_saved_baseline_scores_the_same(name, tmp_path):
    settings = Baselines.model_validate({"markov": {"personal_prior": 7.0}, "kernels": {"recency": 0.9}})
    counted = count(VOCABULARY, ("visit",), ITEM_COUNTS, (["a", "b"], ["b", "c"], [5, 2]))
    made = baseline(name, counted, settings, fitted(5))
    made.save(tmp_path / "version")
    again = Baseline.load(tmp_path / "version")
    assert again.method == name and again.vocabulary == VOCABULARY and again.settings == settings
    asked = histories(["a", "b", "a"], [])
    assert np.array_equal(made.scores(asked, queries(2)), again.scores(asked, queries(2)))


def test_an_empty_catalogue_and_an_unknown_name():
    empty = Vocabulary(items=(), item_categories=(), categories=(), event_types=("visit",))
    for name in BASELINES:
        made = baseline(name, count(empty, ("visit",), NO_TRANSITIONS, NO_TRANSITIONS), arrays=fitted(0))
        assert made.scores(histories(["not in the catalogue"]), queries(1)).shape == (1, 0)
    with pytest.raises(ValueError, match="there is no baseline random; the baselines are popularity"):
        baseline("random", count(empty, ("visit",), NO_TRANSITIONS, NO_TRANSITIONS))
