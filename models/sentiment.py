"""A learned sentiment: whether a text's writer was content, by logistic regression on the text's vector and a lexicon's word.

Learnt from texts that came with a rating. Bad ones weigh as much as good ones, however few they are, so that a probability
reads "were bad texts as many as good". How strong a penalty: what tells the texts of users best that were not learnt from
(folds of users). By the same folds it is measured beside the lexicon alone.

Shape suffixes: N texts, D dimensions of a vector, L what the lexicon says, F inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

FOLDS = 5  # of users
STRENGTHS = (0.001, 0.003, 0.01)  # the inverse of the penalty, of inputs with a variance near 1
# The lexicon is penalised a ninth as much as a dimension of the vector: it was made to tell the sides.
_LEXICON_SCALE = 3.0


@dataclass(frozen=True, kw_only=True)
class Texts:
    """vectors_ND: of unit length. lexicon_NL: the first column is its value, -1 to 1, 0 where it has none."""

    vectors_ND: Floats
    lexicon_NL: Floats

    def __len__(self) -> int:
        return len(self.vectors_ND)

    def inputs(self) -> Floats:
        """(N, F)"""
        return np.hstack([self.vectors_ND, self.lexicon_NL])


@dataclass(frozen=True, kw_only=True)
class Measures:
    """Of calls on texts of users that were not learnt from; the cut was chosen on the others."""

    macro_f1: float
    balanced_accuracy: float


@dataclass(frozen=True, kw_only=True)
class Sentiment:
    """What was learnt: `weights_F` of the inputs, 0 for what is not read."""

    weights_F: Floats
    bias: float

    def score(self, texts: Texts) -> tuple[Floats, Floats]:
        """(N,) from -1 (bad) to 1 (good), and how likely that side is right, were bad texts as many as good."""
        value_N = np.tanh((texts.inputs() @ self.weights_F + self.bias) / 2)
        return value_N, (1 + np.abs(value_N)) / 2


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """`sentiment`, the strength that was chosen, and how it and the lexicon alone (`peer`) did on the same texts.

    cut: what has this value or a higher one is called good for the best macro F1 where bad texts are as many as here.
    """

    sentiment: Sentiment
    cut: float
    strength: float
    measured: Measures
    peer: Measures

    @property
    def serves(self) -> bool:
        return self.measured.macro_f1 > self.peer.macro_f1


def learn(texts: Texts, is_good_N: Flags, user_N: Ints) -> Learnt | None:
    """None where the rated texts are too few, of too few users, or too one-sided for folds. Equal texts give equal weights."""
    if len(np.unique(user_N)) < FOLDS:
        return None
    folds = list(folds_of(user_N))
    if any(len(np.unique(is_good_N[learnt])) < 2 for learnt, _ in folds):
        return None
    scales_F = _scales(texts)
    scaled_NF = texts.inputs() * scales_F
    told = {strength: _told(scaled_NF, is_good_N, folds, strength) for strength in STRENGTHS}
    # By the loss, not by F1: it moves as little as the vectors do, so that their rounding chooses no other.
    strength = min(told, key=lambda strength: _loss(told[strength], is_good_N))
    odds_N = told[strength]
    # As the folds show by how much it is surer of what it learnt from than of others (Platt, 1999).
    [slope], shift = _fitted(odds_N[:, None], is_good_N, strength=1.0)
    weights_F, bias = _fitted(scaled_NF, is_good_N, strength)
    return Learnt(
        sentiment=Sentiment(weights_F=slope * weights_F * scales_F, bias=float(slope * bias + shift)),
        cut=float(np.tanh((slope * best_cut(odds_N, is_good_N) + shift) / 2)),
        strength=strength,
        measured=judged(odds_N, is_good_N, folds),
        peer=judged(texts.lexicon_NL[:, 0], is_good_N, folds),
    )


def _scales(texts: Texts) -> Floats:
    """(F,) what brings inputs near a variance of 1; 0 for those that say the same of all texts."""
    dimensions, spread_L = texts.vectors_ND.shape[1], texts.lexicon_NL.std(axis=0)
    lexicon_L = np.divide(_LEXICON_SCALE, spread_L, out=np.zeros_like(spread_L), where=spread_L > 0)
    return np.concatenate([np.full(dimensions, np.sqrt(dimensions)), lexicon_L])


def _fitted(inputs_NF: Floats, is_good_N: Flags, strength: float) -> tuple[Floats, float]:
    """Weights and bias of the log odds of a good text, both sides weighing the same."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=strength, class_weight="balanced", tol=1e-6, max_iter=1000)
    fitted.fit(inputs_NF, is_good_N)
    return fitted.coef_[0], float(fitted.intercept_[0])


