"""Whether a labeller may serve: learned and rule at the same exam, with intervals clustered by user. No Spark.

A label is asked of both for what it is worth as a call (macro F1, by the labeller's cut) and as a probability (log loss): a
labeller serves once it is surely better by both, and the rule serves again once the labeller is surely worse by either.

Shape suffixes: M moments, S bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jobs.lake.publications import RULE
from models.labeller import Exam
from models.lasting import Flags, Floats
from models.metrics import Interval, Tally, tally

PUBLISHED, KEPT, REFUSED = "published", "kept", "refused"
LOSS, F1 = "log loss", "macro F1"


@dataclass(frozen=True, kw_only=True)
class Told:
    """What somebody said of the exam's moments: how likely each lasts, and whether it is called lasting."""

    probability_M: Floats
    called_M: Flags


def learned(probability_M: Floats, cut: float) -> Told:
    return Told(probability_M=probability_M, called_M=probability_M >= cut)


def ruled(exam: Exam) -> Told:
    return Told(probability_M=exam.ruled_M, called_M=exam.moments.ruled_M)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`values`: measure -> ours and theirs. `gains`: measure -> how much better ours is, positive, whatever the measure."""

    values: Mapping[str, tuple[float, float]]
    gains: Mapping[str, Interval]
    moments: int
    users: int

    @property
    def is_better(self) -> bool:
        return all(gain.lower > 0 for gain in self.gains.values())

    @property
    def is_worse(self) -> bool:
        return any(gain.upper < 0 for gain in self.gains.values())

    def said(self, rival: str) -> str:
        gains = [
            f"{name} {self.values[name][0]:.3f} against {self.values[name][1]:.3f}, better by {gain.mean:+.3f} "
            f"({gain.lower:+.3f} to {gain.upper:+.3f})"
            for name, gain in self.gains.items()
        ]
        return f"beside {rival} {'; '.join(gains)}; {self.moments:,} days with events of a category, of {self.users:,} users"


def compared(exam: Exam, ours: Told, theirs: Told, *, samples: int) -> Comparison:
    """By all moments of the exam; a Poisson bootstrap over its users."""
    columns = [
        np.column_stack([exam.losses(one.probability_M), *_counts(exam.lasted_M, one.called_M)]) for one in (ours, theirs)
    ]
    names = np.array([str(user) for user in exam.moments.user_M.tolist()], dtype=object)
    summed = tally(np.concatenate(columns, axis=1), names, samples)
    whole = _measures(summed.sum_M[None, :], summed.weight_M[:1])
    drawn = _measures(summed.sum_SM, summed.weight_SM[:, 0])
    return Comparison(
        values={name: (float(one[0]), float(other[0])) for name, (one, other) in whole.items()},
        gains={name: _gain(name, whole[name], drawn[name], summed) for name in (LOSS, F1)},
        moments=len(exam.moments),
        users=int(summed.users),
    )


def _counts(lasted_M: Flags, called_M: Flags) -> list[Flags]:
    """Right and wrong calls of either kind: lasted and called so, not and called so, lasted and not called so, neither."""
    return [lasted_M & called_M, ~lasted_M & called_M, lasted_M & ~called_M, ~lasted_M & ~called_M]


def _measures(sums: Floats, events: Floats) -> dict[str, tuple[Floats, Floats]]:
    """Measure -> ours (S,) and theirs, from the sums of `compared`."""
    size = sums.shape[1] // 2
    both = [sums[:, :size], sums[:, size:]]
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            LOSS: (both[0][:, 0] / events, both[1][:, 0] / events),
            F1: (_macro_f1(both[0]), _macro_f1(both[1])),
        }


def _macro_f1(sums: Floats) -> Floats:
    """(S,) mean of the F1 of lasting and of not lasting; 0 where a kind was neither there nor called."""
    _, hit, false, missed, rest = sums.T
    return np.asarray(sum(2 * right / np.maximum(2 * right + false + missed, 1) for right in (hit, rest)) / 2)


def _gain(name: str, whole: tuple[Floats, Floats], drawn: tuple[Floats, Floats], summed: Tally) -> Interval:
    sign = -1 if name == LOSS else 1
    mean = float(sign * (whole[0] - whole[1])[0])
    gain_S = (sign * (drawn[0] - drawn[1]))[summed.weight_SM[:, 0] > 0]
    if summed.users < 2 or not len(gain_S):
        return Interval(mean=mean, lower=float("nan"), upper=float("nan"))
    lower, upper = np.quantile(gain_S, [0.025, 0.975])
    return Interval(mean=mean, lower=float(lower), upper=float(upper))


@dataclass(frozen=True, kw_only=True)
class Decision:
    """As `publications` has it; `model_version` is what serves, a version or the rule."""

    decision: str
    model_version: str
    reason: str


def decided(candidate: str, serving: str, by_rule: Comparison, by_serving: Comparison | None) -> Decision:
    """`by_rule`: the exam of one that learnt as the candidate did; `by_serving`: the same beside the labeller that serves, on
    the moments whose outcome neither of them knew. None: there is none, or too few such moments."""
    said = by_rule.said("the rule")
    if by_rule.is_worse:
        return Decision(decision=REFUSED, model_version=RULE, reason=f"surely worse than the rule, which serves: {said}")
    if not by_rule.is_better:
        return Decision(decision=KEPT, model_version=serving, reason=f"not surely better than the rule by both: {said}")
    if by_serving is not None and by_serving.is_worse:
        why = f"surely worse than what serves: {by_serving.said(serving)}"
        return Decision(decision=REFUSED, model_version=serving, reason=why)
    return Decision(decision=PUBLISHED, model_version=candidate, reason=said)
