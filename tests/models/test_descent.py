"""Moving weights with sparse gradients against moving them with dense ones."""

import copy

import numpy as np
import pytest
import torch

from conf.learning import Train
from models.descent import Descent
from models.examples import Objective, examples
from models.windows import CONTEXT, TRAIN, cut, histories_as_windows
from tests.models.test_training import VOCABULARY, network, random_events


def batch(seed):
    """Of two users with few events, so that not every item is among them."""
    events, first_E = random_events(count=8, users=2, seed=seed)
    made = cut(first_E, np.where(events.item_E >= 2, TRAIN, CONTEXT).astype(np.int8), 17)
    return examples(histories_as_windows(events, made.row_NW, made.is_target_NW), VOCABULARY)


def learner(sparse, weight_decay=0.0):
    made = network(dropout=0.0)
    made.item.sparse = sparse
    return made, Objective(made, Train(loss="sampled", negatives=2)), Descent(made, 1e-2, weight_decay)


def learn(objective, descent, seed):
    torch.manual_seed(seed)
    objective(*batch(seed)).backward()
    descent.step(1.0)


def test_the_rows_that_a_step_has_seen_move_as_with_dense_gradients_and_no_others():
    before = network().item.weight.detach().clone()
    (dense, *one), (sparse, *other) = learner(False), learner(True)
    learn(*one, seed=1)
    learn(*other, seed=1)
    for (name, wanted), found in zip(dense.named_parameters(), sparse.parameters(), strict=True):
        # Where a gradient is nearly nothing the two divide by other nothings.
        close = torch.isclose(found, wanted, atol=1e-5, rtol=0)
        assert close.float().mean() > 0.98, name
    still = (sparse.item.weight == before).all(dim=1)
    assert 0 < still.sum() < len(still)
    # Later steps leave what they do not see where it is, whatever was seen before.
    seen_once = sparse.item.weight.detach().clone()
    learn(*other, seed=2)
    still = (sparse.item.weight == seen_once).all(dim=1) & (sparse.item.weight != before).any(dim=1)
    assert still.any()


def test_large_gradients_are_clipped_as_by_torch():
    norms = []
    for sparse in (False, True):
        made, objective, descent = learner(sparse)
        torch.manual_seed(0)
        (100 * objective(*batch(3))).backward()
        if not sparse:
            wanted = torch.nn.utils.clip_grad_norm_([w for w in made.parameters() if w.grad is not None], 1e9)
            assert wanted > 10
        gradients = []
        for optimizer in descent.optimizers:
            optimizer.step = lambda: None
            optimizer.zero_grad = lambda set_to_none: None
        descent.step(1.0)
        gradients = [w.grad.to_dense() if w.grad.is_sparse else w.grad for w in made.parameters() if w.grad is not None]
        norms.append(float(torch.stack([g.norm() for g in gradients]).norm()))
    assert norms == pytest.approx([1.0, 1.0], rel=1e-4)


def test_what_was_saved_goes_on_to_the_bit():
    _, objective, descent = learner(True, weight_decay=0.1)
    first = objective.network
    learn(objective, descent, seed=1)
    second, other, resumed = learner(True, weight_decay=0.1)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(copy.deepcopy(descent.state_dict()))
    for seed in (2, 3):
        learn(objective, descent, seed)
        learn(other, resumed, seed)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
