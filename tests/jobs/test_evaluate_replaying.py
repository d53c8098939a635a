"""`evaluate --events` over a lake of eight users who go round a circle of twenty venues, five days long."""

import csv
import json
import logging
import re
import shutil
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
import yaml

from conf.baselines import Baselines
from conf.settings import load_settings
from jobs import clean, ingest, sequences
from jobs.evaluate import evaluate_file, versions
from jobs.evaluate.comparing import compare
from jobs.evaluate.tuning import tune_baselines
from jobs.lake import logs, runs
from jobs.lake.context import Context
from jobs.lake.runs import NIGHT
from jobs.lake.store import Days, Lake
from models import registry
from models.baselines import baseline
from models.counts import count
from models.queries import Vocabulary

DAYS = Days(first=date(2024, 1, 30), last=date(2024, 2, 3))
VENUES = tuple(f"v{number:02}" for number in range(20))
COUNTS = [40 - number for number in range(20)]
LENGTH = 8
HEADER = ["user_id", "venue_id", "category", "latitude", "longitude", "utc_time"]


def line(user, when, venue, **more):
    number = VENUES.index(venue) if venue in VENUES else 0
    row = {"user_id": user, "venue_id": venue, "category": "Cafe", "latitude": 40.7 + number / 100, "longitude": -74.0}
    return {**row, "utc_time": f"{when:%Y-%m-%dT%H:%M:%SZ}", **more}


def at(day, hour=0.0):
    return datetime(2024, 1, 30, tzinfo=UTC) + timedelta(days=day, hours=hour)


def circle():
    return [
        line(f"user{number}", at(day, 8 + 3 * step), VENUES[(number + 4 * day + step) % 20])
        for number in range(8)
        for day in range(5)
        for step in range(4)
    ]


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, HEADER)
        writer.writeheader()
        for row in rows:
            if isinstance(row, str):
                file.write(row + "\n")
            else:
                writer.writerow(row)
    return path


def vocabulary():
    return Vocabulary(
        items=VENUES, item_categories=("Cafe",) * 20, categories=("Cafe",), event_types=("check_in", "review", "click")
    )


def ranker(method):
    after = [VENUES[(number + 1) % 20] for number in range(20)]
    counts = count(vocabulary(), ("check_in", "review", "click"), (VENUES, COUNTS, COUNTS), (VENUES, after, COUNTS))
    return baseline(method, counts)


@pytest.fixture(scope="module")
def place(tmp_path_factory, spark):
    """A lake that the pipeline's first steps made of the circle, three versions in it, `markov` published."""
    folder = tmp_path_factory.mktemp("replaying")
    write_csv(folder / "history.csv", circle())
    settings = _settings(folder)
    lake, pins = Lake(spark, settings.lake), {}
    for step in (ingest, clean, sequences):
        context = Context(
            settings=settings, lake=lake, days=DAYS, first_day=DAYS.first, run_id="past", bootstrap=True, pins=dict(pins)
        )
        step.run(context)
        pins |= context.outputs
    night = runs.row("past", NIGHT, DAYS.last, first_day=DAYS.first, outputs=pins)
    logs.append(settings.lake, "runs", [night])
    for method in ("markov", "user_frequency"):
        registry.save(ranker(method), registry.version_folder(settings.lake, f"a-{method}"))
        row = {
            "model_version": f"a-{method}", "kind": "interest", "method": method, "day": DAYS.last,
            "folder": f"models/a-{method}", "trained_until": versions.midnight(DAYS.last), "settings": "{}", "metrics": "{}",
            "items": 20, "created_at": logs.now(),
        }  # fmt: skip
        logs.append(settings.lake, "model_versions", [row])
    logs.append(settings.lake, "model_versions", [{**row, "model_version": "a-labeller", "kind": "labeller"}])
    served = {
        "day": DAYS.last, "kind": "interest", "model_version": "a-markov", "decision": "published", "candidate": "a-markov",
        "reason": "a test", "run_id": "past", "decided_at": logs.now(),
    }  # fmt: skip
    logs.append(settings.lake, "publications", [served])
    return folder


def _settings(folder, *overrides, mapping="conf/sources/foursquare.yaml"):
    known = [f"lake={folder / 'lake'}", f"sources.events.path={folder / 'history.csv'}", f"sources.events.mapping={mapping}"]
    return load_settings("conf/local.yaml", [*known, f"sequences.length={LENGTH}", *overrides])


