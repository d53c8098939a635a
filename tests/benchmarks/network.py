"""The interest network without one of its parts at a time, on Foursquare's next check-in: what each part brings.

The cut and the moments of `checkins.py`. A network with fresh weights learns the training part, of which the newest tenth tells
which epoch was best; what texts say of venues is left out, as there is no Spark here. `lost`: the whole less the one without
(positive: the whole is better), intervals by drawing users.

Example: .venv/bin/python tests/benchmarks/network.py --part validation --without times places
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import checkins
import harness
import numpy as np
from train_ours import stored

from conf.learning import Model, Train
from models import metrics
from models.interest import InterestModel
from models.processes import Processes
from models.queries import FIRST, Vocabulary
from models.tasks import Result, Task
from models.training import train
from models.windows import TRAIN, VALIDATION, cut, histories_as_windows

# What is exchanged, by what is without.
SWITCHES: dict[str, dict[str, object]] = {
    "nothing": {},
    "gate (concatenation instead)": {"fusion": "concatenation"},
    "gate (attention instead)": {"fusion": "attention"},
    "times": {"times": False},
    "places": {"places": False},
    "repeats": {"repeats": False},
}
VALIDATION_SHARE = 0.1


def newest_validate(log: checkins.Log) -> np.ndarray:
    """The fold of each check-in: the newest tenth tells which epoch was best."""
    return np.where(log.at_E >= np.quantile(log.at_E, 1 - VALIDATION_SHARE), VALIDATION, TRAIN)


def learnt(
    log: checkins.Log,
    vocabulary: Vocabulary,
    fold_E: np.ndarray,
    model: Model,
    given: Train,
    folder: Path,
    parent: Path | None = None,
) -> tuple[InterestModel, Result, Path]:
    """A network that has learnt the folds of a log, from fresh weights or from a parent's; how that went; and its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    events, first_E = log.events(vocabulary)
    made = cut(first_E, fold_E.astype(np.int8), model.window + 1)
    source = stored(folder, histories_as_windows(events, made.row_NW, made.is_target_NW), made.fold_N)
    vocabulary.save(folder / "names.json")
    taken_V = np.bincount(events.item_E, minlength=FIRST + len(vocabulary.items))[FIRST:] + 1.0
    np.save(folder / "prior.npy", np.log(taken_V / taken_V.sum()).astype(np.float32))
    task = Task(
        name="foursquare", model=model, train=given, vocabulary=folder / "names.json", source=source, folder=folder / "made",
        prior=folder / "prior.npy", parent=parent,
    )  # fmt: skip
    with Processes.alone().joined():
        result = train(task, Processes.alone())
    return InterestModel.load(task.folder), result, task.folder


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--part", choices=checkins.PARTS, default="validation")
    given.add_argument("--without", nargs="*", choices=SWITCHES, default=list(SWITCHES))
    given.add_argument("--seed", type=int, default=1)
    given = given.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    log = checkins.check_ins()
    training, vocabulary, asked = checkins.cut(log, given.part)
    user_Q = log.rows["user_id"].to_numpy()[asked.row_Q]
    whole = None
    for name in dict.fromkeys(["nothing", *given.without]):
        switched, seeded = Model(**SWITCHES[name]), Train(seed=given.seed)
        with tempfile.TemporaryDirectory() as scratch:
            model, result, _ = learnt(training, vocabulary, newest_validate(training), switched, seeded, Path(scratch))
        values = metrics.values(checkins.ranks(model, asked), list(checkins.MEASURES.values()))
        whole = values if whole is None else whole
        line = {"name": "network", "without": name, "asked": len(user_Q), "made_s": round(result.seconds, 1)}
        line |= checkins.intervals(values, user_Q)
        harness.say(line | {"lost": checkins.intervals(whole - values, user_Q)})


if __name__ == "__main__":
    main()
