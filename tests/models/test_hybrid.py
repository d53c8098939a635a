"""Own pasts against the same written out event by event; candidates moment by moment; an order that can be learnt."""

from dataclasses import replace
from math import cos, exp, hypot, log, radians

import numpy as np
import pyarrow as pa
import pytest
import torch

from conf.baselines import Kernels
from models.candidates import FEATURES, OF_PAIR, candidates
from models.facts import facts, tallied
from models.histories import EventColumns, Moments, first_of_owner, histories_from_events, queries_before, stop_before
from models.hybrid import Examples, Hybrid, Taken, examples, first_ranker, grow, lessons, text_of
from models.own_past import KERNELS, own_past
from models.queries import FIRST, Histories, Queries, Vocabulary
from models.replay import Options, read_log

HOUR, DAY = 3600, 86_400
NOW = 1_700_000_000
SMALL = Vocabulary(
    items=("a", "b", "c"), item_categories=("bar", "bar", ""), categories=("bar", "shop"), event_types=("visit",)
)
ITEMS = 200
VOCABULARY = Vocabulary(
    items=tuple(f"i{number:03}" for number in range(ITEMS)),
    item_categories=tuple("xyz"[number % 3] for number in range(ITEMS)),
    categories=("x", "y", "z"),
    event_types=("visit",),
)


SETTINGS = Kernels(previous=0.0)


def known_of(events, first_E, until):
    return facts(VOCABULARY, ("visit",), tallied(VOCABULARY, events, first_E, until))


def first_of(known):
    return first_ranker(known, SETTINGS)


