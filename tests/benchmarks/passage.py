"""Behaviour as text: does a passage of a user's recent events say more of the next one than the texts of their items alone?

Foursquare: the category of a user's next check-in, from the eight before it. `items`: the sentence vectors of their
categories' names, the mean and the newest; `passage`: one vector of the eight in words, with when and where ("Monday morning,
Manhattan: Coffee Shop. ..."); `both` together; `counts`: how often each category is among the eight, and the newest;
`numbers`: items, counts, and likewise where, and in which part of the week the newest was: what the passage says, but in
numbers; `all`: numbers and passage. What is known of the moment asked about (part of the week) goes with each. Multinomial
regression, its penalty chosen on the end of the training part; learnt from moments of the first eight tenths of the
check-ins, judged on those of the ninth, of users seen. Intervals (95%) by drawing users.

Example: .venv/bin/python tests/benchmarks/passage.py --learnt 12000 --asked 4000
"""

from __future__ import annotations

import argparse
import time

import harness
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from jobs.clean.places import nearest_places
from models import encoder, metrics

LOG = harness.ROOT.parent / "shared/data/foursquare_nyc/checkins.csv.gz"
EVENTS, SAMPLES, SEED = 8, 300, 1
LEARNT_UNTIL, ASKED_UNTIL, CHOSEN_SHARE = 0.8, 0.9, 0.2
PENALTIES = (0.1, 1.0, 10.0)
RIVALS = {"passage": ("items",), "both": ("items",), "all": ("items", "numbers")}
PARTS = ("night", "morning", "afternoon", "evening")


def check_ins() -> pd.DataFrame:
    """By user and time, those with a category: user, category, at, part of the week in words, place."""
    rows = pd.read_csv(LOG, dtype={"user_id": str}).drop_duplicates().dropna(subset="category")
    local = pd.to_datetime(rows.utc_time, utc=True).dt.tz_convert("America/New_York")
    part = np.digitize(local.dt.hour, (6, 12, 18, 22)) % 4
    places, _ = nearest_places(rows[["latitude", "longitude"]].to_numpy())
    made = rows.assign(
        at=local, when=[f"{day} {PARTS[number]}" for day, number in zip(local.dt.day_name(), part, strict=True)],
        where=[name.rsplit("/", 1)[1] for name in places], week_part=part + 4 * (local.dt.dayofweek >= 5),
    )  # fmt: skip
    return made.sort_values(["user_id", "at"], kind="stable").reset_index(drop=True)


def asked(rows: pd.DataFrame, first: float, last: float, count: int) -> np.ndarray:
    """Rows, each with `EVENTS` of its user before it, of a part of the log by time; at most so many, drawn."""
    place = rows.groupby("user_id").cumcount().to_numpy()
    since, until = (rows["at"].quantile(share, interpolation="lower") for share in (first, last))
    found = np.flatnonzero((place >= EVENTS) & (rows["at"] >= since).to_numpy() & (rows["at"] < until).to_numpy())
    drawn = np.random.default_rng(SEED).permutation(found)[:count]
    return np.sort(drawn)


def inputs(rows: pd.DataFrame, row_M: np.ndarray) -> dict[str, np.ndarray]:
    names, category_E = np.unique(rows["category"].to_numpy(dtype=str), return_inverse=True)
    past_ME = category_E[row_M[:, None] - np.arange(EVENTS, 0, -1)]
    now_MS = np.eye(8)[rows["week_part"].to_numpy()[row_M]]
    reads = encoder.load(precision=encoder.precision(), threads=1)
    began = time.monotonic()
    vectors_CD = reads.encode(names.tolist())
    told = (rows["when"] + ", " + rows["where"] + ": " + rows["category"]).to_numpy()
    passages = [". ".join(told[row - EVENTS : row]) for row in row_M]
    items_s, began = time.monotonic() - began, time.monotonic()
    passage_MD = reads.encode(passages)
    harness.progress(f"{len(names)} names in {items_s:.1f} s, {len(passages):,} passages in {time.monotonic() - began:.1f} s")
    items_MD = np.concatenate([vectors_CD[past_ME].mean(axis=1), vectors_CD[past_ME[:, -1]]], axis=1)
    regions, where_E = np.unique(rows["where"].to_numpy(dtype=str), return_inverse=True)
    where_ME, part_ME = (of_E[row_M[:, None] - np.arange(EVENTS, 0, -1)] for of_E in (where_E, rows["week_part"].to_numpy()))
    where_MR = np.zeros((len(row_M), len(regions)))
    np.add.at(where_MR, (np.repeat(np.arange(len(row_M)), EVENTS), where_ME.ravel()), 1.0)
    numbers = [where_MR / EVENTS, np.eye(len(regions))[where_ME[:, -1]], np.eye(8)[part_ME[:, -1]]]
    counts_MC = np.zeros((len(row_M), len(names)))
    np.add.at(counts_MC, (np.repeat(np.arange(len(row_M)), EVENTS), past_ME.ravel()), 1.0)
    newest_MC = np.eye(len(names))[past_ME[:, -1]]
    found = {"counts": [counts_MC / EVENTS, newest_MC], "items": [items_MD], "passage": [passage_MD]}
    found["both"] = [items_MD, passage_MD]
    found["numbers"] = [*found["items"], *found["counts"], *numbers]
    found["all"] = [*found["numbers"], passage_MD]
    return {name: np.concatenate([*columns, now_MS], axis=1) for name, columns in found.items()}


