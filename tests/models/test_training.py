import errno
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyspark import cloudpickle
from torch.nn import functional as F

from conf.learning import Model, Train
from models import checkpoint, training
from models.batches import Source
from models.catalogue_loss import catalogue_loss, ranks, scores_of
from models.descent import share_of_peak
from models.examples import Objective, examples, hide
from models.histories import EventColumns, Moments, first_of_owner, histories_from_events, queries_before, stop_before
from models.interest import InterestModel, new_network
from models.processes import Processes
from models.queries import Vocabulary
from models.tasks import Task
from models.training import result_of, train_all
from models.windows import ARRAYS, CONTEXT, FOLDS, TRAIN, VALIDATION, Windows, cut, histories_as_windows

UNTIL = datetime(2024, 6, 1, tzinfo=UTC)
START = 1_704_067_200  # Monday 2024-01-01 00:00 UTC
ITEMS = 12
VOCABULARY = Vocabulary(
    items=tuple(f"i{n:02d}" for n in range(ITEMS)),
    item_categories=tuple("xyz"[n % 3] for n in range(ITEMS)),
    categories=("x", "y", "z"),
    event_types=("check_in", "view"),
)


def habits(users=40, days=20, seed=0):
    """Each user has an item of the morning and one of the evening, besides chance; the clock is UTC + 1 h."""
    generator = np.random.default_rng(seed)
    morning, evening = generator.integers(0, ITEMS, users), generator.integers(0, ITEMS, users)
    user, day, part = (axis.ravel() for axis in np.meshgrid(np.arange(users), np.arange(days), np.arange(2), indexing="ij"))
    item = np.where(part == 0, morning[user], evening[user])
    item = np.where(generator.random(len(item)) < 0.1, generator.integers(0, ITEMS, len(item)), item)
    seconds = START + day * 86_400 + np.where(part == 0, 8, 19) * 3600 + generator.integers(-1800, 1800, len(item))
    events = EventColumns(
        item_E=(item + 2).astype(np.int32),
        category_E=(item % 3 + 2).astype(np.int32),
        event_type_E=np.full(len(item), 2, np.int32),
        timestamp_E=seconds.astype(np.int64),
        hour_of_week_E=((seconds - START) / 3600 % 168 + 1).astype(np.float32) % 168,
        latitude_E=np.full(len(item), 40.7, np.float32) + 0.01 * part.astype(np.float32),
        longitude_E=np.full(len(item), -74.0, np.float32),
    )
    return events, first_of_owner(user), day


def windows_of(events, first_E, fold_E, size):
    made = cut(first_E, fold_E, size)
    windows = histories_as_windows(events, made.row_NW, made.is_target_NW)
    return replace(windows, shuffle_N=np.random.default_rng(0).integers(-(2**63), 2**63 - 1, len(windows))), made.fold_N


def task_in(folder, name="task", model=None, **settings):
    return task_of(folder, habits(), name, model, **settings)


def task_of(folder, log, name="task", model=None, **settings):
    """A training over the windows of a log such as `habits`, the last four days for validation."""
    events, first_E, day_E = log
    windows, fold_N = windows_of(events, first_E, np.where(day_E < 16, TRAIN, VALIDATION).astype(np.int8), 17)
    path = folder / "windows.parquet"
    columns = {
        "until": pa.array([UNTIL] * len(windows), pa.timestamp("us", tz="UTC")),
        "fold": pa.array([FOLDS[fold] for fold in fold_N]),
        "shuffle": pa.array(windows.shuffle_N),
    }
    for array in ARRAYS:
        values = getattr(windows, f"{array}_NW")
        columns[array] = pa.ListArray.from_arrays(
            pa.array(np.arange(len(windows) + 1) * 17, pa.int32()), pa.array(values.ravel(), from_pandas=False)
        )
    pq.write_table(pa.table(columns), path)
    VOCABULARY.save(folder / "names.json")
    shape = {"window": 16, "width": 16, "heads": 2, "layers": 1, **(model or {})}
    return Task(
        name=name,
        model=Model(**shape),
        train=Train(**{"epochs": 3, "batch_size": 16, "learning_rate": 5e-3, **settings}),
        vocabulary=folder / "names.json",
        source=Source(
            uris=(f"file://{path}",), until=UNTIL, size=17, counts={name: int((fold_N == f).sum()) for f, name in FOLDS.items()}
        ),
        folder=folder / name,
    )


