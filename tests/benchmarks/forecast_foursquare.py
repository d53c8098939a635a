"""How well Foursquare's categories are forecast: each method and the one chosen, at origins that nothing was chosen by.

Example: .venv/bin/python tests/benchmarks/forecast_foursquare.py --slow 20

Daily check-ins per category of the last 182 days as the file has them, exact duplicates left out; the step's own
functions without Spark. A line per stage and method: mean over series of MASE, sMAPE and coverage, and MASE over that of
seasonal naive. ARIMA and Prophet are tried on the `--slow` busiest series; their lines, and those ending in `-busiest`,
are of these.
"""

from __future__ import annotations

import argparse
import time

import harness
import numpy as np
import pandas as pd

from jobs.forecast.judging import REPORT, SELECTION, Quality, mean_known, origins
from jobs.forecast.learning import trained_at
from jobs.forecast.methods import ARIMA, ETS, LSTM, NAIVE, PROPHET, SLOW, Histories
from jobs.forecast.selecting import selected
from jobs.forecast.trying import Ways

DAYS, LEVEL, ORIGINS, SEED = 182, 0.8, 4, 1
FILE = harness.ROOT.parent / "shared/data/foursquare_nyc/checkins.csv.gz"


def histories() -> Histories:
    rows = pd.read_csv(FILE).drop_duplicates().dropna(subset="category")
    day = pd.to_datetime(rows.utc_time).dt.tz_localize(None).dt.floor("D")
    counts = rows.groupby(["category", day]).size().unstack(fill_value=0)
    days = pd.date_range(end=day.max(), periods=DAYS)
    counts_PD = counts.reindex(columns=days, fill_value=0).to_numpy(np.float64)
    counts_PD = counts_PD[counts_PD.sum(axis=1) > 0]
    return Histories(counts_PD=counts_PD, first=np.argmax(counts_PD > 0, axis=1), last=int(days[-1].timestamp()) // 86_400)


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--slow", type=int, default=0, help="series, the busiest, on which ARIMA and Prophet are tried")
    given = given.parse_args()
    known, at, began = histories(), origins(DAYS, ORIGINS), time.monotonic()
    size = len(known.first)
    is_busy = np.zeros(size, bool)
    is_busy[np.argsort(-known.counts_PD.sum(axis=1), kind="stable")[: given.slow]] = True
    names = (NAIVE, ETS, LSTM, *((ARIMA, PROPHET) if given.slow else ()))
    ways = Ways(names=names, level=LEVEL, networks=trained_at(known, at, SEED))
    found = ways.tried(known, at, is_busy)
    chosen = selected(found, ways.default, size)
    harness.progress(f"{size} series, {time.monotonic() - began:.0f} s")
    for stage in (SELECTION, REPORT):
        of_stage = {one.method: one for one in found if one.stage == stage}
        naive = _spread(of_stage[NAIVE], size)
        tables = {name: _spread(quality, size) for name, quality in of_stage.items()}
        tables["selected"] = {
            measure: np.select([chosen == name for name in tables], [table[measure] for table in tables.values()], np.nan)
            for measure in naive
        }
        for suffix, rows in (("", np.ones(size, bool)), *((("-busiest", is_busy),) if given.slow else ())):
            for name, table in tables.items():
                if name in SLOW and not suffix:
                    continue
                said = {measure: round(float(np.nanmean(values[rows])), 4) for measure, values in table.items()}
                relative = round(said["mase"] / float(np.nanmean(naive["mase"][rows])), 4)
                used = int((chosen[rows] == name).sum())
                line = {"name": f"forecast-foursquare{suffix}", "stage": stage, "method": name, **said, "to_naive": relative}
                harness.say({**line, "series": int(rows.sum()), "chosen_for": used})


def _spread(quality: Quality, size: int) -> dict[str, np.ndarray]:
    """The measures of all series, NaN where the method was not tried."""
    values = {"mase": mean_known(list(quality.mase_OP)), "smape": quality.smape, "coverage": quality.coverage}
    spread = {name: np.full(size, np.nan) for name in values}
    for name, measured in values.items():
        spread[name][quality.rows] = measured
    return spread


if __name__ == "__main__":
    main()
