"""What was measured, as rows of `model_quality` and as lines to read; and the pairs kept there to be pooled. No Spark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np

from conf.learning import Gate
from conf.settings import Settings, digest
from models.judging import BY_SEGMENT, DIFFERENCE, LISTED, REFERENCE, Judged
from models.metrics import Interval, Tally, intervals

DAY, HOLDOUT, PAIRED = "day", "holdout", "paired"
ALL = "all"
BEHIND = ("ndcg_behind", LISTED)
Row = dict[str, Any]


def quality_rows(name: str, judged: Judged, evaluation: str, day: date) -> list[Row]:
    """One row per measure, over all moments and over each segment; and what has no interval."""
    same = {"model_version": name, "evaluation": evaluation, "day": day}
    rows = _measured(same | {"segment": ALL}, judged.tally, judged.measures)
    for segment, tally in judged.segments.items():
        rows += _measured(same | {"segment": segment}, tally, BY_SEGMENT)
    if judged.behind is not None and judged.behind.events:
        rows += _measured(same | {"segment": ALL}, judged.behind, [BEHIND])
    whole = {
        ("coverage", LISTED): judged.coverage,
        ("category_accuracy", 0): judged.category_accuracy,
        ("category_macro_f1", 0): judged.category_macro_f1,
    }
    no_bounds = rows[0] | {"lower": None, "upper": None}
    return rows + [
        no_bounds | {"metric": metric, "k": k, "value": value} for (metric, k), value in whole.items() if not math.isnan(value)
    ]


def _measured(same: Row, tally: Tally, measures: Sequence[tuple[str, int]]) -> list[Row]:
    counted = same | {"events": int(tally.events), "users": int(tally.users)}
    return [
        {**counted, "metric": metric, "k": k, "value": one.mean, "lower": _bound(one.lower), "upper": _bound(one.upper)}
        for (metric, k), one in zip(measures, intervals(tally), strict=True)
    ]


def _bound(value: float) -> float | None:
    return None if math.isnan(value) else value


def paired_rows(candidate: str, paired: Tally, settings: Settings, day: date) -> list[Row]:
    """The differences of a day, so that later days can pool them: a mean and its weight per bootstrap sample."""
    name = _measured_by(settings)
    same = {
        "model_version": candidate,
        "evaluation": PAIRED,
        "segment": ALL,
        "lower": None,
        "upper": None,
        "users": int(paired.users),
        "day": day,
    }
    sums = np.concatenate(([paired.sum_M[DIFFERENCE]], paired.sum_SM[:, DIFFERENCE]))
    weights = np.concatenate(([paired.weight_M[DIFFERENCE]], paired.weight_SM[:, DIFFERENCE]))
    means = np.divide(sums, weights, out=np.zeros_like(sums), where=weights > 0)
    counted = same | {"events": int(paired.events)}
    rows = [
        counted | {"metric": f"{name}_{what}", "k": k, "value": float(value)}
        for what, values in (("difference", means), ("weight", weights))
        for k, value in enumerate(values)
    ]
    return [*rows, counted | {"metric": f"{name}_reference", "k": 0, "value": float(paired.mean_M[REFERENCE])}]


def _measured_by(settings: Settings) -> str:
    """What the gate compares; with events of unlike worth also by which: such means do not add up with others."""
    worth = {name: value for name, value in settings.train.worth.items() if value != 1}
    return settings.gate.label + (f"/{digest(worth)}" if worth else "")


def pairs(rows: Sequence[Row], refused: set[tuple[date, str]], settings: Settings) -> list[Tally]:
    """The paired tallies of the newest `gate.days` - 1 days, newest first; without refused candidates.

    `rows` are those with evaluation `paired`, `refused` the (day, candidate) of refusals. Days that
    were measured otherwise (another metric, worth or number of samples) cannot be pooled and are left out.
    """
    name, samples = _measured_by(settings), settings.evaluate.bootstrap_samples
    days: dict[date, dict[str, dict[int, Row]]] = {}
    for row in rows:
        if (row["day"], row["model_version"]) not in refused:
            days.setdefault(row["day"], {}).setdefault(row["metric"], {})[row["k"]] = row
    found = []
    for day in sorted(days, reverse=True):
        difference, weight, reference = (days[day].get(f"{name}_{what}", {}) for what in ("difference", "weight", "reference"))
        if len(difference) == len(weight) == samples + 1 and reference:
            mean, weighs = (np.array([rows[k]["value"] for k in range(samples + 1)]) for rows in (difference, weight))
            found.append(_tally(mean, weighs, reference[0]))
    return found[: settings.gate.days - 1]


def _tally(difference: np.ndarray, weight: np.ndarray, reference: Row) -> Tally:
    """Of everybody and of each sample, in that order."""
    # How alike the lists are is a matter of the day alone: that column stays 0.
    sums, weights = np.zeros((len(weight), 3)), np.repeat(weight[:, None], 3, axis=1)
    sums[:, DIFFERENCE] = difference * weight
    sums[0, REFERENCE] = reference["value"] * weight[0]
    events, users = float(reference["events"]), float(reference["users"])
    return Tally(events=events, users=users, sum_M=sums[0], weight_M=weights[0], sum_SM=sums[1:], weight_SM=weights[1:])


def side_by_side(judged: Mapping[str, Judged], gate: Gate, title: str) -> list[str]:
    """A line per model, the best first, with the interval of what the gate compares."""
    if not judged:
        return []
    what = gate.measure
    best_first = sorted(judged, key=lambda name: -judged[name].mean(what))
    any_of = judged[best_first[0]]
    shown = [one for one in (("hit", gate.k), ("ndcg", gate.k), ("mrr", 0)) if one in any_of.measures and one != what]
    width = max(len(name) for name in judged)
    lines = [f"{title}: {any_of.tally.events:.0f} target events of {any_of.tally.users:.0f} users"]
    for name in best_first:
        one = judged[name]
        interval = intervals(one.tally)[list(one.measures).index(what)]
        others = "  ".join(f"{metric}{f'@{k}' if k else ''} {one.mean((metric, k)):.4f}" for metric, k in shown)
        behind = f"  behind by {_shown(intervals(one.behind)[0])}" if one.behind is not None and one.behind.sum_M.any() else ""
        lines.append(f"  {name:<{width}}  {gate.label} {_shown(interval)}  {others}  coverage {one.coverage:.1%}{behind}")
    return lines


def _shown(interval: Interval) -> str:
    if math.isnan(interval.lower):
        return f"{interval.mean:.4f}"
    return f"{interval.mean:.4f} ({interval.lower:.4f}..{interval.upper:.4f})"
