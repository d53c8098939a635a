import math

import numpy as np
import pytest
from sklearn import metrics

from jobs.labeller.gate import F1, LOSS, Comparison, compared, decided, learned, ruled
from models.labeller import Exam
from models.lasting import STATE, Moments
from models.metrics import Interval

USERS, EACH = 80, 6


def exam(seed=1, knows=3.0, rule_is_right=0.75):
    """Whether an interest lasts is planted per moment; the learned one sees it through noise, the rule is right so often."""
    rng = np.random.default_rng(seed)
    size = USERS * EACH
    odds = rng.normal(size=size) * knows
    lasted = rng.random(size) < 1 / (1 + np.exp(-odds))
    says_long = np.where(rng.random(size) < rule_is_right, lasted, ~lasted)
    moments = Moments(
        user_M=np.repeat(np.arange(USERS), EACH), category_M=np.zeros(size, int), day_M=np.full(size, 20_000),
        passed_M=np.zeros(size), state_MS=np.zeros((size, len(STATE))), ruled_M=says_long,
    )  # fmt: skip
    share = np.where(says_long, lasted[says_long].mean(), lasted[~says_long].mean())
    return Exam(moments=moments, lasted_M=lasted, learned_M=1 / (1 + np.exp(-odds)), ruled_M=share, cut=0.4)


def beside_rule(taken, told_M=None):
    return compared(taken, learned(taken.learned_M if told_M is None else told_M, taken.cut), ruled(taken), samples=200)


def test_both_are_measured_as_their_library_measures_them():
    taken = exam()
    found = beside_rule(taken)
    calls = (taken.learned_M >= 0.4, taken.moments.ruled_M)
    assert found.values[F1] == pytest.approx([metrics.f1_score(taken.lasted_M, call, average="macro") for call in calls])
    losses = [metrics.log_loss(taken.lasted_M, told) for told in (taken.learned_M, taken.ruled_M)]
    assert found.values[LOSS] == pytest.approx(losses)
    assert found.gains[LOSS].mean == pytest.approx(losses[1] - losses[0])
    assert (found.moments, found.users) == (USERS * EACH, USERS)
    for gain in found.gains.values():
        assert gain.lower < gain.mean < gain.upper


def test_intervals_are_of_users_not_of_moments():
    """Each user's moments again four times over say nothing more."""
    taken = exam()
    rows = np.tile(np.arange(USERS * EACH), 4)
    many = Exam(
        moments=taken.moments.take(rows),
        lasted_M=taken.lasted_M[rows],
        learned_M=taken.learned_M[rows],
        ruled_M=taken.ruled_M[rows],
        cut=taken.cut,
    )
    for name, gain in beside_rule(taken).gains.items():
        other = beside_rule(many).gains[name]
        assert (other.mean, other.lower, other.upper) == pytest.approx((gain.mean, gain.lower, gain.upper))


def test_one_user_says_nothing_of_spread():
    taken = exam()
    one = Exam(
        moments=taken.moments.take(np.arange(EACH)),
        lasted_M=taken.lasted_M[:EACH],
        learned_M=taken.learned_M[:EACH],
        ruled_M=taken.ruled_M[:EACH],
        cut=taken.cut,
    )
    found = beside_rule(one)
    assert math.isnan(found.gains[F1].lower) and not found.is_better and not found.is_worse


def test_one_that_knows_is_published_and_a_shuffled_one_is_refused():
    taken = exam(rule_is_right=0.65)
    good = decided("new", "rule", beside_rule(taken), None)
    assert (good.decision, good.model_version) == ("published", "new") and "beside the rule log loss" in good.reason
    shuffled = np.random.default_rng(3).permutation(taken.learned_M)
    bad = decided("new", "old", beside_rule(taken, shuffled), None)
    assert (bad.decision, bad.model_version) == ("refused", "rule") and "surely worse than the rule" in bad.reason
    same = decided("new", "old", beside_rule(exam(knows=1.0, rule_is_right=0.68)), None)
    assert (same.decision, same.model_version) == ("kept", "old")


def comparison(loss, f1):
    interval = lambda bounds: Interval(mean=sum(bounds) / 2, lower=bounds[0], upper=bounds[1])  # noqa: E731
    return Comparison(
        values={LOSS: (0.4, 0.5), F1: (0.8, 0.7)}, gains={LOSS: interval(loss), F1: interval(f1)}, moments=900, users=70
    )


BETTER, UNSURE, WORSE = (0.01, 0.1), (-0.01, 0.1), (-0.1, -0.01)


@pytest.mark.parametrize(
    ("loss", "f1", "beside", "outcome"),
    [
        (BETTER, BETTER, None, ("published", "new")),
        (BETTER, BETTER, (UNSURE, UNSURE), ("published", "new")),
        (BETTER, BETTER, (BETTER, WORSE), ("refused", "old")),
        (BETTER, UNSURE, None, ("kept", "old")),
        (UNSURE, BETTER, (WORSE, WORSE), ("kept", "old")),
        (BETTER, WORSE, None, ("refused", "rule")),
        (WORSE, BETTER, None, ("refused", "rule")),
    ],
)
def test_labels_and_probabilities_both_have_to_be_better(loss, f1, beside, outcome):
    found = decided("new", "old", comparison(loss, f1), None if beside is None else comparison(*beside))
    assert (found.decision, found.model_version) == outcome
