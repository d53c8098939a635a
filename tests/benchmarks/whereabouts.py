"""How well it is known where a user will be: `user_slot_places` against the user's own frequencies, on Foursquare check-ins.

Each day's check-ins are judged with the places and habits as of the user's last day before it. Half-life, shrinkage and the
peers' weight of being elsewhere are chosen on the days from --tune-from to --judge-from, or are those of conf/local.yaml;
what is printed is of the days from --judge-from on. A check-in within 150 m (or the radius) of a place's centre is at the
nearest such place, else elsewhere. Of users who have a place. No Spark.

Example: .venv/bin/python tests/benchmarks/whereabouts.py
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path as File

import harness
import numpy as np
import pandas as pd

from conf.settings import load_settings
from jobs.simulate.atlas import slot_of
from jobs.spatial.places import Places, find_places
from jobs.spatial.presence import ELSEWHERE, EVERY_SLOT, Habits, presence
from jobs.spatial.seen import Path, Seen, seen_from, spots_of
from jobs.spatial.sphere import distance_m, offsets

LOG = harness.ROOT.parent / "shared/data/foursquare_nyc/checkins.csv.gz"
SETTINGS = load_settings()
OURS = Habits(
    half_life_days=SETTINGS.spatial.habit_half_life_days,
    shrinkage=SETTINGS.spatial.habit_shrinkage,
    elsewhere=SETTINGS.spatial.habit_elsewhere,
)
ALWAYS, NO_SLOTS = 1e9, 1e9
GRIDS = {
    "ours": [
        Habits(half_life_days=half_life, shrinkage=shrinkage, elsewhere=prior)
        for half_life, shrinkage, prior in product((30.0, 45.0, 60.0), (2.0, 3.0, 5.0), (4.0, 8.0, 16.0))
    ],
    "user_frequency": [Habits(half_life_days=ALWAYS, shrinkage=NO_SLOTS, elsewhere=prior) for prior in (2.0, 4.0, 8.0, 16.0)],
    "user_frequency_recent": [
        Habits(half_life_days=half_life, shrinkage=NO_SLOTS, elsewhere=prior)
        for half_life, prior in product((15.0, 30.0, 60.0), (1.0, 4.0, 8.0))
    ],
}
MEASURES = ("accuracy@1", "accuracy@3", "log_loss")
SAMPLES = 500


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a user's check-ins of some days look back at: one view a day, and where each of the day's check-ins was.

    view: the day of `seen` that each check-in is judged with; slot: position in SLOTS; place: row of `places`, or ELSEWHERE;
    day: days since 1970.
    """

    seen: Seen
    places: Places
    view: np.ndarray
    slot: np.ndarray
    place: np.ndarray
    day: np.ndarray


