import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from conf.learning import Model
from models.buckets import DISTANCE_BUCKETS, TIME_BUCKETS, UNKNOWN_DISTANCE, distance_bucket, time_bucket
from models.events import last_known
from models.habits import measures
from models.interest import InterestModel, grown, new_network, parts
from models.network import first_places
from models.queries import Histories, Queries, Vocabulary

VOCABULARY = Vocabulary(
    items=tuple("abcdefgh"),
    item_categories=("x", "x", "y", "y", "", "x", "y", "y"),
    categories=("x", "y"),
    event_types=("view", "buy"),
)
SETTINGS = Model(window=8, width=16, heads=2, layers=2)
NOW = 1_700_000_000


def model(vocabulary=VOCABULARY, **settings):
    """Weights large enough for every input to matter."""
    torch.manual_seed(1)
    network = new_network(SETTINGS.model_copy(update=settings), vocabulary)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return InterestModel(network, vocabulary)


def histories(rows=6, length=8, seed=0, counts=(0, 2)):
    generator = np.random.default_rng(seed)
    shape = (rows, length)
    given = {
        "item_BL": generator.integers(1, 10, shape).astype(np.int32),
        "category_BL": generator.integers(1, 4, shape).astype(np.int32),
        "event_type_BL": generator.integers(2, 4, shape).astype(np.int32),
        "timestamp_BL": NOW - np.sort(generator.integers(1, 10**6, shape), axis=1)[:, ::-1],
        "hour_of_week_BL": generator.uniform(0, 168, shape).astype(np.float32),
        "latitude_BL": generator.uniform(40.6, 40.8, shape).astype(np.float32),
        "longitude_BL": generator.uniform(-74.1, -73.9, shape).astype(np.float32),
    }
    given["latitude_BL"][generator.random(shape) < 0.2] = np.nan
    # `counts` are the events of the first users: one is new.
    for row, count in enumerate(counts):
        for name, values in given.items():
            values[row, : length - count] = 0 if values.dtype.kind == "i" else -1 if name == "hour_of_week_BL" else np.nan
    return Histories(**given)


def part(past, chosen):
    return Histories(**{name: values[chosen] for name, values in vars(past).items() if name != "seen"})


def together(first, second):
    names = [name for name in vars(first) if name != "seen"]
    return Histories(**{name: np.concatenate([getattr(first, name), getattr(second, name)], axis=1) for name in names})


def queries(rows=6, **more):
    given = {
        "timestamp_B": np.full(rows, NOW),
        "hour_of_week_B": np.linspace(0, 150, rows).astype(np.float32),
        "latitude_B": np.full(rows, 40.7, np.float32),
        "longitude_B": np.full(rows, -74.0, np.float32),
    }
    return Queries(**{**given, **more})


def test_scores_are_vectors_times_items_plus_bias_plus_the_sparse_term():
    ranker, past, asked = model(), histories(), queries()
    found = ranker.scores(past, asked)
    assert found.shape == (6, 8) and found.dtype == np.float32 and np.isfinite(found).all()
    rebuilt = ranker.query_vectors(past, asked) @ ranker.item_matrix() + ranker.item_bias()
    pulls = ranker.history_term(past, asked)
    rebuilt[pulls.rows_P, pulls.places_P] += pulls.values_P
    np.testing.assert_allclose(rebuilt, found, atol=1e-4)
    pairs = set(zip(pulls.rows_P.tolist(), pulls.places_P.tolist(), strict=True))
    own = {(row, item - 2) for row, items in enumerate(past.item_BL.tolist()) for item in items if item >= 2}
    assert pairs == own and len(pairs) == len(pulls.rows_P), "an item of the own history once each, unknown ones left out"


def test_scores_do_not_depend_on_who_else_is_asked_for(monkeypatch):
    ranker, past, asked = model(), histories(rows=7), queries(rows=7)
    whole = ranker.scores(past, asked)
    monkeypatch.setattr("models.interest._PAIRS_AT_ONCE", 3 * 8**2)
    # Not to the bit: pairs of all that are asked are multiplied at once.
    np.testing.assert_allclose(ranker.scores(past, asked), whole, rtol=1e-5, atol=2e-5)
    nobody = ranker.scores(
        histories(rows=2).__class__(**{n: v[:0] for n, v in vars(past).items() if n != "seen"}), queries(rows=0)
    )
    assert nobody.shape == (0, 8)


