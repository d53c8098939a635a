"""What nights that go on from the version before cost, and whether they lose anything against training from scratch.

A bootstrap of all that came before a day, then nights, each from the weights of the one before (`train.from_scratch_on: null`);
on some nights the same day is trained from scratch as well, in a copy of the lake. Each night's windows, epochs and seconds of
training; and of both ways the ranks of what came in the week after, by `wherewhen evaluate`, the same rows of both. `lost` is
scratch less warm: 0 within its interval (by drawing users) is what is hoped for. The network alone is looked at, without what
is known of items besides (`model.knowledge`), so that a night needs the steps of learning only; six epochs at most
wherever weights are fresh.

Example: .venv/bin/python tests/benchmarks/warm.py --log simulated --work /tmp/warm
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import checkins
import harness
import pandas as pd
from deltalake import DeltaTable

from conf.learning import WEEKDAYS
from models import metrics

STEPS = "ingest,clean,sequences,train,ranker,evaluate"
COMPARED, WEEK = (7, 14), 7
SETTINGS = ("model.knowledge=false", "ranker.by=network", "train.tracking=null", "train.epochs=6")
MEASURES = {"hit@1": ("hit", 1), "hit@10": ("hit", 10), "ndcg@10": ("ndcg", 10)}
WHEREWHEN = str(Path(sys.executable).with_name("wherewhen"))


@dataclass(frozen=True, kw_only=True)
class Given:
    """A log, where its lakes are to be, and the day of the bootstrap."""

    config: str
    events: Path
    work: Path
    first: date

    def command(self, lake: str, *arguments: str, settings: Iterable[str] = ()) -> None:
        wanted = (*SETTINGS, f"lake={self.work / lake}", f"report.path={self.work / 'report.html'}")
        wanted += (f"sources.events.path={self.events}", *settings)
        options = [part for one in wanted for part in ("--set", one)]
        harness.progress(f"{lake}: {' '.join(arguments)}")
        with (self.work / "log").open("a") as log:
            subprocess.run([WHEREWHEN, "--config", self.config, *options, *arguments], check=True, stdout=log, stderr=log)

    def nights(self, lake: str, first: int, last: int, weekday: str = "null") -> None:
        days = [str(self.first + timedelta(days=night)) for night in (first, last)]
        scratch = f"train.from_scratch_on={weekday}"
        self.command(lake, "backfill", "--start", days[0], "--end", days[1], "--only", STEPS, settings=[scratch])


def foursquare(work: Path) -> Given:
    return Given(config="conf/foursquare.yaml", events=checkins.LOG, work=work, first=date(2012, 11, 28))


def simulated(work: Path) -> Given:
    if not (work / "world").exists():
        size = ["--users", "300", "--items", "300", "--days", "60", "--end-day", "2024-06-30", "--seed", "1"]
        subprocess.run([WHEREWHEN, "simulate", "--output", str(work / "world"), *size], check=True)
    return Given(config="conf/local.yaml", events=work / "world/landing", work=work, first=date(2024, 6, 9))


LOGS = {"foursquare": foursquare, "simulated": simulated}


def week_after(given: Given, day: date) -> Path:
    """The events of the days after one, in the format of the log."""
    days = {str(day + timedelta(days=number)) for number in range(1, WEEK + 1)}
    if given.events.is_dir():
        path = given.work / "week.jsonl"
        path.write_text(
            "".join(one.read_text() for name in sorted(days) for one in sorted(given.events.glob(f"{name}/events*")))
        )
        return path
    path = given.work / "week.csv"
    with gzip.open(given.events, "rt") as rows, path.open("w") as kept:
        kept.write(next(rows))
        kept.writelines(row for row in rows if row.rsplit(",", 1)[1][:10] in days)
    return path


def trained(given: Given, lake: str) -> pd.DataFrame:
    """The trainings of a lake by day, of the versions that know all before their day."""
    versions, runs = (DeltaTable(given.work / lake / name).to_pandas() for name in ("model_versions", "training_runs"))
    whole = versions[(versions["kind"] == "interest") & (versions["trained_until"].dt.date == versions["day"])]
    rows = runs.merge(whole[["model_version"]], on="model_version").sort_values("finished_at")
    return rows.drop_duplicates("day", keep="last").set_index("day")


def ranked(given: Given, lake: str, day: date) -> pd.Series:
    """Rank of each of the week's events by the version trained for the day, by row; of users as in the log."""
    version, output = str(trained(given, lake).loc[day, "model_version"]), given.work / "ranks.csv"
    given.command(lake, "evaluate", "--events", str(week_after(given, day)), "--model", version, "--output", str(output))
    rows = pd.read_csv(output, dtype={"user_id": str}).dropna(subset=["rank", "user_id"])
    return rows.set_index(["row", "user_id"])["rank"]


def compared(given: Given, night: int) -> dict[str, object]:
    day = given.first + timedelta(days=night)
    warm, scratch = (ranked(given, lake, day) for lake in ("warm", "scratch"))
    both = pd.concat({"warm": warm, "scratch": scratch}, axis=1, join="inner")
    users = both.index.get_level_values("user_id").to_numpy()
    values = {name: metrics.values(both[name].to_numpy(int) - 1, list(MEASURES.values())) for name in both}
    line: dict[str, object] = {name: checkins.intervals(found, users, MEASURES) for name, found in values.items()}
    line["lost"] = checkins.intervals(values["scratch"] - values["warm"], users, MEASURES)
    once = trained(given, "scratch").loc[day]
    cost = {name: round(float(once[name]), 1) for name in ("windows", "epochs", "seconds")}
    return {"night": night, "day": str(day), "asked": len(both), "scratch_cost": cost, **line}


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--log", choices=LOGS, default="simulated")
    given.add_argument(
        "--work", type=Path, required=True, help="folder of the lakes; a bootstrap that is there is gone on from"
    )
    options = given.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    log = LOGS[options.log](options.work)
    if not (log.work / "begun").exists():
        log.command("beginning", "run", "--day", str(log.first), "--bootstrap", "--only", STEPS)
        (log.work / "beginning").rename(log.work / "begun")
    for lake in ("warm", "scratch"):
        shutil.rmtree(log.work / lake, ignore_errors=True)
    shutil.copytree(log.work / "begun", log.work / "warm")
    done = 0
    for night in COMPARED:
        if night - 1 > done:
            log.nights("warm", done + 1, night - 1)
        shutil.rmtree(log.work / "scratch", ignore_errors=True)
        shutil.copytree(log.work / "warm", log.work / "scratch")
        log.nights("warm", night, night)
        weekday = WEEKDAYS[(log.first + timedelta(days=night)).weekday()]
        log.nights("scratch", night, night, weekday)
        harness.say({"name": "warm", "log": options.log, **compared(log, night)})
        done = night
    for day, row in trained(log, "warm").iterrows():
        cost = {name: round(float(row[name]), 1) for name in ("windows", "targets", "epochs", "seconds")}
        harness.say({"name": "warm-night", "log": options.log, "day": str(day), **cost})


if __name__ == "__main__":
    main()
