"""The index of nights: what `runs` tells of each day, curves with gaps, links to the pages that are there."""

import json
import re
from datetime import UTC, date, datetime, timedelta

import pytest

from conf.settings import SettingsError, load_settings
from jobs.seeing.days import days_page

NOW = datetime(2024, 6, 20, 1, 0, tzinfo=UTC)
FIRST = date(2024, 6, 14)


def record(on, step, seconds=10.0, status="done", first_day=None, hour=1, **details):
    finished = datetime(on.year, on.month, on.day, hour, tzinfo=UTC)
    return {"day": on, "first_day": first_day or on, "step": step, "status": status, "seconds": seconds,
            "details": json.dumps(details), "finished_at": finished}  # fmt: skip


def night(number, ndcg=0.3, **evaluated):
    day = FIRST + timedelta(days=number)
    counted = {"conservation": {str(day): {"rows": 1000 + number, "quarantined": 7}}}
    judged = {"decision": "published", "model_version": "v1", "measure": "ndcg@10", "day": {"v1": ndcg, "baseline:markov": 0.9}}
    return [
        record(day, "clean", 30.0 + number, **counted),
        record(day, "evaluate", 20.0, **{**judged, **evaluated}),
        record(day, "report", 2.0, users=400 + number),
    ]


def rows_of(page):
    return [re.sub(r"<[^>]+>|\s+", " ", row) for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)]


def lines_of(page):
    return [line.split(" ") for line in re.findall(r'<polyline points="([^"]*)"', page)]


def test_a_row_a_day_the_newest_first():
    later = FIRST + timedelta(days=1)
    runs = [*night(0), *night(1, decision="refused")]
    runs += [record(FIRST, "night", 999.0), record(FIRST, "score", status="refreshed"), record(later, "clean", 500.0, hour=0)]
    runs += [record(later, "export", 1.0, sinks={"shop<b>": "cannot be reached", "files": 12})]
    runs += [record(later, "drift", 1.0, drift=[{}, {}]), record(later, "train", 4.0, status="failed")]
    page = days_page(runs, {FIRST: "2024-06-14.html"}, {later: 9}, NOW)
    heading, newest, oldest = rows_of(page)
    assert "ndcg@10" in heading
    assert " ".join(newest.split()) == (
        "2024-06-15 1,001 7 9 0.3000 refused 59.0 s ✗ train failed ✗ shop&lt;b&gt; not served 2 past their bounds"
    ), "the newest record of each step; users with lists as told"
    assert " ".join(oldest.split()) == "2024-06-14 1,000 7 400 0.3000 published 52.0 s"
    assert re.findall(r'href="([^"]*)"', page) == ["2024-06-14.html"], "what is not there is not linked"
    assert "script" not in page and "<b>" not in page


def test_curves_leave_out_what_is_not_known_and_a_bootstrap():
    runs = [row for number, ndcg in enumerate([0.2, 0.4, None, 0.1]) for row in night(number, ndcg)]
    runs[0] = {**runs[0], "first_day": FIRST - timedelta(days=30)}
    seconds, *value = lines_of(days_page(runs, {}, {}, NOW))
    assert len(seconds) == 3 and seconds[-1] == "1000.0,0.0", "the last of the three was the longest"
    assert value == [["0.0,60.0", "333.3,0.0"], ["1000.0,90.0", "1000.0,90.0"]], "from 0; a gap where nothing was judged"
    assert lines_of(days_page(night(0), {}, {}, NOW)) == [], "one day is no curve"


def test_only_one_measure_is_shown_and_a_baseline_is_known_by_its_name():
    by_name = {"decision": "baseline", "model_version": "baseline-markov-0f3a"}
    page = days_page([*night(0, measure="mrr"), *night(1), *night(2, **by_name)], {}, {}, NOW)
    newest, middle, oldest = (" ".join(row.split()) for row in rows_of(page)[1:])
    assert " 0.9000 baseline " in newest and " 0.3000 published " in middle and " – published " in oldest
    unclean = [record(FIRST, "score", 5.0)]
    assert rows_of(days_page(unclean, {}, {}, NOW))[1].split()[1:4] == ["–", "–", "–"]


def test_nothing_has_run_yet():
    page = days_page([], {}, {}, NOW)
    assert len(rows_of(page)) == 1 and "0 days" in page


def test_pages_of_days_lie_beside_their_index(tmp_path):
    report = load_settings(overrides=[f"report.path={tmp_path}/[a]/night-{{day}}.html"]).report
    assert report.page(FIRST) == tmp_path / "[a]" / "night-2024-06-14.html" and report.index == tmp_path / "[a]" / "index.html"
    (tmp_path / "[a]").mkdir()
    for name in ("night-2024-06-14.html", ".night-2024-06-14.html.7", "night-of-all.html", "index.html"):
        (tmp_path / "[a]" / name).touch()
    (tmp_path / "[a]" / "night-2024-06-15.html").mkdir()
    assert {path.name for path in report.pages()} == {"night-2024-06-14.html", ".night-2024-06-14.html.7"}
    assert load_settings(overrides=["report.path=one.html"]).report.index is None
    with pytest.raises(SettingsError, match=r"report\.path: .*in the file's name alone"):
        load_settings(overrides=["report.path=out/{day}/report.html"])