def test_padding_and_events_past_the_window_do_not_count():
    ranker, past, asked = model(), histories(), queries()
    padding = histories(rows=6, counts=(0,) * 6)
    longer = together(padding, past)
    np.testing.assert_array_equal(ranker.scores(longer, asked), ranker.scores(past, asked))
    small = model(window=5)
    np.testing.assert_array_equal(small.scores(past, asked), small.scores(part(past, (slice(None), slice(3, None))), asked))
    two = ranker.scores(part(past, (slice(None), slice(6, None))), asked)
    np.testing.assert_allclose(two[:2], ranker.scores(past, asked)[:2], atol=1e-5)


@pytest.mark.parametrize("change", ["hour_of_week_B", "timestamp_B", "latitude_B"])
def test_the_query_matters(change):
    ranker, past = model(), histories()
    moved = {
        "hour_of_week_B": np.full(6, 77, np.float32),
        "timestamp_B": np.full(6, NOW + 10**6),
        "latitude_B": np.full(6, 41.5, np.float32),
    }
    asked = queries()
    found = np.abs(ranker.scores(past, asked) - ranker.scores(past, replace(asked, **{change: moved[change]}))).max(axis=1)
    known = found[1:] if change == "timestamp_B" else found
    assert (known > 1e-4).all()


@pytest.mark.parametrize("name", ["item_BL", "category_BL", "event_type_BL", "timestamp_BL", "hour_of_week_BL", "latitude_BL"])
def test_every_column_of_the_history_matters(name):
    ranker, past, asked = model(), histories(), queries()
    values = getattr(past, name).copy()
    if name == "latitude_BL":
        values[:, 6] = 39.0
    elif name == "hour_of_week_BL":
        values[:, 6] = (values[:, 6] + 30) % 168
    elif name == "timestamp_BL":
        values[:, :6] -= 10**7
    else:
        values[:, 6] = np.where(values[:, 6] == 2, 3, 2)
    changed = ranker.scores(replace(past, **{name: values}), asked)
    assert (np.abs(changed - ranker.scores(past, asked)).max(axis=1)[2:] > 1e-5).all()


def test_a_hidden_time_hides_it_wholly_and_an_unknown_place_is_allowed():
    ranker, past = model(), histories()
    hidden = queries(hour_of_week_B=np.full(6, -1, np.float32), latitude_B=np.full(6, np.nan, np.float32))
    found = ranker.scores(past, hidden)
    assert np.isfinite(found).all()
    later = replace(hidden, timestamp_B=hidden.timestamp_B + 12345)
    np.testing.assert_array_equal(ranker.scores(past, later), found)


def test_the_time_of_the_last_event_says_nothing_of_when_it_is_asked_for():
    ranker, past, asked = model(), histories(), queries()
    no_time = replace(asked, hour_of_week_B=np.full(6, -1, np.float32))
    at_the_last = replace(asked, timestamp_B=past.timestamp_BL[:, -1])
    hidden, found = ranker.scores(past, no_time), ranker.scores(past, at_the_last)
    some = (past.item_BL != 0).any(axis=1)
    assert some.sum() > 2
    np.testing.assert_array_equal(found[some], hidden[some])
    a_second_later = ranker.scores(past, replace(asked, timestamp_B=at_the_last.timestamp_B + 1))
    assert (np.abs(a_second_later - hidden).max(axis=1)[some] > 1e-4).all()


def fused(fusion):
    """What each moment's vector is made of, (B, 1, 3 D), both readings, and the gate; all other weights are those of any."""
    made, seen = model(fusion=fusion), []
    made.network.load_state_dict({**made.network.state_dict(), **_shared(model().network, made.network)})
    made.network.vector.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    short, long, _ = made.readings(histories(), queries())
    return seen[0].numpy(), short, long, made.network.gate


def _shared(one, other):
    wanted = other.state_dict()
    return {name: value for name, value in one.state_dict().items() if name in wanted and wanted[name].shape == value.shape}


