"""Foursquare's next check-in, ranked over the whole catalogue: a learned order of candidates against what it stands on.

Exact duplicates are removed; check-ins are cut 80/10/10 by time, trajectories at gaps over a day. Asked about is the last
check-in of each trajectory of the part, of users and venues seen in training, with the time of the check-in and all of the
user's earlier ones known. `validation` is the part to choose by; `test` asks what was chosen. Hidden time and frozen history
are not asked here: `wherewhen evaluate --hide-time --freeze-history` does that. No Spark.

The order is learnt on the newest three tenths of the training part, from facts and a first ranker of the seven before them;
facts and first ranker are then made of the whole part. Intervals by drawing users.

Example: .venv/bin/python tests/benchmarks/checkins.py --part validation
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import harness
import numpy as np
import pandas as pd

from conf.settings import load_settings
from models import metrics
from models.facts import Facts, facts, tallied
from models.histories import (
    EventColumns,
    Moments,
    event_columns,
    first_of_owner,
    histories_from_events,
    queries_before,
    stop_before,
)
from models.hybrid import Examples, Hybrid, Taken, first_ranker, grow, lesson
from models.queries import FIRST, Histories, Queries, Ranker, Vocabulary
from models.replay import TRAJECTORY_GAP_US

LOG = harness.ROOT.parent / "shared/data/foursquare_nyc/checkins.csv.gz"
KERNELS = load_settings("conf/foursquare.yaml").baselines.kernels
PARTS = {"validation": (0.8, 0.9), "test": (0.9, 1.0)}
LEARNT = 0.7
TRAJECTORY_GAP_S, CHECK_IN = TRAJECTORY_GAP_US // 1_000_000, "check_in"
AT_ONCE, LENGTH, SAMPLES = 256, 400, 500
MEASURES = {"accuracy@1": ("hit", 1), "accuracy@5": ("hit", 5), "accuracy@10": ("hit", 10), "mrr": ("mrr", 0)}


@dataclass(frozen=True, kw_only=True)
class Log:
    """Check-ins by user and time."""

    rows: pd.DataFrame

    @property
    def at_E(self) -> np.ndarray:  # noqa: N802
        return self.rows["at"].to_numpy()

    def before(self, until: int) -> Log:
        return Log(rows=self.rows[self.rows["at"] < until].reset_index(drop=True))

    def vocabulary(self) -> Vocabulary:
        categories = self.rows.groupby("venue_id")["category"].last().fillna("")
        names = tuple(sorted(set(categories) - {""}))
        items = tuple(categories.index)
        return Vocabulary(items=items, item_categories=tuple(categories), categories=names, event_types=(CHECK_IN,))

    def events(self, vocabulary: Vocabulary) -> tuple[EventColumns, np.ndarray]:
        """Columns, and the row at which the user of each begins."""
        rows = self.rows
        columns: dict[str, Any] = {name: rows[name].to_numpy() for name in ("latitude", "longitude")}
        columns |= {"item_id": rows["venue_id"].tolist(), "category": [name or None for name in rows["category"].fillna("")]}
        columns |= {"event_type": [CHECK_IN] * len(rows), "event_timestamp": self.at_E * 1_000_000}
        local = rows["local"].to_numpy().astype("datetime64[us]").astype(np.int64)
        made = event_columns(vocabulary, {**columns, "local_timestamp": local})
        return made, first_of_owner(rows["user_id"].to_numpy())


def check_ins() -> Log:
    rows = pd.read_csv(LOG, dtype={"user_id": str, "venue_id": str}).drop_duplicates()
    moment = pd.to_datetime(rows["utc_time"], utc=True)
    at = moment.dt.tz_localize(None).to_numpy().astype("datetime64[s]").astype(np.int64)
    rows = rows.assign(at=at, local=moment.dt.tz_convert("America/New_York").dt.tz_localize(None))
    return Log(rows=rows.sort_values(["user_id", "at"], kind="stable").reset_index(drop=True))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Moments of a log: rows of its events."""

    events: EventColumns
    first_E: np.ndarray
    row_Q: np.ndarray

    def batches(self) -> Iterator[tuple[np.ndarray, Histories, Queries]]:
        stop_E = stop_before(self.first_E, self.events.timestamp_E)
        for start in range(0, len(self.row_Q), AT_ONCE):
            row_B = self.row_Q[start : start + AT_ONCE]
            first_B, stop_B = self.first_E[row_B], stop_E[row_B]
            length = max(1, min(LENGTH, int((stop_B - first_B).max())))
            asked = Moments(first_B=first_B, stop_B=stop_B, timestamp_B=self.events.timestamp_E[row_B])
            past = histories_from_events(self.events, first_B, stop_B, length)
            yield row_B, past, queries_before(self.events, asked)


def lasts(log: Log, first_E: np.ndarray) -> np.ndarray:
    """Whether each check-in is the last of its trajectory."""
    last_E = np.ones(len(log.rows), dtype=bool)
    last_E[:-1] = (first_E[1:] != first_E[:-1]) | (np.diff(log.at_E) > TRAJECTORY_GAP_S)
    return last_E


def known(log: Log, vocabulary: Vocabulary, until: int) -> Facts:
    return facts(vocabulary, (CHECK_IN,), tallied(vocabulary, *log.events(vocabulary), until))


