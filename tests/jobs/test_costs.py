"""What nights took, and what is foretold from it."""

import json
from datetime import UTC, date, datetime, timedelta

import pytest

from conf.settings import load_settings
from jobs import costs, planning
from jobs.costs import nights, usual
from jobs.lake import logs

FIRST = date(2024, 6, 10)


def record(day, step, seconds, memory=900.0, **more):
    return {
        "run_id": f"r{day}", "step": step, "day": day, "first_day": day, "status": "done", "settings_hash": "s",
        "code_version": "c", "inputs": {}, "outputs": {}, "rows_out": {}, "rows_in": None, "details": "{}", "seconds": seconds,
        "peak_memory_mb": memory, "error": None, "finished_at": datetime(2024, 6, 20, tzinfo=UTC), **more,
    }  # fmt: skip


def week(seconds=(10.0, 12.0, 11.0, 50.0), rows=(4000, 5000, 6000, 5000)):
    days = [FIRST + timedelta(days=number) for number in range(len(seconds))]
    made = [record(day, "clean", one) for day, one in zip(days, seconds, strict=True)]
    return made + [record(day, "ingest", 6.0, rows_in=landed) for day, landed in zip(days, rows, strict=True)]


def test_a_step_is_to_take_what_it_took_in_the_middle_night():
    again = record(FIRST, "clean", 20.0, finished_at=datetime(2024, 6, 21, tzinfo=UTC))
    other = [record(FIRST, "clean", 7.0, status="failed"), record(FIRST, "night", 7.0)]
    known = nights([*week(), again, *other])
    assert known[FIRST]["clean"]["seconds"] == 20.0, "the newest record of what is done"
    clean = usual(known)["clean"]
    assert (clean.seconds, clean.most, clean.memory_mb) == (16.0, 50.0, 900.0)
    assert usual(known, before=FIRST + timedelta(days=2))["clean"].seconds == 16.0
    assert usual(known, before=FIRST) == {}
    # A step run again on the day of a bootstrap makes no night of it.
    day = FIRST - timedelta(days=1)
    begun = [record(day, "clean", 70.0, first_day=date(2024, 1, 1)), record(day, "report", 7.0)]
    assert nights([*week(), *begun]) == nights(week())
    many = nights(week(seconds=[1.0] * 5 + [3.0] * costs.NIGHTS, rows=[1] * (5 + costs.NIGHTS)))
    assert usual(many)["clean"].most == usual(many)["clean"].seconds == 3.0, "of the newest alone"


def test_a_plan_from_the_lakes_own_nights(tmp_path):
    settings = load_settings(overrides=[f"lake={tmp_path / 'lake'}"])
    with pytest.raises(ValueError, match="has no night to go by"):
        planning.plan(settings)
    logs.append(settings.lake, "runs", week())
    plan = planning.plan(settings)
    lines = planning.as_text(plan, None).splitlines()
    assert lines[0] == "The next night, as the last 4 nights went, 2024-06-10 to 2024-06-13:"
    shown = ["ingest 6.0 s 6.0 s 900", "clean 11.5 s 50.0 s 900", "all 17.5 s 56.0 s 900"]
    assert [" ".join(line.split()) for line in lines[-3:]] == shown
    told = planning.as_json(plan)
    assert json.loads(json.dumps(told)) == told and told["seconds"] == 17.5 and told["nights"][0] == "2024-06-10"


def test_durations_are_read_at_a_glance():
    assert [costs.duration(one) for one in (3.21, 75, 3720, 200_000)] == ["3.2 s", "1 min 15 s", "1 h 02 min", "55 h 33 min"]
