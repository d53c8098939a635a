"""The learned labeller: how likely an interest lasts, by gradient boosting on what is known of it (`models.lasting`).

Whether somebody comes back depends on how much of the log the eight weeks hold, which nobody knows beforehand. So the trees
are told it of the moments that they learn from, and are asked about eight weeks of mean days: what they learn of people then
does not move with a log's pauses. Told likewise is how often interests in the category lasted; of what is learnt from, as it
was among the other users.

Calls ("it lasts") are made from the probability on at which they would have been best, by macro F1, on what was learnt from:
where most interests last, or few do, that is not a half.

Boosting on the log loss is calibrated as it is. A calibration learnt on later weeks (Platt's, isotonic) was left out: it
carries the busyness of those weeks to all others.

Shape suffixes: M moments, F inputs, C categories.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from models.lasting import MATURES_DAYS, NAMES, Clock, Flags, Floats, Ints, Moments, features, lasting
from models.trees import Trees

METHOD = "boosting"
INPUTS = (*NAMES, "category_lasts", "ahead")
EXAM_DAYS = 28
LEAST_LESSONS, LEAST_ASKED = 1000, 200  # moments: fewer teach, or tell apart, nothing
_TREES, _RATE, _LEAVES, _LEAST, _L2 = 100, 0.05, 8, 200, 5.0
_FOLDS = 5  # of users
_TRUST = 50.0  # a category's share is drawn to that of all as if by so many moments
_TREES_FILE, _DETAILS = "trees.npz", "version.json"


@dataclass(frozen=True, kw_only=True)
class Labeller:
    """What was learnt. `lasts`: category -> share of its interests that lasted, drawn to `lasts_mean`. `cut`: from this
    probability on an interest is called lasting.
    """

    trees: Trees
    lasts: dict[str, float]
    lasts_mean: float
    cut: float

    def probability(self, moments: Moments, categories: Sequence[str], clock: Clock) -> Floats:
        """(M,) how likely each interest lasts, if the log goes on as usual. `categories`: names by number."""
        lasts_C = np.array([self.lasts.get(name, self.lasts_mean) for name in categories], dtype=np.float64)
        inputs_MF = [features(moments, clock), lasts_C[moments.category_M], np.ones(len(moments))]
        return probability(self.trees.log_odds(np.column_stack(inputs_MF)))

    def save(self, folder: Path) -> None:
        """Write `version.json` and the trees into a folder that is there."""
        self.trees.save(folder / _TREES_FILE)
        said = {"method": METHOD, "inputs": INPUTS, "lasts": self.lasts, "lasts_mean": self.lasts_mean, "cut": self.cut}
        (folder / _DETAILS).write_text(json.dumps(said))

    @staticmethod
    def load(folder: Path) -> Labeller:
        """
        Raises:
            ValueError: there is no such version, it is damaged, or another release's.
        """
        try:
            said = json.loads((folder / _DETAILS).read_text())
            if said["method"] != METHOD or tuple(said["inputs"]) != INPUTS or "cut" not in said:
                raise ValueError("another release made it")
            told = {name: said[name] for name in ("lasts", "lasts_mean", "cut")}
            return Labeller(trees=Trees.load(folder / _TREES_FILE), **told)
        except (OSError, KeyError, ValueError, BadZipFile) as error:
            why = f"{type(error).__name__}: {error}"
            raise ValueError(f"{folder} holds no labeller ({why}): `wherewhen publish rule` goes on without one") from error


def probability(log_odds_M: Floats) -> Floats:
    """(M,)"""
    return np.asarray(1.0 / (1.0 + np.exp(-log_odds_M)))


@dataclass(frozen=True, kw_only=True)
class Past:
    """All moments before day `until` (days since 1970). `categories`: names by number.

    The clock may go on after it: of a moment only what it said by then is asked, and of the weeks ahead if they are over.
    """

    moments: Moments
    categories: Sequence[str]
    clock: Clock
    until: int

    def before(self, day: int) -> Past:
        """The same, had it been told then."""
        return replace(self, moments=self.moments.take(self.moments.day_M < day), until=day)

    def mature(self) -> Flags:
        """(M,) whose eight weeks are over."""
        return self.moments.day_M + MATURES_DAYS < self.until

    @property
    def exam_from(self) -> int:
        """The first day of the newest weeks whose outcome is known."""
        return self.until - MATURES_DAYS - EXAM_DAYS

    def told(self, by: Labeller, rows: Flags) -> Floats:
        """What a labeller says of some of the moments."""
        return by.probability(self.moments.take(rows), self.categories, self.clock)


def learn(past: Past, *, seed: int) -> Labeller | None:
    """A labeller; None where too little is known, or all interests came to the same end. Equal pasts give equal labellers."""
    is_taught = past.mature()
    lasted_M, moments = lasting(past.moments)[is_taught], past.moments.take(is_taught)
    if len(moments) < LEAST_LESSONS or lasted_M.all() or not lasted_M.any():
        return None
    size, mean = len(past.categories), float(lasted_M.mean())
    fold_M, shares_M = moments.user_M % _FOLDS, np.full(len(moments), mean)
    for fold in range(_FOLDS):
        others, mine = fold_M != fold, fold_M == fold
        shares_M[mine] = _shares(moments.category_M[others], lasted_M[others], size, mean)[moments.category_M[mine]]
    inputs_MF = [features(moments, past.clock), shares_M, past.clock.ahead(moments.day_M)]
    trees = grown(np.column_stack(inputs_MF), lasted_M, seed)
    lasts = dict(zip(past.categories, _shares(moments.category_M, lasted_M, size, mean).tolist(), strict=True))
    made = Labeller(trees=trees, lasts=lasts, lasts_mean=mean, cut=0.5)
    return replace(made, cut=best_cut(made.probability(moments, past.categories, past.clock), lasted_M))


def best_cut(told_M: Floats, lasted_M: Flags) -> float:
    """The hundredth from which on calling moments lasting gives the greatest macro F1; of equal ones the nearest to a half.

    >>> best_cut(np.array([0.2, 0.6, 0.7, 0.9]), np.array([False, False, True, True]))
    0.61
    """
    cuts = np.arange(1, 100) / 100
    order = np.argsort(told_M)
    below_C = np.searchsorted(told_M[order], cuts)
    missed_C = np.concatenate(([0], np.cumsum(lasted_M[order])))[below_C]
    hit_C, rest_C = lasted_M.sum() - missed_C, below_C - missed_C
    false_C = len(told_M) - below_C - hit_C
    f1_C = sum(2 * right_C / np.maximum(2 * right_C + false_C + missed_C, 1) for right_C in (hit_C, rest_C)) / 2
    return float(cuts[np.lexsort((np.abs(cuts - 0.5), -f1_C))[0]])


def grown(inputs_MF: Floats, lasted_M: Flags, seed: int) -> Trees:
    """Boosted trees; the last of the inputs is how much of the log was ahead."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # a second to read, which those who only ask need not spend

    boosting = HistGradientBoostingClassifier(
        max_iter=_TREES,
        learning_rate=_RATE,
        max_leaf_nodes=_LEAVES,
        min_samples_leaf=_LEAST,
        l2_regularization=_L2,
        early_stopping=False,
        # More of the log ahead can only bring more people back.
        monotonic_cst=[0] * (inputs_MF.shape[1] - 1) + [1],
        random_state=seed,
    )
    # An input that nobody has, as where none returned, cannot be cut into bins; it is asked of by no tree.
    return Trees.of(boosting.fit(np.where(np.isnan(inputs_MF).all(axis=0), 0.0, inputs_MF), lasted_M))


