"""What each part of the learned ranker brings to Foursquare's next check-in: its trees grown without one part at a time.

Log, cut and moments are those of `checkins.py`, whose validation part is asked. What is left out are columns of what trees see;
of each the difference to the whole (positive: the whole is better), with intervals by drawing users. A target that is no
candidate counts as rank 1,000.

Example: .venv/bin/python tests/benchmarks/ablation.py --seeds 2
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace

import checkins
import harness
import numpy as np
import torch

from models import hybrid, metrics
from models.candidates import FEATURES, candidates
from models.hybrid import Examples
from models.own_past import KERNELS, OF_PAIR
from models.queries import FIRST

NEVER = 1000
MEASURES = {"accuracy@1": ("hit", 1), "accuracy@10": ("hit", 10), "mrr": ("mrr", 0)}
_CLOCK = ("hour", "part_of_day", "hour_lately", "hour_of_week", "sort_of_day", "pace_hour", "after_place_hour")
_AFTER = ("after_item", "after_item_pace", "after_place", "after_place_pace", "after_place_pace_hour", "after_category", "pace")


def _kernels(names: tuple[str, ...]) -> set[str]:
    return {f"{kind}_{name}" for kind in ("share", "sum") for name in names}


PARTS: dict[str, set[str]] = {
    "first_ranker": {"first_score", "first_log_share"},
    "age": _kernels(("ever", "season", "month", "week", "day")),
    "clock": _kernels(_CLOCK) | {"clock", "category_clock", "likes_category_now", "own_neighbourhood_now", "sort_of_day"},
    "what_came_before": _kernels((*_AFTER, "after_place_hour", "pace_hour")) | {"is_newest", "gap"},
    "own_pair": set(OF_PAIR),
    "place": {"distance", "nearby", "own_neighbourhood", "own_neighbourhood_now"},
    "others": {"likeness", "likeness_share", "moves", "moves_share", "category_moves"},
    "popularity": {"events", "lately", "users", "per_user"},
}
assert all(part <= set(FEATURES) for part in PARTS.values()) and set(KERNELS) >= {*_CLOCK, *_AFTER}


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Candidates of the moments asked: Q moments, C candidates."""

    features_CF: np.ndarray
    row_C: np.ndarray
    is_taken_C: np.ndarray
    user_Q: np.ndarray
    is_new_Q: np.ndarray

    def ranks(self, score_C: np.ndarray) -> np.ndarray:
        own_Q = np.full(len(self.user_Q), np.inf)
        own_Q[self.row_C[self.is_taken_C]] = score_C[self.is_taken_C]
        above_Q = np.bincount(self.row_C, weights=score_C >= own_Q[self.row_C], minlength=len(own_Q))
        return np.where(np.isfinite(own_Q), above_Q, NEVER)


def prepared() -> tuple[list[Examples], Moments]:
    log = checkins.check_ins()
    training, vocabulary, of = checkins.cut(log, "validation")
    known = checkins.known(training, vocabulary, int(training.at_E.max()) + 1)
    first, found = hybrid.first_ranker(known, checkins.KERNELS), []
    for row_B, past, queries in of.batches():
        now = hybrid.as_asked(past, queries)
        made = candidates(known, past, now, first.scores(past, now))
        target_B = of.events.item_E[row_B].astype(np.int64) - FIRST
        found.append((made.features_CF, made.row_C, made.item_C == target_B[made.row_C], len(row_B)))
    begins = np.cumsum([0, *(count for *_, count in found)])
    items, began_Q = of.events.item_E, of.first_E[of.row_Q]
    return checkins.lessons(training, vocabulary), Moments(
        features_CF=np.concatenate([one[0] for one in found]),
        row_C=np.concatenate([one[1] + begin for one, begin in zip(found, begins, strict=False)]),
        is_taken_C=np.concatenate([one[2] for one in found]),
        user_Q=log.rows["user_id"].to_numpy()[of.row_Q],
        is_new_Q=np.array([items[row] not in items[first:row] for row, first in zip(of.row_Q, began_Q, strict=True)]),
    )


def without(features_CF: np.ndarray, left_out: set[str]) -> np.ndarray:
    """With columns that say nothing, in which no tree can split."""
    kept_F = np.array([name not in left_out for name in FEATURES])
    return np.where(kept_F, features_CF, np.float32(0.0))


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--seeds", type=int, default=1, help="of the whole, and of each part left out")
    seeds = range(1, given.parse_args().seeds + 1)
    torch.set_num_threads(1)
    began = time.monotonic()
    parts, asked = prepared()
    harness.progress(f"{len(asked.user_Q):,} moments, {len(asked.row_C):,} candidates, {time.monotonic() - began:.0f} s")
    whole: np.ndarray | None = None
    for name, left_out in ({"nothing": set[str]()} | PARTS).items():
        began, values = time.monotonic(), []
        lessons = [replace(part, features_CF=without(part.features_CF, left_out)) for part in parts]
        features_CF = without(asked.features_CF, left_out)
        for seed in seeds:
            score_C = hybrid.grow(lessons, seed).predict(features_CF, num_threads=1)
            values.append(metrics.values(asked.ranks(score_C), list(MEASURES.values())))
        found = np.mean(values, axis=0)
        line = {"name": "ablation", "without": name, "columns": len(FEATURES) - len(left_out), "asked": len(asked.user_Q)}
        line |= {"seeds": len(seeds), **checkins.intervals(found, asked.user_Q, MEASURES)}
        line["new"] = checkins.intervals(found[asked.is_new_Q], asked.user_Q[asked.is_new_Q], MEASURES)
        if whole is None:
            whole = found
        else:
            line["lost"] = checkins.intervals(whole - found, asked.user_Q, MEASURES)
        harness.say({**line, "seconds": round(time.monotonic() - began, 1)})


if __name__ == "__main__":
    main()