def replayed(spark, folder, file, settings=None, **more):
    """The answers of one run, as dicts of strings, and its summary."""
    summary = evaluate_file(spark, settings or _settings(folder), file, folder / "answers.csv", **more)
    with (folder / "answers.csv").open(newline="") as answers:
        assert answers.readline() == "row,user_id,event_timestamp,item_id,rank,candidates\n"
        rows = list(csv.reader(answers))
    assert not list(folder.glob(".answers*")), "no half-written file is left"
    names = ("row", "user_id", "event_timestamp", "item_id", "rank", "candidates")
    return [dict(zip(names, row, strict=True)) for row in rows], summary


def test_one_line_per_line_whatever_it_holds(place, spark, caplog):
    last = circle()[-1]
    rows = [
        line("user0", at(5, 8), VENUES[0]),  # user0 was last at v19
        line("user0", at(5, 8), VENUES[0]),
        line("a, stranger", at(5, 9), VENUES[2]),
        line("user1", at(5, 8), "elsewhere"),
        "user2,v03,Cafe",
        line("user3", at(5, 8), VENUES[3], utc_time="yesterday"),
        last,
        line("user0", at(5, 7), VENUES[19], latitude=95.0),
        line("user0", at(6, 8), VENUES[1]),
        line("user7", at(5, 8), VENUES[7]),
        line("", at(5, 8), VENUES[7]),
    ]
    before = {name: path.stat().st_mtime_ns for name, path in _files(place / "lake")}
    with caplog.at_level(logging.INFO, logger="wherewhen"):
        found, summary = replayed(spark, place, write_csv(place / "later.csv", rows))
    assert {name: path.stat().st_mtime_ns for name, path in _files(place / "lake")} == before, "the lake is not written"
    assert [row["row"] for row in found] == [str(number) for number in range(11)]
    assert found[0] == {**found[1], "row": "0"}
    assert found[0] == {
        "row": "0", "user_id": "user0", "event_timestamp": "2024-02-04T08:00:00Z", "item_id": "v00",
        "rank": "1", "candidates": "20",
    }  # fmt: skip
    assert (found[2]["user_id"], found[2]["rank"]) == ("a, stranger", "3"), "by popularity"
    assert (found[3]["item_id"], found[3]["rank"], found[3]["candidates"]) == ("elsewhere", "", "20")
    for number in (4, 5, 7, 10):
        assert (found[number]["rank"], found[number]["candidates"]) == ("", ""), number
    assert (found[4]["user_id"], found[5]["event_timestamp"]) == ("", "yesterday")
    assert found[6]["rank"] == "1", "in the lake already: asked about with what came before it"
    # v00 entered once: after it comes v01 (twice would make v00 a habit).
    assert (found[8]["rank"], found[9]["rank"]) == ("1", "1")
    counted = {name: summary[name] for name in ("model_version", "lines", "judged", "ranked")}
    assert counted == {"model_version": "a-markov", "lines": 11, "judged": 7, "ranked": 6}
    assert summary["hit@10"] == pytest.approx(6 / 7) and "replaying" in caplog.text


def _files(folder):
    return [(str(path), path) for path in sorted(folder.rglob("*")) if path.is_file()]


def direct(history, file, row, freeze):
    """Rank by the user's own counts, then the newest, then popularity, from the lines themselves."""

    def moment(one):
        return datetime.fromisoformat(one["utc_time"])

    seen, known = set(), []
    for origin, lines in (("lake", history), ("file", file)):
        for one in lines:
            same = json.dumps(one, default=str)
            if one["user_id"] == row["user_id"] and moment(one) < moment(row) and same not in seen:
                seen.add(same)
                known.append((moment(one), origin, one["venue_id"]))
    known.sort(key=lambda one: one[0])
    if freeze:
        kept, later = [], moment(row)
        for when, origin, venue in reversed(known):
            goes_on = later is not None and later - when <= timedelta(hours=24)
            later = when if goes_on else None
            kept += [venue] if goes_on or origin == "lake" else []
        venues = kept[::-1]
    else:
        venues = [venue for _, _, venue in known]
    venues = venues[-LENGTH:]
    score = {venue: COUNTS[number] / 1000 for number, venue in enumerate(VENUES)}
    score |= {venue: venues.count(venue) * 100 + place for place, venue in enumerate(venues) if venue in score}
    if row["venue_id"] not in score:
        return ""
    return str(sum(score[venue] >= score[row["venue_id"]] for venue in VENUES))