@pytest.fixture
def make_task(tmp_path):
    """make_task(epochs=2, model={...}, ...)"""
    return lambda *name, **settings: task_in(tmp_path, *name, **settings)


def test_the_loss_and_its_gradients_are_those_of_a_plain_softmax(monkeypatch):
    monkeypatch.setattr("models.catalogue_loss.CHUNK_SCORES", 60)
    generator = torch.Generator().manual_seed(0)
    vector, matrix, bias = (torch.randn(shape, generator=generator, requires_grad=True) for shape in ((7, 4), (20, 4), (20,)))
    pull = torch.rand(7, 3, generator=generator, requires_grad=True)
    place = torch.stack([torch.randperm(20, generator=generator)[:3] for _ in range(7)])
    target = torch.randint(20, (7,), generator=generator)
    plain = F.cross_entropy(scores_of(vector, matrix, bias, pull, place), target, reduction="sum")
    wanted = torch.autograd.grad(2 * plain, (vector, matrix, bias, pull))
    ours = catalogue_loss(vector, matrix, bias, pull, place, target)
    found = torch.autograd.grad(2 * ours, (vector, matrix, bias, pull))
    torch.testing.assert_close(ours, plain)
    for mine, reference in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, reference)
    loss_N, rank_N = ranks(vector, matrix, bias, pull, place, target)
    torch.testing.assert_close(loss_N.sum(), plain)
    scores = scores_of(vector, matrix, bias, pull, place).detach()
    assert rank_N.tolist() == [int((row >= row[one]).sum()) for row, one in zip(scores, target, strict=True)]


def test_a_place_named_twice_and_pulls_of_nothing_do_no_harm():
    pull, place = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[2, 0, 0]])
    scores = scores_of(torch.zeros(1, 2), torch.zeros(4, 2), torch.zeros(4), pull, place)
    assert scores.tolist() == [[0.0, 0.0, 1.0, 0.0]]


def random_events(count=300, users=4, seed=5):
    """Irregular events: equal times, unknown places and clocks, two sorts."""
    generator = np.random.default_rng(seed)
    owner = np.sort(generator.integers(0, users, count))
    seconds = (
        START
        + np.concatenate([np.sort(generator.integers(0, 200_000, (owner == user).sum())) for user in range(users)]) // 600 * 600
    )
    lat = np.where(generator.random(count) < 0.3, np.nan, generator.uniform(40.6, 40.8, count))
    hours = np.where(generator.random(count) < 0.2, -1.0, (seconds - START) / 3600 % 168)
    events = EventColumns(
        item_E=generator.integers(1, ITEMS + 2, count).astype(np.int32),
        category_E=generator.integers(1, 5, count).astype(np.int32),
        event_type_E=generator.integers(2, 4, count).astype(np.int32),
        timestamp_E=seconds,
        hour_of_week_E=hours.astype(np.float32),
        latitude_E=lat.astype(np.float32),
        longitude_E=np.full(count, -74.0, np.float32),
    )
    return events, first_of_owner(owner)


def network(**settings):
    torch.manual_seed(2)
    made = new_network(Model(**{"window": 16, "width": 16, "heads": 2, "layers": 2, **settings}), VOCABULARY)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return made.eval()


def read(made, windows):
    """Scores of the catalogue at each target, and its place in it, as training reads a batch."""
    with torch.no_grad():
        *parts, target_N = Objective(made, Train()).parts(*examples(windows, VOCABULARY)[:3])
        return scores_of(*parts).numpy(), target_N.numpy()


LACKING = [{}, {"times": False}, {"places": False}, {"repeats": False}, {"times": False, "places": False, "repeats": False}]


