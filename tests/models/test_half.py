"""Weights in half precision: kept so where they rank as well, and in full where they would not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models import training
from models.interest import InterestModel
from models.processes import Processes
from models.registry import details
from models.training import train_all
from tests.models.test_training import task_in


def learnt(task):
    train_all([task], Processes.alone())
    weights = torch.load(task.folder / "weights.pt", weights_only=True)
    return weights, {value.dtype for value in weights.values() if value.is_floating_point()}


def test_a_version_is_kept_in_half_within_the_bound_and_goes_on_from_there(tmp_path):
    (half, half_type), (whole, whole_type) = (
        learnt(task_in(tmp_path, name, epochs=2, half_within=within)) for name, within in (("half", 0.001), ("whole", 0.0))
    )
    assert half_type == {torch.float16} and whole_type == {torch.float32}
    for name, value in whole.items():
        assert torch.equal(half[name], value.half() if value.is_floating_point() else value), "rounded, and learnt alike"
    one, other = (tmp_path / name for name in ("half", "whole"))
    assert (details(one)["weights"], details(other)["weights"]) == ("half", "single")
    sizes = [(folder / "weights.pt").stat().st_size for folder in (one, other)]
    assert sizes[0] < 0.75 * sizes[1]
    loaded = InterestModel.load(one)
    assert {value.dtype for value in loaded.network.parameters()} == {torch.float32}, "computed with in full"
    np.testing.assert_allclose(loaded.item_matrix(), InterestModel.load(other).item_matrix(), atol=1e-2)
    night, _ = learnt(replace(task_in(tmp_path, "night", epochs=1), parent=one))
    assert not torch.equal(night["item.weight"], half["item.weight"])


@pytest.mark.parametrize("without_windows", [False, True])
def test_what_half_precision_would_spoil_or_nothing_tells_is_kept_in_full(tmp_path, monkeypatch, without_windows):
    """A weight that it cannot hold, and a training that saw no target."""
    task = task_in(tmp_path, "large", epochs=1)
    if without_windows:
        monkeypatch.setattr(training, "_ASKED", 0)
    else:
        begun = training._first_weights

        def large(task, vocabulary):
            network = begun(task, vocabulary)
            with torch.no_grad():
                network.item_bias[0] = -1e6
            return network

        monkeypatch.setattr(training, "_first_weights", large)
    weights, types = learnt(task)
    assert types == {torch.float32} and all(torch.isfinite(value).all() for value in weights.values())