@pytest.mark.parametrize("freeze", [False, True])
def test_answers_equal_a_plain_loop_over_the_lines(freeze, place, spark):
    """Lines before, among and after the lake's events, some of them the lake's own, in no order."""
    random = np.random.default_rng(8)
    history = circle()
    rows = [
        line(f"user{random.integers(10)}", at(float(random.uniform(2, 9))), VENUES[random.integers(20)], category="Bar")
        for _ in range(120)
    ]
    rows += [history[number] for number in random.integers(0, len(history), 20)] + rows[:10]
    random.shuffle(rows)
    found, _ = replayed(
        spark, place, write_csv(place / "mixed.csv", rows), model="a-user_frequency", freeze_history=freeze, hide_time=freeze
    )
    text = [{name: str(value) for name, value in row.items()} for row in rows]
    past = [{name: str(value) for name, value in row.items()} for row in history]
    assert [row["rank"] for row in found] == [direct(past, text, row, freeze) for row in text]
    assert len({row["rank"] for row in found}) > 10


def test_later_lines_and_the_answers_own_columns_do_not_matter(place, spark):
    random = np.random.default_rng(9)
    rows = [line(f"user{random.integers(4)}", at(5 + number / 10), VENUES[random.integers(20)]) for number in range(40)]
    whole, _ = replayed(spark, place, write_csv(place / "whole.csv", rows))
    scrambled = [dict(row) for row in rows[:25]]
    newest = {row["user_id"]: row for row in scrambled}
    for row in newest.values():
        row |= {"latitude": -33.9, "longitude": 151.2, "category": "Opera"}
    cut, _ = replayed(spark, place, write_csv(place / "cut.csv", scrambled))
    assert [row["rank"] for row in cut] == [row["rank"] for row in whole[:25]]


def test_lines_of_json_that_ask_nothing_and_lines_that_are_none(place, spark):
    settings = _settings(place, mapping="conf/sources/simulated.yaml")
    event = {"user_id": "user0", "item_id": "v00", "event_type": "check_in", "event_timestamp": "2024-02-04T08:00:00Z"}
    rows = [
        event,
        {**event, "event_type": "view", "item_id": "v05"},
        {**event, "event_type": "no such"},
        {**event, "item_id": None},
    ]
    text = "\n".join(json.dumps(row) for row in rows) + '\n{"user_id": "user0", "item\n'
    (place / "later.json").write_text(text)
    found, summary = replayed(spark, place, place / "later.json", settings)
    assert [(row["rank"], row["candidates"]) for row in found] == [("1", "20"), ("", ""), ("", ""), ("", ""), ("", "")]
    assert (summary["lines"], summary["judged"]) == (5, 1) and found[1]["item_id"] == "v05"


def test_parquet_with_items_that_are_taken_once(place, spark):
    """Seen items are left out: those of the lake (its last target type is another here) and of the file."""
    import pandas as pd

    start = int(at(5).timestamp() * 1000)
    rows = [("user0", "v00", start), ("user0", "v01", start + 1000), ("user0", "v00", start + 2000), ("new", "v19", start)]
    columns = {"category": "Cafe", "rating": 5, "review_full": "fine", "product": "{}"}
    table = pd.DataFrame(rows, columns=["user_id", "parent_asin", "timestamp_ms"]).assign(**columns)
    table.to_parquet(place / "reviews.parquet")
    settings = _settings(place, mapping="conf/sources/amazon.yaml")
    found, _ = replayed(spark, place, place / "reviews.parquet", settings, model="popularity")
    assert [row["event_timestamp"] for row in found] == [str(one[2]) for one in rows]
    assert [row["candidates"] for row in found] == ["20", "19", "18", "20"]
    assert found[2]["rank"] == "19", "taken before: after all that are ranked"
    again, summary = replayed(spark, place, place / "reviews.parquet", settings, model="baseline:popularity")
    assert again == found and summary["model_version"] == "baseline:popularity"


