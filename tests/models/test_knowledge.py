"""What is known of items in the network: read, learnt, kept."""

import numpy as np
import pytest
import torch

from conf.learning import Model, Train
from models.descent import Descent
from models.examples import Objective, examples
from models.histories import EventColumns, first_of_owner
from models.interest import InterestModel, grown, knowledge_of, new_network, parts
from models.knowledge import Knowledge, Profile
from models.queries import Histories, Queries, Vocabulary
from models.windows import TRAIN, Windows, cut, histories_as_windows

NOW = 1_700_000_000
SETTINGS = Model(window=8, width=16, heads=2, layers=1)


def vocabulary(items):
    return Vocabulary(items=tuple(items), item_categories=("x",) * len(items), categories=("x",), event_types=("view",))


def vectors(rows, size=4, seed=0):
    drawn = np.random.default_rng(seed).normal(size=(rows, size))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float16)


def model(knowledge, items="abcdef", **settings):
    torch.manual_seed(1)
    network = new_network(SETTINGS.model_copy(update=settings), vocabulary(items), knowledge)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return InterestModel(network, vocabulary(items))


def histories(item_BL):
    item_BL = np.array(item_BL, np.int32)
    shape = item_BL.shape
    return Histories(
        item_BL=item_BL, category_BL=np.where(item_BL > 0, 2, 0).astype(np.int32),
        event_type_BL=np.where(item_BL > 0, 2, 0).astype(np.int32),
        timestamp_BL=NOW - 3600 * np.arange(shape[1], 0, -1)[None, :].repeat(shape[0], 0),
        hour_of_week_BL=np.full(shape, 5.0, np.float32),
        latitude_BL=np.full(shape, np.nan, np.float32), longitude_BL=np.full(shape, np.nan, np.float32),
    )  # fmt: skip


def queries(rows):
    return Queries(
        timestamp_B=np.full(rows, NOW), hour_of_week_B=np.full(rows, 5.0, np.float32),
        latitude_B=np.full(rows, np.nan, np.float32), longitude_B=np.full(rows, np.nan, np.float32),
    )  # fmt: skip


PAST = [[0, 0, 0, 0], [0, 0, 2, 3], [4, 1, 2, 7]]


@pytest.mark.parametrize("lacking", [{}, {"times": False, "places": False, "repeats": False}])
def test_scores_are_vectors_times_items_whatever_is_known(lacking):
    ranker = model(Knowledge(vectors={"text": vectors(6), "tags": vectors(6, 3)}), **lacking)
    found = ranker.scores(histories(PAST), queries(3))
    rebuilt = ranker.query_vectors(histories(PAST), queries(3)) @ ranker.item_matrix() + ranker.item_bias()
    pulls = ranker.history_term(histories(PAST), queries(3))
    rebuilt[pulls.rows_P, pulls.places_P] += pulls.values_P
    assert np.isfinite(found).all()
    np.testing.assert_allclose(rebuilt, found, atol=1e-4)


def test_a_vector_moves_its_item_and_the_readers_of_it_alone():
    told, past = vectors(6), histories([[0, 0, 2, 3], [0, 0, 4, 5]])
    before = model(Knowledge(vectors={"text": told}))
    told = told.copy()
    told[0] = -told[0]
    after = model(Knowledge(vectors={"text": told}))
    changed = ~np.isclose(after.item_matrix(), before.item_matrix()).all(axis=0)
    assert changed.tolist() == [True] + [False] * 5
    moved = np.abs(after.query_vectors(past, queries(2)) - before.query_vectors(past, queries(2))).max(axis=1)
    assert moved[0] > 1e-3 and moved[1] == 0.0, "whoever took it, and nobody else"


def test_what_is_not_known_is_the_learnt_unknown_and_not_a_vector_of_zeros():
    told = vectors(6)
    told[2] = np.nan
    ranker = model(Knowledge(vectors={"text": told}))
    known = ranker.network.known
    given = known(torch.tensor([2, -1, 0]))
    assert torch.equal(given[0], known.unknown["text"]) and torch.equal(given[1], known.unknown["text"])
    assert not torch.equal(given[2], known.unknown["text"])


def test_the_profile_is_attention_plus_a_bias():
    torch.manual_seed(0)
    profile = Profile(4)
    torch.nn.init.normal_(profile.bias)
    state, known = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    hidden = torch.rand(2, 3, 5) < 0.4
    hidden[0, 0] = True
    found = profile(state, known, hidden)
    for b in range(2):
        for t in range(3):
            seen = [place for place in range(5) if not hidden[b, t, place]]
            answers = [(profile.query(state[b, t]) @ profile.key(known[b, place])) / 2.0 for place in seen]
            weights = torch.stack(answers).softmax(0) if seen else []
            wanted = profile.bias + sum((w * profile.value(known[b, place]) for w, place in zip(weights, seen, strict=True)))
            torch.testing.assert_close(found[b, t], wanted)


def test_a_folder_keeps_what_was_known(tmp_path):
    ranker = model(Knowledge(vectors={"text": vectors(6)}))
    ranker.save(tmp_path)
    again = InterestModel.load(tmp_path)
    np.testing.assert_array_equal(again.scores(histories(PAST), queries(3)), ranker.scores(histories(PAST), queries(3)))
    assert knowledge_of(tmp_path).sizes == {"text": 4}
    model(None).save(tmp_path / "..")
    assert knowledge_of(tmp_path / "..") is None


