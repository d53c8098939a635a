"""A policy moves toward what earns most, by no more than it may, whatever the answers are."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.policy import ANY, EVERYWHERE, Feedback, Limits, Policy, ancestry, evidence

SOURCES = ("ranked", "own", "popular")
EVENLY = np.ones(10)
SHIBUYA = ("Shibuya", "weekday_morning", "new")
UENO = ("Ueno", "weekday_morning", "active")


def answers(rng, earns, entries=20_000, contexts=(SHIBUYA,), share=(0.8, 0.1, 0.1)):
    """Entries of one source each, drawn by `share`, that earn as `earns` says: one row per context."""
    context = rng.integers(0, len(contexts), entries)
    source = rng.choice(len(share), size=entries, p=share)
    return Feedback(
        contexts=tuple(contexts),
        context_E=context,
        user_E=rng.integers(0, 2_000, entries),
        rank_E=rng.integers(0, 10, entries),
        agreed_E=1 << source,
        propensity_E=np.array(share)[source],
        reward_E=(rng.random(entries) < np.atleast_2d(earns)[context, source]).astype(float),
        shown_E=np.ones(entries),
    )


def told(feedback, policy, examined=EVENLY):
    return evidence(feedback, policy, examined, (np.zeros(10), np.zeros(10)))


def learnt(policy, feedback, seed=0, examined=EVENLY):
    return policy.after(told(feedback, policy, examined), seed)


def far(before, after, context):
    return 0.5 * np.abs(before.shares([context]) - after.shares([context])).sum()


def test_what_earns_most_gets_the_most_and_the_others_their_floor():
    rng, policy = np.random.default_rng(1), Policy.first(SOURCES)
    for night in range(12):
        policy = learnt(policy, answers(rng, [0.1, 0.05, 0.2]), night)
    share = policy.shares([SHIBUYA])[0]
    assert share[2] == pytest.approx(1.0 - 2 * policy.limits.floor)
    assert share[:2] == pytest.approx(policy.limits.floor)
    mean, many = policy.worth()
    assert mean[policy.contexts.index(SHIBUYA)] == pytest.approx([0.1, 0.05, 0.2], abs=0.01)
    assert (many > 100).all()


def test_contexts_differ_where_their_answers_do_and_lend_to_those_without():
    rng, policy = np.random.default_rng(2), Policy.first(SOURCES)
    for night in range(12):
        policy = learnt(policy, answers(rng, [[0.2, 0.1, 0.1], [0.1, 0.1, 0.3]], contexts=(SHIBUYA, UENO)), night)
    assert policy.shares([SHIBUYA])[0].argmax() == 0
    assert policy.shares([UENO])[0].argmax() == 2
    unheard = policy.shares([("Ginza", "weekend_night", "new"), ("Ginza", "weekend_night", "dormant")])
    assert unheard[0].tolist() == policy.shares([(ANY, ANY, "new")])[0].tolist(), "as all new users"
    assert unheard[1].tolist() == policy.shares([EVERYWHERE])[0].tolist()


def test_tastes_that_turn_are_followed():
    rng, policy = np.random.default_rng(3), Policy.first(SOURCES)
    for night in range(20):
        policy = learnt(policy, answers(rng, [0.2, 0.1, 0.1]), night)
    assert policy.shares([SHIBUYA])[0].argmax() == 0
    for nights in range(1, 40):
        policy = learnt(policy, answers(rng, [0.1, 0.1, 0.2]), nights)
        if policy.shares([SHIBUYA])[0, 2] > 0.9:
            break
    assert nights <= 20


def test_ranks_that_are_looked_at_less_do_not_count_against_a_source():
    """Two sources that earn alike where they are looked at, one always below the other."""
    rng = np.random.default_rng(4)
    looked = np.array([1.0, 0.25])
    source = rng.integers(0, 2, 40_000)
    feedback = Feedback(
        contexts=(SHIBUYA,),
        context_E=np.zeros(len(source), int),
        user_E=np.arange(len(source)),
        rank_E=source,
        agreed_E=1 << source,
        propensity_E=np.full(len(source), 0.5),
        reward_E=(rng.random(len(source)) < 0.2 * looked[source]).astype(float),
        shown_E=np.ones(len(source)),
    )
    mean, _ = learnt(Policy.first(SOURCES[:2]), feedback, examined=looked).worth()
    assert mean[0] == pytest.approx([0.2, 0.2], abs=0.01)


@given(
    seed=st.integers(0, 2**32 - 1), users=st.sampled_from([1, 3, 5_000]), reward=st.sampled_from([0.0, 0.5, 1.0]),
    source=st.integers(0, 2), entries=st.sampled_from([0, 1, 30, 20_000]),
)  # fmt: skip
def test_no_answers_move_a_policy_by_more_than_a_step(seed, users, reward, source, entries):
    """Forged, coordinated, ten thousand times too many: what they move in one night is bounded, and no source vanishes."""
    rng, limits = np.random.default_rng(seed), Limits(step=0.1, floor=0.01)
    before = learnt(Policy.first(SOURCES, limits), answers(rng, [0.1, 0.1, 0.1], 2_000))
    forged = Feedback(
        contexts=(SHIBUYA, UENO),
        context_E=rng.integers(0, 2, entries),
        user_E=rng.integers(0, users, entries),
        rank_E=rng.integers(0, 10, entries),
        agreed_E=np.full(entries, 1 << source),
        propensity_E=rng.choice([0.01, 0.5, 1.0], entries),
        reward_E=np.full(entries, reward),
        shown_E=np.ones(entries),
    )
    after = learnt(before, forged, seed)
    for context in after.contexts:
        assert far(before, after, context) <= limits.step + 1e-12
    assert (after.share_CS >= limits.floor - 1e-12).all()
    assert after.share_CS.sum(axis=1) == pytest.approx(1.0)


def test_one_user_counts_for_a_few_lists_however_often():
    rng = np.random.default_rng(5)
    honest = answers(rng, [0.2, 0.1, 0.1])
    few, many = (
        Feedback(
            contexts=honest.contexts,
            context_E=np.concatenate([honest.context_E, np.zeros(extra, int)]),
            user_E=np.concatenate([honest.user_E, np.full(extra, -1)]),
            rank_E=np.concatenate([honest.rank_E, np.arange(extra) % 10]),
            agreed_E=np.concatenate([honest.agreed_E, np.full(extra, 1 << 2)]),
            propensity_E=np.concatenate([honest.propensity_E, np.full(extra, 0.1)]),
            reward_E=np.concatenate([honest.reward_E, np.ones(extra)]),
            shown_E=np.concatenate([honest.shown_E, np.ones(extra)]),
        )
        for extra in (20, 200_000)
    )
    one, other = (learnt(Policy.first(SOURCES), feedback) for feedback in (few, many))
    assert one.earned_CS == pytest.approx(other.earned_CS)
    assert one.seen_CS == pytest.approx(other.seen_CS)


def test_answers_that_come_a_day_later_count_for_no_more_lists_either():
    """Everything shown on one day, and only on the next what was done to it, all to the entries of one source."""
    rng = np.random.default_rng(5)
    honest = answers(rng, [0.2, 0.1, 0.1], 5_000)
    policy = learnt(Policy.first(SOURCES), honest)
    extra = 6_000
    late = Feedback(
        contexts=(SHIBUYA,),
        context_E=np.zeros(extra, int),
        user_E=np.full(extra, -1),
        rank_E=np.arange(extra) % 10,
        agreed_E=np.full(extra, 1 << 2),
        propensity_E=np.full(extra, 0.5),
        reward_E=np.ones(extra),
        shown_E=np.zeros(extra),
    )
    earned = told(late, policy).earned_CS.sum()
    assert earned == pytest.approx(policy.limits.lists_per_user * EVENLY.sum() / 0.5), (
        "two lists, by how unlikely their entries were"
    )


def test_without_answers_nothing_moves():
    policy = Policy.first(SOURCES)
    for night in range(5):
        policy = learnt(policy, answers(np.random.default_rng(1), [0.1, 0.1, 0.1], 0), night)
    assert policy.shares([EVERYWHERE])[0].tolist() == Policy.first(SOURCES).share_CS[0].tolist()


def test_an_entry_is_counted_once_however_many_contexts_hold_it():
    feedback = answers(np.random.default_rng(9), [0.2, 0.1, 0.1], 3_000, share=(0.4, 0.3, 0.3))
    policy = learnt(Policy.first(SOURCES, Limits(strength=1e9)), feedback)
    _, many = policy.worth()
    counted = np.bincount(np.log2(feedback.agreed_E).astype(int), minlength=3)
    for place in range(len(policy.contexts)):
        assert many[place] == pytest.approx(counted), "the wider ones lend what they know besides, which is nothing"
    for _ in range(10):
        policy = learnt(policy, answers(np.random.default_rng(1), [0.1, 0.1, 0.1], 0))
    assert policy.worth()[1][0] == pytest.approx(counted / 2), "half of it after the half-life"


def test_the_same_answers_give_the_same_policy_and_it_is_read_back(tmp_path):
    feedback = answers(np.random.default_rng(6), [0.2, 0.1, 0.1])
    policy = learnt(Policy.first(SOURCES), feedback, 3)
    assert policy.version == learnt(Policy.first(SOURCES), feedback, 3).version
    policy.save(tmp_path)
    again = Policy.load(tmp_path)
    assert again.version == policy.version
    assert again.shares([SHIBUYA]).tolist() == policy.shares([SHIBUYA]).tolist()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda held: "",
        lambda held: "[1, 2]",
        lambda held: json.dumps({**held, "share_CS": [[1.0, 1.0, -1.0]]}),
        lambda held: json.dumps({**held, "share_CS": [[0.5, 0.1, 0.1]]}),
        lambda held: json.dumps({**held, "seen_CS": [[1.0]]}),
        lambda held: json.dumps({**held, "earned_CS": [[float("nan")] * 3]}),
        lambda held: json.dumps({**held, "contexts": [["a", "b", "c"]]}),
        lambda held: json.dumps({key: value for key, value in held.items() if key != "limits"}),
    ],
)
def test_a_damaged_policy_is_refused_with_the_file_named(tmp_path, spoil):
    Policy.first(SOURCES).save(tmp_path)
    path = tmp_path / "version.json"
    path.write_text(spoil(json.loads(path.read_text())))
    with pytest.raises(ValueError, match=r"version\.json.*take up an earlier one"):
        Policy.load(tmp_path)


def test_a_floor_that_leaves_no_room_is_refused():
    with pytest.raises(ValueError, match="lower it"):
        Policy.first(SOURCES, Limits(floor=0.5))


def test_an_ancestry_names_each_context_once():
    assert ancestry((ANY, ANY, "new")) == [EVERYWHERE, (ANY, ANY, "new")]
    assert ancestry(EVERYWHERE) == [EVERYWHERE]


def test_an_answer_that_comes_later_adds_to_what_was_seen_before():
    """A night's impressions and the next night's clicks on them are worth what both are in one night."""
    rng = np.random.default_rng(7)
    whole = answers(rng, [0.3, 0.1, 0.1], 4_000)
    later = {**vars(whole), "shown_E": np.zeros(4_000)}
    shown = Feedback(**{**vars(whole), "reward_E": np.zeros(4_000)})
    policy = Policy.first(SOURCES)
    at_once = told(whole, policy)
    first, second = told(shown, policy), told(Feedback(**later), policy)
    assert first.seen_CS + second.seen_CS == pytest.approx(at_once.seen_CS)
    assert second.earned_CS.sum() > 0 == first.earned_CS.sum()


def test_shuffled_lists_tell_how_much_each_rank_is_looked_at():
    policy = Policy.first(SOURCES)
    nothing = answers(np.random.default_rng(8), [0.1, 0.1, 0.1], 10)
    assert policy.examined(4).tolist() == [1.0] * 4, "as long as nothing is known"
    shown = np.full(3, 10_000.0)
    policy = policy.after(evidence(nothing, policy, EVENLY, (shown, shown * [0.2, 0.1, 0.05])))
    assert policy.examined(3) == pytest.approx([1.0, 0.5, 0.25])
    assert policy.examined(5) == pytest.approx([1.0, 0.5, 0.25, 0.25, 0.25]), "longer lists end as the known ones do"
    policy = policy.after(evidence(nothing, policy, EVENLY, (np.full(2, 10.0), np.ones(2))))
    assert policy.examined(3) == pytest.approx([1.0, 0.5, 0.25], rel=0.01)
