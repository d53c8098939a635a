"""What each part of the interest network brings to Foursquare's check-ins: trained anew without one part at a time.

The log, the lake and the night of `warm.py`: all that came before a day is learnt from with fresh weights, and the week after
is asked by `wherewhen evaluate`, the same rows of each. Parts are switched off by their settings, fusion is exchanged. `lost`:
the whole less the one without (positive: the whole is better), with intervals by drawing users. One seed, six epochs at most.

Example: .venv/bin/python tests/benchmarks/ablation_network.py --work /tmp/warm
"""

from __future__ import annotations

import argparse
import shutil
from datetime import timedelta
from pathlib import Path

import checkins
import harness
import pandas as pd
import warm

from conf.learning import WEEKDAYS
from models import metrics

SWITCHES = {
    "nothing": "model.fusion=gate",
    "gate (concatenation instead)": "model.fusion=concatenation",
    "gate (attention instead)": "model.fusion=attention",
    "times": "model.times=false",
    "places": "model.places=false",
    "repeats": "model.repeats=false",
}


def ranked(log: warm.Given, setting: str) -> pd.Series:
    night = log.first + timedelta(days=1)
    shutil.rmtree(log.work / "without", ignore_errors=True)
    shutil.copytree(log.work / "begun", log.work / "without")
    weekday = f"train.from_scratch_on={WEEKDAYS[night.weekday()]}"
    steps = "ingest,clean,sequences,train"
    log.command("without", "run", "--day", str(night), "--only", steps, settings=[weekday, setting])
    return warm.ranked(log, "without", night)


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--work", type=Path, required=True, help="where warm.py worked on --log foursquare")
    log = warm.foursquare(given.parse_args().work)
    whole: pd.Series | None = None
    for name, setting in SWITCHES.items():
        found = ranked(log, setting)
        whole = found if whole is None else whole
        both = pd.concat({"whole": whole, "without": found}, axis=1, join="inner")
        users = both.index.get_level_values("user_id").to_numpy()
        values = {of: metrics.values(both[of].to_numpy(int) - 1, list(warm.MEASURES.values())) for of in both}
        line = {"name": "ablation-network", "without": name, "asked": len(both)}
        line |= checkins.intervals(values["without"], users, warm.MEASURES)
        line["lost"] = checkins.intervals(values["whole"] - values["without"], users, warm.MEASURES)
        harness.say(line)


if __name__ == "__main__":
    main()
