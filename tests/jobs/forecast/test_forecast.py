"""The step on a small lake: planted series, its tables, re-runs, what comes of a week's selection."""

import shutil
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import functions as F

from conf.settings import load_settings
from conf.tables import TABLES
from jobs import forecast
from jobs.lake.compare import compare
from jobs.lake.context import Context, Skipped
from jobs.lake.schema import spark_schema
from jobs.lake.store import Days, Lake

DAYS, FIRST = 100, date(2024, 3, 4)  # to the Tuesday 2024-06-11
MONDAY, TUESDAY = (FIRST + timedelta(days=DAYS - back) for back in (2, 1))
SEASONAL, NOISE, SILENT, NEW, RARE = "seasonal", "noise", "silent", "new", "rare"


def planted():
    """Events per day of each series; of the last day hold the night's tests."""
    rng, day = np.random.default_rng(11), np.arange(DAYS)
    week = 1 + 0.6 * np.sin(2 * np.pi * day / 7)
    series = {("category", f"{SEASONAL}{number}"): rng.poisson((20 + 0.4 * day) * week) for number in range(4)}
    series |= {("region", f"{NOISE}{number}"): rng.poisson(12, DAYS) for number in range(4)}
    series[("category", SILENT)] = np.where(day < 60, rng.poisson(9, DAYS), 0)
    series[("category", NEW)] = np.where(day >= DAYS - 5, 4, 0)
    series[("region", RARE)] = np.where(day % 9 == 0, 1, 0)
    series |= {("item", f"item{number}"): rng.poisson(1 + number, DAYS) for number in range(6)}
    series[("user", "somebody")] = np.full(DAYS, 50)
    return series


