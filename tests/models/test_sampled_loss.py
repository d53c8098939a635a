"""Losses over a few items against the whole catalogue."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from conf.learning import Train
from models.catalogue_loss import catalogue_loss, scores_of
from models.examples import Objective, examples
from models.sampled_loss import Draw, Negatives, gbce, sampled_softmax
from models.windows import CONTEXT, TRAIN, cut, histories_as_windows

spec = importlib.util.spec_from_file_location("test_training", Path(__file__).with_name("test_training.py"))
given = importlib.util.module_from_spec(spec)
spec.loader.exec_module(given)


@pytest.fixture
def batch():
    """A network, what it reads of a batch, the targets; the scores of the whole catalogue at them."""
    events, first_E = given.random_events()
    fold_E = np.where((events.event_type_E == 2) & (events.item_E >= 2), TRAIN, CONTEXT).astype(np.int8)
    made = cut(first_E, fold_E, 17)
    windows = histories_as_windows(events, made.row_NW, made.is_target_NW)
    network = given.network()
    read = examples(windows, given.VOCABULARY)[:3]
    *parts, target_N = Objective(network, Train()).parts(*read)
    return network, read, scores_of(*parts), target_N


def everything(network):
    """Each item drawn as often as it stands for."""
    items = network.item_bias.numel()
    return Draw(place_S=torch.arange(items), times_S=torch.ones(items), log_weight_S=torch.zeros(items))


def test_with_every_item_drawn_sampled_softmax_is_full_softmax(batch):
    network, (events, moments, target_BT), _, _ = batch
    full = catalogue_loss(*Objective(network, Train()).parts(events, moments, target_BT))
    ours = sampled_softmax(network, network(events, moments), target_BT, everything(network))
    torch.testing.assert_close(ours, full)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    found, wanted = (torch.autograd.grad(loss, weights, allow_unused=True) for loss in (ours, full))
    for mine, reference in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("calibration", [0.0, 0.75, 1.0])
def test_gbce_is_its_formula_over_the_catalogue(batch, calibration):
    network, (events, moments, target_BT), scores_NV, target_N = batch
    items = network.item_bias.numel()
    found = gbce(network, network(events, moments), target_BT, everything(network), calibration)
    own = F.one_hot(target_N, items).bool()
    share = items / (items - 1)
    beta = share * (calibration * (1 - 1 / share) + 1 / share)
    wanted = -(beta * F.logsigmoid(scores_NV[own])).sum() - F.logsigmoid(-scores_NV[~own]).sum()
    torch.testing.assert_close(found, wanted)


def test_a_target_counts_in_either_loss_what_it_is_worth(batch):
    network, (events, moments, target_BT), _, target_N = batch
    reading, draw = network(events, moments), everything(network)
    worth_N = torch.rand(len(target_N))
    for loss in (
        lambda wanted_BT, worth: sampled_softmax(network, reading, wanted_BT, draw, worth),
        lambda wanted_BT, worth: gbce(network, reading, wanted_BT, draw, 0.75, worth),
    ):
        places = (target_BT >= 2).nonzero()
        each = [torch.zeros_like(target_BT).index_put(tuple(at[:, None]), target_BT[tuple(at)][None]) for at in places]
        wanted = sum(worth * loss(one_BT, None) for one_BT, worth in zip(each, worth_N, strict=True))
        torch.testing.assert_close(loss(target_BT, worth_N), wanted)


def test_what_is_drawn_stands_for_the_rest():
    torch.manual_seed(0)
    share_V = torch.arange(50, dtype=torch.float64) ** 2
    negatives = Negatives(share_V)
    value_V, sums, counts = torch.rand(50, dtype=torch.float64), [], torch.zeros(50)
    for _ in range(400):
        draw = negatives.draw(20)
        assert (draw.place_S.diff() > 0).all() and len(draw.place_S) <= 20
        sums.append(float((value_V[draw.place_S] * draw.log_weight_S.exp()).sum()))
        counts[draw.place_S] += (draw.log_weight_S.exp() * 20 * negatives.chance_V[draw.place_S]).float()
    assert torch.tensor(sums).mean().item() == pytest.approx(value_V.sum().item(), rel=0.03)
    torch.testing.assert_close(counts / counts.sum(), negatives.chance_V.float(), atol=0.01, rtol=0)
    assert counts.min() > 0, "what was never a target is drawn too"


def test_few_drawn_give_about_the_full_softmax(batch):
    network, (events, moments, target_BT), _, _ = batch
    torch.manual_seed(1)
    with torch.no_grad():
        full = catalogue_loss(*Objective(network, Train()).parts(events, moments, target_BT))
        negatives, reading = Negatives(torch.ones(network.item_bias.numel())), network(events, moments)
        found = [sampled_softmax(network, reading, target_BT, negatives.draw(12)) for _ in range(300)]
    assert torch.stack(found).mean().item() == pytest.approx(full.item(), rel=0.03)


@pytest.mark.parametrize("loss", ["sampled", "gbce"])
def test_either_loss_learns_the_habits(tmp_path, loss):
    task = given.task_in(tmp_path, epochs=6, loss=loss, negatives=6)
    given.train_all([task], given.Processes.alone())
    popular = given.task_in(tmp_path, "untrained", epochs=1, learning_rate=1e-9, warm_learning_rate=1e-9)
    given.train_all([popular], given.Processes.alone())
    # Judged by the full softmax either way.
    losses = [given.InterestModel.load(one.folder).metrics["loss"] for one in (task, popular)]
    assert losses[0] < losses[1] - 0.03, losses
