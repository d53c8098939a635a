"""Foursquare's next check-in of people of whom little is known, and at venues that few have been to.

Users: a fifth of them is left out of all that is learnt. From the first day of the part on, their check-ins come one after
the other, and each of the first eleven is asked about with what came before it, the time known; before the first there is
not even a place. Items: the moments that `checkins` asks about, by how many check-ins their venue had in training. The hybrid
against popularity in the region and slot: shares of venues in the region where the user was last (a place of the gazetteer,
where there is one) and the part of the week, drawn to those of the region, these to those of the slot, these to all; the
weight of what each is drawn to was chosen on the validation part. Intervals by drawing users. No Spark.

Example: .venv/bin/python tests/benchmarks/cold.py --part test
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import harness
import numpy as np
from checkins import MEASURES, Asked, Log, check_ins, cut, hybrid, intervals, known, lessons, ranks

from jobs.clean.places import nearest_places
from models import metrics
from models.queries import FIRST, Histories, Queries, Ranker, Vocabulary

PARTS = ("test", "validation")
LEFT_OUT, FIRST_ASKED, SEED = 5, 11, 1
DRAWN_BY = 20.0
KNOWN_BEFORE = {"nothing": (0, 1), "one": (1, 2), "two to four": (2, 5), "five to ten": (5, 11)}
VENUE_HAD = {"one to four": (1, 5), "five to nineteen": (5, 20), "twenty and more": (20, 10**9)}
HOURS = (6, 12, 18, 22)


def slots(hour_of_week: np.ndarray) -> np.ndarray:
    """A part of the day, on weekdays or at the weekend."""
    part = np.digitize(hour_of_week % 24, HOURS) % 4
    return (part + 4 * (hour_of_week >= 120)).astype(np.int64)


def regions(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Names of places; none where there is no position."""
    found = np.full(len(latitude), "", dtype=object)
    there = np.flatnonzero(np.isfinite(latitude))
    if len(there):
        found[there] = nearest_places(np.stack([latitude[there], longitude[there]], axis=1))[0]
    return found


@dataclass(frozen=True, kw_only=True)
class AroundHere:
    """A `Ranker`: popularity in the region and slot."""

    vocabulary: Vocabulary
    region_slot: Mapping[str, np.ndarray]  # region -> (slots, V) counts
    slot_SV: np.ndarray
    drawn_by: float = DRAWN_BY
    method: str = "popularity in region and slot"

    @staticmethod
    def of(log: Log, vocabulary: Vocabulary) -> AroundHere:
        events, _ = log.events(vocabulary)
        item_E, slot_E = events.item_E.astype(np.int64) - FIRST, slots(events.hour_of_week_E)
        name_E = regions(events.latitude_E, events.longitude_E)
        counts = {}
        for name in np.unique(name_E):
            mine = name_E == name
            counts[name] = np.zeros((8, len(vocabulary.items)), np.float32)
            np.add.at(counts[name], (slot_E[mine], item_E[mine]), 1)
        return AroundHere(vocabulary=vocabulary, region_slot=counts, slot_SV=np.sum(list(counts.values()), axis=0))

    def scores(self, histories: Histories, queries: Queries) -> np.ndarray:
        slot_B = slots(queries.hour_of_week_B)
        name_B = regions(queries.latitude_B.astype(np.float64), queries.longitude_B.astype(np.float64))
        share_V = self.slot_SV.sum(axis=0) / self.slot_SV.sum()
        told = []
        for slot, name in zip(slot_B, name_B, strict=True):
            now_V = self._drawn(self.slot_SV[slot], share_V)
            if (here_SV := self.region_slot.get(name)) is not None:
                now_V = self._drawn(here_SV[slot], self._drawn(here_SV.sum(axis=0), now_V))
            told.append(now_V)
        return np.array(told, dtype=np.float32)

    def _drawn(self, count_V: np.ndarray, to_V: np.ndarray) -> np.ndarray:
        return (count_V + self.drawn_by * to_V) / (count_V.sum() + self.drawn_by)


def users(log: Log, part: str) -> Iterator[dict[str, object]]:
    """Lines of those who are left out, by how many check-ins came before."""
    training, _, _ = cut(log, part)
    border, names = int(training.at_E.max()) + 1, np.unique(log.rows["user_id"])
    out = names[np.random.default_rng(SEED).permutation(len(names))[: len(names) // LEFT_OUT]]
    others = Log(rows=training.rows[~training.rows["user_id"].isin(out)].reset_index(drop=True))
    vocabulary = others.vocabulary()
    end = log.at_E.max() + 1 if part == "test" else int(np.quantile(np.sort(log.at_E), 0.9, method="lower"))
    later = log.rows["user_id"].isin(out) & (log.at_E >= border) & (log.at_E < end)
    came = Log(rows=log.rows[later].groupby("user_id").head(FIRST_ASKED).reset_index(drop=True))
    events, first_E = came.events(vocabulary)
    row_Q = np.flatnonzero(events.item_E >= FIRST)
    before_Q, user_Q = row_Q - first_E[row_Q], came.rows["user_id"].to_numpy()[row_Q]
    asked, made = (
        Asked(events=events, first_E=first_E, row_Q=row_Q),
        hybrid(known(others, vocabulary, border), lessons(others, vocabulary), SEED),
    )
    yield from judged("users", asked, made, AroundHere.of(others, vocabulary), user_Q, before_Q, KNOWN_BEFORE)


def items(log: Log, part: str) -> Iterator[dict[str, object]]:
    """Lines of moments by how often their venue was taken in training."""
    training, vocabulary, asked = cut(log, part)
    now = known(training, vocabulary, int(training.at_E.max()) + 1)
    had_Q = now.events_V[asked.events.item_E[asked.row_Q].astype(np.int64) - FIRST]
    user_Q = log.rows["user_id"].to_numpy()[asked.row_Q]
    made = hybrid(now, lessons(training, vocabulary), SEED)
    yield from judged("items", asked, made, AroundHere.of(training, vocabulary), user_Q, had_Q, VENUE_HAD)


def judged(
    of: str, asked: Asked, made: Ranker, popular: AroundHere, user_Q: np.ndarray, number_Q: np.ndarray,
    groups: Mapping[str, tuple[int, int]],
) -> Iterator[dict[str, object]]:  # fmt: skip
    drawn = {f"popular, drawn by {weight:.0f}": replace(popular, drawn_by=weight) for weight in (5.0, DRAWN_BY, 100.0)}
    found = {
        name: metrics.values(ranks(one, asked), list(MEASURES.values())) for name, one in {"hybrid": made, **drawn}.items()
    }
    for group, (first, end) in groups.items():
        mine = (number_Q >= first) & (number_Q < end)
        for name, values in found.items():
            line = {"name": f"cold {of}", "known": group, "method": name, "asked": int(mine.sum())}
            line |= {"users": len(set(user_Q[mine])), **intervals(values[mine], user_Q[mine])}
            if name == "hybrid":
                rival = found[f"popular, drawn by {DRAWN_BY:.0f}"]
                line["better"] = intervals((values - rival)[mine], user_Q[mine])
            yield line


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--part", choices=PARTS, default="validation")
    given = given.parse_args()
    log = check_ins()
    for lines in (users(log, given.part), items(log, given.part)):
        for line in lines:
            harness.say(line)


if __name__ == "__main__":
    main()
