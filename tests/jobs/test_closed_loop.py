"""Strategies in the small world of `jobs.simulate.readers`: what is said of it is so, and learning from answers pays."""

import numpy as np
import pytest

from jobs.simulate.closed_loop import adaptive, of_shares, only, play, shown, strategies, unmoved
from jobs.simulate.readers import SOURCES, Plan, World
from models.policy import Policy
from models.top_k import ABSENT

SMALL = Plan(users=200, items=120)


def earned(plan, name, nights):
    begin, follow = strategies()[name]
    return np.array([night.reward for night in play(plan, begin, follow, nights)])


@pytest.mark.parametrize("clicks", ["position", "cascade"])
def test_answers_come_as_often_as_is_expected_of_them(clicks):
    world = World(plan=Plan(users=300, items=120, clicks=clicks))
    visits = world.visits()
    worth = world.worth(visits)
    _, lists = shown(world, of_shares(np.full(len(SOURCES), 1 / len(SOURCES))), visits, 0)
    taken = np.mean([world.answers(lists, worth) for _ in range(400)], axis=0)
    expected = world.expected(lists, worth)
    assert np.abs(taken.mean(axis=0) - expected.mean(axis=0)).max() < 0.01
    assert np.abs(taken - expected).max() < 5 * np.sqrt(0.25 / 400)


def test_no_list_is_better_than_the_best():
    world = World(plan=SMALL)
    visits = world.visits()
    worth = world.worth(visits)
    best = world.expected(world.best(visits), worth).sum(axis=1)
    for source in SOURCES:
        _, lists = shown(world, only(source), visits, 0)
        there = lists != ABSENT
        assert (np.sort(lists, axis=1)[:, 1:] != np.sort(lists, axis=1)[:, :-1])[there[:, 1:] & there[:, :-1]].all()
        assert (world.expected(lists, worth).sum(axis=1) <= best + 1e-9).all()


def test_what_is_asked_of_a_world_changes_nothing_and_seeds_repeat():
    one, other = (
        [night.reward for night in play(SMALL, Policy.first(SOURCES), adaptive, 4)],
        [night.reward for night in play(SMALL, Policy.first(SOURCES), adaptive, 4)],
    )
    assert one == other
    assert one != [night.reward for night in play(Plan(users=200, items=120, seed=2), Policy.first(SOURCES), adaptive, 4)]


def test_learning_from_answers_beats_chance_and_an_even_mix():
    plan = Plan(users=400, items=200, seed=4)
    rewards = {name: earned(plan, name, 25)[10:].mean() for name in ("adaptive", "fixed", "random")}
    assert rewards["adaptive"] > 1.1 * rewards["fixed"] > 1.1 * rewards["random"]


def test_after_tastes_have_turned_another_source_is_drawn_from_more():
    plan = Plan(users=400, items=200, seed=5, shift_night=15, shift_share=1.0)
    nights = list(play(plan, Policy.first(SOURCES), adaptive, 35))
    trend = SOURCES.index("trend")
    before, after = (nights[night].policy.share_CS[0, trend] for night in (15, 34))
    assert after > before + 0.2
    steady = [night.reward for night in play(plan, only("model"), unmoved, 35)]
    assert np.mean([night.reward for night in nights[25:]]) > np.mean(steady[25:])