def test_a_wide_line_is_one_question(place, spark, tmp_path):
    mapping = tmp_path / "wide.yaml"
    mapping.write_text(
        "description: clicks and purchases in one row\ntarget_events: [click, purchase]\nevents:\n  format: csv\n"
        "  options: {header: 'true'}\n  wide: {click: clicked, purchase: bought}\n  seen: view\n"
        "  columns: {user_id: user, item_id: item, event_time: time}\n"
    )
    lines = ["user0,v00,2024-02-04T08:00:00Z,1,1", "user0,v01,2024-02-04T09:00:00Z,0,0", "user0,v02,2024-02-04T10:00:00Z,0,1"]
    (tmp_path / "wide.csv").write_text("user,item,time,clicked,bought\n" + "\n".join(lines) + "\n")
    found, _ = replayed(spark, place, tmp_path / "wide.csv", _settings(place, mapping=str(mapping)))
    assert [row["rank"] == "" for row in found] == [False, True, False] and found[0]["rank"] == "1"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "nobody"}, "there is no model version nobody that ranks; there are a-markov, a-user_frequency, popularity"),
        ({"model": "a-labeller"}, "there is no model version a-labeller that ranks; there are a-markov, a-user_frequency"),
        ({"output": "folder"}, "is a folder: name a file in it"),
        ({"output": "no/such/place.csv"}, "cannot be written: No such file or directory"),
        ({"events": "nothing.csv"}, "nothing.csv does not exist"),
        ({"events": "folder"}, "--events"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(change, said, place, spark):
    (place / "folder" / "2024-01-01").mkdir(parents=True, exist_ok=True)
    write_csv(place / "few.csv", [line("user0", at(5), "v01")])
    events, output = place / change.get("events", "few.csv"), place / change.get("output", "answers.csv")
    with pytest.raises(ValueError, match=said) as wrong:
        evaluate_file(spark, _settings(place), events, output, model=change.get("model"))
    assert "\n" not in str(wrong.value)
    assert not list(place.glob(".answers*"))


def test_a_lake_without_a_finished_day_is_said(place, spark, tmp_path):
    with pytest.raises(ValueError, match="has no finished day to start from"):
        evaluate_file(spark, _settings(place, f"lake={tmp_path}"), place / "later.csv", tmp_path / "answers.csv")


def test_the_hold_out_is_compared_with_the_baselines_without_a_trace(place, spark, tmp_path):
    """A version until day 3 that knows the circle; every target event from then on, whole and by segment."""
    shutil.copytree(place, tmp_path / "copy")
    folder = tmp_path / "copy"
    settings = _settings(folder, "baselines.judged=[popularity,markov,kernels,content,item_cf]")
    registry.save(ranker("markov"), registry.version_folder(settings.lake, "cut"))
    row = {
        "model_version": "cut", "kind": "interest", "method": "transformer", "day": DAYS.last, "folder": "models/cut",
        "trained_until": versions.midnight(date(2024, 2, 2)), "settings": "{}", "metrics": "{}", "items": 20,
        "created_at": logs.now(),
    }  # fmt: skip
    logs.append(settings.lake, "model_versions", [row])
    before_all = {name: path.stat().st_mtime_ns for name, path in _files(folder / "lake")}
    output = folder / "quality.csv"
    lines = compare(spark, settings, output)
    assert {name: path.stat().st_mtime_ns for name, path in _files(folder / "lake")} == before_all, "the lake is not written"
    with output.open(newline="") as file:
        rows = {(row["model_version"], row["segment"], row["metric"], row["k"]): row for row in csv.DictReader(file)}
    judged = {"cut", *(f"baseline:{name}" for name in ("popularity", "markov", "kernels", "content", "item_cf"))}
    assert {name for name, *_ in rows} == judged
    whole = rows["cut", "all", "hit", "1"]
    assert (whole["events"], whole["users"], float(whole["value"])) == ("64", "8", 1.0), "two days of four events each"
    behind = rows["baseline:popularity", "all", "ndcg_behind", "10"]
    lead = float(rows["cut", "all", "ndcg", "10"]["value"]) - float(rows["baseline:popularity", "all", "ndcg", "10"]["value"])
    assert float(behind["value"]) == pytest.approx(lead) and 0 < float(behind["lower"]) <= lead
    for dimension in ("slot", "item", "known", "active"):
        parts = [row for (name, segment, metric, _), row in rows.items() if name == "cut" and segment.startswith(dimension)]
        assert sum(int(row["events"]) for row in parts if row["metric"] == "ndcg") == 64, dimension
    assert "after 2024-02-02: 64 target events of 8 users" in lines[0] and "behind by" in lines[2]
    assert any("weekday_morning" in line for line in lines)

    hidden = compare(spark, settings, None, hide_time=True, freeze_history=True)
    assert "(time hidden, history frozen)" in hidden[0]

    found = tune_baselines(spark, settings, ["markov", "item_cf"], draws=2)
    told = dict(re.findall(r"#   (\w+): [\d.]+ as it is, ([\d.]+) with these", found))
    before = dict(re.findall(r"#   (\w+): ([\d.]+) as it is", found))
    assert set(told) == {"markov", "item_cf"} and all(float(told[name]) >= float(before[name]) for name in told)
    best = Baselines.model_validate(yaml.safe_load(found)["baselines"])
    assert best.kernels == Baselines().kernels and found == tune_baselines(spark, settings, ["markov", "item_cf"], draws=2)
    assert {name: path.stat().st_mtime_ns for name, path in _files(folder / "lake")} == before_all, "nothing is written"
    with pytest.raises(ValueError, match="popularity: no baseline with numbers to tune; these are markov, kernels"):
        tune_baselines(spark, settings, ["popularity"], draws=2)
    with pytest.raises(ValueError, match="is a folder: name a file in it"):
        compare(spark, settings, folder)
    with pytest.raises(ValueError, match="has no version to judge"):
        compare(spark, _settings(place), None)