@pytest.mark.parametrize(("fusion", "weights"), [("gate", SETTINGS.width), ("attention", 1)])
def test_long_and_short_are_weighed_by_number_or_as_wholes_or_not_at_all(fusion, weights):
    plain, short, long, none = fused("concatenation")
    width = SETTINGS.width
    assert none is None
    np.testing.assert_array_equal(plain[:, 0, :width], short)
    np.testing.assert_array_equal(plain[:, 0, width : 2 * width], long)
    joined, _, _, gate = fused(fusion)
    share = 1 / (1 + np.exp(-(plain @ gate.weight.detach().numpy().T + gate.bias.detach().numpy())))
    assert share.shape[-1] == weights and share.std() > 0.01
    wanted = [share * plain[..., :width], (1 - share) * plain[..., width : 2 * width], plain[..., 2 * width :]]
    np.testing.assert_allclose(joined, np.concatenate(wanted, axis=-1), atol=1e-5)


def test_a_log_without_times_and_places_can_be_ranked():
    past = histories()
    bare = replace(past, hour_of_week_BL=np.full((6, 8), -1, np.float32), latitude_BL=np.full((6, 8), np.nan, np.float32))
    bare = replace(bare, longitude_BL=bare.latitude_BL)
    asked = queries(hour_of_week_B=np.full(6, -1, np.float32), latitude_B=np.full(6, np.nan, np.float32))
    found = model().scores(bare, asked)
    assert np.isfinite(found).all() and len(np.unique(found[2:].round(5))) > 8


def test_new_names_leave_all_old_scores():
    ranker, past, asked = model(), histories(), queries()
    more = Vocabulary(
        items=(*VOCABULARY.items, "new", "newer"),
        item_categories=(*VOCABULARY.item_categories, "z", "x"),
        categories=(*VOCABULARY.categories, "z"),
        event_types=(*VOCABULARY.event_types, "like"),
    )
    larger = InterestModel(grown(ranker.network, more), more)
    # An item that was unknown before is another matter: there is none of them here.
    known = replace(past, item_BL=np.where(past.item_BL == 1, 2, past.item_BL))
    found = larger.scores(known, asked)
    assert found.shape == (6, 10)
    np.testing.assert_array_equal(found[:, :8], ranker.scores(known, asked))
    assert np.isfinite(found).all()


def test_indices_past_the_vocabulary_are_unknown():
    ranker, past, asked = model(), histories(), queries()
    beyond = replace(past, item_BL=np.where(past.item_BL == 1, 99, past.item_BL))
    np.testing.assert_array_equal(ranker.scores(beyond, asked), ranker.scores(past, asked))


def test_a_saved_model_scores_the_same(tmp_path):
    ranker, past, asked = model(), histories(), queries()
    ranker.save(tmp_path)
    again = InterestModel.load(tmp_path)
    assert again.vocabulary == VOCABULARY and again.window == 8 and again.method == "transformer"
    np.testing.assert_array_equal(again.scores(past, asked), ranker.scores(past, asked))


def test_a_network_of_other_parts_is_refused_in_words(tmp_path):
    ranker = model()
    ranker.save(tmp_path)
    larger = replace(VOCABULARY, items=(*VOCABULARY.items, "new"), item_categories=(*VOCABULARY.item_categories, ""))
    assert parts(grown(ranker.network, larger)) == parts(ranker.network), "names alone make no other parts"
    details = json.loads((tmp_path / "version.json").read_text())
    for wrong in ({**details, "parts": "others"}, {name: value for name, value in details.items() if name != "parts"}):
        (tmp_path / "version.json").write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match="another release's network: train anew, or publish another version"):
            InterestModel.load(tmp_path)


HOUR, STATION, PARK = 3600, (40.70, -74.0), (40.80, -73.9)


