"""Policies in the small world: what each strategy earns, what answers tell of others, and what position bias is found.

`loop`: 60 nights, tastes of 70% of users turn on night 30; rewards are answers expected per list, regret against the best list
there is. `evaluation`: of logged lists, how far estimates are off and how often their intervals hold the truth, for policies
near and far. `bias`: examination by rank from shuffled lists and by regression EM, with the click model planted that these
assume and with another. `attack`: accounts that always take what one source lists.

Example: make bench BENCH=policy ARGS='--seeds 10'
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from jobs.simulate.closed_loop import of_shares, play, shown, strategies
from jobs.simulate.readers import SOURCES, Plan, World
from models.mixing import mix
from models.off_policy import Answered, evaluated
from models.policy import EVERYWHERE
from models.position_bias import from_shuffled, regression_em
from models.top_k import ABSENT

NIGHTS, SHIFT, SETTLED = 60, 30, 10
# Seeds that limits were chosen on are 1, 2, 3.
FIRST_SEED = 11
RECOVERED, SMOOTHED = 0.95, 5
LOGGING = np.array([0.70, 0.06, 0.06, 0.06, 0.06, 0.06])


def say(name: str, **figures: Any) -> None:
    sys.stdout.write(json.dumps({"name": name, **figures}) + "\n")
    sys.stdout.flush()


def mean_and_error(values: list[float]) -> list[float]:
    known = [value for value in values if np.isfinite(value)]
    return (
        [round(float(np.mean(known)), 3), round(float(np.std(known, ddof=1) / np.sqrt(len(known))), 3)]
        if len(known) > 1
        else []
    )


def loop(seeds: int) -> None:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in strategies()}
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        plan, rewards, best = Plan(seed=seed, shift_night=SHIFT), {}, {}
        for name, (begin, follow) in strategies().items():
            nights = list(play(plan, begin, follow, NIGHTS))
            rewards[name] = np.array([night.reward for night in nights])
            best[name] = np.array([night.best for night in nights])
        level = max(float(values[-SETTLED:].mean()) for values in rewards.values())
        for name, values in rewards.items():
            found[name].append(
                {
                    "reward": float(values.sum()),
                    "regret": float((best[name] - values).sum()),
                    "before_shift": float(values[SHIFT - SETTLED : SHIFT].mean()),
                    "after_shift": float(values[SHIFT : SHIFT + SETTLED].mean()),
                    "settled": float(values[-SETTLED:].mean()),
                    "nights_to_recover": recovery(values, level),
                }
            )
        for name, values in rewards.items():
            found[name][-1]["adaptive_earns_more"] = float(rewards["adaptive"].sum() - values.sum())
    for name, seeds_of in found.items():
        figures = {key: mean_and_error([one[key] for one in seeds_of]) for key in seeds_of[0]}
        never = sum(not np.isfinite(one["nights_to_recover"]) for one in seeds_of)
        say("policy-loop", strategy=name, seeds=seeds, **figures, never_recovered=never)


def recovery(reward_N: np.ndarray, level: float) -> float:
    """Nights from the shift until a mean over five is within 5% of the level; inf: never."""
    for night in range(SHIFT, len(reward_N) - SMOOTHED + 1):
        if reward_N[night : night + SMOOTHED].mean() >= RECOVERED * level:
            return night - SHIFT
    return np.inf


def toward(source: str, far: float) -> np.ndarray:
    return (1.0 - far) * LOGGING + far * np.eye(len(SOURCES))[SOURCES.index(source)]


def evaluation(times: int, users: int) -> None:
    asked = {
        "as logged": LOGGING,
        **{
            f"{far} nearer to {source}": toward(source, far)
            for source, far in (("trend", 0.1), ("trend", 0.2), ("popular", 0.1))
        },
        "even": np.full(len(SOURCES), 1.0 / len(SOURCES)),
        "0.8 nearer to trend": toward("trend", 0.8),
        "popular alone": toward("popular", 1.0),
    }
    for clicks in ("position", "cascade"):
        world = World(plan=Plan(users=users, seed=FIRST_SEED, clicks=clicks))
        truth = {name: np.mean([mixed_lists(world, share)[2] for _ in range(times)]) for name, share in asked.items()}
        told: dict[str, list[Any]] = {name: [] for name in asked}
        for _ in range(times):
            answered = logged(world)
            for name, share in asked.items():
                told[name].append(evaluated(answered, np.broadcast_to(share, (len(answered.user_N), len(SOURCES)))))
        for name, verdicts in told.items():
            figures = {}
            for method in ("ips", "snips", "dr"):
                some = [verdict.by[method] for verdict in verdicts]
                figures[f"{method}_bias"] = round(float(np.mean([one.value for one in some]) / truth[name] - 1.0), 4)
                figures[f"{method}_coverage"] = float(np.mean([one.low <= truth[name] <= one.high for one in some]))
                figures[f"{method}_width"] = round(float(np.mean([one.high - one.low for one in some]) / truth[name]), 3)
            say(
                "policy-evaluation", clicks=clicks, asked=name, truth=round(float(truth[name]), 4), times=times,
                users=round(float(np.mean([verdict.users for verdict in verdicts])), 1),
                said_enough=float(np.mean([verdict.is_enough for verdict in verdicts])), **figures,
            )  # fmt: skip


def mixed_lists(world: World, share: np.ndarray) -> tuple[Any, Any, float]:
    visits = world.visits()
    worth_NV = world.worth(visits)
    shape = (len(visits.user_N), len(SOURCES))
    mixed = mix(world.sources(visits), np.broadcast_to(share, shape), world.random.random((shape[0], world.plan.k)))
    return visits, (mixed, worth_NV), float(world.expected(mixed.item_BK, worth_NV).sum(axis=1).mean())


def logged(world: World) -> Answered:
    visits, (mixed, worth_NV), _ = mixed_lists(world, LOGGING)
    return Answered(
        agreed_NK=mixed.agreed_BK,
        propensity_NK=mixed.propensity_BK,
        reward_NK=world.answers(mixed.item_BK, worth_NV).astype(np.float64),
        user_N=visits.user_N,
    )


def bias(nights: int, users: int) -> None:
    for clicks in ("position", "cascade"):
        world, share = World(plan=Plan(users=users, seed=FIRST_SEED, clicks=clicks)), of_shares(LOGGING)
        shown_K, answered_K, seen, truth = np.zeros(world.plan.k), np.zeros(world.plan.k), [], []
        for night in range(nights):
            visits = world.visits()
            worth_NV = world.worth(visits)
            mixed, _ = shown(world, share, visits, night)
            order_NK = np.argsort(world.random.random(mixed.item_BK.shape), axis=1)
            shuffled_NK = np.take_along_axis(mixed.item_BK, order_NK, axis=1)
            shown_K += (shuffled_NK != ABSENT).sum(axis=0)
            answered_K += world.answers(shuffled_NK, worth_NV).sum(axis=0)
            truth.append(world.examined(shuffled_NK, worth_NV).mean(axis=0))
            seen.append(entries(mixed, world.answers(mixed.item_BK, worth_NV)))
        planted_K = np.mean(truth, axis=0) / np.mean(truth, axis=0)[0]
        rank_E, answered_E, agreed_E = (np.concatenate(parts) for parts in zip(*seen, strict=True))
        shuffled = from_shuffled(shown_K, answered_K)
        assert shuffled is not None
        held = float(((shuffled.low_K <= planted_K) & (planted_K <= shuffled.high_K))[1:].mean())
        em = regression_em(rank_E, answered_E, agreed_E, world.plan.k)
        rate_K = np.bincount(rank_E, answered_E) / np.bincount(rank_E)
        for method, told_K in (("shuffled", shuffled.examined_K), ("em", em.examined_K), ("plain rates", rate_K / rate_K[0])):
            off_K = np.abs(told_K / planted_K - 1.0)
            say(
                "policy-bias", clicks=clicks, method=method, lists=int(shown_K[0]), worst=round(float(off_K.max()), 3),
                mean=round(float(off_K[1:].mean()), 3), **({"intervals_hold": held} if method == "shuffled" else {}),
            )  # fmt: skip


def entries(mixed: Any, taken_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    row_E, rank_E = np.nonzero(mixed.item_BK != ABSENT)
    return rank_E, taken_NK[row_E, rank_E].astype(np.float64), mixed.agreed_BK[row_E, rank_E]


def attack(seeds: int) -> None:
    """A part of all accounts takes every entry of the worst source, and nothing else."""
    for part in (0.0, 0.02, 0.1):
        shares, rewards, steps = [], [], []
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            plan = Plan(seed=seed)
            begin, follow = strategies()["adaptive"]
            nights = list(play(plan, begin, follow, NIGHTS, told=forged(part)))
            policies = [night.policy.shares([EVERYWHERE])[0] for night in nights]
            shares.append(float(policies[-1][SOURCES.index("random")]))
            steps.append(max(0.5 * np.abs(after - before).sum() for before, after in pairwise(policies)))
            rewards.append(float(np.sum([night.reward for night in nights])))
        say(
            "policy-attack", accounts=part, seeds=seeds, share_of_random=mean_and_error(shares), reward=mean_and_error(rewards),
            largest_step=round(max(steps), 4), bound=begin.limits.step,
        )  # fmt: skip


def forged(part: float) -> Any:
    def told(feedback: Any) -> Any:
        is_forger_E = feedback.user_E < part * Plan().users
        is_random_E = (feedback.agreed_E & (1 << SOURCES.index("random"))) > 0
        return replace(feedback, reward_E=np.where(is_forger_E, is_random_E, feedback.reward_E).astype(np.float64))

    return told


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="worlds for loop and attack")
    parser.add_argument("--times", type=int, default=100, help="logs for evaluation")
    parser.add_argument("--users", type=int, default=3000, help="users for evaluation and bias")
    asked = parser.parse_args(arguments)
    loop(asked.seeds)
    evaluation(asked.times, asked.users)
    bias(6, 2 * asked.users)
    attack(asked.seeds)


if __name__ == "__main__":
    main(sys.argv[1:])
