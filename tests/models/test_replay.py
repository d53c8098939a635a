from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from models import replay
from models.baselines import baseline
from models.counts import count
from models.queries import Vocabulary
from models.replay import LAKE, NEW, TAKEN, Options, answers, batches, read_log, sight

ITEMS = ("a", "b", "c", "d", "e")
VOCABULARY = Vocabulary(
    items=ITEMS, item_categories=("x", "x", "y", "", ""), categories=("x", "y"), event_types=("visit", "view")
)
START = datetime(2024, 1, 1, 9, tzinfo=UTC)  # a Monday
SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("origin", pa.int32()),
        ("row", pa.int64()),
        ("event_timestamp", pa.timestamp("us", tz="UTC")),
        ("event_id", pa.string()),
        ("item_id", pa.string()),
        ("event_type", pa.string()),
        ("category", pa.string()),
        ("local_timestamp", pa.timestamp("us", tz="UTC")),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        ("region", pa.string()),
        ("groups", pa.map_(pa.string(), pa.string())),
    ]
)
NIGHT_ROW = {
    "user_id": "u", "origin": LAKE, "row": None, "event_id": "", "item_id": "a", "event_type": "visit",
    "category": "x", "latitude": 40.0, "longitude": -74.0, "region": None, "groups": None,
}  # fmt: skip


def lake(hours, item="a", **more):
    when = START + timedelta(hours=hours)
    return {**NIGHT_ROW, "event_timestamp": when, "local_timestamp": when - timedelta(hours=5), "item_id": item, **more}


def new(hours, item="a", row=None, **more):
    return lake(hours, item, origin=NEW, row=row, **more)


def taken(item, user="u"):
    return {**lake(0, item), "origin": TAKEN, "user_id": user, "event_timestamp": None}


def log(*rows):
    rows = [row if row["event_id"] else {**row, "event_id": f"{number:04}"} for number, row in enumerate(rows)]
    begin = datetime.min.replace(tzinfo=UTC)
    rows.sort(key=lambda row: (row["user_id"], row["event_timestamp"] or begin, row["event_id"], row["origin"]))
    return read_log(pa.table({name: [row[name] for row in rows] for name in SCHEMA.names}, schema=SCHEMA))


def options(**more):
    return Options(**{"length": 4, "target_types": ("visit",), **more})


class Listening:
    """A ranker that keeps what it was asked; it prefers items in catalogue order."""

    method = "listening"
    vocabulary = VOCABULARY

    def __init__(self):
        self.items, self.times, self.hours, self.places = [], [], [], []

    def scores(self, histories, queries):
        names = np.array(["", "?", *ITEMS])
        self.items += ["".join(names[row]) for row in histories.item_BL]
        self.times += queries.timestamp_B.tolist()
        self.hours += queries.hour_of_week_B.tolist()
        self.places += [None if np.isnan(one) else round(float(one), 3) for one in queries.latitude_B]
        return np.tile(np.arange(len(ITEMS), 0, -1, dtype=np.float32), (len(queries.timestamp_B), 1))


def asked(*rows, **more):
    """What was asked and answered, by `row`."""
    ranker, made = Listening(), log(*rows)
    found = answers(made, ranker, options(**more))
    told = zip(
        ranker.items, ranker.times, ranker.hours, ranker.places, found.rank_Q.tolist(), found.candidates_Q.tolist(), strict=True
    )
    names = ("items", "time", "hour", "place", "rank", "candidates")
    return {row: dict(zip(names, one, strict=True)) for row, one in zip(made.row_Q.tolist(), told, strict=True)}


def seconds(hours):
    return int((START + timedelta(hours=hours)).timestamp())


def test_each_moment_sees_what_was_earlier_and_nothing_else():
    found = asked(
        lake(0, "a", latitude=10.0),
        lake(1, "b", latitude=None),
        new(2, "c", row=0, latitude=20.0),
        new(3, "d", row=1, latitude=30.0),
        new(2, "e", row=2, user_id="w"),
        new(4, "zz", row=3, latitude=30.0),
    )
    assert found[0] == {"items": "ab", "time": seconds(2), "hour": 6.0, "place": 10.0, "rank": 3, "candidates": 5}
    assert (found[1]["items"], found[1]["place"], found[1]["rank"]) == ("abc", 20.0, 4)
    assert found[2] == {"items": "", "time": seconds(2), "hour": -1.0, "place": None, "rank": 5, "candidates": 5}
    assert (found[3]["items"], found[3]["rank"], found[3]["candidates"]) == ("abcd", 0, 5), "outside the catalogue"


def test_the_history_is_cut_to_its_length_and_unknown_items_stay_in_it():
    found = asked(*[lake(hour, item) for hour, item in enumerate("abcde")], lake(5, "zz"), new(6, "a", row=0))
    assert found[0]["items"] == "cde?"


def test_events_of_the_same_time_are_no_history_of_each_other():
    found = asked(
        lake(0, "a"),
        new(1, "b", row=0, event_id="1"),
        new(1, "c", row=1, event_id="2"),
        lake(1, "d", event_id="0"),
        new(2, "e", row=2),
    )
    assert [found[row]["items"] for row in (0, 1, 2)] == ["a", "a", "adbc"]