def _told(inputs_NF: Floats, is_good_N: Flags, folds: Sequence[tuple[Ints, Ints]], strength: float) -> Floats:
    """(N,) log odds, by what was learnt from the other folds."""
    odds_N = np.zeros(len(inputs_NF))
    for learnt, asked in folds:
        weights_F, bias = _fitted(inputs_NF[learnt], is_good_N[learnt], strength)
        odds_N[asked] = inputs_NF[asked] @ weights_F + bias
    return odds_N


def _loss(odds_N: Floats, is_good_N: Flags) -> float:
    """Log loss, in nats, both sides weighing the same."""
    loss_N = np.logaddexp(0, np.where(is_good_N, -odds_N, odds_N))
    return float(loss_N[is_good_N].mean() + loss_N[~is_good_N].mean()) / 2


def folds_of(user_N: Ints, folds: int = FOLDS) -> Iterator[tuple[Ints, Ints]]:
    """Rows to learn from and rows to judge by, of like size; a user's texts are never in both."""
    from sklearn.model_selection import GroupKFold

    yield from GroupKFold(folds).split(user_N, groups=user_N)


def judged(value_N: Floats, is_good_N: Flags, folds: Sequence[tuple[Ints, Ints]]) -> Measures:
    """What is good from a cut on: per fold the cut with the best macro F1 on the others."""
    called_N = np.zeros(len(value_N), dtype=bool)
    for learnt, asked in folds:
        called_N[asked] = value_N[asked] >= best_cut(value_N[learnt], is_good_N[learnt])
    return measures(called_N, is_good_N)


def best_cut(value_N: Floats, is_good_N: Flags) -> float:
    """The value from which on calling texts good gives the best macro F1; of equals the lowest."""
    order = np.argsort(value_N, kind="stable")
    value_N, bad_N = value_N[order], np.cumsum(~is_good_N[order])
    # Called bad: the first n, of which so many are.
    called_N = np.arange(len(value_N) + 1)
    true_N = np.concatenate([[0], bad_N])
    bad, good = int(true_N[-1]), len(value_N) - int(true_N[-1])
    f1_N = true_N / (called_N + bad) + (good - (called_N - true_N)) / (len(value_N) - called_N + good)
    # Equal values fall on one side of a cut.
    is_cut_N = np.concatenate([[True], value_N[1:] > value_N[:-1], [True]])
    best = int(np.argmax(np.where(is_cut_N, f1_N, -1.0)))
    return float(value_N[best]) if best < len(value_N) else np.inf


def measures(called_N: Flags, is_good_N: Flags) -> Measures:
    """Of calls: macro F1 and the mean of the two recalls."""
    right = [int((called_N == is_good_N)[is_good_N == side].sum()) for side in (False, True)]
    is_so = [int((is_good_N == side).sum()) for side in (False, True)]
    said = [int((called_N == side).sum()) for side in (False, True)]
    f1 = [2 * hit / (one + other) for hit, one, other in zip(right, is_so, said, strict=True)]
    recall = [hit / one for hit, one in zip(right, is_so, strict=True)]
    return Measures(macro_f1=sum(f1) / 2, balanced_accuracy=sum(recall) / 2)
