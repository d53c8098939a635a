"""How much data the hybrid needs: Foursquare's next check-in by days of log, by users, and by events of own history.

The moments of `checkins`, validation part; of `users` those of the smallest share. A shorter log is one that began later, for
all that is learnt and for the users' own past; fewer users are a log without the others. A venue that such a log does not
know counts as not found. `seen` is the share of moments whose venue it knows. Intervals by drawing users. No Spark.

Example: .venv/bin/python tests/benchmarks/data_needed.py --only days
"""

from __future__ import annotations

import argparse

import checkins
import harness
import numpy as np
from checkins import MEASURES, Asked, Log, check_ins, cut, hybrid, intervals, known, lessons

from models import metrics
from models.queries import FIRST

DAYS, SHARES, EVENTS = (14, 30, 60, 120, 365), (0.1, 0.3, 1.0), (3, 10, 30, 100, 400)
SEED = 1


def judged(log: Log, border: int, wanted: set[tuple[str, int]]) -> tuple[np.ndarray, np.ndarray, float]:
    """Values of `MEASURES` of the wanted moments (user, time), and their users; what is learnt ends at the border."""
    training = log.before(border)
    vocabulary = training.vocabulary()
    events, first_E = log.events(vocabulary)
    names = log.rows["user_id"].to_numpy()
    row_Q = np.array([row for row, one in enumerate(zip(names, log.at_E, strict=True)) if one in wanted])
    made = hybrid(known(training, vocabulary, border), lessons(training, vocabulary), SEED)
    rank_Q = checkins.ranks(made, Asked(events=events, first_E=first_E, row_Q=row_Q))
    return metrics.values(rank_Q, list(MEASURES.values())), names[row_Q], float((events.item_E[row_Q] >= FIRST).mean())


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--only", choices=("days", "users", "events"), help="one of the three")
    only = given.parse_args().only
    log = check_ins()
    training, _, asked = cut(log, "validation")
    border = int(training.at_E.max()) + 1
    user_E = log.rows["user_id"].to_numpy()
    wanted = {(user_E[row], int(log.at_E[row])) for row in asked.row_Q}
    log = log.before(int(max(at for _, at in wanted)) + 1)

    def said(what: str, amount: float, log: Log, wanted: set[tuple[str, int]]) -> None:
        values, users, seen = judged(log, border, wanted)
        line = {"name": "data-needed", what: amount, "check_ins": len(log.before(border).rows), "asked": len(users)}
        harness.say(line | {"seen": round(seen, 3), **intervals(values, users)})

    for days in DAYS if only in (None, "days") else ():
        later = log.rows[log.at_E >= border - days * 86_400].reset_index(drop=True)
        said("days", days, Log(rows=later), wanted)
    drawn = np.random.default_rng(SEED).permutation(np.unique(training.rows["user_id"]))
    few = set(drawn[: int(SHARES[0] * len(drawn))])
    for share in SHARES if only in (None, "users") else ():
        some = log.rows[log.rows["user_id"].isin(drawn[: int(share * len(drawn))])].reset_index(drop=True)
        said("users", share, Log(rows=some), {(user, at) for user, at in wanted if user in few})
    for events in EVENTS if only in (None, "events") else ():
        checkins.LENGTH = events
        said("events", events, log, wanted)


if __name__ == "__main__":
    main()
