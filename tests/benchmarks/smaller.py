"""Smaller forms of published models: kilobytes, milliseconds a moment and quality side by side, on Foursquare's check-ins.

A network as it was learnt (`train.half_within=0`); its weights in half precision; each row of its matrices in int8 (with a
step of its own); with the smallest half, and eight tenths, of its weights in matrices left out. A hybrid with fewer of its
trees. Kilobytes are of the weights, of the trees; names and counts come on top. All are computed in fp32: what a processor
without units for less gains is what memory there is less to read. `lost`: quality of the whole less that of the smaller one,
with intervals by drawing users. The moments of `checkins` that come after what the versions know.

Example: .venv/bin/python tests/benchmarks/smaller.py --network LAKE/models/V --hybrid LAKE/models/hybrid-W --until 2012-11-26
"""

from __future__ import annotations

import argparse
import copy
import io
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import checkins
import harness
import lightgbm
import numpy as np
import torch

from models import metrics
from models.hybrid import Hybrid
from models.interest import InterestModel, halved
from models.network import Network
from models.queries import FIRST, Ranker
from models.registry import details

MEASURES = {"accuracy@1": ("hit", 1), "accuracy@10": ("hit", 10), "mrr": ("mrr", 0)}
ROUNDS = (150, 100, 75, 50, 25)


def stored(state: dict[str, object]) -> int:
    """Bytes of what is saved."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.tell()


def in_half(network: Network) -> int:
    state = {name: halved(value) for name, value in network.state_dict().items()}
    network.load_state_dict(state)
    return stored(state)


def in_int8(network: Network) -> int:
    kept: dict[str, object] = {}
    for name, value in network.state_dict().items():
        if value.is_floating_point() and value.dim() == 2:
            step_R1 = value.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
            whole = (value / step_R1).round().to(torch.int8)
            kept[name] = (whole, step_R1.half())
            value.copy_(whole * step_R1.half().float())
        else:
            kept[name] = value
    return stored(kept)


def pruned(network: Network, share: float) -> int:
    kept: dict[str, object] = {}
    for name, value in network.state_dict().items():
        if value.is_floating_point() and value.dim() == 2:
            least = value.abs().flatten().kthvalue(max(1, int(share * value.numel()))).values
            value.masked_fill_(value.abs() <= least, 0.0)
            at = value.flatten() != 0
            kept[name] = (value.flatten()[at], np.packbits(at.numpy()), tuple(value.shape))
        else:
            kept[name] = value
    return stored(kept)


def networks(model: InterestModel) -> Iterator[tuple[str, int, Ranker]]:
    ways = {
        "fp32": lambda one: stored(one.state_dict()),
        "half": in_half,
        "int8": in_int8,
        "pruned 0.5": lambda one: pruned(one, 0.5),
        "pruned 0.8": lambda one: pruned(one, 0.8),
    }
    for name, make in ways.items():
        network = copy.deepcopy(model.network)
        with torch.no_grad():
            size = make(network)
        yield f"network, {name}", size, InterestModel(network, model.vocabulary)


def hybrids(hybrid: Hybrid) -> Iterator[tuple[str, int, Ranker]]:
    for rounds in ROUNDS:
        text = hybrid.trees.model_to_string(num_iteration=rounds)
        trees = lightgbm.Booster(model_str=text)
        yield f"hybrid, {rounds} trees", len(text.encode()), replace(hybrid, trees=trees)


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--network", type=Path, required=True, help="folder of an interest version that learnt nothing later")
    given.add_argument("--hybrid", type=Path, required=True, help="folder of a hybrid, alike")
    given.add_argument("--until", required=True, help="first day that they have not seen")
    given = given.parse_args()
    if details(given.network)["weights"] == "half":
        sys.exit(f"{given.network} lies in half precision: against itself it loses nothing. Train with train.half_within=0")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # trees take what cores there are
    torch.set_num_threads(1)
    log = checkins.check_ins()
    since = int(datetime.fromisoformat(given.until).replace(tzinfo=UTC).timestamp())
    for ways in (networks(InterestModel.load(given.network)), hybrids(Hybrid.load(given.hybrid))):
        whole: np.ndarray | None = None
        for name, size, ranker in ways:
            events, first_E = log.events(ranker.vocabulary)
            asked_E = (events.timestamp_E >= since) & (events.item_E >= FIRST) & checkins.lasts(log, first_E)
            row_Q = np.flatnonzero(asked_E)
            user_Q = log.rows["user_id"].to_numpy()[row_Q]
            checkins.ranks(ranker, checkins.Asked(events=events, first_E=first_E, row_Q=row_Q[:100]))
            began = time.monotonic()
            rank_Q = checkins.ranks(ranker, checkins.Asked(events=events, first_E=first_E, row_Q=row_Q))
            line = {"name": "smaller", "model": name, "kilobytes": round(size / 1000), "asked": len(row_Q)}
            line["ms"] = round((time.monotonic() - began) / len(row_Q) * 1000, 2)
            found = metrics.values(rank_Q, list(MEASURES.values()))
            line |= checkins.intervals(found, user_Q, MEASURES)
            if whole is None:
                whole = found
            else:
                line["lost"] = checkins.intervals(whole - found, user_Q, MEASURES)
            harness.say(line)


if __name__ == "__main__":
    main()