def test_a_line_given_twice_is_asked_twice_and_enters_once():
    once = {"event_id": "same"}
    found = asked(lake(0, "a"), new(1, "b", row=0, **once), new(1, "b", row=1, **once), new(2, "c", row=2))
    assert found[0] == found[1] and found[2]["items"] == "ab"


def test_a_line_that_is_in_the_lake_is_asked_and_does_not_double():
    once = {"event_id": "same"}
    rows = (lake(0, "a"), lake(1, "b", **once), new(1, "b", row=0, **once), lake(2, "c"), new(40, "d", row=1))
    found = asked(*rows)
    assert found[0]["items"] == "a" and found[1]["items"] == "abc"
    assert asked(*rows, freeze_history=True)[1]["items"] == "abc", "it stays the lake's"


def test_hidden_time_is_that_of_the_last_event_or_unknown():
    rows = (lake(0, "a"), new(30, "b", row=0), new(40, "c", row=1), new(9, "d", row=2, user_id="w"))
    found = asked(*rows, hide_time=True)
    assert (found[0]["time"], found[0]["hour"]) == (seconds(0), 4.0)
    assert (found[1]["time"], found[1]["hour"]) == (seconds(30), 34.0)
    assert (found[2]["time"], found[2]["hour"]) == (0, -1.0)
    assert found[0]["place"] == 40.0, "the last known place is not the time"


def test_a_frozen_history_is_the_lake_and_the_current_trajectory():
    rows = (
        lake(0, "a"),
        new(30, "b", row=0),
        new(40, "c", row=1),
        new(64, "d", row=2),  # exactly 24 hours later: the same trajectory
        new(88.01, "e", row=3),  # more: a new one, which begins with this event
        new(90, "a", row=4),
    )
    found = asked(*rows, freeze_history=True)
    assert [found[row]["items"] for row in range(5)] == ["a", "ab", "abc", "a", "ae"]
    live = asked(*rows)
    assert [live[row]["items"] for row in range(5)] == ["a", "ab", "abc", "abcd", "bcde"]


def test_a_frozen_history_takes_place_clock_and_seen_items_from_what_it_sees():
    abroad = START + timedelta(hours=40 + 2)
    rows = (
        lake(0, "a", latitude=10.0),
        lake(1, "b", latitude=None),
        new(40, "c", row=0, latitude=20.0, local_timestamp=abroad),
        new(41, "d", row=1, latitude=None, local_timestamp=None),
        new(80, "e", row=2, latitude=30.0),
    )
    found = asked(*rows, freeze_history=True, repeats=False)
    assert (found[1]["place"], found[1]["hour"], found[1]["candidates"]) == (20.0, (9 + 41 + 2) % 168, 2)
    assert (found[2]["place"], found[2]["hour"], found[2]["candidates"]) == (10.0, 9 + 80 - 5, 3)
    hidden = asked(*rows, freeze_history=True, hide_time=True)
    assert (hidden[2]["time"], hidden[2]["items"]) == (seconds(1), "ab")


def test_seen_items_are_left_out_where_items_are_taken_once():
    found = asked(
        taken("e"),
        taken("b", user="w"),
        lake(0, "a"),
        lake(1, "c", event_type="view"),
        new(2, "c", row=0),
        new(3, "d", row=1),
        new(4, "a", row=2),
        new(4, "b", row=3, user_id="w"),
        repeats=False,
    )
    assert (found[0]["rank"], found[0]["candidates"]) == (2, 3), "a and e are out: c comes after b"
    assert (found[1]["rank"], found[1]["candidates"]) == (2, 2), "c is out as well"
    assert (found[2]["rank"], found[2]["candidates"]) == (2, 1), "taken before: after all that are ranked"
    assert (found[3]["rank"], found[3]["candidates"]) == (5, 4)


def direct_view(rows, row, freeze):
    """The events that a moment sees, by a plain loop over its user's events."""
    earlier = [one for one in rows if one["user_id"] == row["user_id"] and one["origin"] != TAKEN and not one.get("again")]
    earlier = [one for one in earlier if one["event_timestamp"] < row["event_timestamp"]]
    earlier.sort(key=lambda one: (one["event_timestamp"], one["event_id"]))
    if not freeze:
        return earlier
    trajectory, later = [], row["event_timestamp"]
    for one in reversed(earlier):
        if later - one["event_timestamp"] > timedelta(hours=24):
            break
        trajectory.append(one["event_id"])
        later = one["event_timestamp"]
    return [one for one in earlier if one["origin"] == LAKE or one["event_id"] in trajectory]


