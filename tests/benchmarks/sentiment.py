"""How well it is told who was content: sentiment as a log's rated texts teach it, beside VADER, on Amazon reviews.

1 and 2 stars are bad, 4 and 5 good. Ten folds of users are judged by what was learnt from the other nine; the penalty, the
calibration and the cut from which on a text is called good (for the best macro F1) are chosen within these, VADER's cut too.
`at_0` is by the sign of the sentiment that is stored, which weighs bad texts as much as good ones. Intervals (95%) are of users
drawn again. A line for the text as conf/sources/amazon.yaml maps it, one with the title before it; and one that counts again
what `models.vader.confidence` is a line through: how often the side of VADER's score is right, were bad texts as many as good.

Example: .venv/bin/python tests/benchmarks/sentiment.py
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import harness
import numpy as np
import pandas as pd

from jobs.text.describing import KEPT_CHARACTERS
from jobs.text.reading import WORDLESS, feeling
from jobs.text.sentiment import texts_of
from jobs.text.words import folded, language
from models import encoder, vader
from models.flat_bert import Precision
from models.sentiment import Measures, Texts, best_cut, folds_of, learn, measures

LOG = harness.ROOT.parent / "shared/data/amazon_reviews/reviews.parquet"
FOLDS, SAMPLES, SEED = 10, 1000, 1


def reviews(path: Path) -> pd.DataFrame:
    """Rated reviews but those of 3 stars, with `text`, `titled`, `is_good` and `user` (a number)."""
    rows = pd.read_parquet(path)
    rows = rows[rows.rating != 3].reset_index(drop=True)
    rows["text"] = _single_spaced(rows.review_full)
    rows["titled"] = (_single_spaced(rows.review_title) + ". " + rows.text).str[:KEPT_CHARACTERS]
    rows["is_good"], rows["user"] = rows.rating > 3, pd.factorize(rows.user_id)[0]
    return rows


def _single_spaced(texts: pd.Series) -> pd.Series:
    return texts.str.replace(r"[\s\x00-\x1f\x7f-\x9f]+", " ", regex=True).str.strip().str[:KEPT_CHARACTERS]


def read(texts: Sequence[str], precision: Precision) -> Texts:
    import pyarrow as pa

    vectors_ND = encoder.load(threads=1, precision=precision).encode(texts)
    spoken = [language(folded(text)) or WORDLESS for text in texts]
    known = pa.array(np.nan_to_num(vectors_ND).tolist(), pa.list_(pa.float32()))
    return texts_of(texts, spoken, known)


def calls(texts: Texts, is_good_N: np.ndarray, user_N: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, list[float]]:
    """Method -> which texts it calls good; the learned sentiment; the strengths that were chosen."""
    value_N, strengths = np.zeros(len(texts)), []
    called = {name: np.zeros(len(texts), dtype=bool) for name in ("learned", "vader")}
    lexicon_N = texts.lexicon_NL[:, 0]
    for taught, asked in folds_of(user_N, FOLDS):
        learnt = learn(_some(texts, taught), is_good_N[taught], user_N[taught])
        assert learnt is not None
        strengths.append(learnt.strength)
        value_N[asked], _ = learnt.sentiment.score(_some(texts, asked))
        called["learned"][asked] = value_N[asked] >= learnt.cut
        called["vader"][asked] = lexicon_N[asked] >= best_cut(lexicon_N[taught], is_good_N[taught])
    return called | {"learned_at_0": value_N >= 0, "vader_at_0": lexicon_N >= 0}, value_N, strengths


def _some(texts: Texts, rows: np.ndarray) -> Texts:
    return Texts(vectors_ND=texts.vectors_ND[rows], lexicon_NL=texts.lexicon_NL[rows])


def judged(called: dict[str, np.ndarray], is_good_N: np.ndarray, user_N: np.ndarray) -> dict[str, object]:
    """Each method's measures and how far the learned one is ahead of VADER; of all users, and bounds of drawn ones."""
    picks = np.random.default_rng(SEED).integers(0, user_N.max() + 1, (SAMPLES, user_N.max() + 1))
    rows_of = [np.flatnonzero(user_N == user) for user in range(user_N.max() + 1)]
    drawn = [np.arange(len(user_N)), *[np.concatenate([rows_of[user] for user in users]) for users in picks]]
    found = {name: [measures(said_N[rows], is_good_N[rows]) for rows in drawn] for name, said_N in called.items()}
    said: dict[str, object] = {name: _spreads(values) for name, values in found.items()}
    for suffix in ("", "_at_0"):
        pairs = zip(found[f"learned{suffix}"], found[f"vader{suffix}"], strict=True)
        ahead = [Measures(**{name: vars(one)[name] - vars(other)[name] for name in vars(one)}) for one, other in pairs]
        said[f"ahead{suffix}"] = _spreads(ahead)
    return said


def _spreads(values: Sequence[Measures]) -> dict[str, list[float]]:
    spread = {}
    for name in vars(values[0]):
        of = [vars(one)[name] for one in values]
        spread[name] = [round(float(value), 4) for value in (of[0], *np.quantile(of[1:], [0.025, 0.975]))]
    return spread


def right(value_N: np.ndarray, is_good_N: np.ndarray, edges: Sequence[float]) -> list[dict[str, float]]:
    """By how far the value is from 0: how often its side is right, were bad texts as many as good."""
    weight_N = np.where(is_good_N, 1 / is_good_N.sum(), 1 / (~is_good_N).sum())
    bins = []
    for low, high in itertools.pairwise(edges):
        rows = (np.abs(value_N) >= low) & (np.abs(value_N) < high) & (value_N != 0)
        share = np.average((value_N > 0)[rows] == is_good_N[rows], weights=weight_N[rows])
        bins.append({"from": low, "texts": int(rows.sum()), "right": round(float(share), 3)})
    return bins


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--precision", choices=get_args(Precision), default=encoder.precision(), help="of text vectors")
    given = given.parse_args()
    if not LOG.is_file():
        raise SystemExit(f"needs {LOG}, which is not there")
    rows = reviews(LOG)
    is_good_N, user_N = rows.is_good.to_numpy(), rows.user.to_numpy()
    size = {"precision": given.precision, "size": len(rows), "users": int(user_N.max()) + 1, "bad": int((~is_good_N).sum())}
    edges = (0.0, 0.2, 0.4, 0.6, 0.8, 1.001)
    for name, column in (("sentiment", "text"), ("sentiment-titled", "titled")):
        harness.progress(f"reading {len(rows)} texts")
        texts = read(rows[column].tolist(), given.precision)
        called, value_N, strengths = calls(texts, is_good_N, user_N)
        line = {"name": name, **size, "peer": "vader", **judged(called, is_good_N, user_N), "strengths": sorted(strengths)}
        harness.say(line | {"confidence": [{**one, "said": (1 + one["from"]) / 2} for one in right(value_N, is_good_N, edges)]})
    felt_N = np.array([feeling(text, "en")[0] or 0.0 for text in rows.text])
    counted = [{**one, "said": round(vader.confidence(one["from"]), 3)} for one in right(felt_N, is_good_N, edges)]
    harness.say({"name": "sentiment-vader-confidence", **size, "bins": counted})


if __name__ == "__main__":
    main()
