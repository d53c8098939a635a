"""How well it is told which interests last: learned labeller, rule, and logistic regression on recency and frequency.

An interest lasts if the user has events in the category in two or more distinct weeks of the eight after the event's day.
The log is cut by time: test are the last 21 days whose eight weeks are over, validation 21 days whose weeks end before the
test begins. Each is told by what had been learnt by its first day, from all whose eight weeks were over, as a weekly night
learns; train is what the test's was learnt from. A call is "lasts" from the probability on at which each method's calls were
best, by macro F1, on what it learnt from; the rule's is its "long", and its probabilities are what came of these before.
Intervals (95%) are of users drawn again, 300 times. A line per part and method; of `learned` also how much better it is than
each other (a positive number is better, whatever the measure).

Example: .venv/bin/python tests/benchmarks/labeller.py
Example: wherewhen simulate --output /tmp/sim --users 800 --items 400 --days 262 --end-day 2024-06-30 --seed 1 &&
    .venv/bin/python tests/benchmarks/labeller.py --simulated /tmp/sim
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import harness
import labeller_moments
import numpy as np
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from models import encoder
from models.labeller import Past, best_cut, grown, learn, probability
from models.lasting import MATURES_DAYS, STATE, features, lasting

PART_DAYS, SAMPLES, SEED = 21, 300, 1
NEVER_DAYS = 90.0  # since an interest that is new
COMPONENTS = 12  # of the encoder's vectors
BETTER_IF_LESS = ("log_loss", "brier", "calibration_error")


def part_days(past: Past) -> dict[str, tuple[int, int]]:
    """Part -> its first day and the one after its last."""
    test = past.until - MATURES_DAYS - 1 - PART_DAYS
    validation = test - MATURES_DAYS - PART_DAYS
    return {name: (first, first + PART_DAYS) for name, first in (("validation", validation), ("test", test))}


def told(past: Past, learnt: Past, vectors_CD: np.ndarray) -> dict[str, np.ndarray]:
    """Method -> how likely each moment's interest lasts, by what was known before `learnt.until`."""
    moments, lasted_M = past.moments, lasting(past.moments)
    train = np.flatnonzero(moments.day_M + MATURES_DAYS < learnt.until)
    made = learn(learnt, seed=SEED)
    assert made is not None, "too little to learn from"
    long_M = moments.ruled_M.astype(int)
    share = np.array([lasted_M[train][long_M[train] == label].mean() for label in (0, 1)])
    known_MF = features(moments, past.clock)
    state = dict(zip(STATE, moments.state_MS.T, strict=True))
    idle_M, events_M = state["idle_days"] + moments.passed_M, np.nan_to_num(state["events"])
    idle_and_events = [np.log1p(np.nan_to_num(idle_M, nan=NEVER_DAYS)), np.log1p(events_M), np.isnan(idle_M)]
    recency_frequency = np.column_stack(idle_and_events)
    vectors_MD = vectors_CD[moments.category_M]
    lasts_M = np.array([made.lasts.get(past.categories[number], made.lasts_mean) for number in moments.category_M])
    inputs_MF = np.column_stack([_components(vectors_CD)[moments.category_M], known_MF, lasts_M])
    ahead_M = past.clock.ahead(moments.day_M[train])
    trees = grown(np.column_stack([inputs_MF[train], ahead_M]), lasted_M[train], SEED)
    return {
        "rule": share[long_M],
        "logistic": _logistic(recency_frequency, lasted_M, train),
        "learned": past.told(made, np.ones(len(moments), bool)),
        "encoder_head": _logistic(np.column_stack([vectors_MD, recency_frequency]), lasted_M, train),
        "encoder_boosting": probability(trees.log_odds(np.column_stack([inputs_MF, np.ones(len(moments))]))),
    }


def _components(vectors_CD: np.ndarray) -> np.ndarray:
    centred = vectors_CD - vectors_CD.mean(axis=0)
    return centred @ np.linalg.svd(centred, full_matrices=False)[2][:COMPONENTS].T


def _logistic(inputs_MF: np.ndarray, lasted_M: np.ndarray, train: np.ndarray) -> np.ndarray:
    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(inputs_MF[train], lasted_M[train])
    return fitted.predict_proba(inputs_MF)[:, 1]