def _shares(category_M: Ints, lasted_M: Flags, size: int, mean: float) -> Floats:
    """(C,) the share of a category's moments that lasted, drawn to the mean."""
    lasted_C = np.bincount(category_M, weights=lasted_M, minlength=size)
    return np.asarray((lasted_C + _TRUST * mean) / (np.bincount(category_M, minlength=size) + _TRUST))


@dataclass(frozen=True, kw_only=True)
class Exam:
    """The newest moments whose outcome is known: what became of them, and how likely learner and rule held it. `cut`: the
    learner's.
    """

    moments: Moments
    lasted_M: Flags
    learned_M: Floats
    ruled_M: Floats
    cut: float

    def losses(self, told_M: Floats) -> Floats:
        """(M,) log loss of probabilities, in nats."""
        likely_M = np.clip(np.where(self.lasted_M, told_M, 1 - told_M), 1e-6, None)
        return np.asarray(-np.log(likely_M))


def exam(past: Past, *, seed: int) -> Exam | None:
    """Taken by one that learns what was known when the exam's days began, and by the rule; None where too little is known.

    The rule, which says no probability, is taken to mean the share that lasted among those to which it gave the same label.
    """
    taught = past.before(past.exam_from)
    is_asked = (past.moments.day_M >= past.exam_from) & past.mature()
    if is_asked.sum() < LEAST_ASKED or (student := learn(taught, seed=seed)) is None:
        return None
    is_taught = taught.mature()
    label_M, lasted_M = taught.moments.ruled_M[is_taught].astype(np.int64), lasting(taught.moments)[is_taught]
    ruled = (np.bincount(label_M, weights=lasted_M, minlength=2) + lasted_M.mean()) / (np.bincount(label_M, minlength=2) + 1)
    asked = past.moments.take(is_asked)
    return Exam(
        moments=asked,
        lasted_M=lasting(past.moments)[is_asked],
        learned_M=past.told(student, is_asked),
        ruled_M=ruled[asked.ruled_M.astype(np.int64)],
        cut=student.cut,
    )
