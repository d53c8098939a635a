"""Series as charts: counts, the step's own trend and season, what the tables mark, and forecasts."""

from __future__ import annotations

import re
from datetime import date, timedelta

import numpy as np
import pytest

from conf.settings import SettingsError
from jobs.seeing.chart import chart
from jobs.seeing.entities import Entity, chosen
from jobs.seeing.reading import Reader
from jobs.seeing.series import Series, near, series_of
from jobs.time_series.shape import trend_and_season

LAST = date(2024, 6, 16)
FIRST = LAST - timedelta(days=90)
COUNTS = [10 + number // 10 + (6 if (FIRST + timedelta(days=number)).weekday() == 5 else 0) for number in range(91)]
CAFE = Entity(kind="category", id="Café <b>", label="Café <b>")


def features(**more):
    return {
        "entity": f"category:{CAFE.id}", "entity_type": "category", "entity_id": CAFE.id, "event_type": "click",
        "observed_days": 91, "events_7d": 5, "events_28d": 9, "level": 10.0, "recent": [], "day": LAST, **more,
    }  # fmt: skip


@pytest.fixture
def lake(small_lake):
    """A quarter of one category's clicks, with two days that stood out, one of them copied on a keyframe day."""
    daily = small_lake.write(
        "activity_daily",
        *(
            {"entity_type": "category", "entity_id": CAFE.id, "event_type": "click", "event_date": day, "local_hour": 9,
             "events": count, "day": day}
            for number, count in enumerate(COUNTS) for day in [FIRST + timedelta(days=number)]
        ),
        {"entity_type": "category", "entity_id": CAFE.id, "event_type": "view", "event_date": LAST, "events": 1, "day": LAST},
        {"entity_type": "category", "entity_id": "Bar", "event_type": "click", "event_date": LAST, "events": 9, "day": LAST},
    )  # fmt: skip
    stood_out, copied = LAST - timedelta(days=30), date(2024, 6, 1)
    described = small_lake.write(
        "time_series_features",
        features(day=stood_out, is_anomaly=True, expected=3.5, anomaly=6.0),
        features(day=copied, changed_on=stood_out, is_anomaly=True, expected=3.5, anomaly=6.0),
        features(day=LAST, expected=9.0, anomaly=5.0, is_anomaly=True, change_days_ago=40, change_p=0.001,
                 change_log_ratio=0.7),
        features(day=LAST, event_type="view", change_days_ago=40, change_p=0.5, change_log_ratio=0.7),
    )  # fmt: skip
    ahead = {"entity_type": "category", "entity_id": CAFE.id, "event_type": "click", "method": "ets", "expected": 21.5,
             "lower": 15.0, "upper": 28.0}  # fmt: skip
    weeks = [LAST - timedelta(days=7), LAST]
    forecast = small_lake.write(
        "forecasts",
        *({**ahead, "forecast_date": day + timedelta(days=days), "horizon_days": days, "day": day}
          for day in weeks for days in range(1, 15)),
    )  # fmt: skip
    wrote = {"activity_daily": daily, "time_series_features": described, "forecasts": forecast}
    small_lake.finish(LAST, wrote, step="night", first_day=FIRST)
    small_lake.finish(FIRST, {}, step="ingest", first_day=FIRST)
    return small_lake


def test_counts_are_those_of_the_days_and_trend_and_season_those_of_the_step(lake):
    [clicks, views] = series_of(Reader.of(lake.settings), [CAFE], 91)[CAFE]
    assert (clicks.event_type, clicks.first, clicks.last) == ("click", FIRST, LAST) and clicks.counts == COUNTS
    assert clicks.hours[9] == sum(COUNTS) and sum(clicks.hours) == sum(COUNTS) and views.counts == [*[0] * 90, 1]
    described = trend_and_season(np.array(COUNTS, dtype=float)[:, None], np.array([(LAST - date(1970, 1, 1)).days]))
    assert clicks.trend[-1] == pytest.approx(described["trend"][0])
    # LAST is a Sunday: the last seven days begin with a Monday.
    assert clicks.season[-7:] == pytest.approx(described["season"][0])


def test_fewer_days_are_described_by_as_many_as_the_table_takes(lake):
    reader = Reader.of(lake.settings)
    [whole, _], [short, _] = (series_of(reader, [CAFE], days)[CAFE] for days in (91, 28))
    assert short.counts == COUNTS[-28:] and list(short.trend) == list(whole.trend[-28:])


def test_days_are_marked_where_the_table_says_so_and_once(lake):
    [clicks, views] = series_of(Reader.of(lake.settings), [CAFE], 91)[CAFE]
    assert [(row["date"], row["expected"]) for row in clicks.anomalies] == [(LAST - timedelta(days=30), 3.5), (LAST, 9.0)]
    view = chart(clicks)
    assert [(one["date"], one["events"]) for one in view["anomalies"]] == [
        (LAST - timedelta(days=30), COUNTS[60]),
        (LAST, COUNTS[90]),
    ]
    assert view["anomalies"][1]["x"] == pytest.approx(1000 * 90.5 / (91 + 14), abs=0.1) and views.anomalies == []
    assert view["days"]["anomalies"] == [60, 90]


def test_the_newest_forecast_of_the_table_follows_the_last_day(lake):
    [clicks, views] = series_of(Reader.of(lake.settings), [CAFE], 28)[CAFE]
    assert [row["date"] for row in clicks.forecast] == [LAST + timedelta(days=days) for days in range(1, 15)]
    assert views.forecast == [] and chart(views)["band"] == ""
    view = chart(clicks)
    assert (view["forecast_method"], view["forecast_days"]) == ("ets", 14) and view["days"]["forecast"] == [
        [21.5, 15.0, 28.0]
    ] * 14


def test_a_change_of_level_is_drawn_where_it_is_no_chance(lake):
    [clicks, views] = series_of(Reader.of(lake.settings), [CAFE], 91)[CAFE]
    change = chart(clicks)["change"]
    assert change["date"] == LAST - timedelta(days=40) and change["ratio"] == pytest.approx(2.01, abs=0.01)
    assert chart(views)["change"] is None, "p = 0.5"


def test_of_several_entities_each_has_its_own(lake):
    bar, nothing = (Entity(kind="category", id=name, label=name) for name in ("Bar", "it's nothing"))
    found = series_of(Reader.of(lake.settings), [CAFE, bar, nothing], 28)
    assert [one.counts[-1] for one in found[bar]] == [9] and len(found[CAFE]) == 2 and found[nothing] == []
    assert near(Reader.of(lake.settings), Entity(kind="category", id="Caffé <b", label="")) == "; did you mean Café <b>?"
    assert near(Reader.of(lake.settings), Entity(kind="user", id="u", label="u")) == ""


def series(**more):
    valid = {"event_type": "click", "first": FIRST, "counts": [4, 0, 8], "hours": [0] * 24, "trend": [], "season": [],
             "anomalies": [], "change": None, "forecast": [], "facts": {}}  # fmt: skip
    return Series(**{**valid, **more})


def test_bars_are_as_high_as_their_counts():
    view = chart(series())
    tops = [1000 - float(top) for top in re.findall(r"M[\d.]+ 1000V([\d.]+)H", view["bars"])]
    assert len(tops) == 2 and tops[1] == pytest.approx(2 * tops[0], abs=0.2), "a day without events has no bar"
    assert view["total"] == 12 and view["hours"] == [] and view["trend"] == "" and view["forecast"] == ""
    assert all(0 <= one["y"] <= 1000 for one in view["heights"]) and view["heights"][-1]["text"] == "8"


def test_a_forecast_follows_the_last_day_with_its_interval():
    days = [date(2024, 3, 21) + timedelta(days=number) for number in range(14)]
    rows = [{"date": day, "method": "auto_ets", "expected": 5.0, "lower": 1.0, "upper": 20.0} for day in days]
    view = chart(series(forecast=rows))
    assert view["forecast_days"] == 14 and view["forecast_method"] == "auto_ets"
    assert view["now"] == pytest.approx(1000 * 3 / 17, abs=0.1)
    assert view["band"].endswith("z") and view["band"].count(" ") == 28 and view["forecast"].count(" ") == 14
    numbers = [float(one) for one in re.findall(r"[\d.]+", view["band"])]
    assert min(numbers) > 0 and max(numbers) < 1000, "the upper bound has room"
    assert view["days"]["forecast"] == [[5.0, 1.0, 20.0]] * 14
    assert chart(series(forecast=[{**row, "lower": None, "upper": None} for row in rows]))["band"] == ""


def test_the_season_stands_above_and_below_its_zero():
    week = chart(series(facts={"season": [2.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0]}))["week"]
    assert [one["name"] for one in week[:2]] == ["Mon", "Tue"]
    assert (week[0]["y"], week[0]["height"]) == (0.0, pytest.approx(666.7)) and week[2]["y"] == pytest.approx(666.7)


def test_whose_series_is_said_by_the_options(lake):
    def one(**given):
        return chosen(given, lake.settings)

    assert one(category="Bar") == Entity(kind="category", id="Bar", label="Bar")
    assert one(region="A/b/C", category="Bar").id == "A/b/C | Bar"
    assert one(region="A/b/C", slot="weekday_night", category=None).kind == "region_slot"
    assert one(user="42").kind == "user" and len(one(user="42").id) == 64 and one(user="42").label == "User 42"
    for given in ({}, {"category": "Bar", "item": "i"}, {"slot": "weekday_night"}, {"user": "1", "region": "x"}):
        with pytest.raises(SettingsError, match="say whose series"):
            one(**given)
    with pytest.raises(SettingsError, match="no part of the week weekday_nigt; did you mean weekday_night"):
        one(region="x", slot="weekday_nigt")