def measures(lasted_M: np.ndarray, told_M: np.ndarray, called_M: np.ndarray, weight_M: np.ndarray) -> dict[str, float]:
    """All of them, of weighted moments."""
    more = {"average": "macro", "sample_weight": weight_M, "zero_division": 0}
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(lasted_M, called_M, **more)
    told_M = np.clip(told_M, 1e-6, 1 - 1e-6)
    bin_M = np.minimum((told_M * 10).astype(int), 9)
    gap = np.bincount(bin_M, weight_M * (told_M - lasted_M), minlength=10)
    return {
        "accuracy": float(np.average(called_M == lasted_M, weights=weight_M)),
        "macro_precision": precision,
        "macro_recall": recall,
        "macro_f1": f1,
        "log_loss": metrics.log_loss(lasted_M, told_M, sample_weight=weight_M),
        "auc": metrics.roc_auc_score(lasted_M, told_M, sample_weight=weight_M),
        "average_precision": metrics.average_precision_score(lasted_M, told_M, sample_weight=weight_M),
        "brier": float(np.average((told_M - lasted_M) ** 2, weights=weight_M)),
        "calibration_error": float(np.abs(gap).sum() / weight_M.sum()),
    }


def lines(past: Past, said: Mapping[str, np.ndarray], train: np.ndarray, rows: np.ndarray) -> Iterator[dict[str, object]]:
    """A line a method, of some moments; `train`: those that were learnt from."""
    moments, lasted_M = past.moments, lasting(past.moments)[rows]
    _, user = np.unique(moments.user_M[rows], return_inverse=True)
    users = int(user.max()) + 1
    same = np.full(users, 1 / users)
    drawn = [np.ones(users), *np.random.default_rng(SEED).multinomial(users, same, SAMPLES).astype(float)]
    cuts = {name: best_cut(told_M[train], lasting(moments)[train]) for name, told_M in said.items()}
    called = {name: told_M[rows] >= cuts[name] for name, told_M in said.items()} | {"rule": moments.ruled_M[rows]}
    values = {
        name: [measures(lasted_M, told_M[rows], called[name], one[user]) for one in drawn] for name, told_M in said.items()
    }
    shape = {"moments": len(rows), "users": users, "lasted": round(float(lasted_M.mean()), 4)}
    for name, found in values.items():
        line = {"method": name, **shape, **{measure: _spread([one[measure] for one in found]) for measure in found[0]}}
        if name != "rule":
            line["cut"] = cuts[name]
        if name == "learned":
            line |= {f"better_than_{rival}": _better(found, values[rival]) for rival in said if rival != name}
        yield line


def _better(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> dict[str, list[float]]:
    signs = {name: -1 if name in BETTER_IF_LESS else 1 for name in ours[0]}
    return {
        name: _spread([sign * (one[name] - other[name]) for one, other in zip(ours, theirs, strict=True)])
        for name, sign in signs.items()
    }


def _spread(values: list[float]) -> list[float]:
    """Of all users, and the bounds of the samples."""
    return [round(float(value), 4) for value in (values[0], *np.quantile(values[1:], [0.025, 0.975]))]


def judged(past: Past) -> Iterator[dict[str, object]]:
    """All lines, by part; train is what was learnt from for the test."""
    vectors_CD = np.nan_to_num(encoder.load(max_tokens=32).encode(past.categories))
    day_M = past.moments.day_M
    for part, (first, end) in part_days(past).items():
        said = told(past, past.before(first), vectors_CD)
        train = day_M + MATURES_DAYS < first
        rows = {part: (day_M >= first) & (day_M < end)} | ({"train": train} if part == "test" else {})
        for name, is_of_part in rows.items():
            yield from ({"part": name, **line} for line in lines(past, said, train, np.flatnonzero(is_of_part)))


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--simulated", type=Path, help="a folder that `wherewhen simulate` wrote, in place of Foursquare")
    folder = given.parse_args().simulated
    events = labeller_moments.foursquare() if folder is None else labeller_moments.simulated(folder)
    for line in judged(labeller_moments.past_of(events)):
        harness.say({"name": "labeller" if folder is None else "labeller-simulated", **line})


if __name__ == "__main__":
    main()
