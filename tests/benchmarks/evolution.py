"""Where interests go in the coming week: the interest model asked about its days, against persistence and half-lives.

Foursquare: of each user the shares of categories among the check-ins of a week, as told from what came before it. `network`:
`models.evolution`, its days weighed by how often the user is out on each;
`persistence`: the shares of the week before; `half_life`: of all before, halved every so many days; `mixed`: network and
half-life, the mean of their logs. The two peers have a prior of everybody's shares; its weight and the half-life are chosen on
the last two weeks before those judged. Cross entropy in nats and squared error of shares; intervals (95%) by drawing users.

Example: .venv/bin/python tests/benchmarks/evolution.py --version LAKE/models/VERSION --until 2012-11-26
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import checkins
import harness
import numpy as np
import torch

from models.bulk import BulkScorer
from models.evolution import expected
from models.histories import EventColumns
from models.interest import InterestModel
from models.queries import FIRST

WEEK_S, DAY_S, WEEKS, SAMPLES = 7 * 86_400, 86_400, 3, 300
LOSSES = ("cross_entropy", "squared_error")
HALF_LIVES, PRIORS = (7, 14, 30, 60, 120), (0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, kw_only=True)
class Week:
    """Users who have a past and a week: their rows in the events, what came, and everybody's shares before."""

    at: int
    first_U: np.ndarray
    stop_U: np.ndarray
    actual_UC: np.ndarray
    user_U: np.ndarray
    prior_C: np.ndarray


def week(events: EventColumns, first_E: np.ndarray, owner_E: np.ndarray, at: int, size: int) -> Week:
    before_E, known_E = events.timestamp_E < at, events.category_E >= FIRST
    within_E = ~before_E & (events.timestamp_E < at + WEEK_S) & known_E
    firsts = np.unique(first_E)
    stop_U = firsts + np.add.reduceat(before_E.astype(int), firsts)
    count_UC = shares_of(events, firsts, within_E, np.ones(len(first_E)), size)
    chosen = (stop_U > firsts) & (count_UC.sum(axis=1) > 0)
    prior_C = np.bincount(events.category_E[before_E & known_E], minlength=size) + 0.5
    prior_C[:FIRST] = 0.0
    actual_UC = count_UC[chosen] / count_UC[chosen].sum(axis=1, keepdims=True)
    return Week(
        at=at, first_U=firsts[chosen], stop_U=stop_U[chosen], actual_UC=actual_UC, user_U=owner_E[firsts[chosen]],
        prior_C=prior_C / prior_C.sum(),
    )  # fmt: skip


def shares_of(events: EventColumns, first_U: np.ndarray, chosen_E: np.ndarray, weight_E: np.ndarray, size: int) -> np.ndarray:
    """Weights of the chosen events by user and category."""
    user_E = np.searchsorted(first_U, np.arange(len(chosen_E)), side="right") - 1
    count_UC = np.zeros((len(first_U), size))
    np.add.at(count_UC, (user_E[chosen_E], events.category_E[chosen_E]), weight_E[chosen_E])
    return count_UC


def past(events: EventColumns, given: Week, *, days: float | None, half_life: float | None) -> np.ndarray:
    age_E = (given.at - events.timestamp_E) / DAY_S
    chosen_E = (age_E > 0) & (events.category_E >= FIRST) & (age_E <= (days or np.inf))
    weight_E = np.exp2(-age_E / half_life) if half_life else np.ones(len(age_E))
    everyone = np.unique(np.concatenate([given.first_U, [0]]))
    found = shares_of(events, everyone, chosen_E, np.where(chosen_E, weight_E, 0.0), len(given.prior_C))
    return found[np.searchsorted(everyone, given.first_U)]


def smoothed(weight_UC: np.ndarray, given: Week, prior: float) -> np.ndarray:
    made = weight_UC + prior * given.prior_C
    return made / made.sum(axis=1, keepdims=True)


def losses(told_UC: np.ndarray, given: Week) -> np.ndarray:
    """Cross entropy and squared error of each user, (U, 2)."""
    log_UC = np.log(np.maximum(told_UC, 1e-9))
    return np.stack([-(given.actual_UC * log_UC).sum(axis=1), ((given.actual_UC - told_UC) ** 2).sum(axis=1)], axis=1)


def mixed(one_UC: np.ndarray, other_UC: np.ndarray) -> np.ndarray:
    made = np.sqrt(one_UC * other_UC)
    made[:, :FIRST] = 0.0
    return made / made.sum(axis=1, keepdims=True)


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--version", type=Path, required=True, help="folder of an interest version that learnt nothing later")
    given.add_argument("--until", required=True, help="first day that it has not seen")
    given = given.parse_args()
    torch.set_num_threads(1)
    scorer = BulkScorer(InterestModel.load(given.version))
    log = checkins.check_ins()
    events, first_E = log.events(scorer.model.vocabulary)
    owner_E, size = log.rows["user_id"].to_numpy(), FIRST + len(scorer.model.vocabulary.categories)
    begins = int(datetime.fromisoformat(given.until).replace(tzinfo=UTC).timestamp())
    chosen_on = [week(events, first_E, owner_E, begins - back * WEEK_S, size) for back in (2, 1)]
    judged = [week(events, first_E, owner_E, begins + ahead * WEEK_S, size) for ahead in range(WEEKS)]

    def entropy(make: Callable[[Week], np.ndarray]) -> float:
        return float(np.concatenate([losses(make(one), one)[:, 0] for one in chosen_on]).mean())

    prior = min(PRIORS, key=lambda p: entropy(lambda one: smoothed(past(events, one, days=7, half_life=None), one, p)))
    life_prior, half_life = min(
        ((p, h) for p in PRIORS for h in HALF_LIVES),
        key=lambda ph: entropy(lambda one: smoothed(past(events, one, days=None, half_life=ph[1]), one, ph[0])),
    )
    harness.progress(f"prior of persistence {prior}, of half-lives {life_prior}, {half_life} days")

    def told(one: Week) -> dict[str, np.ndarray]:
        found = {"persistence": smoothed(past(events, one, days=7, half_life=None), one, prior)}
        found["half_life"] = smoothed(past(events, one, days=None, half_life=half_life), one, life_prior)
        share_UDC, weight_UD = expected(scorer, events, one.first_U, one.stop_U, one.at)
        found["network"] = (share_UDC * weight_UD[..., None]).sum(axis=1)
        found["mixed"] = mixed(found["network"], found["half_life"])
        return found

    all_of = [told(one) for one in judged]
    user = np.concatenate([one.user_U for one in judged])
    pairs = list(zip(all_of, judged, strict=True))
    values = {name: np.concatenate([losses(found[name], one) for found, one in pairs]) for name in all_of[0]}
    for name, value_QM in values.items():
        line = {"name": "evolution", "method": name, "weeks": WEEKS, "asked": len(user), "users": len(set(user))}
        line |= checkins.intervals(value_QM, user, LOSSES, SAMPLES)
        for rival in ("persistence", "half_life"):
            if name in {"network", "mixed"}:
                line[f"less_than_{rival}"] = checkins.intervals(values[rival] - value_QM, user, LOSSES, SAMPLES)
        harness.say(line)


if __name__ == "__main__":
    main()
