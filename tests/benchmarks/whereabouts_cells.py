"""Where somebody unknown will be: README's query over `cell_daily` (the region's cells in the slot, drawn towards its week).

Foursquare check-ins from --judge-from on, each by the probability of its cell given its region and slot, with counts of the
days before --judge-from; against the region's cells whatever the slot, and against each of its cells alike. The weight of the
whole week is chosen on the days from --tune-from to --judge-from. Cells without a check-in so far count one. No Spark.

Example: .venv/bin/python tests/benchmarks/whereabouts_cells.py
"""

from __future__ import annotations

import argparse

import h3
import harness
import numpy as np
import pandas as pd
import reverse_geocoder
import whereabouts

WEIGHTS = (1.0, 5.0, 20.0, 50.0, 100.0, 300.0, 1000.0)


def placed_check_ins() -> pd.DataFrame:
    """`whereabouts.check_ins` with `cell` (H3, resolution 9) and `region` (the nearest populated place)."""
    rows = whereabouts.check_ins()
    venues = rows.drop_duplicates("venue_id")[["venue_id", "latitude", "longitude"]]
    spots = list(zip(venues["latitude"], venues["longitude"], strict=True))
    cells = [h3.latlng_to_cell(*spot, 9) for spot in spots]
    regions = [found["name"] for found in reverse_geocoder.search(spots, mode=1, verbose=False)]
    return rows.merge(venues.assign(cell=cells, region=regions)[["venue_id", "cell", "region"]], on="venue_id")


def losses(rows: pd.DataFrame, begin: int, end: int) -> pd.DataFrame:
    """Log loss of each check-in of days `begin` to before `end`, with what was known before: a column per weight and peer."""
    known, asked = rows[rows["day"] < begin], rows[(rows["day"] >= begin) & (rows["day"] < end)]

    def count(*by: str) -> np.ndarray:
        found = known.groupby(list(by)).size()
        keys = pd.MultiIndex.from_frame(asked[list(by)]) if len(by) > 1 else asked[by[0]]
        return found.reindex(keys).fillna(0).to_numpy(float)

    cells = rows.groupby("region")["cell"].nunique().reindex(asked["region"]).to_numpy(float)
    whole = (count("region", "cell") + 1) / (count("region") + cells)
    here, all_here = count("region", "slot", "cell"), count("region", "slot")
    made = {weight: -np.log((here + weight * whole) / (all_here + weight)) for weight in WEIGHTS}
    return pd.DataFrame({**made, "region": -np.log(whole), "uniform": np.log(cells), "user_id": asked["user_id"].to_numpy()})


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--tune-from", type=np.datetime64, default=np.datetime64("2012-09-01"))
    given.add_argument("--judge-from", type=np.datetime64, default=np.datetime64("2012-10-30"))
    given = given.parse_args()
    tune_from, judge_from = (int(day.astype("datetime64[D]").astype(np.int64)) for day in (given.tune_from, given.judge_from))
    rows = placed_check_ins()
    tuned = losses(rows, tune_from, judge_from)[list(WEIGHTS)].mean()
    best = float(tuned.idxmin())
    harness.progress(f"log loss by weight on the earlier days: {tuned.round(4).to_dict()}")
    found = losses(rows, judge_from, 10**6)
    for peer in ("region", "uniform"):
        shown = found[[best, peer]].assign(difference=found[best] - found[peer])
        users = [one.drop(columns="user_id").to_numpy() for _, one in shown.assign(user_id=found["user_id"]).groupby("user_id")]
        figures = dict(zip(("ours", "peer", "difference"), (whereabouts.interval(users, n) for n in range(3)), strict=True))
        line = {"name": "whereabouts_cells", "size": len(found), "users": len(users), "peer": peer, "weight": best}
        harness.say({**line, "log_loss": figures})


if __name__ == "__main__":
    main()
