"""What a night costs that goes on from the weights before it, and whether it loses anything against fresh weights.

Fresh weights learn all that came before a day, as in `network.py`; then nights learn their day alone, once, each from the night
before, new names appended (`train.warm_epochs`, `train.warm_learning_rate`). On some nights fresh weights learn all that came
until then, with several seeds, since these differ. All are asked about the week after: every event of users and items that are
known by then; so are the first weights as they were, which is what nights that learn nothing would serve. `lost`: the other's
less warm's, intervals by drawing users.

Of a simulated log (a folder that `wherewhen simulate` wrote) check-ins, purchases and clicks of people are taken, all alike,
the local hour by the longitude. No Spark, and no texts.

Example: .venv/bin/python tests/benchmarks/warm.py --log foursquare
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import checkins
import harness
import numpy as np
import pandas as pd
from checkins import Asked, Log
from network import learnt, newest_validate
from simulated_events import people, peoples_events

from conf.learning import Model, Train
from models import metrics
from models.interest import InterestModel, grown
from models.queries import FIRST, Vocabulary
from models.windows import CONTEXT, TRAIN

DAY_S, NIGHTS, COMPARED, WEEK = 86_400, 14, (7, 14), 7
MEASURES = {"hit@1": ("hit", 1), "hit@10": ("hit", 10), "ndcg@10": ("ndcg", 10)}
TARGETS = ("check_in", "purchase", "click")


def simulated(folder: Path, users: int) -> Log:
    found = peoples_events(folder)
    is_asked = found.event_type.isin(TARGETS) & found.user_id.isin(people(folder)[:users])
    found = found[is_asked].dropna().drop_duplicates()
    moment = found.event_timestamp.dt.tz_localize(None)
    found = found.rename(columns={"item_id": "venue_id"}).assign(
        at=moment.to_numpy().astype("datetime64[s]").astype(np.int64),
        local=moment + pd.to_timedelta((found.longitude.astype(float) / 15).round(), unit="h"),
    )
    return Log(rows=found.sort_values(["user_id", "at"], kind="stable").reset_index(drop=True))


def appended(before: Vocabulary, log: Log) -> Vocabulary:
    """The names of before, then the new ones."""
    now = log.vocabulary()
    category_of = dict(zip(now.items, now.item_categories, strict=True))
    items = sorted(set(now.items) - set(before.items))
    return Vocabulary(
        items=(*before.items, *items),
        item_categories=(*before.item_categories, *[category_of[item] for item in items]),
        categories=(*before.categories, *sorted(set(now.categories) - set(before.categories))),
        event_types=before.event_types,
    )


def week_after(log: Log, since: int, vocabulary: Vocabulary) -> tuple[Asked, np.ndarray]:
    """What came in it of users and items that were known, and the user of each."""
    known = log.before(since)
    events, first_E = log.events(vocabulary)
    asked_E = (log.at_E >= since) & (log.at_E < since + WEEK * DAY_S) & (events.item_E >= FIRST)
    asked_E &= log.rows["venue_id"].isin(known.rows["venue_id"]).to_numpy()
    row_Q = np.flatnonzero(asked_E & log.rows["user_id"].isin(known.rows["user_id"]).to_numpy())
    return Asked(events=events, first_E=first_E, row_Q=row_Q), log.rows["user_id"].to_numpy()[row_Q]


@dataclass(frozen=True, kw_only=True)
class Learning:
    """A log and where what is learnt of it lies meanwhile."""

    log: Log
    work: Path

    def fresh(self, until: int, seed: int) -> tuple[InterestModel, float, Path]:
        """Weights that have learnt all that came before a moment, the seconds it took, and their folder."""
        before = self.log.before(until)
        given = before, before.vocabulary(), newest_validate(before), Model(), Train(seed=seed)
        model, result, folder = learnt(*given, self.work / f"fresh-{until}-{seed}")
        return model, result.seconds, folder

    def values(self, model: InterestModel, until: int) -> tuple[np.ndarray, np.ndarray]:
        """Of the week after: the measures, and the user of each row."""
        asked, user_Q = week_after(self.log, until, model.vocabulary)
        return metrics.values(checkins.ranks(model, asked), list(MEASURES.values())), user_Q

    def compare(self, warm: InterestModel, begun: InterestModel, until: int, seeds: int) -> Iterator[dict[str, object]]:
        """A line for each that the warm weights are compared with."""
        values, user_Q = self.values(warm, until)
        yield {"of": "warm", "asked": len(user_Q), **checkins.intervals(values, user_Q, MEASURES)}
        others = {"first weights": InterestModel(grown(begun.network, warm.vocabulary), warm.vocabulary)}
        seconds: dict[str, float] = {}
        for seed in range(1, seeds + 1):
            others[f"fresh, seed {seed}"], seconds[f"fresh, seed {seed}"], _ = self.fresh(until, seed)
        for name, other in others.items():
            its, _ = self.values(other, until)
            line = {"of": name, **checkins.intervals(its, user_Q, MEASURES)}
            line["lost"] = checkins.intervals(its - values, user_Q, MEASURES)
            yield line | ({"seconds": round(seconds[name], 1)} if name in seconds else {})


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--log", required=True, help="foursquare, or a folder that wherewhen simulate wrote")
    given.add_argument("--users", type=int, default=300, help="of a simulated log")
    given.add_argument("--seeds", type=int, default=2, help="of fresh weights")
    given = given.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if given.log == "foursquare":
        log = checkins.check_ins()
        # The nights end a week before what is kept for the last judgement.
        log = log.before(int(np.quantile(np.sort(log.at_E), checkins.PARTS["test"][0], method="lower")))
    else:
        log = simulated(Path(given.log), given.users)
    first = int(log.at_E.max()) // DAY_S * DAY_S - (NIGHTS + WEEK) * DAY_S
    with tempfile.TemporaryDirectory() as work:
        learning = Learning(log=log, work=Path(work))
        begun, seconds, parent = learning.fresh(first, 1)
        harness.say({"name": "warm", "night": 0, "targets": len(log.before(first).rows), "seconds": round(seconds, 1)})
        vocabulary = begun.vocabulary
        for night in range(1, NIGHTS + 1):
            until = first + night * DAY_S
            now = log.before(until)
            fold_E = np.where(now.at_E >= until - DAY_S, TRAIN, CONTEXT)
            vocabulary = appended(vocabulary, now)
            # A night without events learns nothing, and its week is not asked about.
            if not (fold_E == TRAIN).any():
                continue
            warm, result, parent = learnt(now, vocabulary, fold_E, Model(), Train(), Path(work) / f"night-{night}", parent)
            line = {
                "name": "warm",
                "night": night,
                "targets": int((fold_E == TRAIN).sum()),
                "seconds": round(result.seconds, 2),
            }
            harness.say(line)
            for against in learning.compare(warm, begun, until, given.seeds) if night in COMPARED else ():
                harness.say({"name": "warm", "night": night, **against})


if __name__ == "__main__":
    main()