@pytest.mark.parametrize("lacking", LACKING)
def test_training_reads_what_ranking_reads(lacking):
    """The vector of each target equals that of the same moment asked for as evaluate and score ask."""
    events, first_E = random_events()
    fold_E = np.where((events.event_type_E == 2) & (events.item_E >= 2), TRAIN, CONTEXT).astype(np.int8)
    made_cut = cut(first_E, fold_E, 17)
    windows = histories_as_windows(events, made_cut.row_NW, made_cut.is_target_NW)
    made = network(**lacking)
    scores_NV, target_N = read(made, windows)
    rows = made_cut.row_NW[made_cut.is_target_NW == 1]
    np.testing.assert_array_equal(target_N, events.item_E[rows] - 2)
    # A window shows what fits into it: the same rows are given to the ranker.
    start = np.array([row[row >= 0].min() for row in made_cut.row_NW])[np.nonzero(made_cut.is_target_NW)[0]]
    stop = stop_before(first_E, events.timestamp_E)[rows]
    queries = queries_before(events, Moments(first_B=start, stop_B=stop, timestamp_B=events.timestamp_E[rows]))
    found = InterestModel(made, VOCABULARY).scores(histories_from_events(events, start, stop, 16), queries)
    np.testing.assert_allclose(found, scores_NV, atol=2e-4)


@pytest.mark.parametrize("without", ["times", "places"])
def test_what_a_log_lacks_is_not_read(without):
    """Clocks, or positions, that a network was told not to read may be anything; the order of events is read still."""
    events, first_E = random_events(count=60, users=2)
    made_cut = cut(first_E, np.where(events.item_E >= 2, TRAIN, CONTEXT).astype(np.int8), 17)
    windows = histories_as_windows(events, made_cut.row_NW, made_cut.is_target_NW)
    columns = {"times": ("hour_of_week_NW",), "places": ("latitude_NW", "longitude_NW")}[without]
    other = {name: getattr(windows, name) * np.float32(0.3) + 1 for name in columns}
    if without == "times":
        other["timestamp_NW"] = np.where(windows.timestamp_NW > 0, 5 * (windows.timestamp_NW - START) + START, 0)
    made, aware = network(**{without: False}), network()
    changed = replace(windows, **other)
    np.testing.assert_array_equal(read(made, changed)[0], read(made, windows)[0])
    assert not np.allclose(read(aware, changed)[0], read(aware, windows)[0])
    mirrored = replace(windows, **{name: getattr(windows, name)[:, ::-1] for name in ("item_NW", "category_NW")})
    assert not np.allclose(read(made, mirrored)[0][:5], read(made, windows)[0][:5])


def test_where_items_do_not_repeat_nothing_is_pulled():
    events, first_E = random_events(count=60, users=2)
    made_cut = cut(first_E, np.where(events.item_E >= 2, TRAIN, CONTEXT).astype(np.int8), 17)
    batch = examples(histories_as_windows(events, made_cut.row_NW, made_cut.is_target_NW), VOCABULARY)
    reading = network(repeats=False)(*batch[:2])
    assert reading.pull_BTL.shape[-1] == reading.item_BL.shape[-1] == 0
    for loss in ("full", "sampled", "gbce"):
        made = network(repeats=False)
        Objective(made, Train(loss=loss, negatives=3))(*batch).backward()
        assert all(weight.grad is not None for weight in made.parameters()), "nothing is left unlearnt"


@pytest.mark.parametrize("loss", ["full", "sampled", "gbce"])
def test_what_was_taken_before_is_no_candidate(loss):
    """The loss with the taken pushed out is that over the catalogue without them, moment by moment."""
    events, first_E = random_events(count=80, users=3)
    made_cut = cut(first_E, np.where(events.item_E >= 2, TRAIN, CONTEXT).astype(np.int8), 17)
    past, moments, target_BT, _ = batch = examples(
        histories_as_windows(events, made_cut.row_NW, made_cut.is_target_NW), VOCABULARY
    )
    made = network(repeats=False)
    objective = Objective(made, Train(loss=loss, negatives=4000), taken_types=[2])
    torch.manual_seed(3)
    found = objective(*batch)
    with torch.no_grad():
        scores_BTV = made(past, moments).vector_BTD @ made.item_matrix().T + made.item_bias
    wanted, left_out = [], 0
    for row, moment in np.argwhere(target_BT.numpy() >= 2):
        seen = range(int(moments.last_BT[row, moment]) + 1)
        taken = {int(past.item_BL[row, n]) - 2 for n in seen if past.event_type_BL[row, n] == 2 and past.item_BL[row, n] >= 2}
        target = int(target_BT[row, moment]) - 2
        left = [place for place in range(ITEMS) if place == target or place not in taken]
        left_out += ITEMS - len(left)
        wanted.append(F.cross_entropy(scores_BTV[row, moment][left][None], torch.tensor([left.index(target)])))
    assert left_out > 50
    if loss == "gbce":
        assert found < Objective(made, Train(loss=loss, negatives=4000))(*batch), "fewer negatives"
    else:
        tolerance = 1e-5 if loss == "full" else 0.02
        torch.testing.assert_close(found, torch.stack(wanted).sum(), rtol=tolerance, atol=1e-3)


