"""The worker's part without Spark: which moments are asked about, which items end up on the lists."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
import torch

from conf.contracts import SLOTS
from conf.learning import Model
from jobs.score.blending import SOURCES, Blend
from jobs.score.lists import Scorer
from jobs.score.moments import ALL_SLOTS, slot_hour
from models import nearest
from models.bulk import BulkScorer
from models.interest import InterestModel, new_network
from models.policy import EVERYWHERE, Policy
from models.queries import Histories, Vocabulary

DAY = date(2024, 5, 2)  # a Thursday
ITEMS = tuple(f"i{n:02d}" for n in range(30))
VOCABULARY = Vocabulary(
    items=ITEMS, item_categories=("Coffee Shop", "Gym") * 15, categories=("Coffee Shop", "Gym"), event_types=("check_in",)
)
NEW_YORK = ZoneInfo("America/New_York")
USER = {
    "events": [{}], "seen": None, "unwanted": None, "kept": 0, "place_latitude": None, "place_longitude": None,
    "digest_before": None,
}  # fmt: skip
EVENT = {
    "item_id": "i00", "category": "Coffee Shop", "event_type": "check_in", "latitude": 40.75, "longitude": -73.98,
    "event_timestamp": datetime(2024, 5, 2, 13, tzinfo=UTC), "local_timestamp": datetime(2024, 5, 2, 9, tzinfo=UTC),
    "slot": "weekday_morning",
}  # fmt: skip
STAMP = pa.timestamp("us", tz="UTC")
TYPES = {"event_timestamp": STAMP, "local_timestamp": STAMP, "latitude": pa.float64(), "longitude": pa.float64()}


class Recorder:
    """A ranker with scores that depend on user and slot, which keeps what it was asked."""

    method = "recorder"
    vocabulary = VOCABULARY

    def __init__(self):
        self.histories, self.queries = [], []

    def scores(self, histories, queries):
        self.histories.append(histories)
        self.queries.append(queries)
        hour = queries.hour_of_week_B[:, None].astype(np.float64)
        return (np.sin(hour + np.arange(len(ITEMS)) * (1 + histories.item_BL[:, -1:])) * 3).round(1).astype(np.float32)

    def asked(self, name):
        return np.concatenate([getattr(queries, name) for queries in self.queries])


class Favourite(Recorder):
    """Items of the one category come before all of the other."""

    def scores(self, histories, queries):
        row_V = np.array([place % 2 * -10 - place * 0.3 for place in range(len(ITEMS))], np.float32)
        return np.tile(row_V, (len(queries.timestamp_B), 1))


class Evens(Recorder):
    """After an item with an even number all the even ones come first, else all mixed; how far apart differs."""

    def scores(self, histories, queries):
        newest_B1 = histories.item_BL[:, -1:].astype(np.float64)
        place_V = np.arange(len(ITEMS))
        mixed_BV = -place_V * (1 + newest_B1 / 7)
        return np.where(newest_B1 % 2 == 0, mixed_BV - place_V % 2 * 100, mixed_BV).astype(np.float32)


class Broadcast:
    def __init__(self, value):
        self.value = value


def users(*changes):
    rows = [{**USER, "user_id": f"u{n}", **change} for n, change in enumerate(changes)]
    columns = {"user_id": pa.array([row["user_id"] for row in rows], pa.string())}
    for field in EVENT:
        lists = [None if row["events"] is None else [{**EVENT, **event}[field] for event in row["events"]] for row in rows]
        columns[field] = pa.array(lists, pa.list_(TYPES.get(field, pa.string())))
    for name in ("seen", "unwanted"):
        columns[name] = pa.array([row[name] for row in rows], pa.list_(pa.string()))
    columns["kept"] = pa.array([row["kept"] for row in rows], pa.int32())
    for name in ("place_latitude", "place_longitude"):
        columns[name] = pa.array([row[name] for row in rows], pa.list_(pa.float64()))
    columns["digest_before"] = pa.array([row["digest_before"] for row in rows], pa.int64())
    return pa.RecordBatch.from_pydict(columns)


def scored(batch, ranker, gone=(), boost=None, brands=None, **more):
    facts = pa.table({
        "item_id": pa.array(ITEMS), "title": pa.array([None] * 30, pa.string()), "category": pa.array([None] * 30, pa.string()),
        "users": pa.array([1] * 30), "kept": pa.array([0] * 30), "withdrawn": pa.array([item in gone for item in ITEMS]),
        "brand": pa.array([(brands or {}).get(item) for item in ITEMS], pa.string()),
        "boost": pa.array([(boost or {}).get(item) for item in ITEMS], pa.float64()),
    })  # fmt: skip
    options = {
        "folder": "",
        "k": 5,
        "slots": True,
        "has_times": True,
        "repeats": True,
        "length": 50,
        "targets": ("check_in",),
        **more,
    }
    scorer = Scorer(load=lambda folder: ranker, facts=Broadcast(facts), day=DAY, **options)
    (answer,) = scorer([batch])
    return [
        {slot: [entry for entry in row["lists"] if entry["slot"] == slot] for slot in ALL_SLOTS} for row in answer.to_pylist()
    ]


def test_a_slot_is_asked_about_at_its_middle_hour_in_the_week_after_the_day():
    ranker = Recorder()
    scored(users({}), ranker)
    after = datetime(2024, 5, 3, tzinfo=UTC)  # Thursday evening in New York
    local = [datetime.fromtimestamp(int(stamp), NEW_YORK) for stamp in ranker.asked("timestamp_B")]
    assert [f"{moment:%a %H:%M}" for moment in local[:-1]] == [
        "Thu 02:00", "Wed 09:00", "Wed 15:00", "Wed 20:00", "Sun 02:00", "Sat 09:00", "Sat 15:00", "Sat 20:00",
    ]  # fmt: skip
    assert all(after <= moment < after + timedelta(days=7) for moment in local)
    assert local[-1] == after, "`any` is asked as the day ends"
    assert ranker.asked("hour_of_week_B").tolist() == [*(slot_hour(slot) for slot in SLOTS), -1.0]


def test_the_clock_is_that_of_the_last_event_that_has_one():
    ranker = Recorder()
    east = {"local_timestamp": datetime(2024, 5, 2, 22, tzinfo=UTC)}  # nine hours ahead
    scored(users({"events": [{}, east, {"local_timestamp": None}]}, {"events": [{"local_timestamp": None}]}), ranker)
    morning = ranker.asked("timestamp_B")[[1, 10]]
    assert morning.tolist() == [datetime(2024, 5, 8, hour, tzinfo=UTC).timestamp() for hour in (0, 9)]


def test_the_place_is_the_main_place_of_the_slot_else_the_last_known():
    ranker = Recorder()
    latitude = [None, 1.0, None, None, None, None, None, 7.0]
    somewhere = {"place_latitude": latitude, "place_longitude": [None if value is None else -value for value in latitude]}
    nowhere = {"latitude": None, "longitude": None}
    scored(users({**somewhere, "events": [{}, nowhere]}, {"events": [nowhere]}), ranker)
    asked = ranker.asked("latitude_B").reshape(2, 9)
    np.testing.assert_array_equal(asked[0], [40.75, 1, 40.75, 40.75, 40.75, 40.75, 40.75, 7, 40.75])
    assert np.isnan(asked[1]).all(), "one user's place is not another's"
    assert ranker.asked("longitude_B").reshape(2, 9)[0, [1, 7]].tolist() == [-1.0, -7.0]


def test_lists_are_the_best_of_the_whole_catalogue_without_the_withdrawn_and_the_seen():
    ranker = Recorder()
    lists = scored(
        users({"seen": ["i01", "other"], "events": [{"item_id": "i03"}]}, {"seen": ["i05"]}),
        ranker, gone=("i02",), repeats=False, k=7,
    )  # fmt: skip
    assert np.concatenate([history.item_BL for history in ranker.histories]).shape == (18, 1)
    scores = np.concatenate([Recorder().scores(h, q) for h, q in zip(ranker.histories, ranker.queries, strict=True)])
    for user, forbidden in enumerate([{1, 2}, {5, 2}]):
        for place, slot in enumerate(ALL_SLOTS):
            row = scores[user * 9 + place]
            best = sorted(set(range(30)) - forbidden, key=lambda item: (-row[item], item))[:7]
            found = lists[user][slot]
            assert [entry["item_id"] for entry in found] == [ITEMS[item] for item in best]
            assert [entry["rank"] for entry in found] == list(range(1, 8))
            assert [entry["score"] for entry in found] == [row[item] for item in best]


def in_order(events):
    return [{**one, "event_timestamp": EVENT["event_timestamp"] + timedelta(minutes=n)} for n, one in enumerate(events)]


@pytest.mark.parametrize("repeats", [True, False])
def test_what_a_user_turned_against_is_on_none_of_their_lists_until_they_take_it(repeats):
    against, more = {"event_type": "dislike"}, {"repeats": repeats, "k": len(ITEMS), "slots": False}
    gone_back = [{"item_id": "i05", **against}, {"item_id": "i05", "event_type": "click"}, {"item_id": "i05"}]
    given = [
        {"events": [{"item_id": "i01", **against}, {"item_id": "i02"}, {"item_id": "i03", "event_type": "dismiss"}]},
        {"events": gone_back[:2]},
        {"events": gone_back, "unwanted": ["i07", "unknown"], "seen": ["i05"]},
        {"events": [*gone_back, gone_back[0]]},
        {},
    ]
    given = [{**one, "events": in_order(one["events"])} if "events" in one else one for one in given]
    given.append(
        {"events": [{"item_id": "i09", **against}, {"item_id": "i09"}, {"item_id": "i08"}, {"item_id": "i08", **against}]}
    )
    lists = scored(users(*given), Recorder(), **more)
    missing = [set(ITEMS) - {entry["item_id"] for entry in one["any"]} for one in lists]
    assert missing == [{"i01", "i03"}, {"i05"}, {"i07"} if repeats else {"i05", "i07"}, {"i05"}, set(), {"i08", "i09"}]
    alone = [scored(users(one), Recorder(), **more)[0]["any"] for one in given]
    assert alone == [one["any"] for one in lists], "of one user what another is against"


@pytest.mark.parametrize("looked_at", [2, 30])
def test_caps_fill_lists_with_what_comes_next_and_boosts_move_items(monkeypatch, looked_at):
    monkeypatch.setattr("jobs.score.lists._LOOKED_AT", looked_at)
    brands = {item: f"b{place % 7}" for place, item in enumerate(ITEMS) if place % 5}
    boost = {ITEMS[4]: 9.0, ITEMS[6]: 8.0, ITEMS[8]: 7.0, ITEMS[9]: -9.0}
    caps = {"category": 4, "brand": 1}
    lists = scored(users({}, {"events": [{"item_id": "i07"}]}), Recorder(), boost=boost, brands=brands, caps=caps, k=7)
    ranker = Recorder()
    scored(users({}, {"events": [{"item_id": "i07"}]}), ranker, k=7)
    scores = np.concatenate([Recorder().scores(h, q) for h, q in zip(ranker.histories, ranker.queries, strict=True)])
    scores = scores + np.array([boost.get(item, 0.0) for item in ITEMS], np.float32)
    for user in range(2):
        for place, slot in enumerate(ALL_SLOTS):
            row, taken = scores[user * 9 + place], []
            for item in sorted(range(30), key=lambda item: (-row[item], item)):
                alike = sum(one % 2 == item % 2 for one in taken)
                same = [one for one in taken if brands.get(ITEMS[one]) == brands.get(ITEMS[item]) is not None]
                if alike < 4 and not same and len(taken) < 7:
                    taken.append(item)
            assert [entry["item_id"] for entry in lists[user][slot]] == [ITEMS[item] for item in taken], slot
            assert {ITEMS[4], ITEMS[6], ITEMS[8]} <= {entry["item_id"] for entry in lists[user][slot]}


def test_a_list_that_caps_leave_short_changes_no_list_beside_it():
    def lists_of(*events):
        crowd = users(*[{"events": [{"item_id": item}]} for item in events])
        return scored(crowd, Evens(), caps={"category": 2}, diversity=0.3, k=4)

    alone = [lists_of(item)[0] for item in ("i00", "i01", "i02", "i03")]
    assert lists_of("i00", "i01", "i02", "i03") == alone
    kinds = [{int(entry["item_id"][1:]) % 2 for entry in lists["any"]} for lists in alone]
    assert kinds == [{0, 1}] * 4, "who takes evens finds no odd one among the best sixteen, and gets some"
    assert all(len(lists["any"]) == 4 for lists in alone)


def test_more_of_the_same_is_worth_less_the_more_diverse_lists_are_to_be():
    def share(diversity):
        lists = scored(users({}), Favourite(), diversity=diversity, k=6)
        return np.mean([[int(entry["item_id"][1:]) % 2 for entry in entries] for entries in lists[0].values()])

    assert share(0.0) == 0 and 0 < share(0.4) <= share(0.9) <= 0.5


def test_small_tiles_change_nothing(monkeypatch):
    crowd = users(*[{"events": [{"item_id": ITEMS[n % 30]}] * (1 + n % 4)} for n in range(20)])
    whole = scored(crowd, Recorder())
    monkeypatch.setattr("jobs.score.lists._SCORES_AT_ONCE", 40)
    assert scored(crowd, Recorder()) == whole


def test_a_vanished_user_gets_empty_lists_and_a_short_catalogue_short_ones():
    lists = scored(users({"events": None, "digest_before": 7}, {}), Recorder(), gone=ITEMS[3:])
    assert all(entries == [] for entries in lists[0].values())
    assert all({entry["item_id"] for entry in entries} == set(ITEMS[:3]) for entries in lists[1].values())


def test_a_log_without_times_has_one_list_right_after_the_last_event():
    ranker = Recorder()
    events = [
        {"event_timestamp": datetime(2000, 1, 1, 0, 0, n, tzinfo=UTC), "local_timestamp": None, "slot": None} for n in range(3)
    ]
    (lists,) = scored(users({"events": events}), ranker, slots=False, has_times=False)
    assert [slot for slot, entries in lists.items() if entries] == ["any"]
    assert ranker.asked("timestamp_B").tolist() == [datetime(2000, 1, 1, 0, 0, 3, tzinfo=UTC).timestamp()]
    assert ranker.asked("hour_of_week_B").tolist() == [-1.0]


def test_a_broken_model_is_refused():
    class Broken(Recorder):
        def scores(self, histories, queries):
            return np.full((len(queries.timestamp_B), len(ITEMS)), np.nan, np.float32)

    with pytest.raises(ValueError, match="NaN"):
        scored(users({}), Broken())


def test_a_model_scores_in_bulk_as_it_does_one_by_one(monkeypatch):
    torch.manual_seed(1)
    model = InterestModel(new_network(Model(window=8, width=16, layers=1, heads=2), VOCABULARY), VOCABULARY)
    for weight in model.network.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    asked = []
    tiles = BulkScorer.tiles
    monkeypatch.setattr(BulkScorer, "tiles", lambda bulk, *question: asked.append(question) or tiles(bulk, *question))
    monkeypatch.setattr("models.bulk._SCORES_AT_ONCE", 30 * 7)
    monkeypatch.setattr("models.bulk._HISTORIES_AT_ONCE", 5)
    lists = scored(users(*[{"events": [{"item_id": ITEMS[m % 30]} for m in range(n)]} for n in range(1, 14)]), model, k=30)
    found = [{entry["item_id"]: entry["score"] for entry in user[slot]} for user in lists for slot in ALL_SLOTS]
    ((histories, queries),) = asked
    assert len(histories.item_BL) == 13 and len(queries.timestamp_B) == 13 * 9
    repeated = {name: np.repeat(values, 9, axis=0) for name, values in vars(histories).items() if name != "seen"}
    wanted = model.scores(Histories(**repeated), queries)
    np.testing.assert_allclose([[row[item] for item in ITEMS] for row in found], wanted, rtol=1e-4, atol=1e-4)
    assert np.ptp(wanted.reshape(13, 9, 30), axis=1).max() > 0.1, "slots differ"


@pytest.mark.parametrize(
    ("more", "is_exact"),
    [
        ({}, False),
        ({"gone": ITEMS[3:12], "boost": {"i20": 4.0, "i21": 3.0, "i22": -3.0}}, False),
        ({"repeats": False, "k": 3}, False),
        ({"caps": {"category": 3, "brand": 1}, "diversity": 0.2}, False),
        ({"gone": ITEMS[2:28]}, True),
        ({"gone": ITEMS[:14], "diversity": 0.2}, True),
        ({"caps": {"brand": 1}, "brands": {item: "a" for item in ITEMS[1:]}}, True),
    ],
)
def test_lists_by_an_index_are_the_exact_ones_and_as_long(monkeypatch, tmp_path, more, is_exact):
    torch.manual_seed(1)
    model = InterestModel(new_network(Model(window=8, width=16, layers=1, heads=2), VOCABULARY), VOCABULARY)
    for weight in model.network.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    nearest.build(tmp_path, model.item_matrix(), model.item_bias(), threads=1, tell=lambda done: None)
    anew, scored_all = [], BulkScorer.scored
    monkeypatch.setattr(BulkScorer, "scored", lambda bulk, some: anew.append(len(some.vector_BD)) or scored_all(bulk, some))
    brands = {item: f"b{place % 7}" for place, item in enumerate(ITEMS) if place % 5}
    batch = users(
        *[{"events": [{"item_id": ITEMS[m % 30]} for m in range(n)], "seen": ["i01", ITEMS[n]]} for n in range(1, 14)]
    )
    options = {"brands": brands, "k": 4, **more}
    exact = scored(batch, model, **options)
    anew.clear()
    monkeypatch.setattr("models.nearest._NUMBERS_AT_ONCE", 16 * 60)
    by_index = scored(batch, model, folder=str(tmp_path), nearest=20, **options)
    assert (sum(anew) > 0) == is_exact
    for found, wanted in zip(by_index, exact, strict=True):
        for slot in ALL_SLOTS:
            assert [entry["item_id"] for entry in found[slot]] == [entry["item_id"] for entry in wanted[slot]]
            np.testing.assert_allclose(
                *[[entry["score"] for entry in one[slot]] for one in (found, wanted)], rtol=1e-4, atol=1e-4
            )
    (tmp_path / "nearest.usearch").write_bytes(b"")
    with pytest.raises(ValueError, match=r"nearest.usearch is no index of its version's items: step score makes it anew"):
        scored(batch, model, folder=str(tmp_path), nearest=20, **options)


class Knowing(Recorder):
    """One that knows more than its order: what is near, and nothing of likeness."""

    def ways(self, histories, queries, many):
        near = np.tile(np.arange(len(ITEMS))[::-1][:many], (len(queries.timestamp_B), 1))
        return {"nearby": near, "alike": np.full_like(near, -1)}


@pytest.fixture
def blend(tmp_path):
    """An even mix, of which a part is held out and another shuffled."""
    even = np.full((1, len(SOURCES)), 1 / len(SOURCES))
    nothing = np.zeros_like(even)
    policy = Policy(
        sources=SOURCES, contexts=(EVERYWHERE,), share_CS=even, seen_CS=nothing, spread_CS=nothing, earned_CS=nothing
    )
    policy.save(tmp_path / "policy")
    return Blend(folder=str(tmp_path / "policy"), version="p", week=1, shuffled=0.2, holdout=0.2)


def crowd(count, **more):
    batch = users(*[{"events": [{"item_id": f"i{n % 7:02}"}, {"item_id": f"i{n % 5:02}"}], **more} for n in range(count)])
    region = pa.array(["US/New York/Soho", None] * (count // 2))
    return pa.RecordBatch.from_arrays([*batch.columns, region], names=[*batch.schema.names, "region"])


def test_mixed_lists_keep_every_rule(blend):
    seen, gone = ["i03", "i29", "i11"], ("i02", "i28")
    brands = {item: f"b{place % 4}" for place, item in enumerate(ITEMS)}
    options = {"gone": gone, "brands": brands, "caps": {"brand": 2}, "repeats": False, "k": 6}
    plain = scored(crowd(40, seen=seen), Knowing(), **options)
    mixed = scored(crowd(40, seen=seen), Knowing(), blend=blend, **options)
    assert mixed == scored(crowd(40, seen=seen), Knowing(), blend=blend, **options), "a week's draws stay"
    assert mixed != scored(crowd(40, seen=seen), Knowing(), blend=replace(blend, week=2), **options)
    kinds, held = set(), 0
    for before, after in zip(plain, mixed, strict=True):
        held += before == after
        for slot in ALL_SLOTS:
            items = [entry["item_id"] for entry in after[slot]]
            assert len(set(items)) == len(items) == len(before[slot]) == 6
            assert not {*seen, *gone} & set(items)
            assert max(Counter(brands[item] for item in items).values()) <= 2
            assert [entry["rank"] for entry in after[slot]] == [1, 2, 3, 4, 5, 6]
            for entry in after[slot]:
                assert 0 < entry["propensity"] <= 1.0
                kinds |= {"ranking" if entry["source"] is None else entry["source"]}
                if entry["source"] == "shuffled":
                    assert entry["propensity"] == pytest.approx(1 / 6)
    assert 2 <= held <= 16, "a fifth is held out"
    assert {"ranking", "shuffled", "random", "nearby"} <= kinds
    assert "own" not in kinds, "what was taken is not listed again"
    assert "alike" not in kinds, "who has nothing leaves it to the ranking"


def test_mixed_lists_give_what_was_taken_again_where_that_may_be_and_end_where_the_catalogue_does(blend):
    mixed = scored(crowd(40), Recorder(), blend=blend, k=50)
    assert all(len(lists[slot]) == len(ITEMS) for lists in mixed for slot in ALL_SLOTS)
    assert any(entry["source"] and "own" in entry["source"].split("+") for lists in mixed for entry in lists["any"])
    assert scored(crowd(2, events=None), Recorder(), blend=blend)[0]["any"] == [], "nobody is given lists who had none"
