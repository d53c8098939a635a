"""What a training tells after each epoch, and how it is ended from there."""

import os
from dataclasses import replace

import pytest
import torch

from models import training
from models.interest import InterestModel
from models.processes import Processes
from models.training import result_of, train_all
from tests.models.test_training import task_in, train_in_two_processes


@pytest.fixture
def make_task(tmp_path):
    return lambda *name, **settings: task_in(tmp_path, *name, **settings)


def weights(task):
    return torch.load(task.folder / "weights.pt", weights_only=True)


def test_each_epoch_is_told_with_what_was_measured_and_nothing_changes(make_task):
    told = []
    plain, watched = make_task("plain"), replace(make_task("watched"), after_epoch=lambda *said: bool(told.append(said)))
    train_all([plain, watched], Processes.alone())
    assert [epoch for epoch, _ in told] == [1, 2, 3]
    assert [measures["train_loss"] for _, measures in told] == result_of(plain).losses == result_of(watched).losses
    # Kept is the epoch that ranks best, which need not be the one of the least loss.
    _, best = max(told, key=lambda one: one[1]["ndcg@10"])
    assert best["loss"] == result_of(watched).validation_loss
    assert all(0 < measures["ndcg@10"] <= 1 and measures["seconds"] > 0 for _, measures in told)
    assert all(torch.equal(value, weights(watched)[name]) for name, value in weights(plain).items())


def test_without_a_validation_fold_the_loss_is_told(make_task):
    told, task = [], make_task("night", epochs=2)
    task = replace(task, source=replace(task.source, counts={"train": task.source.count}))
    train_all([replace(task, after_epoch=lambda *said: bool(told.append(said)))], Processes.alone())
    assert [(epoch, set(measures)) for epoch, measures in told] == [
        (1, {"train_loss", "seconds"}),
        (2, {"train_loss", "seconds"}),
    ]


def test_a_training_that_is_ended_keeps_the_best_so_far(make_task):
    short = make_task("short", epochs=20, patience=20)
    train_all([replace(short, after_epoch=lambda epoch, measures: epoch == 2)], Processes.alone())
    assert result_of(short).epochs == 2
    assert InterestModel.load(short.folder).metrics["loss"] == result_of(short).validation_loss


def test_the_validation_fold_is_learnt_unless_told_otherwise(make_task, monkeypatch):
    begun = []
    start = training._Run._start
    monkeypatch.setattr(
        training._Run, "_start", lambda run: (begun.append(run.task.passes[run.progress.number].fold), start(run))
    )
    train_all([make_task("both", epochs=1), replace(make_task("one", epochs=1), learns_validation=False)], Processes.alone())
    assert begun == ["train", "validation", "train"]


def test_of_two_processes_the_first_is_told_and_both_end(make_task, tmp_path):
    said = tmp_path / "said"

    def after_epoch(epoch, measures):
        with said.open("a") as file:
            file.write(f"{os.environ['RANK']}:{epoch} ")
        return epoch == 2

    # With sampled negatives, whose gradients of the item table are sparse.
    task = replace(make_task("two", epochs=20, patience=20, loss="sampled", negatives=8), after_epoch=after_epoch)
    train_in_two_processes([task], tmp_path)
    assert result_of(task).epochs == 2 and said.read_text() == "0:1 0:2 "