def test_a_target_counts_in_the_loss_what_its_type_is_worth():
    events, first_E = random_events(count=80, users=3)
    fold_E = np.where(events.item_E >= 2, TRAIN, CONTEXT).astype(np.int8)
    made_cut = cut(first_E, fold_E, 17)
    past, moments, target_BT, type_BT = batch = examples(
        histories_as_windows(events, made_cut.row_NW, made_cut.is_target_NW), VOCABULARY
    )
    assert set(type_BT[target_BT >= 2].tolist()) == {2, 3}
    made = network()
    objective = Objective(made, Train(), worth={3: 0.25})
    found = objective(*batch)
    *parts, target_N = objective.parts(past, moments, target_BT)
    loss_N = F.cross_entropy(scores_of(*parts), target_N, reduction="none")
    wanted = (loss_N * torch.where(type_BT[target_BT >= 2] == 3, 0.25, 1.0)).sum()
    torch.testing.assert_close(found, wanted)
    weights = list(made.parameters())
    for ours, reference in zip(torch.autograd.grad(found, weights), torch.autograd.grad(wanted, weights), strict=True):
        torch.testing.assert_close(ours, reference, atol=1e-4, rtol=1e-3)


def test_what_is_worth_more_ranks_first(tmp_path):
    """Half of all moments lead to a view of one item, half to a check-in at the other: their worth says which leads."""
    events, first_E, day_E = habits()
    is_view = np.random.default_rng(5).random(len(events)) < 0.5
    both = replace(
        events,
        item_E=np.where(is_view, 2, 3).astype(np.int32),
        event_type_E=np.where(is_view, 3, 2).astype(np.int32),
    )
    ahead = {}
    for name, worth in (("viewed", {"check_in": 0.2}), ("visited", {"view": 0.2})):
        (tmp_path / name).mkdir()
        task = task_of(tmp_path / name, (both, first_E, day_E), epochs=3, worth=worth)
        train_all([task], Processes.alone())
        model = InterestModel.load(task.folder)
        first = np.unique(first_E)
        stop = np.append(first[1:], len(events))
        asked = queries_before(both, Moments(first_B=first, stop_B=stop, timestamp_B=both.timestamp_E[stop - 1] + 3600))
        scores_BV = model.scores(histories_from_events(both, first, stop, 16), asked)
        ahead[name] = (scores_BV[:, 0] - scores_BV[:, 1]).mean()
        assert model.metrics["hit@1"] > 0.7, "five sixths of what is worth something, half of what happens"
    # Odds of 5 to 1 either way, but for weights that are kept as soon as they rank well, and what users did by chance.
    assert ahead["viewed"] > 0.3 and ahead["visited"] < -0.3 and ahead["viewed"] - ahead["visited"] > np.log(5), ahead


