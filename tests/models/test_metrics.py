import math
from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score, top_k_accuracy_score

from models import metrics
from models.metrics import Tally, intervals, measures, paired, poisson_weights, ranks, tally, values


def scores(*rows):
    return np.array(rows, dtype=np.float32)


def direct_rank(row, target, left_out):
    if target < 0:
        return 0
    ranked = [item for item in range(len(row)) if item not in left_out]
    if target not in ranked:
        return len(ranked) + 1
    return 1 + sum(1 for item in ranked if item != target and row[item] >= row[target])


def test_ties_count_against_us_and_what_is_outside_the_catalogue_has_no_rank():
    found = ranks(scores([3, 1, 2], [1, 1, 1], [0, 5, 5], [1, 2, 3]), np.array([0, 1, 2, -1]))
    assert found.tolist() == [1, 3, 2, metrics.EMPTY]


def test_items_left_out_do_not_count_and_come_last_themselves():
    row = [9, 8, 7, 6]
    left_out = [np.array([0, 1]), np.array([], dtype=np.int64), np.array([2])]
    assert ranks(scores(row, row, row), np.array([2, 2, 2]), left_out).tolist() == [1, 3, 4]


def test_ranks_equal_a_direct_count():
    random = np.random.default_rng(1)
    table = random.integers(0, 6, (200, 12)).astype(np.float32)
    target = random.integers(-1, 12, 200)
    left_out = [np.sort(random.choice(12, random.integers(0, 8), replace=False)) for _ in range(200)]
    assert ranks(table, target, left_out).tolist() == [
        direct_rank(row, item, set(out.tolist())) for row, item, out in zip(table, target, left_out, strict=True)
    ]
    assert ranks(table, target).tolist() == [direct_rank(row, item, set()) for row, item in zip(table, target, strict=True)]


def direct_metrics(rank, k):
    """By the definitions over one list with one relevant item."""
    ranked = [position == rank for position in range(1, k + 1)]
    found = sum(ranked)
    precision, recall = found / k, found / 1
    gain = sum(relevant / math.log2(position + 1) for position, relevant in enumerate(ranked, start=1))
    return {
        ("hit", k): float(found > 0),
        ("precision", k): precision,
        ("recall", k): recall,
        ("f1", k): 0.0 if found == 0 else 2 * precision * recall / (precision + recall),
        ("ndcg", k): gain / (1 / math.log2(2)),
        ("mrr", 0): 1 / rank if rank else 0.0,
    }


@pytest.mark.parametrize("rank", [0, 1, 2, 5, 6, 10, 11, 400])
def test_metrics_of_one_event_follow_the_definitions(rank):
    wanted = measures((1, 5, 10))
    assert wanted.count(("mrr", 0)) == 1 and len(wanted) == 16
    found = dict(zip(wanted, values(np.array([rank]), wanted)[0], strict=True))
    for k in (1, 5, 10):
        for measure, value in direct_metrics(rank, k).items():
            assert found[measure] == pytest.approx(value), measure


def test_weights_are_poisson_and_belong_to_the_user_alone():
    users = [f"user {number}" for number in range(3000)]
    weights = poisson_weights(users, 50, seed=3)
    counts = Counter(weights.ravel().tolist())
    for times in range(5):
        assert counts[times] / weights.size == pytest.approx(math.exp(-1) / math.factorial(times), abs=0.003)
    assert np.array_equal(poisson_weights(users[100:103], 50, seed=3), weights[:, 100:103])
    assert not np.array_equal(poisson_weights(users, 50, seed=4), weights)
    by_sample = np.corrcoef(weights[:10].astype(float))
    assert np.abs(by_sample - np.eye(10)).max() < 0.1


def direct_intervals(table, users, samples, seed):
    means = []
    for weights in poisson_weights(sorted(set(users)), samples, seed):
        weight_of = dict(zip(sorted(set(users)), weights.tolist(), strict=True))
        drawn = [weight_of[user] for user in users]
        if sum(drawn):
            means.append(
                [sum(w * row[m] for w, row in zip(drawn, table, strict=True)) / sum(drawn) for m in range(len(table[0]))]
            )
    return np.quantile(means, 0.025, axis=0), np.quantile(means, 0.975, axis=0)


