"""What a policy would have earned, against what it does earn in a world where that can be counted."""

import numpy as np
import pytest

from models.mixing import mix
from models.off_policy import Answered, compared, evaluated
from models.top_k import ABSENT

SOURCES, RANKS, ITEMS = 3, 4, 30
LOGGING = np.array([0.6, 0.25, 0.15])
LOOKED = 1.0 / np.arange(1, RANKS + 1)


def lists(rng, users, share, depth=RANKS):
    """Lists of fresh users by this mix, and how likely each entry is answered; source 1 lists the better items."""
    worth = rng.beta(1, 4, (users, ITEMS))
    good = np.argsort(-(worth + rng.normal(0, 0.15, worth.shape)), axis=1)[:, :depth]
    best = np.stack([rng.permuted(np.tile(np.arange(ITEMS), (users, 1)), axis=1)[:, :depth] for _ in range(SOURCES)], axis=1)
    best[:, 1] = good
    mixed = mix(best, np.broadcast_to(share, (users, SOURCES)), rng.random((users, RANKS)))
    deserved = np.take_along_axis(worth, np.maximum(mixed.item_BK, 0), axis=1) * LOOKED
    return mixed, np.where(mixed.item_BK == ABSENT, 0.0, deserved)


def logged(rng, users, share=LOGGING, depth=RANKS):
    mixed, likely = lists(rng, users, share, depth)
    return Answered(
        agreed_NK=mixed.agreed_BK,
        propensity_NK=mixed.propensity_BK,
        reward_NK=(rng.random(likely.shape) < likely).astype(float),
        user_N=np.arange(users),
    )


def of(answered, share):
    return evaluated(answered, np.broadcast_to(share, (len(answered.user_N), SOURCES)))


@pytest.mark.parametrize("asked", [[0.6, 0.25, 0.15], [0.45, 0.4, 0.15], [0.2, 0.6, 0.2]])
@pytest.mark.parametrize("depth", [RANKS, 2])
def test_estimates_are_without_bias_and_their_intervals_hold(asked, depth):
    rng, asked = np.random.default_rng(1), np.array(asked)
    truth = lists(rng, 100_000, asked, depth)[1].sum(axis=1).mean()
    told = [of(logged(rng, 1_500, depth=depth), asked) for _ in range(60)]
    assert all(verdict.is_enough for verdict in told)
    for method in ("ips", "snips", "dr"):
        values = np.array([verdict.by[method].value for verdict in told])
        held = np.mean([verdict.by[method].low <= truth <= verdict.by[method].high for verdict in told])
        assert values.mean() == pytest.approx(truth, abs=4 * values.std() / 60**0.5)
        assert held >= 0.85, method


def test_two_policies_are_told_apart_by_what_they_have_not_in_common():
    rng, asked = np.random.default_rng(1), np.array([0.45, 0.4, 0.15])
    truth = np.diff([lists(rng, 200_000, share)[1].sum(axis=1).mean() for share in (LOGGING, asked)])[0]
    told, apart = [], []
    for _ in range(40):
        answered = logged(rng, 1_500)
        every = len(answered.user_N)
        verdict = compared(answered, np.tile(asked, (every, 1)), np.tile(LOGGING, (every, 1)))
        told.append(verdict.by["dr"])
        apart.append([of(answered, share).by["dr"] for share in (asked, LOGGING)])
        assert verdict.is_enough
    values = np.array([one.value for one in told])
    assert values.mean() == pytest.approx(truth, abs=4 * values.std() / 40**0.5) and truth > 0
    assert np.mean([one.low <= truth <= one.high for one in told]) >= 0.85
    assert values == pytest.approx([one.value - other.value for one, other in apart])
    assert np.mean([one.high - one.low for one in told]) < 0.6 * np.mean([one.high - one.low for one, _ in apart])
    same = compared(answered, *[np.tile(asked, (every, 1))] * 2).by["dr"]
    assert (same.value, same.low, same.high) == pytest.approx((0, 0, 0), abs=1e-12)


def test_a_policy_that_is_far_away_has_too_little_to_tell():
    verdict = of(logged(np.random.default_rng(2), 300), np.array([0.0, 0.0, 1.0]))
    assert not verdict.is_enough
    assert verdict.users < 20
    near = of(logged(np.random.default_rng(2), 300), np.array([0.55, 0.3, 0.15]))
    assert near.is_enough
    assert near.users == pytest.approx(280, abs=20)


def test_of_the_policy_that_was_shown_the_estimate_is_the_mean():
    answered = logged(np.random.default_rng(3), 500)
    verdict = of(answered, LOGGING)
    for method in ("ips", "snips", "dr"):
        assert verdict.by[method].value == pytest.approx(answered.reward_NK.sum(axis=1).mean(), rel=0.05)
    assert verdict.users == pytest.approx(500)


def test_lists_of_one_user_do_not_count_as_many_users():
    answered = logged(np.random.default_rng(4), 1_000)
    grouped = Answered(**{**vars(answered), "user_N": np.arange(1_000) // 100})
    assert of(grouped, LOGGING).users == pytest.approx(10)
    assert not of(grouped, LOGGING).is_enough


def test_what_was_never_drawn_cannot_be_told_of():
    answered = logged(np.random.default_rng(5), 50, share=np.array([0.5, 0.5, 0.0]))
    with pytest.raises(ValueError, match="never drawn from"):
        of(answered, np.array([0.4, 0.4, 0.2]))


def test_without_lists_there_is_nothing_to_tell():
    verdict = of(logged(np.random.default_rng(6), 10).part(np.zeros(0, int)), LOGGING)
    assert np.isnan(verdict.by["dr"].value)
    assert not verdict.is_enough