def test_padding_in_front_costs_nothing_and_says_nothing():
    events, first_E = random_events(count=30, users=3)
    made_cut = cut(first_E, np.where(events.item_E >= 2, TRAIN, CONTEXT).astype(np.int8), 33)
    windows = histories_as_windows(events, made_cut.row_NW, made_cut.is_target_NW)
    trimmed = windows.trimmed()
    assert trimmed.item_NW.shape[1] == windows.lengths.max() < 33
    batch = examples(windows, VOCABULARY)
    assert batch[0].item_BL.shape[1] == windows.lengths.max() - 1
    made = network()
    whole = Objective(made, Train())(*batch)
    pieces = [
        Objective(made, Train())(*examples(windows[rows], VOCABULARY)) for rows in np.split(np.arange(len(windows)), [1, 2])
    ]
    torch.testing.assert_close(torch.stack(pieces).sum(), whole)
    assert Windows.none(9).padded(2).trimmed().item_NW.shape == (2, 2)


@pytest.mark.parametrize("column", ["item", "category", "event_type", "hour_of_week", "latitude", "longitude"])
def test_no_own_column_of_the_predicted_event_is_read(column):
    events, first_E = random_events(count=60, users=2)
    made_cut = cut(first_E, np.where(np.arange(60) % 9 == 8, TRAIN, CONTEXT).astype(np.int8), 17)
    windows = histories_as_windows(events, made_cut.row_NW, made_cut.is_target_NW)
    last = windows.is_target_NW.copy()
    last[:, :-1] = 0
    windows = replace(windows, is_target_NW=last, item_NW=np.where((last == 1) & (windows.item_NW == 1), 2, windows.item_NW))
    values = getattr(windows, f"{column}_NW").copy()
    other = {"item": 5, "category": 3, "event_type": 3, "hour_of_week": 99.0, "latitude": 10.0, "longitude": 20.0}[column]
    values[:, -1] = np.where(values[:, -1] == other, other - 1, other)
    scrambled = replace(windows, **{f"{column}_NW": values})
    np.testing.assert_array_equal(read(network(), windows)[0], read(network(), scrambled)[0])


def test_what_comes_later_is_not_read():
    events, first_E = random_events(count=60, users=1)
    fold_E = np.where(events.item_E >= 2, TRAIN, CONTEXT).astype(np.int8)
    made_cut = cut(first_E, fold_E, 17)
    windows = histories_as_windows(events, made_cut.row_NW, made_cut.is_target_NW)
    place = 11
    changed = {}
    generator = np.random.default_rng(9)
    for name in ("item", "category", "event_type"):
        values = getattr(windows, f"{name}_NW").copy()
        values[:, place:] = generator.integers(2, 4, values[:, place:].shape)
        changed[f"{name}_NW"] = values
    later = windows.timestamp_NW.copy()
    later[:, place:] += np.where(windows.timestamp_NW[:, place:] > windows.timestamp_NW[:, place - 1 : place], 50_000, 0)
    changed["timestamp_NW"] = later
    upto = windows.is_target_NW.copy()
    upto[:, place:] = 0
    before, after = replace(windows, is_target_NW=upto), replace(windows, is_target_NW=upto, **changed)
    found, wanted = read(network(), after)[0], read(network(), before)[0]
    np.testing.assert_array_equal(found, wanted)
    assert len(wanted) > 10


def test_query_dropout_hides_time_place_or_both():
    _, moments, _, _ = examples(windows_of(*habits()[:2], np.full(1600, TRAIN, np.int8), 17)[0], VOCABULARY)
    torch.manual_seed(0)
    hidden = hide(moments, 0.4)
    known = moments.hour_of_week_BT >= 0
    no_time, no_place = (hidden.hour_of_week_BT < 0)[known], torch.isnan(hidden.latitude_BT)[known]
    assert abs(no_time.float().mean() - 0.3) < 0.05 and abs(no_place.float().mean() - 0.3) < 0.05
    assert abs((no_time & no_place).float().mean() - 0.2) < 0.05
    assert torch.equal(hidden.timestamp_BT, moments.timestamp_BT)