def check_ins() -> pd.DataFrame:
    """Distinct check-ins with `at` (seconds), `day` (UTC, since 1970) and local `slot`, in order of time."""
    rows = pd.read_csv(LOG).drop_duplicates()
    moment = pd.to_datetime(rows["utc_time"], utc=True)
    local = moment.dt.tz_convert("America/New_York")
    at = moment.dt.tz_localize(None).to_numpy().astype("datetime64[s]").astype(np.int64)
    slot = slot_of(local.dt.dayofweek.to_numpy(), local.dt.hour.to_numpy())
    return rows.assign(at=at, day=at // 86_400, slot=slot).sort_values(["user_id", "at", "venue_id"], kind="stable")


def asked(rows: pd.DataFrame, first: int) -> list[Asked]:
    """Of one user, in blocks of days; check-ins from day `first` on."""
    path = Path(
        arrived_on=rows["day"].to_numpy(),
        at=rows["at"].to_numpy(np.float64),
        latitude=rows["latitude"].to_numpy(),
        longitude=rows["longitude"].to_numpy(),
        slot=rows["slot"].to_numpy(np.int64),
        item=rows["venue_id"].to_numpy(np.int64),
        local_day=rows["day"].to_numpy(),
    )
    spots, active = spots_of(path), np.unique(path.arrived_on)
    spatial, length = SETTINGS.spatial, SETTINGS.sequences.length
    judged = np.flatnonzero(active >= first)
    judged = judged[judged > 0]
    found = []
    for block in np.split(judged, range(16, len(judged), 16)):
        if not len(block):
            continue
        seen = seen_from(path, spots, active[block - 1], length)
        places = find_places(seen, spatial.place_radius_m, spatial.place_min_visits)
        event = np.flatnonzero(np.isin(path.arrived_on, active[block]))
        view = np.searchsorted(active[block], path.arrived_on[event])
        has_place = np.isin(view, places.day)
        event, view = event[has_place], view[has_place]
        place = _nearest(places, view, path.latitude[event], path.longitude[event])
        found.append(Asked(seen=seen, places=places, view=view, slot=path.slot[event], place=place, day=path.arrived_on[event]))
    return found


def _nearest(places: Places, view: np.ndarray, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """The row of the nearest place of the view that reaches each position, or ELSEWHERE."""
    nearest = np.full(len(view), ELSEWHERE)
    for number, (day, *spot) in enumerate(zip(view, latitude, longitude, strict=True)):
        own = np.flatnonzero(places.day == day)
        apart = offsets(places.latitude[own], places.longitude[own], *[np.full(len(own), value) for value in spot])
        distance = distance_m(apart, np.zeros_like(apart))
        best = int(np.argmin(distance))
        if distance[best] <= max(places.radius_m[own[best]], SETTINGS.spatial.place_radius_m):
            nearest[number] = own[best]
    return nearest


def judged(of_user: Sequence[Asked], habits: Habits, days: tuple[int, int]) -> np.ndarray:
    """Per check-in of the days: MEASURES, whether it was at a known place, and accuracy@1 and @3 among the places alone."""
    rows = [one for asked in of_user for one in _judged(asked, habits, days)]
    return np.array(rows, dtype=float).reshape(-1, len(MEASURES) + 3)


def _judged(asked: Asked, habits: Habits, days: tuple[int, int]) -> list[tuple[float, ...]]:
    found = presence(asked.seen, asked.places, habits)
    start = np.searchsorted(found.day * len(EVERY_SLOT) + found.slot, np.arange(asked.seen.days * len(EVERY_SLOT) + 1))
    rows = []
    for view, slot, place, day in zip(asked.view, asked.slot, asked.place, asked.day, strict=True):
        if not days[0] <= day < days[1]:
            continue
        key = view * len(EVERY_SLOT) + slot
        if start[key] == start[key + 1]:  # never seen in the slot
            key = view * len(EVERY_SLOT) + len(EVERY_SLOT) - 1
        here = slice(start[key], start[key + 1])
        probability, places = found.probability[here], found.place[here]
        own = int(np.flatnonzero(places == place)[0])
        rank = _rank(probability, own)
        among = probability[places != ELSEWHERE]
        at_place = place != ELSEWHERE
        rank_of_place = _rank(among, int(np.flatnonzero(places[places != ELSEWHERE] == place)[0])) if at_place else len(places)
        loss = -np.log(probability[own])
        rows.append((rank < 1, rank < 3, loss, at_place, at_place and rank_of_place < 1, at_place and rank_of_place < 3))
    return rows


def _rank(probability: np.ndarray, own: int) -> int:
    """How many are likelier; of equals those that stand before it."""
    return int((probability > probability[own]).sum() + (probability[:own] == probability[own]).sum())


def _of_user(given: tuple[pd.DataFrame, int]) -> list[Asked]:
    return asked(*given)


def interval(users: Sequence[np.ndarray], column: int, by: int | None = None) -> dict[str, float]:
    """Mean of a column over check-ins (of those for which `by` holds), with a 95% interval by resampling users."""
    sums = np.array([[one[:, column].sum(), len(one) if by is None else one[:, by].sum()] for one in users])
    picks = np.random.default_rng(1).integers(0, len(users), (SAMPLES, len(users)))
    drawn = sums[picks].sum(axis=1)
    lower, upper = np.percentile(drawn[:, 0] / drawn[:, 1], (2.5, 97.5))
    total = sums.sum(axis=0)
    return {"mean": round(total[0] / total[1], 4), "lower": round(lower, 4), "upper": round(upper, 4)}


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--tune-from", type=np.datetime64, default=np.datetime64("2012-09-01"))
    given.add_argument("--judge-from", type=np.datetime64, default=np.datetime64("2012-10-30"))
    given.add_argument("--tune", action="store_true", help="choose ours on the earlier days too, not from conf/local.yaml")
    given = given.parse_args()
    tune_from, judge_from = (
        int(value.astype("datetime64[D]").astype(np.int64)) for value in (given.tune_from, given.judge_from)
    )
    if not File(LOG).is_file():
        raise SystemExit(f"needs {LOG}, which is not there")
    with multiprocessing.Pool() as pool:
        jobs = [(rows, tune_from) for _, rows in check_ins().groupby("user_id")]
        users = [one for one in pool.map(_of_user, jobs, chunksize=8) if one]
    harness.progress(f"{len(users)} users")
    chosen = {} if given.tune else {"ours": OURS}
    for name, grid in GRIDS.items():
        if name not in chosen:
            losses = [
                np.concatenate([judged(one, habits, (tune_from, judge_from)) for one in users])[:, 2].mean() for habits in grid
            ]
            chosen[name] = grid[int(np.argmin(losses))]
            harness.progress(f"{name}: {chosen[name]}, log loss {min(losses):.4f} on the earlier days")
    measured = {name: [judged(one, habits, (judge_from, 10**6)) for one in users] for name, habits in chosen.items()}
    there = [number for number, rows in enumerate(measured["ours"]) if len(rows)]
    of = {name: [rows[number] for number in there] for name, rows in measured.items()}
    for name in ("user_frequency", "user_frequency_recent"):
        line = {"name": "whereabouts", "size": sum(map(len, of["ours"])), "users": len(there), "peer": name}
        for column, measure in enumerate(MEASURES):
            pairs = [np.c_[one, one[:, column] - two[:, column]] for one, two in zip(of["ours"], of[name], strict=True)]
            line[measure] = {
                "ours": interval(of["ours"], column), "peer": interval(of[name], column), "difference": interval(pairs, -1),
            }  # fmt: skip
        for column, k in ((4, 1), (5, 3)):
            line[f"at known places, accuracy@{k}"] = {
                "ours": interval(of["ours"], column, 3), "peer": interval(of[name], column, 3),
            }  # fmt: skip
        line["habits"] = {one: vars(chosen[one]) for one in ("ours", name)}
        harness.say(line)


if __name__ == "__main__":
    main()