def log_of(users=40, days=60, seed=0, times=True, places=True):
    """Each user has a morning and an evening item, and one that is taken where it cannot be known."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        own = rng.choice(np.arange(50, ITEMS), 3, replace=False)
        for day in range(days):
            for hour, item in ((8, own[0]), (19, own[1]), (12, own[2])):
                if rng.random() < 0.6:
                    rows.append((user, NOW - (days - day) * DAY + hour * HOUR + int(rng.integers(0, HOUR)), item))
    user, at, item = (np.array(column) for column in zip(*rows, strict=True))
    order = np.lexsort((at, user))
    user, at, item = user[order], at[order], item[order]
    hour = (at - NOW + 1000 * DAY) / HOUR % 168 if times else np.full(len(at), -1.0)
    nowhere = np.full(len(at), np.nan)
    events = EventColumns(
        item_E=(item + FIRST).astype(np.int32),
        category_E=(item % 3 + FIRST).astype(np.int32),
        event_type_E=np.full(len(at), FIRST, np.int32),
        timestamp_E=at.astype(np.int64),
        hour_of_week_E=hour.astype(np.float32),
        latitude_E=(40.6 + item / 1000 if places else nowhere).astype(np.float32),
        longitude_E=(-74 + item % 7 / 100 if places else nowhere).astype(np.float32),
    )
    return events, first_of_owner(user)


def asked(events, first_E, rows, length=80):
    stop_E = stop_before(first_E, events.timestamp_E)
    moments = Moments(first_B=first_E[rows], stop_B=stop_E[rows], timestamp_B=events.timestamp_E[rows])
    return histories_from_events(events, first_E[rows], stop_E[rows], length), queries_before(events, moments)


def taken(events, rows):
    return Taken(place_B=events.item_E[rows].astype(np.int64) - FIRST, moment_B=rows)


def picked(given, rows):
    return type(given)(**{name: values[rows] for name, values in vars(given).items() if values is not None})


def random_moments(seed=3, rows=12, length=9):
    rng = np.random.default_rng(seed)
    shape = (rows, length)
    past = Histories(
        item_BL=rng.integers(1, 5, shape).astype(np.int32),
        category_BL=rng.integers(1, 4, shape).astype(np.int32),
        event_type_BL=np.full(shape, FIRST, np.int32),
        timestamp_BL=NOW - np.sort(rng.integers(1, 60 * DAY, shape), axis=1)[:, ::-1],
        hour_of_week_BL=np.where(rng.random(shape) < 0.1, -1, rng.uniform(0, 168, shape)).astype(np.float32),
        latitude_BL=np.where(rng.random(shape) < 0.2, np.nan, rng.uniform(40.70, 40.71, shape)).astype(np.float32),
        longitude_BL=rng.uniform(-74.0, -73.99, shape).astype(np.float32),
    )
    past.item_BL[0], past.item_BL[1, :6] = 0, 0
    now = Queries(
        timestamp_B=np.full(rows, NOW), hour_of_week_B=np.where(np.arange(rows) % 5 == 4, -1, 34.5).astype(np.float32),
        latitude_B=np.where(np.arange(rows) % 4 == 3, np.nan, 40.705).astype(np.float32),
        longitude_B=np.full(rows, -73.995, np.float32),
    )  # fmt: skip
    return past, now


def weights_by_definition(past, now, row):
    """{item: {kernel: sum}} of one moment."""
    found = {}
    events = [place for place in range(past.item_BL.shape[1]) if past.item_BL[row, place] >= FIRST]
    newest = next((place for place in reversed(range(past.item_BL.shape[1])) if past.item_BL[row, place]), None)
    hour = float(now.hour_of_week_B[row])
    gap = max(int(now.timestamp_B[row] - past.timestamp_BL[row, newest]), 60) if newest is not None and hour >= 0 else None
    last = past.item_BL[row, newest] if newest is not None and past.item_BL[row, newest] >= FIRST else None
    kinds = SMALL.category_of_item_V
    for number, place in enumerate(events):
        before = events[number - 1] if number else None
        age = (now.timestamp_B[row] - past.timestamp_BL[row, place]) / DAY
        season, clock = exp(-age / 90), float(past.hour_of_week_BL[row, place])
        told = clock >= 0 and hour >= 0
        apart = abs(clock - hour) if told else 0.0
        turn = min(apart % 24, 24 - apart % 24)
        near_hour, sort = exp(-0.5 * turn**2), float((clock >= 120) == (hour >= 120)) if told else 1.0
        part = exp(-0.5 * (turn / 2) ** 2) * sort
        pace = 1.0 if gap is None else 0.0
        if gap is not None and before is not None:
            then = max(int(past.timestamp_BL[row, place] - past.timestamp_BL[row, before]), 60)
            pace = exp(-0.5 * (log(then / gap) / 0.7) ** 2)
        near = 0.0
        if before is not None:
            here, there = now.latitude_B[row], past.latitude_BL[row, before]
            east = radians(now.longitude_B[row] - past.longitude_BL[row, before]) * cos(radians((here + there) / 2))
            near = exp(-6371 * hypot(radians(here - there), east) / 0.3) if np.isfinite(here + there) else 0.0
        item = past.item_BL[row, before] if before is not None else None
        same = float(item is not None and item == last)
        alike = float(item is not None and last is not None and kinds[item - FIRST] == kinds[last - FIRST])
        weight = {
            "ever": 1.0, "season": season, "month": exp(-age / 30), "week": exp(-age / 7), "day": exp(-age / 1.5),
            "hour": near_hour * season, "part_of_day": part * season, "hour_lately": near_hour * exp(-age / 14),
            "hour_of_week": exp(-0.5 * (min(apart, 168 - apart) / 1.5) ** 2) * season, "sort_of_day": sort * exp(-age / 30),
            "after_item": same * season, "after_item_pace": same * pace, "after_place": near * season,
            "after_place_pace": near * pace * season, "after_place_hour": near * part * season,
            "after_place_pace_hour": near * pace * part * exp(-age / 45), "pace": pace * season,
            "pace_hour": pace * near_hour * season, "after_category": alike * part * season,
        }  # fmt: skip
        sums = found.setdefault(int(past.item_BL[row, place]) - FIRST, dict.fromkeys(KERNELS, 0.0))
        for name in KERNELS:
            sums[name] += weight[name]
    return found


def test_an_own_past_is_by_definition():
    past, now = random_moments()
    own = own_past(past, now, SMALL.category_of_item_V)
    for row in range(len(past.item_BL)):
        pairs = np.flatnonzero(own.row_P == row)
        wanted = weights_by_definition(past, now, row)
        assert own.item_P[pairs].tolist() == sorted(wanted)
        for pair in pairs:
            sums = dict(zip(KERNELS, own.weight_KP[:, pair], strict=True))
            assert sums == pytest.approx(wanted[own.item_P[pair]], rel=1e-4, abs=1e-6), (row, own.item_P[pair])
    assert own.all_KB[:, 0].tolist() == [0.0] * len(KERNELS) and np.isnan(own.gap_B[0]) and own.last_B[0] == -1


def test_what_is_said_of_a_pair():
    at = NOW - DAY * np.array([[9, 6, 5, 1]] * 2)
    past, now = random_moments(rows=2, length=4)
    past = Histories(**{**vars(past), "item_BL": np.array([[2, 3, 3, 2], [0, 0, 0, 0]], np.int32), "timestamp_BL": at})
    own = own_past(past, now, SMALL.category_of_item_V)
    said = {name: own.of_pair_P[name].tolist() for name in OF_PAIR}
    assert said["age"] == pytest.approx([0, log(5)]) and said["back"] == [1, 2] and said["between"] == [8, 1]
    assert said["overdue"] == pytest.approx([1 / 8, 5]) and said["again"] == [0, 0.5] and said["today"] == [0, 0]


@pytest.fixture(scope="module")
def made():
    events, first_E = log_of()
    border = NOW - 15 * DAY
    before = np.flatnonzero(events.timestamp_E < border)
    train = EventColumns(**{name: values[before] for name, values in vars(events).items()})
    known = known_of(train, np.searchsorted(before, first_E[before]), border)
    middle = np.flatnonzero((events.timestamp_E >= border - 20 * DAY) & (events.timestamp_E < border))
    past, now = asked(events, first_E, middle)
    found = candidates(known, past, now, first_of(known).scores(past, now))
    trees = grow([examples(found, taken(events, middle))])
    later = np.flatnonzero(events.timestamp_E >= border)
    return Hybrid(known=known, trees=trees, kernels=SETTINGS), (events, first_E, later)


def test_a_habit_of_the_hour_is_learnt(made):
    hybrid, (events, first_E, later) = made
    scores_BV = hybrid.scores(*asked(events, first_E, later))
    target = events.item_E[later] - FIRST
    best = scores_BV.argmax(axis=1) == target
    assert best.mean() > 0.9, "the hour says which of the three it is"


def test_a_moment_is_scored_alike_alone_and_among_others(made):
    hybrid, (events, first_E, later) = made
    past, now = asked(events, first_E, later[:40])
    together = hybrid.scores(past, now)
    for row in (0, 7, 39):
        np.testing.assert_allclose(hybrid.scores(picked(past, [row]), picked(now, [row]))[0], together[row], atol=1e-5)


def test_what_is_no_candidate_comes_last_in_the_first_rankers_order(made):
    hybrid, (events, first_E, later) = made
    past, now = asked(events, first_E, later[:5])
    first_BV, scores_BV = hybrid.first.scores(past, now), hybrid.scores(past, now)
    found = candidates(hybrid.known, past, now, first_BV)
    for row in range(5):
        chosen = found.item_C[found.row_C == row]
        others = np.setdiff1d(np.arange(ITEMS), chosen)
        assert len(others) and scores_BV[row, others].max() < scores_BV[row, chosen].min()
        np.testing.assert_array_equal(
            np.argsort(-first_BV[row, others], kind="stable"), np.argsort(-scores_BV[row, others], kind="stable")
        )
    own = {(row, item - FIRST) for row in range(5) for item in past.item_BL[row] if item}
    assert own <= set(zip(found.row_C.tolist(), found.item_C.tolist(), strict=True))


@pytest.mark.parametrize(("times", "places"), [(True, False), (False, True), (False, False)])
def test_logs_without_times_or_places_and_users_without_a_past(times, places):
    events, first_E = log_of(users=12, days=30, times=times, places=places)
    known = known_of(events, first_E, NOW)
    past, now = asked(events, first_E, np.arange(len(events)))
    found = candidates(known, past, now, first_of(known).scores(past, now))
    assert found.features_CF.shape == (len(found), len(FEATURES)) and not np.isinf(found.features_CF).any()
    learnt = examples(found, taken(events, np.arange(len(events))))
    hybrid = Hybrid(known=known, trees=grow([learnt]), kernels=SETTINGS)
    assert np.isfinite(hybrid.scores(past, now)).all()
    nobody = picked(past, np.zeros(0, np.int64))
    assert hybrid.scores(nobody, picked(now, np.zeros(0, np.int64))).shape == (0, ITEMS)
    empty = Histories(**{name: values[:3, :0] for name, values in vars(past).items() if values is not None})
    assert np.isfinite(hybrid.scores(empty, picked(now, [0, 1, 2]))).all()


def test_moments_weigh_what_they_are_worth():
    """One candidate stands out by its past, another by its hour; which trees prefer is what such moments are worth."""
    rng = np.random.default_rng(7)
    features_GKF = rng.normal(size=(2000, 4, len(FEATURES))).astype(np.float32)
    by_past = rng.random(2000) < 0.5
    best_G = np.where(by_past, *(features_GKF[..., FEATURES.index(name)].argmax(axis=1) for name in ("first_score", "hour")))
    learnt, later = np.arange(1000), np.arange(1000, 2000)

    def right(worth_of_past):
        given = Examples(
            features_CF=features_GKF[learnt].reshape(4000, -1), is_taken_C=(np.arange(4) == best_G[learnt, None]).ravel(),
            size_G=np.full(1000, 4), moment_G=learnt, worth_G=np.where(by_past[learnt], worth_of_past, 1.0),
        )  # fmt: skip
        found_G = grow([given]).predict(features_GKF[later].reshape(4000, -1), num_threads=1).reshape(-1, 4).argmax(axis=1)
        is_right = found_G == best_G[later]
        return is_right[by_past[later]].mean(), is_right[~by_past[later]].mean()

    much, little = right(20.0), right(0.05)
    assert much[0] > little[0] + 0.2 and little[1] > much[1] + 0.2, (much, little)


def test_nothing_to_learn_from_is_said():
    events, first_E = log_of(users=2, days=4)
    known = known_of(events, first_E, NOW)
    past, now = asked(events, first_E, np.arange(len(events)))
    found = candidates(known, past, now, first_of(known).scores(past, now))
    with pytest.raises(ValueError, match="nothing to learn an order from"):
        grow([examples(found, Taken(place_B=np.full(len(events), -1), moment_B=np.arange(len(events))))])


def test_what_is_taken_from_a_list_stands_against_what_it_showed_alone(made):
    hybrid, (events, first_E, later) = made
    rows = later[:40]
    past, now = asked(events, first_E, rows)
    found = candidates(hybrid.known, past, now, hybrid.first.scores(past, now))
    own = events.item_E[rows].astype(np.int64) - FIRST
    shown = [np.array([item, (item + 1) % ITEMS, -1]) for item in own]
    learnt = examples(found, Taken(place_B=own, moment_B=rows, worth_B=np.arange(40.0), shown_B=shown))
    there = set(zip(found.row_C.tolist(), found.item_C.tolist(), strict=True))
    is_known, has_next = (
        np.array([(row, (item + more) % ITEMS) in there for row, item in enumerate(own.tolist())]) for more in (0, 1)
    )
    assert (is_known & has_next).any() and learnt.moment_G.tolist() == rows[is_known].tolist()
    assert learnt.worth_G.tolist() == np.flatnonzero(is_known).tolist()
    assert learnt.size_G.tolist() == (1 + has_next)[is_known].tolist() and learnt.is_taken_C.sum() == is_known.sum()


def clicked_lists(lists=6000, seed=0):
    """Of each click on a list of five the kinds shown, what was clicked, and what that counts; the better kind stood below."""
    rng, examined = np.random.default_rng(seed), np.array([1.0, 0.5, 0.3, 0.2, 0.1])
    for _ in range(lists):
        is_better = rng.random(5) < [0.05, 0.1, 0.3, 0.9, 0.95]
        is_clicked = (rng.random(5) < examined) & (rng.random(5) < np.where(is_better, 0.6, 0.25))
        for rank in np.flatnonzero(is_clicked):
            kept = np.append(np.flatnonzero(~is_clicked), rank)
            yield is_better[kept], np.append(np.zeros(len(kept) - 1, bool), True), 1 / examined[rank]


@pytest.mark.parametrize("corrected", [True, False])
def test_the_order_in_which_lists_were_shown_is_undone_by_how_little_ranks_are_looked_at(corrected):
    kinds, clicked, worth = zip(*clicked_lists(), strict=True)
    size = np.array([len(one) for one in kinds])
    features = np.zeros((size.sum(), len(FEATURES)), np.float32)
    features[:, FEATURES.index("taken")] = np.concatenate(kinds)
    given = Examples(
        features_CF=features, is_taken_C=np.concatenate(clicked), size_G=size, moment_G=np.arange(len(size)),
        worth_G=np.array(worth) if corrected else np.ones(len(size)),
    )  # fmt: skip
    both = np.zeros((2, len(FEATURES)), np.float32)
    both[1, FEATURES.index("taken")] = 1
    worse, better = grow([given]).predict(both)
    assert (better > worse) == corrected


def test_a_saved_one_ranks_alike(made, tmp_path):
    hybrid, (events, first_E, later) = made
    past, now = asked(events, first_E, later[:30])
    replace(hybrid, details={"grown_on": "2026-11-28"}).save(tmp_path)
    again = Hybrid.load(tmp_path)
    np.testing.assert_array_equal(again.scores(past, now), hybrid.scores(past, now))
    assert again.details["grown_on"] == "2026-11-28" and again.kernels == SETTINGS and again.vocabulary == VOCABULARY


def test_trees_of_other_features_and_damaged_ones_are_refused(made, tmp_path):
    made[0].save(tmp_path)
    trees = (tmp_path / "trees.txt").read_text()
    (tmp_path / "trees.txt").write_text(trees.replace("share_ever", "share_never"))
    with pytest.raises(ValueError, match="another release, from other features: publish another version"):
        Hybrid.load(tmp_path)
    (tmp_path / "trees.txt").write_text("no trees")
    with pytest.raises(ValueError, match="no trees that can be read"):
        Hybrid.load(tmp_path)


def test_parts_their_order_and_threads_change_no_tree(made):
    hybrid, (events, first_E, later) = made
    past, now = asked(events, first_E, later)
    found = candidates(hybrid.known, past, now, hybrid.first.scores(past, now))
    whole = examples(found, taken(events, later))
    parts = []
    for rows in (slice(len(later) // 3, None), slice(0, len(later) // 3)):
        part = past.part(rows), now.part(rows)
        some = candidates(hybrid.known, *part, hybrid.first.scores(*part))
        parts.append(examples(some, taken(events, later[rows])))
    grown = text_of(grow([whole]))
    assert text_of(grow(parts)) == grown and "num_threads" not in grown
    before = torch.get_num_threads()
    torch.set_num_threads(3 - min(before, 2))
    assert text_of(grow([whole])) == grown, "nor does the number of threads"
    torch.set_num_threads(before)


def test_what_is_no_target_event_is_no_past(made):
    hybrid, (events, first_E, later) = made
    past, now = asked(events, first_E, later[:20])
    viewed = replace(past, event_type_BL=np.where(past.item_BL % 2 == 0, past.event_type_BL, 1).astype(np.int32))
    without = replace(past, item_BL=np.where(past.item_BL % 2 == 0, past.item_BL, 0))
    np.testing.assert_array_equal(hybrid.scores(viewed, now), hybrid.scores(without, now))


def test_where_the_time_is_hidden_it_does_not_matter_how(made):
    hybrid, (events, first_E, later) = made
    past, now = asked(events, first_E, later[:40])
    hidden = replace(now, hour_of_week_B=np.full(40, -1, np.float32))
    at_the_last = replace(now, timestamp_B=past.timestamp_BL[:, -1], hour_of_week_B=past.hour_of_week_BL[:, -1])
    far = replace(hidden, timestamp_B=now.timestamp_B + 90 * DAY)
    scores_BV = hybrid.scores(past, hidden)
    np.testing.assert_array_equal(hybrid.scores(past, at_the_last), scores_BV)
    np.testing.assert_array_equal(hybrid.scores(past, far), scores_BV)
    assert not np.array_equal(hybrid.scores(past, now), scores_BV)
    empty = past.part(np.arange(3))
    empty.item_BL[:] = 0
    assert np.isfinite(hybrid.scores(empty, hidden.part(np.arange(3)))).all()


def test_moments_are_learnt_with_their_time_and_some_without(made):
    hybrid, (events, first_E, later) = made
    rows = len(events)
    at = pa.array(events.timestamp_E * 1_000_000).cast(pa.timestamp("us", tz="UTC"))
    text = {
        "user_id": [f"u{first:05}" for first in first_E], "event_id": [f"e{row:05}" for row in range(rows)],
        "item_id": [VOCABULARY.items[item - FIRST] for item in events.item_E], "event_type": ["visit", "buy"] * (rows // 2)
        + ["visit"] * (rows % 2),
        "category": [VOCABULARY.categories[kind - FIRST] for kind in events.category_E], "region": [None] * rows,
    }  # fmt: skip
    is_asked = np.isin(np.arange(rows), later)
    table = pa.table(
        {
            **{name: pa.array(values, pa.string()) for name, values in text.items()},
            "origin": pa.array(np.where(is_asked, 2, 1), pa.int32()),
            "row": pa.array(np.arange(rows), mask=~is_asked),
            "event_timestamp": at,
            "local_timestamp": at,
            "latitude": pa.array(events.latitude_E.astype(float)),
            "longitude": pa.array(events.longitude_E.astype(float)),
            "groups": pa.nulls(rows, pa.map_(pa.string(), pa.string())),
        }
    )
    options = Options(length=80, target_types=("visit", "buy"), worth={"buy": 3.0})
    parts = list(lessons(read_log(table), hybrid.known, SETTINGS, options))
    moments = np.concatenate([part.moment_G for part in parts])
    told, hidden = moments[moments >= 0], ~moments[moments < 0]
    assert len(np.unique(moments)) == len(moments) and set(hidden) <= set(told) <= set(later.tolist())
    assert 0.1 < len(hidden) / len(told) < 0.4
    worth = np.concatenate([part.worth_G for part in parts])
    assert np.array_equal(worth, np.where(np.where(moments < 0, ~moments, moments) % 2, 3.0, 1.0)), "every second is a purchase"
    hours = np.concatenate([part.features_CF[:, FEATURES.index("hour")] for part in parts])
    sizes = np.concatenate([part.size_G for part in parts])
    assert np.array_equal(np.isnan(hours), np.repeat(moments < 0, sizes))