def test_habits_by_the_hour_are_learnt_better_than_popularity_and_frequency(make_task):
    task = make_task(epochs=6)
    train_all([task], Processes.alone())
    result = result_of(task)
    assert result.losses[-1] < result.losses[0]
    ranker = InterestModel.load(task.folder)
    events, first_E, day_E = habits()
    rows = np.flatnonzero(day_E == 19)
    stop = stop_before(first_E, events.timestamp_E)[rows]
    past = histories_from_events(events, first_E[rows], stop, 16)
    asked = queries_before(events, Moments(first_B=first_E[rows], stop_B=stop, timestamp_B=events.timestamp_E[rows]))
    truth = events.item_E[rows] - 2

    def hit(scores):
        own = scores[np.arange(len(rows)), truth][:, None]
        return ((scores >= own).sum(axis=1) == 1).mean()

    popularity = np.bincount(events.item_E - 2, minlength=ITEMS)
    frequency = np.stack([np.bincount(row[row >= 2] - 2, minlength=ITEMS) for row in past.item_BL]) + popularity / 1e6
    found = hit(ranker.scores(past, asked))
    assert found > 0.8, "nine of ten are habit"
    assert found > hit(frequency) + 0.15 and found > hit(np.repeat(popularity[None], len(rows), 0)) + 0.4
    other = replace(asked, hour_of_week_B=(asked.hour_of_week_B + 12) % 168)
    at, instead = (torch.log_softmax(torch.from_numpy(ranker.scores(past, when)), 1) for when in (asked, other))
    falls = (at - instead)[np.arange(len(rows)), truth]
    assert (falls > 0.2).float().mean() > 0.8, "asked about the other half of the day it believes less in the habit of this one"


def test_the_same_input_gives_the_same_weights_to_the_bit(make_task):
    found = []
    for name in ("one", "two"):
        task = make_task(name, epochs=2)
        train_all([task], Processes.alone())
        found.append(torch.load(task.folder / "weights.pt", weights_only=True))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    other = make_task("three", epochs=2, seed=2)
    train_all([other], Processes.alone())
    assert not torch.equal(torch.load(other.folder / "weights.pt", weights_only=True)["item.weight"], found[0]["item.weight"])


def test_bf16_learns_what_fp32_learns(make_task):
    found = {}
    for precision in ("fp32", "bf16"):
        task = make_task(precision, epochs=4, precision=precision)
        train_all([task], Processes.alone())
        found[precision] = result_of(task)
    one, other = found["fp32"], found["bf16"]
    assert one.losses != other.losses, "it is another arithmetic"
    assert other.losses == pytest.approx(one.losses, rel=0.03) and other.losses[-1] < 0.9 * other.losses[0]
    assert other.validation_loss == pytest.approx(one.validation_loss, rel=0.05)


_WORKER = """
import pickle, sys
from models.training import train_here
train_here(pickle.load(open(sys.argv[1], "rb")))
"""


def train_in_two_processes(tasks, folder):
    """Each of them started by itself, as a launcher does."""
    (folder / "tasks").write_bytes(cloudpickle.dumps(tasks))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", _WORKER, str(folder / "tasks")]
    started = [subprocess.Popen(command, env={**shared, "RANK": str(n), "LOCAL_RANK": str(n)}) for n in range(2)]
    assert [process.wait(timeout=300) for process in started] == [0, 0]


def test_two_processes_learn_what_one_does(make_task, tmp_path):
    """Losses of every epoch, weights and validation are equal; batches of odd sizes, windows without targets."""
    quiet = {"model": {"dropout": 0.0, "query_dropout": 0.0}, "epochs": 3, "batch_size": 7, "half_within": 0.0}
    one, two = make_task("one", **quiet), make_task("two", **quiet)
    train_all([one], Processes.alone())
    train_in_two_processes([two], tmp_path)
    alone, together = result_of(one), result_of(two)
    assert together.processes == 2 and alone.epochs == together.epochs == 3
    np.testing.assert_allclose(together.losses, alone.losses, atol=1e-5)
    assert together.validation_loss == pytest.approx(alone.validation_loss, abs=1e-5)
    weights = [torch.load(task.folder / "weights.pt", weights_only=True) for task in (one, two)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=2e-3, rtol=0, msg=name)


def test_a_batch_learnt_in_pieces_is_the_batch_learnt_at_once(make_task):
    quiet = {"model": {"dropout": 0.0, "query_dropout": 0.0}, "epochs": 2}
    whole = make_task("whole", **quiet)
    pieces = [make_task(f"pieces-{size}", windows_at_once=size, **quiet) for size in (1, 5)]
    train_all([whole, *pieces], Processes.alone())
    for task in pieces:
        np.testing.assert_allclose(result_of(task).losses, result_of(whole).losses, atol=1e-5)


