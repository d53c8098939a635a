"""What diverse lists cost: Foursquare's next check-in, in lists of ten out of the best forty, by weight and by cap.

The moments of `checkins`, ranked by its hybrid. Diversity is the share of a list's pairs of venues that differ in category;
novelty the mean self-information of its venues, bits. Intervals by drawing users. No Spark.

Example: .venv/bin/python tests/benchmarks/diversity.py --part test
"""

from __future__ import annotations

import argparse

import harness
import numpy as np
from checkins import PARTS, check_ins, cut, hybrid, intervals, known, lessons

from models.diverse import diverse
from models.lists import diversity, novelty
from models.queries import FIRST
from models.top_k import top_k

K, OUT_OF = 10, 40
WEIGHTS, CAPS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5), (1, 2, 3)
MEASURES = ("hit@10", "ndcg@10", "diversity", "novelty")


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--part", choices=PARTS, default="validation")
    log = check_ins()
    training, vocabulary, asked = cut(log, given.parse_args().part)
    now = known(training, vocabulary, int(training.at_E.max()) + 1)
    made = hybrid(now, lessons(training, vocabulary), 1)
    best = [top_k(made.scores(past, queries), OUT_OF) for _, past, queries in asked.batches()]
    position_QP, score_QP = (np.concatenate([one[part] for one in best]) for part in (0, 1))
    item_Q, user_Q = asked.events.item_E[asked.row_Q] - FIRST, log.rows["user_id"].to_numpy()[asked.row_Q]
    kind_V, share_V = vocabulary.category_of_item_V.astype(np.int64), now.events_V / now.events_V.sum()
    shapes = [(f"weight {weight}", weight, len(share_V)) for weight in WEIGHTS] + [(f"cap {cap}", 0.0, cap) for cap in CAPS]
    found = {}
    for name, weight, cap in shapes:
        list_QK, _ = diverse(position_QP, score_QP, K, kind_AV=kind_V[None], cap_A=np.array([cap]), weight=weight)
        is_there_QK = list_QK == item_Q[:, None]
        hit_Q, place_Q = is_there_QK.any(axis=1), is_there_QK.argmax(axis=1)
        gain_Q = np.where(hit_Q, 1 / np.log2(place_Q + 2), 0.0)
        found[name] = np.stack([hit_Q, gain_Q, diversity(list_QK, kind_V), novelty(list_QK, share_V)], axis=1).astype(float)
        line = {"name": "diversity", "lists": name, "asked": len(item_Q), **intervals(found[name], user_Q, MEASURES)}
        line["more_than_by_score"] = intervals(found[name] - found["weight 0.0"], user_Q, MEASURES)
        harness.say(line)


if __name__ == "__main__":
    main()
