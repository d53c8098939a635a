"""What the label step knew of users' interests when events came: of Foursquare's check-ins, or of a simulated log."""

from __future__ import annotations

import tempfile
from pathlib import Path

import harness
import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from simulated_events import peoples_events

from conf.settings import load_settings
from conf.tables import TABLES
from jobs.label import advance
from jobs.labeller.moments import READ, moments, past
from jobs.lake import session
from jobs.lake.schema import spark_schema
from jobs.lake.store import Days
from models.labeller import Past
from models.lasting import Clock

FOURSQUARE = harness.ROOT.parent / "shared/data/foursquare_nyc/checkins.csv.gz"
COLUMNS = ("user_id", "category", "event_type", "event_timestamp")


def foursquare() -> pd.DataFrame:
    """Distinct check-ins that have a category; `COLUMNS`."""
    rows = pd.read_csv(FOURSQUARE).drop_duplicates().dropna(subset="category")
    at = pd.to_datetime(rows.utc_time, utc=True)
    return pd.DataFrame(
        {"user_id": rows.user_id.astype(str), "category": rows.category, "event_type": "check_in", "event_timestamp": at}
    )


def simulated(folder: Path) -> pd.DataFrame:
    """The good rows of people's events in a folder that `wherewhen simulate` wrote; `COLUMNS`."""
    return peoples_events(folder)[list(COLUMNS)].drop_duplicates().dropna().reset_index(drop=True)


def labelled(events: pd.DataFrame, folder: Path) -> tuple[DataFrame, DataFrame]:
    """`event_labels` and `user_interests` of a whole history; events arrive on their own dates. Kept in `folder`."""
    spark = _session()
    events = events.reset_index(drop=True)
    at = events.event_timestamp.dt.tz_localize(None).astype("datetime64[us]")
    rows = events.assign(event_timestamp=at, day=at.dt.date, event_id=events.index.astype(str))
    rows.to_parquet(folder / "events.parquet")
    read = spark.read.parquet(str(folder / "events.parquet"))
    read = read.withColumn("event_timestamp", F.col("event_timestamp").cast("timestamp"))
    nothing = spark.createDataFrame([], spark_schema(TABLES["user_interests"])).drop("gone", "day")
    days = Days(first=rows.day.min(), last=rows.day.max())
    for name, frame in zip(("labels", "interests"), advance(nothing, read, days, load_settings().label), strict=True):
        frame.write.parquet(str(folder / name))
    return spark.read.parquet(str(folder / "labels")), spark.read.parquet(str(folder / "interests"))


def past_of(events: pd.DataFrame) -> Past:
    """All moments of a log."""
    with tempfile.TemporaryDirectory() as scratch:
        _, interests = labelled(events, Path(scratch))
        return past_from(known(interests))


def known(interests: DataFrame) -> pa.Table:
    """Rows of `moments` with their users, in the order in which `past_from` has them."""
    rows = moments(interests.select(*READ)).withColumn("user", F.xxhash64("user_id")).toArrow()
    return rows.sort_by([(name, "ascending") for name in ("user", "category", "n")])


def past_from(rows: pa.Table) -> Past:
    """Of rows of `moments`; the clock goes by how many they are."""
    days, counts = np.unique(rows["n"].to_numpy(), return_counts=True)
    return past(rows, Clock.of(dict(zip(days.tolist(), counts.tolist(), strict=True))), until=int(days[-1]) + 1)


def _session() -> SparkSession:
    return session.start(load_settings(overrides=["spark.driver_memory=3g", "spark.master=local[2]"]))
