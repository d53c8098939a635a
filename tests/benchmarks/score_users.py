"""Step `score` from users' sequences to written lists: nine slots, lists of twenty, everybody ranked; time and peak memory.

`network`: fifty events a user, weights as they are drawn, which take as long as ones that have learnt. Items that a user has
taken are not listed, a twentieth of the catalogue is blocked, at most half of a list is of one category. `hybrid`: the trees of
`checkins` over Foursquare's venues, the check-ins of its users given to so many users as are asked for; without masks, as
a venue may be listed again. Memory is that of driver, JVM (2 GiB of heap in every run) and workers, pages counted once.
`million_users_hours` is extrapolated: a million users at that rate.

Example: .venv/bin/python tests/benchmarks/score_users.py --users 50000 500000
"""

from __future__ import annotations

import argparse
import os

import harness


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--users", type=int, nargs="+", default=[50_000])
    given.add_argument("--items", type=int, default=2000, help="of the network's catalogue")
    given.add_argument("--ranker", choices=("network", "hybrid"), default="network")
    given = given.parse_args()
    here = {**os.environ, "PYTHONPATH": f"{harness.ROOT}", "OMP_NUM_THREADS": "2"}
    for users in given.users:
        command = [harness.OURS, "tests/benchmarks/score_users_ours.py", given.ranker, str(users), str(given.items)]
        ran = harness.measured(command, here)
        rate = ran.said["users"] / ran.said["seconds"]
        line = {"name": "score-users", "ranker": given.ranker, **ran.said, "users_per_s": round(rate, 1)}
        harness.say(line | {"peak_mb": round(ran.peak_mb), "million_users_hours": round(1e6 / rate / 3600, 2)})


if __name__ == "__main__":
    main()
