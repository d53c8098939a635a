"""Training: how soon it ranks as well as RecBole's SASRec ever does, and how much of the machine it uses.

MovieLens-100k as it ships inside recbole; each user's last item is left out, the one before it validates, the whole
catalogue is ranked and nothing that was taken is left out, as RecBole judges sequences.
Example: .venv/bin/python tests/benchmarks/train.py --minutes 30
"""

from __future__ import annotations

import argparse
import os

import harness

LIMIT = 0.2  # times the peer's time
LOG = harness.ROOT / ".venv-bench/lib/python3.11/site-packages/recbole/dataset_example/ml-100k/ml-100k.inter"


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--minutes", type=float, default=240, help="RecBole is ended after so many, if it has not stopped early")
    given = given.parse_args()
    here = {**os.environ, "PYTHONPATH": str(harness.ROOT)}
    rates = harness.measured([harness.OURS, "tests/benchmarks/train_rates.py"], here)
    harness.say({"name": "train_rates", **rates.said})
    peer = harness.measured([harness.PEER, "tests/benchmarks/train_recbole.py", f"{given.minutes}"], here)
    harness.progress(f"RecBole: {peer.said}")
    wanted = float(peer.said["ndcg@10"])
    ours = harness.measured([harness.OURS, "tests/benchmarks/train_ours.py", f"{LOG}", f"{wanted}"], here)
    harness.progress(f"ours: {ours.said}")
    line = harness.line(name="train", size=100_000, ours=[ours], peer="recbole", peers=[peer], limit=LIMIT)
    more = {
        "ndcg@10": wanted,
        "reached": ours.said["reached"],
        "peer_ended": peer.said["ended"],
        "ours_ndcg@10": ours.said["ndcg@10"],
    }
    harness.say({**line, **more, "curve": ours.said["curve"], "peer_curve": peer.said["curve"]})


if __name__ == "__main__":
    main()