class Ended(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    task = task_in(tmp_path_factory.mktemp("undisturbed"), epochs=2)
    train_all([task], Processes.alone())
    return task


@pytest.fixture
def make_kept(make_task, tmp_path):
    """make_kept(name): the training that `undisturbed` is, with a checkpoint at each step."""
    return lambda name: replace(make_task(name, epochs=2, checkpoint_seconds=0.0), checkpoint=tmp_path / "checkpoint.pt")


def heard(monkeypatch):
    """What trainings tell from now on."""
    seen = []
    monkeypatch.setattr(training._Run, "tell", lambda run, words: seen.append(words))
    return seen


def ended_after(monkeypatch, task, steps):
    """The training, ended before it takes a step more than these."""
    learn, left = training._Run._learn, iter(range(steps))

    def counted(run, windows):
        if next(left, None) is None:
            raise Ended
        return learn(run, windows)

    with monkeypatch.context() as patched:
        patched.setattr(training._Run, "_learn", counted)
        with pytest.raises(Ended):
            train_all([task], Processes.alone())


def assert_same_training(one, other):
    assert result_of(one).losses == result_of(other).losses
    weights = [torch.load(task.folder / "weights.pt", weights_only=True) for task in (one, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("steps", [1, 9, -1])
def test_a_training_that_was_ended_goes_on_to_the_same_weights_to_the_bit(make_kept, monkeypatch, undisturbed, steps):
    """Within the first epoch, in later ones, and in the pass over the validation fold; with dropout."""
    task = make_kept("resumed")
    if steps < 0:
        steps += sum(one.epochs * -(-task.source.of(one.fold).count // task.train.batch_size) for one in task.passes)
    ended_after(monkeypatch, task, steps)
    seen = heard(monkeypatch)
    train_all([task], Processes.alone())
    assert any("going on from checkpoint.pt" in words for words in seen)
    assert_same_training(task, undisturbed)


def test_a_sigkill_loses_no_more_than_since_the_checkpoint(make_kept, undisturbed, tmp_path):
    task = make_kept("killed")
    (tmp_path / "tasks").write_bytes(pickle.dumps([task]))
    here = {**os.environ, "PYTHONPATH": os.getcwd(), "RANK": "0", "WORLD_SIZE": "1"}
    process = subprocess.Popen([sys.executable, "-c", _WORKER, str(tmp_path / "tasks")], env=here)
    try:
        while not task.checkpoint.exists() and process.poll() is None:
            time.sleep(0.01)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL and not task.folder.exists()
    assert checkpoint.load(task.checkpoint)["progress"]["batch"] > 0, "whole, whenever the kill came"
    train_all([task], Processes.alone())
    assert_same_training(task, undisturbed)


def test_a_damaged_checkpoint_is_told_and_the_training_starts_anew(make_kept, monkeypatch, undisturbed):
    task = make_kept("damaged")
    ended_after(monkeypatch, task, 5)
    held = task.checkpoint.read_bytes()
    for damaged in (held[:-1], held[:100], b"", held[:500] + b"!" + held[501:]):
        task.checkpoint.write_bytes(damaged)
        with pytest.raises(checkpoint.Damaged):
            checkpoint.load(task.checkpoint)
    seen = heard(monkeypatch)
    train_all([task], Processes.alone())
    assert any("is damaged: starting from the beginning" in words for words in seen)
    assert_same_training(task, undisturbed)


def test_a_checkpoint_that_cannot_be_written_is_told_and_the_one_before_stays(make_kept, monkeypatch, undisturbed, tmp_path):
    task = make_kept("full")
    ended_after(monkeypatch, task, 5)
    held = task.checkpoint.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("models.checkpoint.os.fsync", full)
        seen = heard(patched)
        train_all([task], Processes.alone())
    assert any("no checkpoint could be written (No space left on device" in words for words in seen)
    assert task.checkpoint.read_bytes() == held and list(tmp_path.glob("*.new")) == []
    assert_same_training(task, undisturbed)


def test_the_best_weights_are_kept_and_training_stops_when_they_stay_so(make_task, monkeypatch):
    scripted, judged, started = iter([0.3, 0.5, 0.4, 0.5, 0.9]), [], []
    start = training._Run._start

    def weights(run):
        return {name: value.clone() for name, value in run.network.state_dict().items()}

    def validate(run):
        judged.append(weights(run))
        return {"loss": 1.0, "ndcg@10": next(scripted)}

    def watched(run):
        started.append((run.task.passes[run.progress.number].fold, weights(run)))
        start(run)

    monkeypatch.setattr(training._Run, "validate", validate)
    monkeypatch.setattr(training._Run, "_start", watched)
    task = make_task(epochs=20, patience=2)
    train_all([task], Processes.alone())
    assert len(judged) == 4, "two epochs after the best"
    assert [fold for fold, _ in started] == ["train", "validation"]
    assert all(torch.equal(started[1][1][name], judged[1][name]) for name in judged[1]), "the last pass begins with the best"
    assert InterestModel.load(task.folder).metrics["ndcg@10"] == 0.5


def test_training_stops_in_time_with_a_learning_rate_that_went_down(make_task, monkeypatch):
    task = make_task(epochs=1000, patience=1000, max_seconds=1.5)
    learn = training._Run._learn
    rates: list[float] = []
    # A clock of its own: of a slow machine's 1.5 seconds one step could be all.
    seconds = [0.0]
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: seconds[0]))

    def watched(run, windows):
        found = learn(run, windows)
        seconds[0] += 0.05
        if run.progress.number == 0:
            rates.append(run.descent.optimizers[0].param_groups[0]["lr"])
        return found

    monkeypatch.setattr(training._Run, "_learn", watched)
    train_all([task], Processes.alone())
    result = result_of(task)
    assert result.epochs < 1000 and 1.4 < result.seconds < 2.5
    assert rates[-1] < 0.05 * 5e-3 < 0.2 * max(rates), "as if all epochs had been done"
    assert InterestModel.load(task.folder).vocabulary == VOCABULARY


def test_a_warm_start_goes_on_from_the_parent_with_more_names(make_task, tmp_path):
    first = make_task("first", epochs=3)
    train_all([first], Processes.alone())
    more = replace(VOCABULARY, items=(*VOCABULARY.items, "new"), item_categories=(*VOCABULARY.item_categories, "x"))
    more.save(tmp_path / "more.json")
    base = make_task("night", warm_learning_rate=1e-9)
    night = replace(
        base, vocabulary=tmp_path / "more.json", parent=first.folder, source=replace(base.source, counts={"train": 1})
    )
    train_all([night], Processes.alone())
    assert result_of(night).epochs == night.train.warm_epochs and result_of(night).validation_loss is None
    old, new = (torch.load(task.folder / "weights.pt", weights_only=True) for task in (first, night))
    torch.testing.assert_close(new["item.weight"][: ITEMS + 2], old["item.weight"], atol=1e-6, rtol=0)
    assert new["item.weight"].shape[0] == ITEMS + 3


def test_first_biases_are_the_prior(make_task, tmp_path):
    np.save(tmp_path / "prior.npy", np.arange(ITEMS, dtype=np.float32))
    task = replace(make_task(), prior=tmp_path / "prior.npy")
    assert training._first_weights(task, VOCABULARY).item_bias.tolist() == list(range(ITEMS))


def test_the_learning_rate_warms_up_and_falls_to_nothing():
    shares = [share_of_peak(step, 200) for step in range(201)]
    assert shares[0] == 0.1 and max(shares) == shares[9] == 1.0 and shares[-1] == pytest.approx(0)
    assert all(later <= earlier for earlier, later in pairwise(shares[9:]))
    assert share_of_peak(0, 1) == 1.0


def test_windows_without_a_target_make_a_batch():
    empty = Windows.none(17).padded(3)
    events, moments, target_BT, type_BT = examples(empty, VOCABULARY)
    loss = Objective(network(), Train())(events, moments, target_BT, type_BT)
    loss.backward()
    assert loss.item() == 0.0