def pulls(measure, asked_at, hour=12.0, place=STATION):
    """What items 2 (an hour after the station), 3 (ten hours after it) and 4 (an hour after the park) gain in a network in
    which the one measure counts, and all else is as it begins."""
    torch.manual_seed(1)
    network = new_network(SETTINGS, VOCABULARY)
    with torch.no_grad():
        network.habits.joined[-1].weight.zero_(), network.habits.alone.zero_()
        network.habits.alone[measures(SETTINGS).index(measure)] = 5.0
    stops = [(9, 0, STATION), (2, 1, PARK), (9, 50, STATION), (3, 60, PARK), (8, 90, PARK), (4, 91, PARK), (9, 120, STATION)]
    row = Histories(
        item_BL=np.array([[item for item, _, _ in stops]], np.int32),
        category_BL=np.full((1, 7), 2, np.int32),
        event_type_BL=np.full((1, 7), 2, np.int32),
        timestamp_BL=np.array([[NOW + HOUR * (hours - 120) for _, hours, _ in stops]]),
        hour_of_week_BL=np.full((1, 7), 12.0, np.float32),
        latitude_BL=np.array([[place[0] for _, _, place in stops]], np.float32),
        longitude_BL=np.array([[place[1] for _, _, place in stops]], np.float32),
    )
    given = {"timestamp_B": np.array([NOW + asked_at]), "hour_of_week_B": np.array([hour], np.float32)}
    asked = queries(1, **given, latitude_B=np.array([place[0]], np.float32), longitude_B=np.array([place[1]], np.float32))
    found = InterestModel(network, VOCABULARY).history_term(row, asked)
    gained = dict(zip(found.places_P + 2, found.values_P, strict=True))
    return [gained[item] for item in (2, 3, 4)]


def test_what_followed_on_such_a_gap_counts_more():
    soon, ten_hours, slow = pulls("same_pace", HOUR)
    assert min(soon, slow) > ten_hours + 1
    soon, ten_hours, slow = pulls("same_pace", 10 * HOUR)
    assert ten_hours > max(soon, slow) + 1
    hidden = [pulls("same_pace", gap, hour=-1.0) for gap in (HOUR, 10 * HOUR)]
    assert hidden[0] == hidden[1] and max(hidden[0]) < 2, "who does not know the time does not know the gap"


def test_what_was_gone_to_from_where_one_is_counts_more():
    soon, ten_hours, from_the_park = pulls("from_here", HOUR)
    assert min(soon, ten_hours) > from_the_park + 1
    soon, ten_hours, from_the_park = pulls("from_here", HOUR, place=PARK)
    assert from_the_park > max(soon, ten_hours) + 1


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match=r"model.width: 16 is not a multiple of model.heads \(3\)"):
        new_network(SETTINGS.model_copy(update={"heads": 3}), VOCABULARY)


def test_buckets():
    assert time_bucket(torch.tensor([0, 1, 3, -3, 2**40])).tolist() == [0, 1, 2, 2, TIME_BUCKETS - 1]
    lat, lon = torch.tensor([40.0, 40.0, 40.0, torch.nan, 0.0]), torch.tensor([-74.0, -74.0, -74.0, 0.0, 179.9999])
    to_lat, to_lon = torch.tensor([40.0, 40.001, -40.0, 1.0, 0.0]), torch.tensor([-74.0, -74.0, 106.0, 1.0, -179.9999])
    found = distance_bucket(lat, lon, to_lat, to_lon).tolist()
    assert found[:2] == [0, 1], "111 m is the first octave of 50 m"
    assert found[2] in (DISTANCE_BUCKETS - 2, DISTANCE_BUCKETS - 1) and found[3:] == [UNKNOWN_DISTANCE, 0], (
        "22 m over the date line"
    )


def test_first_places_and_last_known_places():
    item_BL = torch.tensor([[0, 5, 7, 5, 7, 5]])
    assert first_places(item_BL)[0].int().argmax(1).tolist() == [0, 1, 2, 1, 2, 1]
    assert first_places(item_BL)[0].sum(1).tolist() == [0, 1, 1, 1, 1, 1]
    lat, lon = last_known(torch.tensor([[torch.nan, 1.0, torch.nan, 2.0]]), torch.tensor([[5.0, 6.0, 7.0, 8.0]]))
    assert torch.isnan(lat[0, 0]) and lat[0, 1:].tolist() == [1.0, 1.0, 2.0] and lon[0, 1:].tolist() == [6.0, 6.0, 8.0]
