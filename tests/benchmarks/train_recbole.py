"""RecBole's SASRec on MovieLens-100k, as it ships; one JSON line. Called by train.py, in the peers' environment."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time

import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

# Every number of model and training is RecBole's own default; this says what is learnt and judged.
TASK = {
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
    "train_neg_sample_args": None,
    "metrics": ["NDCG", "Hit"],
    "topk": [10],
    "valid_metric": "NDCG@10",
    "show_progress": False,
    "use_gpu": False,
    "reproducibility": True,
    "seed": 2020,
    "state": "ERROR",
}


class Enough(Exception):
    """The time is over."""


def main(minutes: float) -> dict[str, object]:
    started = time.monotonic()
    config = Config(model="SASRec", dataset="ml-100k", config_dict=TASK)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train_data, valid_data, _ = data_preparation(config, dataset)
    model = get_model("SASRec")(config, train_data.dataset)
    # One of RecBole's models turns it on when it is imported, for all of them: not what a user would want to wait for.
    torch.autograd.set_detect_anomaly(False)
    trainer = get_trainer(config["MODEL_TYPE"], "SASRec")(config, model)
    began, curve = time.monotonic(), []

    def after_epoch(epoch: int, score: float) -> None:
        curve.append((round(time.monotonic() - began, 1), score))
        sys.stderr.write(f"recbole: epoch {epoch + 1}, {curve[-1][0]:.0f} s, ndcg@10 {score:.4f}\n")
        if curve[-1][0] > 60 * minutes:
            raise Enough

    ended = "early stop"
    try:
        trainer.fit(train_data, valid_data, saved=False, show_progress=False, callback_fn=after_epoch)
    except Enough:
        ended = f"after {minutes:.0f} minutes"
    best = max(score for _, score in curve)
    seconds = next(second for second, score in curve if score == best)
    return {
        "seconds": seconds, "ndcg@10": best, "curve": curve, "ended": ended, "startup_s": began - started,
        "samples": len(train_data.dataset), "items": dataset.item_num - 1, "threads": torch.get_num_threads(),
    }  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(sys.stderr):
        os.chdir(scratch)  # it writes logs beside itself
        said = main(float(sys.argv[1]))
    sys.stdout.write(json.dumps(said) + "\n")