@pytest.mark.parametrize("freeze", [False, True])
def test_histories_equal_a_plain_loop_over_random_logs(freeze, monkeypatch):
    monkeypatch.setattr(replay, "_MOMENTS_AT_ONCE", 7)
    random = np.random.default_rng(5)
    rows = []
    for number in range(300):
        kind = NEW if random.random() < 0.5 else LAKE
        rows.append(
            lake(
                int(random.integers(0, 300)),
                ITEMS[random.integers(5)],
                origin=kind,
                row=number if random.random() < 0.6 else None,
                user_id=f"u{random.integers(6)}",
                event_id=f"{number:04}",
                latitude=float(number) / 10 if random.random() < 0.5 else None,
            )
        )
    rows += [{**row, "row": 1000 + number, "again": True, "origin": NEW} for number, row in enumerate(rows[::10])]
    for length in (1, 4, 60):
        found = asked(*rows, length=length, freeze_history=freeze)
        assert len(found) == sum(row["row"] is not None for row in rows)
        for row in rows:
            if row["row"] is not None:
                view = direct_view(rows, row, freeze)
                assert found[row["row"]]["items"] == "".join(one["item_id"] for one in view[-length:])
                placed = [one["latitude"] for one in view if one["latitude"] is not None]
                assert found[row["row"]]["place"] == pytest.approx(placed[-1] if placed else None, abs=1e-3)


def markov():
    return baseline("markov", count(VOCABULARY, ("visit",), (["a", "b"], [3, 2], [3, 2]), (["a", "b"], ["c", "d"], [3, 2])))


class Elsewhere(Listening):
    """A ranker that uses all it is told, so that any leak shows."""

    def scores(self, histories, queries):
        place = np.nan_to_num(queries.latitude_B) * 7 + np.nan_to_num(queries.longitude_B) * 3 + queries.hour_of_week_B
        told = place + histories.item_BL.sum(axis=1) + np.nan_to_num(histories.latitude_BL).sum(axis=1)
        told = told + histories.category_BL.sum(axis=1) * 5 + histories.event_type_BL.sum(axis=1)
        return np.sin(told[:, None] * np.arange(1, 6)).astype(np.float32)


def week(seed):
    random = np.random.default_rng(seed)
    rows = [
        lake(
            int(random.integers(0, 100)),
            ITEMS[random.integers(5)],
            user_id=f"u{random.integers(4)}",
            latitude=float(random.uniform(0, 50)),
        )
        for _ in range(40)
    ]
    rows += [
        new(
            int(random.integers(100, 200)),
            ITEMS[random.integers(5)],
            row=number,
            user_id=f"u{random.integers(4)}",
            event_id=f"{number:03}",
            latitude=float(random.uniform(0, 50)),
        )
        for number in range(40)
    ]
    return rows


def rank_of(rows, row, ranker=None):
    made = log(*rows)
    return int(answers(made, ranker or Elsewhere(), options()).rank_Q[made.row_Q.tolist().index(row)])


def test_none_of_the_answers_own_columns_reaches_the_ranker():
    """Promise 5: each target's place, category, type, clock and id are scrambled alone; its rank stays."""
    rows = week(6)
    scrambled = {
        "latitude": -33.0, "longitude": 151.0, "category": "y", "event_type": "view", "event_id": "zzz",
        "local_timestamp": START + timedelta(days=3, hours=7),
    }  # fmt: skip
    changed = 0
    for place, row in enumerate(rows):
        if row["row"] is None:
            continue
        other = [*rows[:place], {**row, **scrambled}, *rows[place + 1 :]]
        assert rank_of(other, row["row"]) == rank_of(rows, row["row"])
        later = [one["row"] for one in rows if one["row"] is not None and one["event_timestamp"] > row["event_timestamp"]]
        changed += sum(rank_of(other, one) != rank_of(rows, one) for one in later[:3])
    assert changed > 10, "later moments do see the event, so the scrambling shows where it may"


def test_later_lines_do_not_matter():
    rows = week(7)
    for cut in (120, 150, 180):
        before = [row for row in rows if row["event_timestamp"] <= START + timedelta(hours=cut)]
        for row in (one["row"] for one in before if one["row"] is not None):
            assert rank_of(before, row) == rank_of(rows, row)


def test_the_best_items_come_with_the_ranks_and_batches_are_bounded(monkeypatch):
    rows = (lake(0, "a"), new(1, "c", row=0), new(2, "d", row=1))
    made = log(*rows)
    found = answers(made, markov(), options(), k=2)
    assert [sorted(row) for row in found.best_QK.tolist()] == [[0, 2], [0, 1]]
    assert answers(made, markov(), options(), k=9).best_QK.shape == (2, 5)
    monkeypatch.setattr(replay, "_SCORES_AT_ONCE", 5)
    assert [chosen for chosen, _, _ in batches(made, markov(), options())] == [slice(0, 1), slice(1, 2)]
    assert answers(made, markov(), options()).rank_Q.tolist() == found.rank_Q.tolist()


def test_an_empty_log_and_users_without_events():
    empty = log()
    assert answers(empty, markov(), options(), k=3).rank_Q.tolist() == []
    only = log(new(1, "a", row=0))
    assert answers(only, markov(), options(repeats=False), k=3).rank_Q.tolist() == [1]
    assert sight(only, freeze_history=True).rows(slice(0, 1), 3).tolist() == [[-1, -1, -1]]