def lessons(log: Log, vocabulary: Vocabulary) -> list[Examples]:
    """The newest check-ins, as what was known before all of them saw them."""
    border = int(np.quantile(np.sort(log.at_E), LEARNT, method="lower"))
    then = known(log.before(border), vocabulary, border)
    first = first_ranker(then, KERNELS)
    events, first_E = log.events(vocabulary)
    recent = np.flatnonzero((events.timestamp_E >= border) & (then.events_V[np.maximum(events.item_E - FIRST, 0)] > 0))
    parts: list[Examples] = []
    for row_B, past, asked in Asked(events=events, first_E=first_E, row_Q=recent).batches():
        taken = Taken(place_B=events.item_E[row_B].astype(np.int64) - FIRST, moment_B=row_B)
        parts.extend(lesson(then, first, past, asked, taken))
    return parts


def hybrid(facts_now: Facts, parts: list[Examples], seed: int) -> Hybrid:
    return Hybrid(known=facts_now, trees=grow(parts, seed), kernels=KERNELS)


def cut(log: Log, part: str) -> tuple[Log, Vocabulary, Asked]:
    """What comes before a part of the log, its names, and what is asked: last check-ins of trajectories in the part."""
    in_order = np.sort(log.at_E)
    since, until = (int(in_order[min(int(share * len(in_order)), len(in_order) - 1)]) + (share == 1) for share in PARTS[part])
    training = log.before(since)
    vocabulary = training.vocabulary()
    events, first_E = log.events(vocabulary)
    is_known_E = log.rows["user_id"].isin(training.rows["user_id"]).to_numpy() & (events.item_E >= FIRST)
    in_part_E = (events.timestamp_E >= since) & (events.timestamp_E < until)
    row_Q = np.flatnonzero(in_part_E & is_known_E & lasts(log, first_E))
    return training, vocabulary, Asked(events=events, first_E=first_E, row_Q=row_Q)


@dataclass(frozen=True, kw_only=True)
class Part:
    """The moments of a part, the hybrid that ranks them, and the venue (place in the catalogue) and user of each."""

    asked: Asked
    hybrid: Hybrid
    item_Q: np.ndarray
    user_Q: np.ndarray


def ranked_part(part: str) -> Part:
    log = check_ins()
    training, vocabulary, asked = cut(log, part)
    now = known(training, vocabulary, int(training.at_E.max()) + 1)
    return Part(
        asked=asked,
        hybrid=hybrid(now, lessons(training, vocabulary), 1),
        item_Q=asked.events.item_E[asked.row_Q] - FIRST,
        user_Q=log.rows["user_id"].to_numpy()[asked.row_Q],
    )


def hits(list_QK: np.ndarray, item_Q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each list holds the venue, and the discounted gain of where it does (ndcg), (Q,) each."""
    is_there_QK = list_QK == item_Q[:, None]
    hit_Q, place_Q = is_there_QK.any(axis=1), is_there_QK.argmax(axis=1)
    return hit_Q, np.where(hit_Q, 1 / np.log2(place_Q + 2), 0.0)


def ranks(ranker: Ranker, asked: Asked) -> np.ndarray:
    found = []
    for row_B, past, queries in asked.batches():
        found.append(metrics.ranks(ranker.scores(past, queries), asked.events.item_E[row_B] - FIRST))
    return np.concatenate(found)


def intervals(
    values_QM: np.ndarray, user_Q: np.ndarray, names: Iterable[str] = MEASURES, samples: int = SAMPLES
) -> dict[str, list[float]]:
    """Mean and 95% interval of each measure, by drawing users."""
    told = metrics.intervals(metrics.tally(values_QM, user_Q, samples))
    return {
        name: [round(bound, 4) for bound in (one.mean, one.lower, one.upper)] for name, one in zip(names, told, strict=True)
    }


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--part", choices=PARTS, default="validation")
    given.add_argument("--seeds", type=int, default=1, help="of the hybrid's trees: a line each")
    given = given.parse_args()
    log = check_ins()
    training, vocabulary, asked = cut(log, given.part)
    events, first_E, row_Q = asked.events, asked.first_E, asked.row_Q
    user_Q = log.rows["user_id"].to_numpy()[row_Q]
    item_Q, began_Q = events.item_E[row_Q], first_E[row_Q]
    is_new_Q = np.array([item not in events.item_E[a:b] for item, a, b in zip(item_Q, began_Q, row_Q, strict=True)])
    longer_Q = (row_Q > began_Q) & (events.timestamp_E[row_Q] - events.timestamp_E[row_Q - 1] <= TRAJECTORY_GAP_S)
    harness.progress(f"{len(row_Q):,} check-ins asked, {is_new_Q.mean():.1%} at places new to the user")
    facts_now, parts = known(training, vocabulary, int(training.at_E.max()) + 1), lessons(training, vocabulary)
    rankers: dict[str, Callable[[], Ranker]] = {"kernels": lambda: first_ranker(facts_now, KERNELS)}
    for seed in range(1, given.seeds + 1):
        rankers["hybrid" if given.seeds == 1 else f"hybrid-{seed}"] = partial(hybrid, facts_now, parts, seed)
    for name, make in rankers.items():
        began = time.monotonic()
        ranker = make()
        made = time.monotonic()
        found = metrics.values(ranks(ranker, asked), list(MEASURES.values()))
        line = {"name": name, "asked": len(row_Q), "all": intervals(found, user_Q)}
        line |= {
            "two_or_more": intervals(found[longer_Q], user_Q[longer_Q]),
            "new": intervals(found[is_new_Q], user_Q[is_new_Q]),
        }
        line |= {"known": intervals(found[~is_new_Q], user_Q[~is_new_Q])}
        line |= {"made_s": round(made - began, 1), "asked_s": round(time.monotonic() - made, 1)}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
