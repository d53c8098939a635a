"""A day that did not land whole stops the night before anything is written."""

import json
import random
from dataclasses import asdict
from datetime import date, timedelta

import pytest

from conf.settings import Completeness
from jobs import ingest
from jobs.ingest.completeness import band
from jobs.ingest.survey import Fingerprint
from jobs.lake import logs, runs
from jobs.lake.context import Refused

DAY = date(2024, 3, 1)  # a Friday
TERMS = Completeness()
ROW = '{"user_id": "u", "item_id": "i", "event_type": "view", "event_timestamp": "%sT10:00:00Z"}\n'


def history(rows_of, days=28):
    """Counts of the days before DAY: rows_of(day) each."""
    return {day: rows_of(day) for day in (DAY - timedelta(days=back) for back in range(1, days + 1))}


def test_the_band_is_the_weekdays_own():
    expected = band(history(lambda day: 300 if day.weekday() >= 5 else 1000), DAY, TERMS)
    assert (expected.least, expected.most, expected.days) == (500, 2000, 28), "a quiet week-end says nothing of a Friday"
    saturday = band(history(lambda day: 300 if day.weekday() >= 5 else 1000), DAY + timedelta(days=1), TERMS)
    assert (saturday.least, saturday.most) == (150, 600)


def test_one_strange_day_does_not_move_the_band_and_days_without_rows_do_not_count():
    strange = history(lambda day: 1_000_000 if day == DAY - timedelta(days=7) else 1000)
    assert band(strange, DAY, TERMS).most == 2000
    idle = history(lambda day: 0 if day.weekday() == 0 else 1000)
    assert band(idle, DAY, TERMS) == band({day: rows for day, rows in idle.items() if rows}, DAY, TERMS)


def test_there_is_no_band_before_three_such_weekdays_and_only_the_days_before_count():
    assert band(history(lambda day: 1000, days=20), DAY, TERMS) is None
    assert band(history(lambda day: 1000, days=21), DAY, TERMS) is not None
    assert band({day + timedelta(days=60): rows for day, rows in history(lambda day: 1000).items()}, DAY, TERMS) is None
    assert band({}, DAY, TERMS) is None


@pytest.mark.parametrize("mean", [3, 20])
def test_chance_alone_hardly_ever_trips_it(mean):
    """Poisson counts: a false alarm in no night of 60, however small the world."""
    chance = random.Random(mean)

    def draw():
        return sum(chance.random() < mean / 4000 for _ in range(4000))

    alarms = 0
    for _ in range(60):
        expected = band(history(lambda day: draw()), DAY, TERMS)
        alarms += expected is not None and not expected.least <= max(draw(), 1) <= expected.most
    assert alarms == 0


def landed(root, day, rows):
    folder = root / str(day)
    folder.mkdir(parents=True)
    if rows:
        (folder / "events.json").write_text(ROW % day * rows)


@pytest.fixture
def lake(make_settings, tmp_path):
    """Settings over a lake that says of itself to have taken 40 rows a day for four weeks."""
    made = make_settings("conf/local.yaml", f"sources.events.path={tmp_path / 'landing'}")
    counts = history(lambda day: 40)
    landed(tmp_path / "landing", min(counts), 0)
    prints = {str(day): asdict(Fingerprint(rows=rows)) for day, rows in counts.items()}
    details = json.dumps({"fingerprints": prints})
    record = runs.row("h", "ingest", max(counts), first_day=min(counts), details=details)
    logs.append(made.lake, "runs", [record])
    return made


def tables(lake):
    return sorted(path.parent.name for path in lake.glob("*/_delta_log"))


def test_a_night_without_its_folder_or_with_too_few_rows_writes_nothing(make_context, lake, tmp_path, caplog):
    caplog.set_level("INFO")
    night = lambda made: make_context(DAY, first_day=DAY - timedelta(days=28), settings=made)  # noqa: E731
    landing = tmp_path / "landing"
    with pytest.raises(Refused, match=rf"landing/{DAY} is not there: wait for it.*empty folder.*run --day {DAY} --accept"):
        ingest.run(night(lake))
    accepted = night(lake.accepting())
    ingest.run(accepted)
    assert accepted.rows_out["raw_events"] == 0 and f"no folder for {DAY}: taken as empty" in caplog.text
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "lake").glob("*/_delta_log/*")}

    landed(landing, DAY, 3)
    for rows, said in ((3, "3 rows"), (4000, "4000 rows")):
        (landing / str(DAY) / "events.json").write_text(ROW % DAY * rows)
        with pytest.raises(Refused, match=rf"{DAY} has {said}, 28 days before it lead to expect 20 to 80.*wait.*--accept"):
            ingest.run(night(lake))
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "lake").glob("*/_delta_log/*")}
    ingest.run(accepted := night(lake.accepting()))
    assert accepted.rows_out["raw_events"] == 4000 and "accepted" in caplog.text
    (landing / str(DAY) / "events.json").write_text("")
    with pytest.raises(Refused, match=f"{DAY} has 0 rows"):
        ingest.run(night(lake))
    (landing / str(DAY) / "events.json").unlink()
    (landing / str(DAY) / "_SUCCESS").write_text("")
    ingest.run(empty := night(lake))
    assert empty.rows_out["raw_events"] == 0, "an empty folder is an empty day"


def test_a_whole_history_takes_missing_folders_as_empty_and_says_so(make_settings, make_context, tmp_path, caplog):
    caplog.set_level("INFO")
    landed(tmp_path / "landing", DAY, 2)
    landed(tmp_path / "landing", DAY + timedelta(days=5), 1)
    made = make_settings("conf/local.yaml", f"sources.events.path={tmp_path / 'landing'}")
    whole = make_context(DAY, DAY + timedelta(days=5), bootstrap=True, settings=made)
    ingest.run(whole)
    assert whole.rows_out["raw_events"] == 3
    assert "no folder for 2024-03-02, 2024-03-03, 2024-03-04 and 1 more days: taken as empty" in caplog.text
