"""Strategies at work in the small world, night after night: lists, answers, and the policy that follows from these.

Shape suffixes: N lists, K ranks, S sources, E entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from jobs.simulate.readers import SOURCES, Plan, Visits, World, as_numbers
from models import chance
from models.mixing import Mixed, mix
from models.policy import EVERYWHERE, Evidence, Feedback, Limits, Policy, evidence
from models.top_k import ABSENT

# Of lists this share is shown in a shuffled order, to learn how much less is looked at further down. No policy learns from it.
SHUFFLED = 0.05
Next = Callable[[Policy, Evidence, int], Policy]


@dataclass(frozen=True, kw_only=True)
class Night:
    """`reward`: what is expected of a list that was shown, `best`: of the best there is. `policy`: as it was when they were."""

    reward: float
    best: float
    policy: Policy


def only(source: str) -> Policy:
    """All from one source."""
    return of_shares(np.eye(len(SOURCES))[SOURCES.index(source)])


def of_shares(share_S: np.ndarray) -> Policy:
    """The same mix everywhere."""
    nothing = np.zeros((1, len(SOURCES)))
    return Policy(
        sources=SOURCES, contexts=(EVERYWHERE,), share_CS=share_S[None, :], seen_CS=nothing, spread_CS=nothing,
        earned_CS=nothing,
    )  # fmt: skip


def adaptive(policy: Policy, told: Evidence, seed: int) -> Policy:
    return policy.after(told, seed)


def unmoved(policy: Policy, told: Evidence, seed: int) -> Policy:
    return policy


def greedy(policy: Policy, told: Evidence, seed: int) -> Policy:
    """All from the source that has earned most so far, and never another look at the others."""
    learnt = policy.after(told, seed)
    best_C = learnt.worth()[0].argmax(axis=1)
    return replace(learnt, share_CS=np.eye(len(SOURCES))[best_C])


def strategies(limits: Limits | None = None) -> dict[str, tuple[Policy, Next]]:
    """What is compared: how it begins, and how a night changes it."""
    return {
        "adaptive": (Policy.first(SOURCES, limits), adaptive),
        "fixed": (of_shares(np.full(len(SOURCES), 1.0 / len(SOURCES))), unmoved),
        "greedy": (of_shares(np.full(len(SOURCES), 1.0 / len(SOURCES))), greedy),
        "random": (only("random"), unmoved),
        "no feedback": (only("model"), unmoved),
    }


def play(
    plan: Plan, begin: Policy, follow: Next, nights: int, told: Callable[[Feedback], Feedback] = lambda feedback: feedback
) -> Iterator[Night]:
    """Each night: who comes gets a list, mixed as the policy says, and answers it; `told`: what comes back of that."""
    world, policy = World(plan=plan), begin
    for night in range(nights):
        visits = world.visits()
        worth_NV = world.worth(visits)
        mixed, shown_NK = shown(world, policy, visits, night)
        taken_NK = world.answers(shown_NK, worth_NV)
        best_NK = world.best(visits)
        yield Night(
            reward=float(world.expected(shown_NK, worth_NV).sum(axis=1).mean()),
            best=float(world.expected(best_NK, worth_NV).sum(axis=1).mean()),
            policy=policy,
        )
        is_shuffled_N = (shown_NK != mixed.item_BK).any(axis=1)
        shuffled = (shown_NK[is_shuffled_N] != ABSENT).sum(axis=0), taken_NK[is_shuffled_N].sum(axis=0)
        feedback = told(feedback_of(visits, mixed, taken_NK, ~is_shuffled_N))
        policy = follow(policy, evidence(feedback, policy, policy.examined(plan.k), shuffled), night)
        world.live(visits, shown_NK, taken_NK)


def shown(world: World, policy: Policy, visits: Visits, night: int) -> tuple[Mixed, np.ndarray]:
    """Lists as they were mixed, and their items as they are shown: of a few lists in another order."""
    rank_K = np.arange(world.plan.k)
    key_N = visits.user_N * 1_000 + night
    mixed = mix(world.sources(visits), policy.shares(visits.contexts), chance.uniform(key_N[:, None], rank_K[None, :]))
    is_shuffled_N = chance.uniform(key_N, np.full(len(key_N), 10_001)) < SHUFFLED
    order_NK = np.argsort(chance.uniform(key_N[:, None], 20_000 + rank_K[None, :]), axis=1)
    order_NK = np.where(is_shuffled_N[:, None], order_NK, rank_K)
    return mixed, np.take_along_axis(mixed.item_BK, order_NK, axis=1)


def feedback_of(visits: Visits, mixed: Mixed, taken_NK: np.ndarray, kept_N: np.ndarray) -> Feedback:
    """The entries of the lists that are kept, and what they earned."""
    contexts, context_N = as_numbers(visits.contexts)
    row_E, rank_E = np.nonzero((mixed.item_BK != ABSENT) & kept_N[:, None])
    return Feedback(
        contexts=contexts,
        context_E=context_N[row_E],
        user_E=visits.user_N[row_E],
        rank_E=rank_E,
        agreed_E=mixed.agreed_BK[row_E, rank_E],
        propensity_E=mixed.propensity_BK[row_E, rank_E],
        reward_E=taken_NK[row_E, rank_E].astype(np.float64),
        shown_E=np.ones(len(row_E)),
    )
