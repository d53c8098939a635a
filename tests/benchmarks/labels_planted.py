"""Planted interests of a simulated log: which are called long, by users' activity, and how soon passing ones show.

A user of the simulator has two to four lasting interests, and now and then a passing one of some days. Judged are the days
of the last four weeks on which a user had events in a category: is the interest one of the lasting ones? `rule` is the label
of step `label`, `learned` what the labeller calls so, which has learnt from what was over when these weeks began. It
is asked whether somebody comes back, which is not quite the same: people return to what is only routine, too. Emerging: the
first day from a passing interest's start until a week after its end on which its trend is `emerging`, of those that left four
events or more; and how often a trend is called so where none is planted.

Example: .venv/bin/python tests/benchmarks/labels_planted.py --users 400 --days 230
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import date
from pathlib import Path

import harness
import labeller_moments
import numpy as np
import pandas as pd
from sklearn.metrics import f1_score, precision_score, recall_score

from conf.settings import load_settings
from jobs.lake import session
from jobs.simulate import World, simulate
from models.labeller import learn

JUDGED_DAYS, LEAST_EVENTS, AFTER_DAYS, SEED = 28, 4, 7, 1
ACTIVITY = ("a third with the fewest events", "the middle third", "a third with the most events")


def long_ones(folder: Path, rows: pd.DataFrame, told: dict[str, np.ndarray]) -> None:
    """A line per method and third of users."""
    users = pd.read_csv(folder / "truth/users.csv").set_index("user_id")["interests"].str.split("|")
    is_planted = np.array([category in users[user] for user, category in zip(rows.user_id, rows.category, strict=True)])
    events = rows.user_events.to_numpy()
    per_user = rows.drop_duplicates("user_id").user_events
    third = np.searchsorted(np.quantile(per_user, [1 / 3, 2 / 3]), events)
    for method, called in told.items():
        for number, name in [*enumerate(ACTIVITY), (None, "all")]:
            mine = np.ones(len(rows), bool) if number is None else third == number
            scores = {"precision": precision_score, "recall": recall_score, "f1": f1_score}
            line = {"name": "labels-planted", "method": method, "users": name, "moments": int(mine.sum())}
            line |= {"planted": round(float(is_planted[mine].mean()), 3)}
            harness.say(line | {key: round(float(of(is_planted[mine], called[mine])), 3) for key, of in scores.items()})


def emerging(folder: Path, interests: pd.DataFrame, events: pd.DataFrame) -> None:
    """How soon, and how often wrongly. `interests`: rows with user, category, day and trend as written on the day."""
    bursts = pd.read_csv(folder / "truth/bursts.csv", parse_dates=["start_day", "end_day"])
    events = events.assign(day=events.event_timestamp.dt.tz_localize(None).dt.normalize())
    found = interests[interests.trend == "emerging"].assign(day=lambda rows: pd.to_datetime(rows.day))
    both = bursts.merge(events, on=["user_id", "category"])
    held = both[(both.day >= both.start_day) & (both.day <= both.end_day)].groupby(["user_id", "category", "start_day"]).size()
    asked = bursts.merge(held.rename("events").reset_index(), on=["user_id", "category", "start_day"])
    asked = asked[asked.events >= LEAST_EVENTS].reset_index(drop=True)
    seen = asked.reset_index().merge(found, on=["user_id", "category"])
    in_time = (seen.day >= seen.start_day) & (seen.day <= seen.end_day + pd.Timedelta(days=AFTER_DAYS))
    first = seen[in_time].groupby("index").day.min()
    delay = (first - asked.start_day.loc[first.index]).dt.days.to_numpy()
    near = found.merge(bursts, on=["user_id", "category"], how="left")
    is_near = (near.day >= near.start_day) & (near.day <= near.end_day + pd.Timedelta(days=AFTER_DAYS))
    right = near.assign(right=is_near).groupby(["user_id", "category", "day"]).right.any()
    line = {
        "name": "labels-planted",
        "trend": "emerging",
        "passing_interests": len(asked),
        "found": round(len(delay) / len(asked), 3),
    }
    line |= {f"days_{int(100 * share)}%": float(np.quantile(delay, share)) for share in (0.5, 0.9)}
    harness.say(line | {"called": len(right), "of_a_passing_interest": round(float(right.mean()), 3)})


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--users", type=int, default=400)
    given.add_argument("--days", type=int, default=230)
    given = given.parse_args()
    spark = session.start(load_settings(overrides=["spark.driver_memory=3g", "spark.master=local[2]"]))
    with tempfile.TemporaryDirectory(prefix="wherewhen-bench-") as scratch:
        folder = Path(scratch) / "world"
        world = World(users=given.users, items=400, days=given.days, end_day=date(2024, 6, 30), seed=SEED)
        simulate(spark, folder, world)
        events = labeller_moments.simulated(folder)
        (Path(scratch) / "made").mkdir()
        _, interests = labeller_moments.labelled(events, Path(scratch) / "made")
        harness.progress(f"{len(events):,} events")
        known = labeller_moments.known(interests)
        past = labeller_moments.past_from(known)
        since = past.until - JUDGED_DAYS
        made = learn(past.before(since), seed=SEED)
        assert made is not None, "too little to learn from"
        judged = past.moments.day_M >= since
        rows = known.select(["user_id", "category"]).to_pandas()
        rows = rows.assign(user_events=rows.user_id.map(events.user_id.value_counts()))[judged].reset_index(drop=True)
        told = {"rule": past.moments.ruled_M[judged], "learned": past.told(made, judged) >= made.cut}
        long_ones(folder, rows, told)
        emerging(folder, interests.select("user_id", "category", "day", "trend").toPandas(), events)


if __name__ == "__main__":
    main()
