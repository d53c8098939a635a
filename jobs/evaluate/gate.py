"""Which version serves from the day on: the candidate, the one published before, or a baseline. No Spark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conf.learning import Gate
from models.judging import ALIKE, DIFFERENCE, EMPTY_LISTS, REFERENCE, Judged
from models.metrics import Tally

POPULARITY = "popularity"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One row of `publications`: `decision` is published, baseline, kept or refused."""

    decision: str
    model_version: str
    candidate: str | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Duel:
    """A candidate and the version published before it, over the same moments.

    `past` are the paired tallies of earlier days with target events whose candidates were not refused.
    `is_baseline`: what was published is no model.
    """

    candidate: str
    published: str
    day: Tally
    past: Sequence[Tally]
    judged: Mapping[str, Judged]
    is_baseline: bool = False


def against_published(duel: Duel, gate: Gate) -> Decision:
    """The candidate is published unless it may be worse by more than the margin, is worse on the day, too good to be true,
    or out of bounds."""
    pooled = duel.day
    for past in duel.past:
        pooled = pooled + past
    mean, reference = pooled.mean_M[DIFFERENCE], pooled.mean_M[REFERENCE]
    # One-sided: 95% of the bootstrap means lie above it.
    lower = pooled.quantile(0.05)[DIFFERENCE]
    if math.isnan(lower):
        why = f"one user is too little to judge {duel.candidate} by"
        return Decision(decision="kept", model_version=duel.published, candidate=duel.candidate, reason=why)
    allowed = -gate.margin * reference
    name, days = gate.label, 1 + len(duel.past)
    found = (
        f"{name} {mean:+.4f} against {duel.published} ({reference:.4f}) over {days} day{'s' if days > 1 else ''}, "
        f"{pooled.events:.0f} events; 95% sure of {lower:+.4f}, allowed {allowed:+.4f}"
    )
    wrong = [f"{name} may be too much worse"] if lower < allowed else []
    wrong += _worse_today(duel, name)
    wrong += _too_good(duel, gate)
    wrong += _out_of_bounds(duel, gate)
    if wrong:
        reason = f"{'; '.join(wrong)} ({found})"
        return Decision(decision="refused", model_version=duel.published, candidate=duel.candidate, reason=reason)
    return Decision(decision="published", model_version=duel.candidate, candidate=duel.candidate, reason=found)


def _worse_today(duel: Duel, name: str) -> list[str]:
    upper = duel.day.quantile(0.975)[DIFFERENCE]
    return [f"{name} is significantly worse on the day alone (at most {upper:+.4f})"] if upper < 0 else []


def _too_good(duel: Duel, gate: Gate) -> list[str]:
    """What no night's learning explains: the answer is among what the candidate reads. A baseline may be beaten by any.

    On the day alone: the days before were other candidates', which would hide what is wrong with this one.
    """
    lower, reference = duel.day.quantile(0.05)[DIFFERENCE], duel.day.mean_M[REFERENCE]
    # A model that is right more often than not cannot be twice as good: then the share of what is left counts.
    most = gate.max_gain * min(reference, 1 - reference)
    if lower <= most or duel.is_baseline:
        return []
    return [
        f"{gate.label} is too good to be true (better by {lower:+.4f} at least on the day, {most:+.4f} is believed): look for "
        f"a leak, and if there is none, `wherewhen publish {duel.candidate}`"
    ]


def _out_of_bounds(duel: Duel, gate: Gate) -> list[str]:
    ours, theirs = duel.judged[duel.candidate], duel.judged[duel.published]
    found = _too_empty(ours, gate)
    least = gate.min_coverage * theirs.coverage
    if ours.coverage < least:
        found.append(f"its lists hold {ours.coverage:.2%} of the catalogue, at least {least:.2%} is asked")
    alike = duel.day.mean_M[ALIKE]
    if alike < gate.min_likeness:
        found.append(f"its lists share {alike:.2%} with those of {duel.published}, at least {gate.min_likeness:.2%} is asked")
    return found


def _too_empty(ours: Judged, gate: Gate) -> list[str]:
    empty = ours.mean(EMPTY_LISTS)
    if empty <= gate.max_empty_lists:
        return []
    return [f"{empty:.2%} of its lists are empty, at most {gate.max_empty_lists:.2%} may be"]


def first(candidate: str | None, judged: Mapping[str, Judged], gate: Gate) -> Decision:
    """With nothing published: a candidate that beats popularity, else the best baseline.

    `judged` holds the baselines by their names, and the candidate (or what stands for it) as `candidate`.
    A baseline is decided on by name: the caller makes a version of it.
    """
    what = gate.measure
    means = {name: one.mean(what) for name, one in judged.items()}
    baselines = {name: mean for name, mean in means.items() if name != candidate}
    best = min(baselines, key=lambda name: (-baselines[name], name), default=POPULARITY)
    if candidate is None:
        why = f"no candidate was trained; of the baselines {best} is best ({_means(means, gate)})"
    elif candidate not in means or POPULARITY not in means:
        why = f"there were no target events to judge {candidate} by"
    else:
        wrong = _too_empty(judged[candidate], gate)
        if means[candidate] > means[POPULARITY] and not wrong:
            why = f"{gate.label} {means[candidate]:.4f} beats popularity ({means[POPULARITY]:.4f}); nothing was published"
            return Decision(decision="published", model_version=candidate, candidate=candidate, reason=why)
        lost = wrong[0] if wrong else "the candidate does not beat popularity"
        why = f"{lost}; the best baseline is {best} ({_means(means, gate)})"
    return Decision(decision="baseline", model_version=best, candidate=candidate, reason=why)


def _means(means: Mapping[str, float], gate: Gate) -> str:
    if not means:
        return "nothing to judge by"
    return f"{gate.label} " + ", ".join(f"{name} {means[name]:.4f}" for name in sorted(means, key=lambda name: -means[name]))