def test_growing_takes_what_is_known_by_now():
    told = vectors(6)
    ranker = model(Knowledge(vectors={"text": told}))
    more = Knowledge(vectors={"text": np.concatenate([told, told[3:4]])})
    larger = InterestModel(grown(ranker.network, vocabulary("abcdefg"), more), vocabulary("abcdefg"))
    assert parts(larger.network) == parts(ranker.network)
    matrix = larger.item_matrix()
    np.testing.assert_allclose(matrix[:, :6], ranker.item_matrix())
    # A new item is like that of the same vector, but for its name, which is nobody's.
    named = larger.network.item.weight.detach().numpy()
    np.testing.assert_allclose(matrix[:, 6] - matrix[:, 3], named[1] - named[5], atol=1e-5)


def test_weights_of_other_knowledge_do_not_fit():
    plain, texts = model(None).network, model(Knowledge(vectors={"text": vectors(6)})).network
    assert len({parts(plain), parts(texts), parts(model(Knowledge(vectors={"text": vectors(6, 5)})).network)}) == 3
    assert parts(plain) == parts(model(Knowledge()).network) and plain.known is None


def test_in_training_some_items_go_without_their_name_everywhere_or_nowhere_and_in_use_none():
    count = 400
    names = [f"i{number}" for number in range(count)]
    network = model(Knowledge(vectors={"text": vectors(count)}), names).network
    usual, place = network.item_matrix(), torch.arange(count)
    network.train()
    batch = Windows(
        **{f"{name}_NW": np.full((2, 9), value, kind) for name, value, kind in COLUMNS}, shuffle_N=np.zeros(2, np.int64)
    )
    events, moments, _, _ = examples(batch, vocabulary(names))
    found = []
    for _ in range(30):
        network(events, moments)
        named = network.item_matrix()
        torch.testing.assert_close(network.items(place), named)
        found.append((named != usual).any(dim=1))
    share = torch.stack(found).float()
    assert 0.08 < share.mean() < 0.12 and share.sum(dim=0).max() < 15, "now these, now those"
    assert torch.equal(network.eval().item_matrix(), usual)
    plain = model(None, names).network.train()
    state = torch.get_rng_state()
    plain.item_matrix()
    assert torch.equal(torch.get_rng_state(), state), "nothing is drawn where nothing more is known"


COLUMNS = (
    ("item", 3, np.int32), ("category", 2, np.int32), ("event_type", 2, np.int32), ("timestamp", NOW, np.int64),
    ("hour_of_week", 5.0, np.float32), ("latitude", np.nan, np.float32), ("longitude", np.nan, np.float32),
    ("is_target", 0, np.int32),
)  # fmt: skip


def taken_by_kind(users=60, events=20, items=10):
    """Each user keeps to the even or to the odd items; the last of each kind nobody takes."""
    rng = np.random.default_rng(3)
    user = np.repeat(np.arange(users), events)
    item = 2 * rng.integers(0, items // 2 - 1, len(user)) + user % 2
    count = len(item)
    return EventColumns(
        item_E=(item + 2).astype(np.int32), category_E=np.full(count, 2, np.int32), event_type_E=np.full(count, 2, np.int32),
        timestamp_E=NOW + np.tile(np.arange(events), users) * 3600, hour_of_week_E=np.full(count, -1.0, np.float32),
        latitude_E=np.full(count, np.nan, np.float32), longitude_E=np.full(count, np.nan, np.float32),
    ), first_of_owner(user)  # fmt: skip


def learnt(knowledge, train):
    events, first_E = taken_by_kind()
    made = cut(first_E, np.full(len(first_E), TRAIN, np.int8), SETTINGS.window + 1)
    windows, names = histories_as_windows(events, made.row_NW, made.is_target_NW), vocabulary("abcdefghij")
    torch.manual_seed(0)
    network = new_network(SETTINGS.model_copy(update={"repeats": False, "times": False, "places": False}), names, knowledge)
    objective, descent = Objective(network.train(), train), Descent(network, 1e-2, 0.01)
    order = np.random.default_rng(1)
    for _ in range(80):
        batch = windows[order.choice(len(windows), 64)]
        (objective(*examples(batch, names)) / max(int(batch.is_target_NW.sum()), 1)).backward()
        descent.step(1.0)
    return InterestModel(network, names)


@pytest.mark.parametrize("loss", ["full", "sampled", "gbce"])
def test_what_nobody_has_taken_yet_is_liked_by_who_likes_what_is_like_it(loss):
    kind = np.arange(10) % 2
    told = np.stack([kind, 1 - kind], axis=1) + 0.05 * np.random.default_rng(0).normal(size=(10, 2))
    told = (told / np.linalg.norm(told, axis=1, keepdims=True)).astype(np.float16)
    even, odd = [[2, 4, 6, 8]], [[3, 5, 7, 9]]
    past, asked = histories(even + odd), queries(2)
    train = Train(loss=loss, negatives=6)
    scores = learnt(Knowledge(vectors={"text": told}), train).scores(past, asked)
    assert scores[0, 8] > scores[0, 9] + 1 and scores[1, 9] > scores[1, 8] + 1
    # Only so much as chance gives, where nothing tells the two apart.
    plain = learnt(None, train).scores(past, asked)
    assert min(plain[0, 8] - plain[0, 9], plain[1, 9] - plain[1, 8]) < 0.5
