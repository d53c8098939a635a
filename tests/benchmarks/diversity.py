"""What diverse lists cost: Foursquare's next check-in, in lists of ten out of the best forty, by weight and by cap.

The moments of `checkins`, ranked by its hybrid. Diversity is the share of a list's pairs of venues that differ in category;
novelty the mean self-information of its venues, bits. Intervals by drawing users. No Spark.

Example: .venv/bin/python tests/benchmarks/diversity.py --part test
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import harness
import numpy as np
from checkins import PARTS, hits, intervals, ranked_part

from models.diverse import diverse
from models.lists import diversity, novelty
from models.top_k import top_k

K, OUT_OF = 10, 40
WEIGHTS, CAPS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5), (1, 2, 3)
MEASURES = ("hit@10", "ndcg@10", "diversity", "novelty")


def lines(
    best: tuple[np.ndarray, np.ndarray], item_Q: np.ndarray, user_Q: np.ndarray, kind_V: np.ndarray, share_V: np.ndarray
) -> Iterator[dict[str, object]]:
    """A line per weight and cap. `best`: positions and scores (Q, P) that lists are chosen from; `share_V`: of all events."""
    shapes = [(f"weight {weight}", weight, len(share_V)) for weight in WEIGHTS] + [(f"cap {cap}", 0.0, cap) for cap in CAPS]
    plain = None
    for name, weight, cap in shapes:
        list_QK, _ = diverse(*best, K, kind_AV=kind_V[None], cap_A=np.array([cap]), weight=weight)
        found = np.stack([*hits(list_QK, item_Q), diversity(list_QK, kind_V), novelty(list_QK, share_V)], axis=1).astype(float)
        plain = found if plain is None else plain
        line = {"name": "diversity", "lists": name, "asked": len(item_Q), **intervals(found, user_Q, MEASURES)}
        yield line | {"more_than_by_score": intervals(found - plain, user_Q, MEASURES)}


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--part", choices=PARTS, default="validation")
    part = ranked_part(given.parse_args().part)
    best = [top_k(part.hybrid.scores(past, queries), OUT_OF) for _, past, queries in part.asked.batches()]
    position_QP, score_QP = (np.concatenate([one[place] for one in best]) for place in (0, 1))
    kind_V, events_V = part.hybrid.vocabulary.category_of_item_V.astype(np.int64), part.hybrid.known.events_V
    for line in lines((position_QP, score_QP), part.item_Q, part.user_Q, kind_V, events_V / events_V.sum()):
        harness.say(line)


if __name__ == "__main__":
    main()
