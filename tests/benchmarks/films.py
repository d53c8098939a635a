"""MovieLens-1M: what diverse lists of films cost, and how people and films of whom little is known are served.

The interest network under the settings of conf/movielens.yaml, for so many seconds. A fifth of the people is left out of all
that is learnt: each of their first eleven films is asked about with those before it. Of the others the last film is asked
about, the one before tells which epoch was best. Nobody is asked about films seen before. Films by how often they were taken
in what was learnt; lists of ten out of the best forty, by weight and by cap of the first genre, as in `diversity.py`. Beside it
popularity. Intervals by drawing people. No Spark.

Example: .venv/bin/python tests/benchmarks/films.py --seconds 1200
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import diversity
import harness
import numpy as np
import pandas as pd
from checkins import Asked, Log, intervals
from network import learnt

from conf.settings import load_settings
from models import metrics
from models.interest import InterestModel
from models.queries import FIRST
from models.top_k import top_k
from models.windows import CONTEXT, TRAIN, VALIDATION

FOLDER = harness.ROOT.parent / "shared/data/movielens_1m"
LEFT_OUT, FIRST_ASKED = 5, 11
MEASURES = {"hit@10": ("hit", 10), "ndcg@10": ("ndcg", 10), "mrr": ("mrr", 0)}
KNOWN_BEFORE = {"nothing": (0, 1), "one": (1, 2), "two to four": (2, 5), "five to ten": (5, 11)}
FILM_HAD = {"under twenty": (0, 20), "twenty to 99": (20, 100), "a hundred and more": (100, 10**9)}


def films() -> Log:
    """Ordered, without times and places."""
    rows = pd.read_csv(FOLDER / "sequences.csv.gz", dtype={"movie_id": str})
    rows = rows.sort_values(["user_id", "position"])
    genres = pd.read_csv(FOLDER / "movies.csv.gz", dtype={"movie_id": str}).set_index("movie_id")["genres"]
    first_genre = rows["movie_id"].map(genres.str.split("|").str[0])
    rows = rows.assign(venue_id=rows["movie_id"], at=rows["position"], category=first_genre, latitude=np.nan, longitude=np.nan)
    return Log(rows=rows.assign(local=np.datetime64("NaT")).reset_index(drop=True))


def place_in_history(log: Log) -> tuple[np.ndarray, np.ndarray]:
    """Of each film how many the person took before it, and how many after."""
    of_person = log.rows.groupby("user_id")["at"]
    return of_person.cumcount().to_numpy(), of_person.cumcount(ascending=False).to_numpy()


def best_and_ranks(
    model: InterestModel, asked: Asked, popular_V: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]:
    """The best films, (Q, P) each of positions and scores; the rank of what was taken, and by popularity."""
    best, ranks, by_popularity = [], [], []
    for row_B, past, queries in asked.batches():
        seen = [np.unique(asked.events.item_E[asked.first_E[row] : row]).astype(np.int64) - FIRST for row in row_B]
        moment = np.repeat(np.arange(len(row_B)), [len(items) for items in seen])
        for scores_BV, found in (
            (model.scores(past, queries).copy(), ranks),
            (np.tile(popular_V, (len(row_B), 1)), by_popularity),
        ):
            scores_BV[moment, np.concatenate(seen)] = -np.inf
            found.append(metrics.ranks(scores_BV, asked.events.item_E[row_B] - FIRST))
            if found is ranks:
                best.append(top_k(scores_BV, diversity.OUT_OF))
    position_QP, score_QP = (np.concatenate([one[place] for one in best]) for place in (0, 1))
    return (position_QP, score_QP), np.concatenate(ranks), np.concatenate(by_popularity)


def grouped(
    by: str, groups: dict[str, tuple[int, int]], number_Q: np.ndarray, ranks: tuple[np.ndarray, np.ndarray], user_Q: np.ndarray
) -> None:
    ours, popular = (metrics.values(found, list(MEASURES.values())) for found in ranks)
    for name, (least, under) in groups.items():
        rows = np.flatnonzero((number_Q >= least) & (number_Q < under))
        line = {"name": "films", by: name, "asked": len(rows), **intervals(ours[rows], user_Q[rows], MEASURES)}
        line["popularity"] = intervals(popular[rows], user_Q[rows], MEASURES)
        harness.say(line | {"better_by": intervals(ours[rows] - popular[rows], user_Q[rows], MEASURES)})


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--seconds", type=float, default=1200.0, help="of training at most")
    seconds = given.parse_args().seconds
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    settings, log = load_settings("conf/movielens.yaml", overrides=[f"train.max_seconds={seconds}"]), films()
    before_E, after_E = place_in_history(log)
    user_E, is_left_out_E = log.rows["user_id"].astype(str).to_numpy(), (log.rows["user_id"] % LEFT_OUT == 0).to_numpy()
    fold_E = np.select([is_left_out_E | (after_E == 0), after_E == 1], [CONTEXT, VALIDATION], TRAIN)
    vocabulary = log.vocabulary()
    events, first_E = log.events(vocabulary)
    taken_V = np.bincount(events.item_E[fold_E != CONTEXT] - FIRST, minlength=len(vocabulary.items))
    with tempfile.TemporaryDirectory() as scratch:
        model, result, _ = learnt(log, vocabulary, fold_E, settings.model, settings.train, Path(scratch))
    harness.say({"name": "films", "made_s": round(result.seconds, 1), "learnt": int((fold_E == TRAIN).sum())})
    popular_V = taken_V.astype(np.float32)

    lasts = Asked(events=events, first_E=first_E, row_Q=np.flatnonzero(~is_left_out_E & (after_E == 0)))
    best, *ranks = best_and_ranks(model, lasts, popular_V)
    item_Q, user_Q = events.item_E[lasts.row_Q] - FIRST, user_E[lasts.row_Q]
    for line in diversity.lines(best, item_Q, user_Q, vocabulary.category_of_item_V.astype(np.int64), taken_V / taken_V.sum()):
        harness.say(line)
    grouped("film_had", FILM_HAD, taken_V[item_Q], tuple(ranks), user_Q)

    new = Asked(events=events, first_E=first_E, row_Q=np.flatnonzero(is_left_out_E & (before_E < FIRST_ASKED)))
    _, *ranks = best_and_ranks(model, new, popular_V)
    grouped("known_before", KNOWN_BEFORE, before_E[new.row_Q], tuple(ranks), user_E[new.row_Q])


if __name__ == "__main__":
    main()