def scores(inputs_MF: np.ndarray, target_M: np.ndarray, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of all categories learnt, (test, C), and which these are; the penalty by the log loss on the newest part of `train`."""
    cut = int(len(train) * (1 - CHOSEN_SHARE))

    def fitted(rows: np.ndarray, strength: float) -> LogisticRegression:
        return LogisticRegression(C=strength, max_iter=150).fit(inputs_MF[rows], target_M[rows])

    def loss(model: LogisticRegression, rows: np.ndarray) -> float:
        known = rows[np.isin(target_M[rows], model.classes_)]
        told = model.predict_log_proba(inputs_MF[known])
        return -float(told[np.arange(len(known)), np.searchsorted(model.classes_, target_M[known])].mean())

    best = min(PENALTIES, key=lambda strength: loss(fitted(train[:cut], strength), train[cut:]))
    model = fitted(train, best)
    return model.predict_log_proba(inputs_MF[test]), model.classes_


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--learnt", type=int, default=20_000, help="moments to learn from")
    given.add_argument("--asked", type=int, default=6_000, help="moments to be judged on")
    given = given.parse_args()
    rows = check_ins()
    learnt = asked(rows, 0.0, LEARNT_UNTIL, given.learnt)
    judged = asked(rows, LEARNT_UNTIL, ASKED_UNTIL, given.asked)
    row_M = np.concatenate([learnt[np.argsort(rows["at"].to_numpy()[learnt], kind="stable")], judged])
    train, test = np.arange(len(learnt)), np.arange(len(learnt), len(row_M))
    target_M = np.unique(rows["category"].to_numpy(dtype=str), return_inverse=True)[1][row_M]
    user_T = rows["user_id"].to_numpy()[row_M[test]]
    found = {}
    for name, inputs_MF in inputs(rows, row_M).items():
        began = time.monotonic()
        told_TC, classes = scores(inputs_MF, target_M, train, test)
        place_T = np.minimum(np.searchsorted(classes, target_M[test]), len(classes) - 1)
        known_T = classes[place_T] == target_M[test]
        own_T = told_TC[np.arange(len(test)), place_T]
        rank_T = np.where(known_T, (told_TC >= own_T[:, None]).sum(axis=1), len(classes) + 1)
        loss_T = -np.where(known_T, own_T, np.log(1e-6))
        found[name] = np.stack([rank_T == 1, rank_T <= 5, loss_T], axis=1).astype(float)
        macro = f1_score(target_M[test], classes[told_TC.argmax(axis=1)], average="macro", zero_division=0)
        line = {"name": "passage", "method": name, "asked": len(test), "users": len(set(user_T))}
        line |= _spreads(found[name], user_T) | {"macro_f1": round(macro, 4), "seconds": round(time.monotonic() - began, 1)}
        for rival in RIVALS.get(name, ()):
            line[f"better_than_{rival}"] = _spreads(found[name] - found[rival], user_T)
        harness.say(line)


def _spreads(values_TM: np.ndarray, user_T: np.ndarray) -> dict[str, list[float]]:
    told = metrics.intervals(metrics.tally(values_TM, user_T, SAMPLES))
    names = ("accuracy@1", "accuracy@5", "log_loss")
    return {name: [round(v, 4) for v in (one.mean, one.lower, one.upper)] for name, one in zip(names, told, strict=True)}


if __name__ == "__main__":
    main()
