"""The same forecasts by statsforecast alone, on two processes; one JSON line. Called by forecast.py."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import pandas as pd
from forecast_series import DAYS, LAST, LEVEL, counts
from statsforecast import StatsForecast
from statsforecast.models import AutoETS, SeasonalNaive

from conf.contracts import FORECAST_DAYS


def main(size: int) -> dict[str, object]:
    began = time.monotonic()
    counts_PD = counts(size)
    days = pd.to_datetime(np.arange(LAST - DAYS + 1, LAST + 1), unit="D")
    frame = pd.DataFrame({"unique_id": np.repeat(np.arange(size), DAYS), "ds": np.tile(days, size), "y": counts_PD.ravel()})
    models = [AutoETS(season_length=7), SeasonalNaive(season_length=7)]
    percent = round(100 * LEVEL)
    StatsForecast(models=models, freq="D", n_jobs=1).forecast(df=frame[: 2 * DAYS], h=FORECAST_DAYS, level=[percent])
    started = time.monotonic()
    made = StatsForecast(models=models, freq="D", n_jobs=2).forecast(df=frame, h=FORECAST_DAYS, level=[percent])
    seconds = time.monotonic() - started
    sums = [
        [round(float(np.maximum(made[f"{name}{side}"], 0).sum()), 2) for side in ("", f"-lo-{percent}", f"-hi-{percent}")]
        for name in ("AutoETS", "SeasonalNaive")
    ]
    return {"seconds": seconds, "startup_s": started - began, "sums": sums}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(int(sys.argv[1]))) + "\n")
