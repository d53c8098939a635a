"""Mixed lists against a plain loop over one list, and what is said of their chances against how often they come."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import chance
from models.mixing import agreeing, mix, propensities
from models.top_k import ABSENT


def some_sources(rng, rows, sources, depth, items):
    """(B, S, P) of distinct items, some shorter than others."""
    best = np.stack([[rng.permutation(items)[:depth] for _ in range(sources)] for _ in range(rows)])
    length = rng.integers(0, depth + 1, (rows, sources, 1))
    return np.where(np.arange(depth) < length, best, ABSENT)


def one_by_one(best, share, draws):
    """What `mix` says it does, for one list."""
    listed, told = [], []
    for draw in draws:
        offers = [next((item for item in own if item != ABSENT and item not in listed), None) for own in best.tolist()]
        stand_in = next((offer for offer in offers if offer is not None), None)
        if stand_in is None:
            break
        offers = [stand_in if offer is None else offer for offer in offers]
        drawn = min(int((draw >= np.cumsum(share)).sum()), len(share) - 1)
        item = offers[drawn]
        agreed = [offer == item for offer in offers]
        told.append((item, agreed, sum(one for one, same in zip(share, agreed, strict=True) if same)))
        listed.append(item)
    return told


@given(
    seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 4), sources=st.integers(1, 5), depth=st.integers(1, 6),
    k=st.integers(1, 8),
)  # fmt: skip
def test_every_list_is_that_of_a_plain_loop(seed, rows, sources, depth, k):
    rng = np.random.default_rng(seed)
    best = some_sources(rng, rows, sources, depth, 8)
    share = rng.dirichlet(np.ones(sources), rows)
    draws = rng.random((rows, k))
    found = mix(best, share, draws)
    for row in range(rows):
        wanted = one_by_one(best[row], share[row], draws[row])
        assert found.item_BK[row][: len(wanted)].tolist() == [item for item, _, _ in wanted]
        assert (found.item_BK[row][len(wanted) :] == ABSENT).all()
        for place, (_, agreed, likely) in enumerate(wanted):
            assert agreeing(found.agreed_BK[row, place], sources).tolist() == agreed
            assert found.propensity_BK[row, place] == pytest.approx(likely)
    again = propensities(found.agreed_BK, share[:, None, :])
    assert np.allclose(again, found.propensity_BK), "what is kept of a list is enough to say how likely it was"


def test_lists_come_as_often_as_is_said():
    """Of one list of two ranks, every outcome: its chance is the product of those of its ranks."""
    rows, best, share = 40_000, np.array([[0, 1, 2], [1, 3, 2], [0, 3, 1]]), np.array([0.5, 0.3, 0.2])
    draws = chance.uniform(np.arange(rows)[:, None], np.arange(2)[None, :])
    found = mix(np.broadcast_to(best, (rows, 3, 3)), np.broadcast_to(share, (rows, 3)), draws)
    lists, first, times = np.unique(found.item_BK, axis=0, return_index=True, return_counts=True)
    likely = found.propensity_BK.prod(axis=1)[first]
    assert likely.sum() == pytest.approx(1.0), "all outcomes were seen"
    assert len(lists) == 4
    assert np.abs(times / rows - likely).max() < 4 * np.sqrt(0.25 / rows)


def test_where_all_agree_nothing_else_was_possible():
    """However the shares round: 0.1 ten times is more than 1 or less."""
    shares = np.random.default_rng(1).dirichlet(np.ones(7), 5_000)
    best = np.tile(np.arange(3), (5_000, 7, 1))
    found = mix(best, shares, np.full((5_000, 3), 0.5))
    assert found.propensity_BK.max() <= 1.0
    assert found.propensity_BK.min() > 1.0 - 1e-12
    assert propensities(found.agreed_BK, shares[:, None, :]).max() <= 1.0


def test_who_draws_alone_gives_the_own_order():
    best = np.array([[[5, 4, 3], [1, 2, 3]]])
    found = mix(best, np.array([[0.0, 1.0]]), np.full((1, 4), 0.999))
    assert found.item_BK.tolist() == [[1, 2, 3, 5]], "and what is lacking comes from the first that has it"
    assert found.propensity_BK.tolist() == [[1.0] * 4]


@given(seed=st.integers(0, 2**32 - 1), cap=st.integers(1, 3))
def test_no_list_holds_more_of_a_kind_than_it_may(seed, cap):
    rng = np.random.default_rng(seed)
    best = some_sources(rng, 5, 3, 6, 12)
    kinds = np.stack([rng.integers(-1, 3, 12), rng.integers(0, 12, 12)])
    found = mix(best, rng.dirichlet(np.ones(3), 5), rng.random((5, 8)), kind_AV=kinds, cap_A=(cap, 12))
    for row, items in enumerate(found.item_BK):
        listed = items[items != ABSENT]
        held = kinds[0][listed]
        assert max((int((held == kind).sum()) for kind in range(3)), default=0) <= cap
        left = np.setdiff1d(best[row][best[row] != ABSENT], listed)
        assert len(listed) == 8 or all(kinds[0][one] >= 0 and (held == kinds[0][one]).sum() >= cap for one in left)
