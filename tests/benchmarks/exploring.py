"""What exploring costs: Foursquare's next check-in, in lists of ten of which a part comes from other sources than the ranking.

The moments of `checkins`, ranked by its hybrid; at each rank another source is drawn at the given rate, each of the six alike
(`jobs.score.blending.SOURCES`). Each source by itself as well. Intervals by drawing users. No Spark.

Example: .venv/bin/python tests/benchmarks/exploring.py --part test
"""

from __future__ import annotations

import argparse

import harness
import numpy as np
from checkins import PARTS, hits, intervals, ranked_part

from jobs.score.blending import SOURCES, favourites
from models import chance
from models.mixing import mix
from models.queries import FIRST, Histories
from models.top_k import ABSENT, top_k

K = 10
RATES = (0.0, 0.01, 0.03, 0.05, 0.1, 0.2, 0.5)
MEASURES = ("accuracy@1", "hit@10", "ndcg@10")


def offered(made, popular_P: np.ndarray, histories: Histories, queries, first: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    """The items of each source, (B, N, P)."""
    rows, size = len(queries.timestamp_B), len(made.vocabulary.items)
    row_B1 = np.arange(rows)[:, None]
    own = favourites(
        np.broadcast_to(row_B1, histories.item_BL.shape).ravel(), (histories.item_BL.astype(np.int64) - FIRST).ravel(), rows, K
    )
    draw_BK = chance.uniform(first + row_B1, np.arange(K)[None, :])
    given = {
        "ranked": top_k(made.scores(histories, queries), K)[0],
        "own": own,
        "popular": np.broadcast_to(popular_P, (rows, K)),
        "random": (draw_BK * size).astype(np.int64),
        **made.ways(histories, queries, K),
    }
    best_BNP = np.full((rows, len(SOURCES), K), ABSENT, np.int64)
    for name, item_BP in given.items():
        best_BNP[:, SOURCES.index(name), : item_BP.shape[1]] = item_BP
    return best_BNP


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--part", choices=PARTS, default="validation")
    part = ranked_part(given.parse_args().part)
    item_Q, user_Q = part.item_Q, part.user_Q
    popular_P = np.argsort(-part.hybrid.known.events_V, kind="stable")[:K]
    parts, first = [], 0
    for _, past, queries in part.asked.batches():
        parts.append(offered(part.hybrid, popular_P, past, queries, first))
        first += len(parts[-1])
    best_QNP = np.concatenate(parts)
    draw_QK = chance.uniform(np.arange(len(item_Q))[:, None], 1_000 + np.arange(K)[None, :])
    even = np.r_[0.0, np.full(len(SOURCES) - 1, 1.0 / (len(SOURCES) - 1))]
    mixes = {f"rate {rate}": (1.0 - rate) * np.eye(len(SOURCES))[0] + rate * even for rate in RATES}
    mixes |= {f"{name} alone": np.eye(len(SOURCES))[place] for place, name in enumerate(SOURCES)}
    found = {}
    for name, share_S in mixes.items():
        list_QK = mix(best_QNP, np.broadcast_to(share_S, (len(item_Q), len(SOURCES))), draw_QK).item_BK
        found[name] = np.stack([list_QK[:, 0] == item_Q, *hits(list_QK, item_Q)], axis=1).astype(float)
        line = {"name": "exploring", "lists": name, "asked": len(item_Q), **intervals(found[name], user_Q, MEASURES)}
        line["more_than_the_ranking"] = intervals(found[name] - found["rate 0.0"], user_Q, MEASURES)
        harness.say(line)


if __name__ == "__main__":
    main()
