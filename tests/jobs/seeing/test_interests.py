"""Interests over time: paths aged from the changes that were kept, why each is called so, and what is wrong in one line."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta

import deltalake
import pytest
from typer.testing import CliRunner

from jobs import cli
from jobs.lake.identities import load_key, pseudonym
from jobs.seeing.interests import as_json, as_text, picture, spark_line, why
from jobs.seeing.pages import interests_page
from jobs.seeing.reading import Reader
from jobs.seeing.trajectory import interests_of

BEGAN, CHANGED, LAST = date(2024, 4, 21), date(2024, 6, 6), date(2024, 6, 16)
HOSTILE = "<script>alert('x')</script>"
ME = pseudonym("42", load_key())


def interest(category, changed_on, long, short, **more):
    return {
        "user_id": ME, "category": category, "long_weight": long, "short_weight": short, "long_half_life_days": 60.0,
        "short_half_life_days": 7.0, "long_min_weeks": 4, "long_min_weight": 1.0, "short_min_weight": 0.5, "active_weeks": 5,
        "events": 9, "active_days": 6, "first_on": BEGAN, "last_on": changed_on, "span_days": (changed_on - BEGAN).days,
        "idle_days": 0, "known_days": (changed_on - BEGAN).days, "changed_on": changed_on, "day": changed_on, **more,
    }  # fmt: skip


@pytest.fixture
def lake(small_lake):
    """Long coffee, short museums and a cinema that is long forgotten; the state of April is there as copies alone."""
    copied = [interest("coffee", BEGAN, 4.0, 3.0, active_weeks=1, day=frame) for frame in (date(2024, 5, 1), date(2024, 6, 1))]
    version = small_lake.write(
        "user_interests",
        *copied,
        interest("coffee", CHANGED, 8.0, 2.0),
        interest(HOSTILE, CHANGED, 1.5, 1.5, active_weeks=1, first_on=CHANGED, span_days=0),
        interest("cinema", CHANGED, 0.1, 0.0, last_on=BEGAN, idle_days=46),
        {**interest("coffee", CHANGED, 99.0, 99.0), "user_id": "somebody"},
        interest("coffee", LAST + timedelta(days=1), 77.0, 77.0),
    )
    sequence = {"user_id": pseudonym("43", load_key()), "events": [], "day": LAST}
    versions = {"user_interests": version, "user_sequences": small_lake.write("user_sequences", sequence)}
    small_lake.finish(LAST, versions, step="night", first_day=date(2024, 5, 1))
    small_lake.finish(date(2024, 5, 1), {}, step="ingest", first_day=date(2024, 5, 1))
    return small_lake


def found(lake, **more):
    return interests_of(Reader.of(lake.settings), ME, **{"days": 182, "points": 364, **more})


def test_paths_are_the_changes_aged_to_each_day(lake):
    coffee, museum, cinema = found(lake)
    assert [one.category for one in (coffee, museum, cinema)] == ["coffee", HOSTILE, "cinema"]
    assert [one.now["label"] for one in (coffee, museum, cinema)] == ["long", "short", "none"]
    by_day = {moment.day: moment for moment in coffee.path}
    assert list(by_day) == [BEGAN + timedelta(days=n) for n in range((LAST - BEGAN).days + 1)]
    for moment in coffee.path:
        since, long, short = (BEGAN, 4.0, 3.0) if moment.day < CHANGED else (CHANGED, 8.0, 2.0)
        age = (moment.day - since).days
        assert moment.long_weight == pytest.approx(long * 0.5 ** (age / 60))
        assert moment.short_weight == pytest.approx(short * 0.5 ** (age / 7))
    # 3 * 2^(-18 / 7) is 0.505, and a day later it is below a half.
    labels = [by_day[BEGAN + timedelta(days=n)].label for n in (0, 18, 19, 45, 46)]
    assert labels == ["short", "short", "none", "none", "long"]
    assert [moment.long_weight for moment in museum.path[:46]] == [0.0] * 46 and museum.path[46].long_weight == 1.5
    few = found(lake, days=28, points=4)[0].path
    assert [moment.day for moment in few] == [LAST - timedelta(days=back) for back in (21, 14, 7, 0)]
    assert few[-1] == coffee.path[-1]


def test_why_and_until_when(lake):
    coffee, museum, cinema = found(lake)
    for one in (coffee, museum):
        until = one.now["label_until"]
        least, weight, half = (1.0, 8.0, 60) if one is coffee else (0.5, 1.5, 7)
        ages = [(until - CHANGED).days + n for n in (-1, 0)]
        assert weight * 0.5 ** (ages[0] / half) >= least > weight * 0.5 ** (ages[1] / half)
    assert cinema.now["label_until"] is None
    assert why(coffee.now, LAST) == (
        "active in 5 weeks of 9, last 10 days ago; long needs 4 weeks and weight 1, has 5 and 7.13; "
        f"until {CHANGED + timedelta(days=181)} if nothing happens"
    )
    assert why(museum.now, LAST).startswith(
        "active in 1 week of 2, last 10 days ago; short needs weight 0.5 of late, has 0.56; long would need 4 weeks and "
        "weight 1, has 1 and 1.34; until "
    )
    assert "short needs weight 0.5 of late, has 0.00; long needs 4 weeks and weight 1, has 5 and 0.09" in why(cinema.now, LAST)


def test_the_next_days_are_shown_where_it_was_forecast(lake):
    coffee, *_ = found(lake)
    assert coffee.ahead is None and json.loads(as_json("42", [coffee], LAST))["interests"][0]["next_days_share"] is None
    given = [
        (ME, 1, "coffee", 0.5, 0.4),
        (ME, 2, "coffee", 0.25, 0.6),
        (ME, 2, "tea", 0.7, 0.6),
        ("somebody", 1, "coffee", 1.0, 1.0),
    ]
    names = ("user_id", "horizon_days", "category", "share", "day_share")
    given += [(ME, 3, "cinema", 1.0, 0.8)]  # a day that is over
    rows = [dict(zip(names, row, strict=True)) for row in given]
    dates = {1: LAST + timedelta(days=1), 2: LAST + timedelta(days=2), 3: LAST}
    more = {"changed_on": CHANGED, "day": CHANGED}
    lake.write("interest_forecasts", *[{**row, **more, "forecast_date": dates[row["horizon_days"]]} for row in rows])
    written = ("user_interests", "user_sequences", "interest_forecasts")
    versions = {name: deltalake.DeltaTable(f"{lake.root}/{name}").version() for name in written}
    lake.finish(LAST, versions, step="night", first_day=date(2024, 5, 1))
    coffee, museum, _ = three = found(lake)
    assert coffee.ahead == pytest.approx(0.35) and museum.ahead == 0.0, "of what is forecast nothing was of it"
    assert re.search(
        r"\ncoffee +long +stable +7\.13 +0\.74 +2024-12-04 +35% +[▁-█]{57}\n", as_text("42", three, LAST, width=None)
    )
    assert picture(coffee, LAST)["ahead"] == "35% of the next days"


def test_text_json_and_page(lake):
    three = found(lake)
    text = as_text("42", three, LAST, width=None)
    assert text.startswith("User 42 at the end of 2024-06-16: 1 long, 1 short, 1 none\n")
    assert re.search(r"\ncoffee +long +stable +7\.13 +0\.74 +2024-12-04 +- +[▁-█]{57}\n    active in 5 weeks of 9", text)
    assert all(len(line) <= 80 for line in as_text("42", three, LAST, width=80).splitlines())
    assert spark_line([three[0].path[at] for at in (45, 46)]) == "▃█"
    told = json.loads(as_json("42", three[:1], LAST))
    assert told["user_id"] == "42" and told["day"] == "2024-06-16"
    [coffee] = told["interests"]
    assert coffee["label_until"] == "2024-12-04" and coffee["why"] == why(three[0].now, LAST) and ME not in json.dumps(told)
    assert coffee["path"][0] == {
        "day": "2024-04-21", "long_weight": 4.0, "short_weight": 3.0, "label": "short", "trend": coffee["path"][0]["trend"],
    }  # fmt: skip
    bands = picture(three[0], LAST)["bands"]
    assert [(one["label"], one["x"] == 0, round(one["x"] + one["width"])) for one in bands] == [
        ("short", True, round(1000 * 19 / 56)), ("long", False, 1000),
    ]  # fmt: skip
    page = interests_page("42", three, LAST)
    assert page.count('class="chart weights"') == 3 and "alert('x')" not in page and "&lt;script&gt;" in page
    assert not re.search(r"url\(|@import|https?:|fetch\(|<img|<link", page) and ME not in page


def test_a_user_without_interests_is_told_why(lake):
    for user, said in (("43", "no interests: none of the events has a category"), ("44", "is not known in .*as the log has")):
        with pytest.raises(ValueError, match=said):
            interests_of(Reader.of(lake.settings), pseudonym(user, load_key()), days=28, points=4)


def test_the_command(lake, tmp_path, monkeypatch):
    cli.register()
    run = lambda *given: CliRunner().invoke(cli.app, ["--set", f"lake={lake.root}", "interests", *given])  # noqa: E731
    assert json.loads(run("42", "--most", "1", "--format", "json").stdout)["interests"][0]["category"] == "coffee"
    page = tmp_path / "page.html"
    assert run("42", "--output", str(page)).exit_code == 0 and "coffee" in page.read_text()
    unknown = run("nobody")
    assert isinstance(unknown.exception, ValueError) and "not known" in str(unknown.exception)