def activity_of(spark):
    """Increments in two local hours; what is dated the fiftieth day arrived two days later."""
    rows = []
    for (kind, name), counts in planted().items():
        for number, count in enumerate(counts.tolist()):
            dated = FIRST + timedelta(days=number)
            arrived = dated + timedelta(days=2) if number == 50 else dated
            for hour, events in ((9, count // 2), (None, count - count // 2)):
                for kept, event_type in ((events, "check_in"), (events // 3, "search")):
                    if kept:
                        rows.append((kind, name, event_type, dated, hour, kept, arrived))
    return spark.createDataFrame(rows, spark_schema(TABLES["activity_daily"]))


@pytest.fixture(scope="module")
def settings(spark, tmp_path_factory):
    root = tmp_path_factory.mktemp("forecast") / "lake"
    made = load_settings(
        overrides=[
            f"lake={root}",
            "forecast.items=3",
            "forecast.slow_series=1",
            "forecast.origins=2",
            "forecast.level=0.9",
            "forecast.methods=[ets, lstm, prophet]",
        ]
    )
    lake = Lake(spark, made.lake)
    lake.replace("activity_daily", activity_of(spark).where(F.col("day") <= F.lit(MONDAY)), f"day <= '{MONDAY}'", whole=True)
    return made


def run(spark, settings, day, *, bootstrap=False):
    lake = Lake(spark, settings.lake)
    names = ("activity_daily", "forecasts", "forecast_quality", "forecast_networks")
    context = Context(
        settings=settings, lake=lake, days=Days(first=FIRST if bootstrap else day, last=day), first_day=FIRST, run_id="test",
        bootstrap=bootstrap, pins={name: version for name in names if (version := lake.version(name)) is not None},
    )  # fmt: skip
    forecast.run(context)
    return context


def stored(spark, settings, name, day):
    lake = Lake(spark, settings.lake)
    return lake.read(name, lake.version(name), f"day = '{day}'")


@pytest.fixture(scope="module")
def bootstrapped(spark, settings):
    run(spark, settings, MONDAY, bootstrap=True)
    return settings


@pytest.fixture(scope="module")
def quality(spark, bootstrapped):
    return stored(spark, bootstrapped, "forecast_quality", MONDAY).toPandas()


@pytest.fixture(scope="module")
def forecasts(spark, bootstrapped):
    return stored(spark, bootstrapped, "forecasts", MONDAY).toPandas()


def test_categories_regions_and_the_busiest_items_are_forecast(forecasts):
    names = {(kind, name) for kind, name in planted() if kind in ("category", "region")}
    names |= {("item", f"item{number}") for number in (3, 4, 5)}
    assert set(zip(forecasts.entity_type, forecasts.entity_id, strict=True)) == names
    # `search` is no target event of this log's mapping.
    assert set(forecasts.event_type) == {"check_in"}
    assert (forecasts.groupby("entity_id").size() == 14).all()
    ahead = (forecasts.forecast_date - MONDAY).map(lambda delta: delta.days)
    assert (ahead == forecasts.horizon_days).all() and set(ahead) == set(range(1, 15))


def test_a_planted_season_and_trend_is_forecast_better_than_by_the_week_before(quality):
    seasonal = quality[quality.entity_id.str.startswith(SEASONAL) & (quality.stage == "report")]
    chosen, naive = (
        seasonal[which].set_index("entity_id").mase for which in (seasonal.chosen, seasonal.method == "seasonal_naive")
    )
    assert len(chosen) == 4 and chosen.mean() < 0.85 * naive.mean()
    noise = quality[quality.entity_id.str.startswith(NOISE) & (quality.stage == "report")]
    assert noise[noise.chosen].mase.mean() < 0.85 * noise[noise.method == "seasonal_naive"].mase.mean()
    assert 0.8 < seasonal[seasonal.chosen].coverage.mean() <= 1


def test_forecasts_follow_what_was_planted(forecasts):
    day = DAYS - 1 + np.arange(14)
    expected = (20 + 0.4 * day) * (1 + 0.6 * np.sin(2 * np.pi * day / 7))
    for number in range(4):
        one = forecasts[forecasts.entity_id == f"{SEASONAL}{number}"].sort_values("horizon_days")
        assert np.abs(one.expected - expected).mean() < 0.2 * expected.mean()
    silent = forecasts[forecasts.entity_id == SILENT]
    assert (silent.expected < 1).all()
    # It began four days before; what is forecast of it is their mean.
    new = forecasts[forecasts.entity_id == NEW]
    assert set(new.method) == {"mean"} and (new.expected == 4).all()


def test_one_method_is_chosen_and_the_slow_ones_are_tried_on_the_busiest(quality):
    assert quality.groupby(["entity_id", "stage"]).chosen.sum().eq(1).all()
    stages = quality[quality.chosen].groupby("entity_id").method.nunique()
    assert (stages == 1).all()
    slow = quality[quality.method == "prophet"]
    assert slow.entity_id.nunique() == 1 and slow.entity_id.str.startswith(SEASONAL).all() and len(slow) == 2
    assert set(quality.method) == {"seasonal_naive", "ets", "lstm", "combination", "prophet"}
    # Too young to be judged at any origin.
    assert NEW not in set(quality.entity_id)
    assert (quality.origins <= 2).all()


def copied(settings, folder):
    """The lake once more, without the methods that take seconds."""
    shutil.copytree(settings.lake, folder / "lake")
    quick = settings.forecast.model_copy(update={"slow_series": 0})
    return settings.model_copy(update={"lake": str(folder / "lake"), "forecast": quick})


def test_nights_use_the_newest_selection_and_make_the_forecasts_of_a_bootstrap_with_the_same(spark, bootstrapped, tmp_path):
    nights = copied(bootstrapped, tmp_path)
    lake = Lake(spark, nights.lake)
    lake.replace("activity_daily", activity_of(spark).where(F.col("day") == F.lit(TUESDAY)), f"day = '{TUESDAY}'")
    night = run(spark, nights, TUESDAY)
    assert set(night.outputs) == {"forecasts"}
    first = stored(spark, nights, "forecasts", TUESDAY).persist()
    assert first.count() == stored(spark, nights, "forecasts", MONDAY).count()
    # The day once more, from files cut differently.
    lake.replace("activity_daily", activity_of(spark).repartition(5), f"day <= '{TUESDAY}'", whole=True)
    run(spark, nights, TUESDAY)
    comparison = compare(first, stored(spark, nights, "forecasts", TUESDAY), TABLES["forecasts"])
    assert comparison.equal and comparison.rows, comparison
    # A bootstrap selects on its own last day; a night with that selection makes the same of the day.
    run(spark, nights, TUESDAY, bootstrap=True)
    booted = stored(spark, nights, "forecasts", TUESDAY).persist()
    assert booted.count() == first.count()
    for name in ("forecast_quality", "forecast_networks"):
        moved = stored(spark, nights, name, TUESDAY).withColumn("day", F.lit(MONDAY)).persist()
        assert moved.count()
        lake.replace(name, moved, f"day <= '{TUESDAY}'")
    run(spark, nights, TUESDAY)
    comparison = compare(booted, stored(spark, nights, "forecasts", TUESDAY), TABLES["forecasts"])
    assert comparison.equal, comparison


def test_a_selection_is_made_when_a_week_begins_and_again_when_the_day_is_run_again(spark, bootstrapped, tmp_path):
    nights = copied(bootstrapped, tmp_path)
    before = stored(spark, nights, "forecast_quality", MONDAY).where("method <> 'prophet'").persist()
    assert before.count()
    run(spark, nights, MONDAY)
    again = stored(spark, nights, "forecast_quality", MONDAY)
    # The busiest series alone has lost what may have been chosen for it.
    columns, keys = ["mase", "smape", "coverage", "origins"], ["entity_id", "method", "stage"]
    one, other = (rows.toPandas().set_index(keys).sort_index() for rows in (before, again))
    pd.testing.assert_frame_equal(one[columns], other[columns], rtol=1e-12)
    assert (one.chosen != other.chosen).sum() <= 4


def test_a_short_log_has_no_selection(spark, bootstrapped, tmp_path):
    short = bootstrapped.model_copy(update={"lake": str(tmp_path / "short")})
    lake, last = Lake(spark, short.lake), FIRST + timedelta(days=20)
    lake.replace("activity_daily", activity_of(spark).where(F.col("day") <= F.lit(last)), f"day <= '{last}'", whole=True)
    context = run(spark, short, last, bootstrap=True)
    assert context.details["selection"].startswith("none: 21 days")
    assert context.rows_out == {"forecast_quality": 0, "forecast_networks": 0, "forecasts": 14 * 13}
    made = stored(spark, short, "forecasts", last).select("method").distinct().toPandas()
    assert set(made.method) <= {"seasonal_naive", "mean"}


def test_a_log_without_times_is_skipped(make_context, make_settings):
    settings = make_settings("conf/movielens.yaml")
    with pytest.raises(Skipped, match="no times"):
        forecast.run(make_context(FIRST, settings=settings))