def test_intervals_equal_a_direct_resampling_and_parts_add_up():
    random = np.random.default_rng(2)
    users = np.array([f"u{code}" for code in random.integers(0, 30, 200)], dtype=object)
    table = random.random((200, 3))
    whole = tally(table, users, 100, seed=7)
    lower, upper = direct_intervals(table.tolist(), users.tolist(), 100, 7)
    found = intervals(whole)
    assert [one.mean for one in found] == pytest.approx(table.mean(axis=0))
    assert [one.lower for one in found] == pytest.approx(lower) and [one.upper for one in found] == pytest.approx(upper)
    first = users < "u2"
    parts = tally(table[first], users[first], 100, seed=7) + tally(table[~first], users[~first], 100, seed=7)
    again = Tally.unflat(parts.flat(), measured=3)
    assert again.events == 200 and again.users == 30
    assert again.sum_SM == pytest.approx(whole.sum_SM) and again.weight_SM == pytest.approx(whole.weight_SM)
    assert intervals(again)[1].lower == pytest.approx(found[1].lower)


def test_intervals_are_clustered_by_user_and_cover():
    """Events of one user that move together say less than as many independent ones; 95% intervals hold the truth."""
    random = np.random.default_rng(3)
    users = np.repeat([f"u{number}" for number in range(50)], 20)
    covered = 0
    for trial in range(100):
        taste = np.repeat(random.normal(0.0, 1.0, 50), 20)
        interval = intervals(tally((taste + random.normal(0.0, 0.1, 1000))[:, None], users, 200, seed=trial))[0]
        covered += interval.lower <= 0.0 <= interval.upper
        width = interval.upper - interval.lower
        assert width > 3 * 2 * 1.96 / math.sqrt(1000) / 2, "as if the events were independent"
    assert 85 <= covered <= 100


def test_paired_differences_see_what_the_noise_of_users_hides():
    random = np.random.default_rng(4)
    users = np.array([f"u{number % 40}" for number in range(800)])
    theirs = random.random(800)
    better = paired(np.minimum(theirs + 0.02, 1.0), theirs, users, 200)
    assert better.lower > 0 and better.mean == pytest.approx(0.02, abs=0.002)
    same = paired(theirs, theirs, users, 200)
    assert same.lower == same.mean == same.upper == 0.0


def test_no_events_and_one_user_give_no_bounds():
    nothing = intervals(tally(np.zeros((0, 1)), [], 20))[0]
    assert math.isnan(nothing.mean) and math.isnan(nothing.lower)
    one = intervals(tally(np.array([[1.0], [0.0]]), ["u", "u"], 20))[0]
    assert one.mean == 0.5 and math.isnan(one.lower) and math.isnan(one.upper)


@pytest.mark.parametrize("k", [1, 5, 10, 20])
def test_metrics_agree_with_those_of_scikit_learn_on_the_same_scores(k):
    random = np.random.default_rng(k)
    # Distinct scores: it breaks ties by the order of the items, we against ourselves.
    table = random.permuted(np.tile(np.linspace(-3, 3, 300, dtype=np.float32), (400, 1)), axis=1)
    target = random.integers(0, 300, 400)
    relevant = np.zeros((400, 300), dtype=int)
    relevant[np.arange(400), target] = 1
    found = dict(zip(measures((k,)), values(ranks(table, target), measures((k,))).mean(axis=0), strict=True))
    assert found["ndcg", k] == pytest.approx(ndcg_score(relevant, table, k=k, ignore_ties=True))
    accuracy = top_k_accuracy_score(target, table, k=k, labels=np.arange(300))
    assert found["hit", k] == found["recall", k] == pytest.approx(accuracy) == pytest.approx(k * found["precision", k])
    assert found["mrr", 0] == pytest.approx(label_ranking_average_precision_score(relevant, table))
