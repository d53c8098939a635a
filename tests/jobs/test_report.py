"""The page: whole, self-contained, true to the tables, and harmless whatever the data says."""

import json
import re
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import h3
import pytest

from conf.settings import load_settings
from conf.tables import TABLES
from jobs import report
from jobs.lake import logs
from jobs.lake.schema import spark_schema

DAY = date(2024, 6, 16)
NOW = datetime(2024, 6, 17, 1, 0, tzinfo=UTC)
HOSTILE = "<script>alert('x')</script> \"' & <img src=x onerror=alert(1)>"
RUN = {
    "run_id": "r1", "step": "clean", "day": DAY, "first_day": DAY, "status": "done", "settings_hash": "s", "code_version": "c",
    "inputs": {}, "outputs": {}, "rows_out": {"events": 90}, "rows_in": 100, "details": "{}", "seconds": 3.0,
    "peak_memory_mb": 900.0, "error": None, "finished_at": NOW,
}  # fmt: skip
COUNTS = {"rows": 100, "accepted": 90, "quarantined": 7, "duplicates": 3, "events": 95, "reasons": {"future": 2, "bad_time": 6}}
QUALITY = {
    "model_version": "v1", "evaluation": "day", "segment": "all",
    "metric": "ndcg", "k": 10, "value": 0.3, "lower": 0.2, "upper": 0.4,
    "events": 812, "users": 301, "day": DAY,
}  # fmt: skip
DRIFT = {
    "subject": "event_type", "measure": "psi", "value": 0.31, "chance": 0.02, "bins": 4, "rows": 95, "users": 40,
    "reference_rows": 400, "reference_users": 60, "model_version": "v0", "day": DAY,
}  # fmt: skip
ENTRY = {
    "user_id": "ab" * 32, "slot": "any", "rank": 1, "item_id": "i1", "score": 1.0, "source": "model:transformer",
    "reason": f"you visited {HOSTILE} twice", "model_version": "v1", "policy_version": None, "propensity": 1.0,
    "policy_context": None, "holdout": None,
    "gone": False, "changed_on": DAY, "day": DAY,
}  # fmt: skip
EVENT = {
    "event_id": "e", "event_timestamp": NOW, "item_id": "i1", "event_type": "check_in", "category": "Bar", "latitude": None,
    "longitude": None, "region": None, "local_timestamp": None, "slot": "weekday_evening", "value": None, "device": None,
    "scene": None, "arrived_on": DAY,
}  # fmt: skip
ITEM = {
    "item_id": "i1", "title": HOSTILE, "description": None, "category": "Bar & Grill", "brand": None, "price": None,
    "latitude": None, "longitude": None, "tags": None, "attributes": None, "gone": False, "changed_on": DAY, "day": DAY,
}  # fmt: skip


class Page(HTMLParser):
    """Tags with their attributes, and the text that a reader sees."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self._hidden, self._open = [], [], 0, []
        self.feed(text)
        assert self._open == [], "every tag is closed"
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._hidden += tag == "style"
        if tag not in ("meta", "rect", "line", "br", "img", "link"):
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        self._hidden -= tag == "style"
        if tag not in ("rect", "line"):
            assert self._open.pop() == tag

    def handle_data(self, data):
        if not self._hidden:
            self.words.append(data)


def write(context, name, *rows):
    values = [tuple(row[column] for column in TABLES[name].names) for row in rows]
    context.write(name, context.spark.createDataFrame(values, spark_schema(TABLES[name])))


def page_of(context):
    report.run(context)
    text = Path(context.settings.report.path).read_text(encoding="utf-8")
    page = Page(text)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "img", "link", "iframe", "object", "form", "a"})
    names = {name for _, attributes in page.tags for name in attributes}
    assert names.isdisjoint({"src", "href", "srcset"}) and not any(name.startswith("on") for name in names)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert not re.search(r"url\(|@import|https?:", style)
    return page


def test_the_page_tells_the_night(make_context):
    context = make_context(DAY)
    root, other = context.lake.root, "cd" * 32
    write(context, "items", ITEM)
    write(
        context, "recommendations", ENTRY, {**ENTRY, "rank": 2, "item_id": "i2"}, {**ENTRY, "slot": "weekday_evening"},
        {**ENTRY, "slot": "weekend_night"}, {**ENTRY, "user_id": other},
    )  # fmt: skip
    sequence = {"user_id": ENTRY["user_id"], "events": [EVENT] * 3, "seen": None, "events_total": 3, "gone": False,
                "changed_on": DAY, "day": DAY}  # fmt: skip
    write(
        context,
        "user_sequences",
        sequence,
        {**sequence, "user_id": other, "events": [{**EVENT, "slot": None}], "events_total": 1},
    )
    write(
        context, "model_quality", QUALITY,
        {**QUALITY, "model_version": "baseline:markov", "value": 0.25, "lower": None, "upper": None},
        {**QUALITY, "metric": "hit", "value": 0.4321}, {**QUALITY, "segment": "slot=weekday_night", "value": 0.7777},
        {**QUALITY, "evaluation": "paired", "metric": "ndcg@10_difference"},
    )  # fmt: skip
    write(
        context, "drift", DRIFT, {**DRIFT, "measure": "kl", "value": 0.1},
        {**DRIFT, "subject": "lists", "measure": "new_items", "value": None, "chance": None},
    )  # fmt: skip
    details = json.dumps({"conservation": {"2024-06-16": COUNTS}})
    logs.append(root, "runs", [
        {**RUN, "step": "train", "seconds": 74.0, "rows_out": {}, "peak_memory_mb": None},
        {**RUN, "details": "{}", "seconds": 99.0, "finished_at": datetime(2024, 6, 17, tzinfo=UTC)},
        {**RUN, "details": details},
        {**RUN, "step": "text", "status": "skipped", "details": json.dumps({"note": f"no texts {HOSTILE}"})},
        {**RUN, "step": "night", "seconds": 1000.0},
    ])  # fmt: skip
    published = {"kind": "interest", "candidate": "v1", "run_id": "r1", "model_version": "v0", "decided_at": NOW}
    logs.append(root, "publications", [
        {**published, "day": date(2024, 6, 1), "decision": "published", "reason": "old"},
        {**published, "day": DAY, "decision": "refused", "reason": "ndcg@10 fell by 3%"},
    ])  # fmt: skip
    done = {"run_id": "r1", "day": DAY, "table_name": "recommendations", "table_version": 1, "finished_at": NOW, "error": None}
    logs.append(root, "export_log", [
        {**done, "sink": "files", "rows": 5, "status": "done"},
        {**done, "sink": "shop", "rows": 0, "status": "failed", "error": "cannot be reached"},
    ])  # fmt: skip
    page = page_of(context)

    assert "Night of Sunday, 16 June 2024" in page.text
    assert "2 users with lists, 2 of them changed" in page.text and "5 recommendations in 4 lists" in page.text
    assert "95 events tonight, 4 known in all" in page.text
    assert "100 rows = 90 accepted + 7 quarantined + 3 duplicates ✓ none lost" in page.text
    assert re.search("bad_time 6 future 2", page.text), "reasons, most rows first"
    assert "what served before goes on serving" in page.text and "ndcg@10 fell by 3%" in page.text
    assert re.search(r"model v1 0.3000 0.4321 .*markov baseline 0.2500 –", page.text)
    assert "unknown ranks since 2024-06-01" in page.text, "the same version was decided for twice"
    assert "812 events of 301 users" in page.text and "difference" not in page.text
    assert "3 events; most often on weekday evenings; Bar 3×" in page.text
    assert "abababab…" in page.text and "ab" * 32 not in page.text
    assert page.text.count(HOSTILE) == 8, "as titles, in reasons and in a note, shown as it is"
    assert "weekend nights" not in page.text, "of a card only `any` and the slot of most events"
    assert "files recommendations 5 ✓ delivered" in page.text and "✗ failed cannot be reached" in page.text
    assert (
        "clean 3.0 s 900 MiB events 90" in page.text and "train 1 min 14 s –" in page.text and "no texts <script>" in page.text
    )
    assert re.search("event type psi 0.3100 0.2500 past its bound event type kl 0.1000 0.1250 lists new items", page.text)
    assert "– 0.8000 nothing to compare with" in page.text
    assert context.details["report"] == context.settings.report.path
    leftover = [path for path in Path(context.settings.report.path).parent.glob(".report*")]
    assert leftover == []


def test_the_page_draws_when_and_where(make_context):
    context = make_context(DAY)
    user, category = ENTRY["user_id"], "Bar <b>"
    cells = sorted(h3.grid_disk(h3.latlng_to_cell(40.7, -74.0, 9), 23))  # 1,657 of them
    cell = {"region": f"US/New York/{HOSTILE}", "slot": "weekday_evening", "category": "", "events": 2, "users": 1, "day": DAY}
    write(context, "cell_daily", *({**cell, "cell": one} for one in cells))
    at_home = {**EVENT, "latitude": 40.7, "longitude": -74.0, "local_timestamp": datetime(2024, 6, 14, 20, tzinfo=UTC)}
    write(context, "user_sequences", {"user_id": user, "events": [at_home] * 3, "seen": None, "events_total": 3, "gone": False,
                                      "changed_on": DAY, "day": DAY})  # fmt: skip
    place = {"user_id": user, "place_id": 0, "latitude": 40.7, "longitude": -74.0, "radius_m": 30.0, "visits": 3, "share": 1.0,
             "slot_visits": {"weekday_evening": 3}, "main_slots": ["weekday_evening"], "role": "home", "confidence": 0.8,
             "gone": False, "changed_on": DAY, "day": DAY}  # fmt: skip
    write(context, "user_places", place, {**place, "user_id": "ff" * 32, "visits": 77})
    write(context, "recommendations", ENTRY)
    click = {"entity_type": "category", "entity_id": category, "event_type": "click"}
    many = [{**click, "event_date": DAY, "local_hour": 20, "events": 9, "day": DAY}]
    write(context, "activity_daily", *many, {**many[0], "entity_id": "Busier", "events": 90})
    unknown = dict.fromkeys(TABLES["time_series_features"].names)
    series = {**unknown, "entity": f"category:{category}", **click, "observed_days": 1, "recent": [9] * 90, "level": 9.0,
              "active_days": 1, "days_since": 0, "expected": 2.0, "anomaly": 5.0, "is_anomaly": True, "gone": False,
              "changed_on": DAY, "day": DAY, **{f"events_{days}d": 9 for days in (1, 7, 28, 90)}}  # fmt: skip
    busier = {**series, "entity": "category:Busier", "entity_id": "Busier", "is_anomaly": False, "recent": [90] * 90}
    write(context, "time_series_features", series, busier)
    page = page_of(context)

    shown = [attributes["aria-label"] for tag, attributes in page.tags if tag == "svg" and "aria-label" in attributes]
    [area] = [said for said in shown if "hexagons" in said]
    assert "3,314 events of 56 days" in area and int(re.search(r"in ([\d,]+) hexagons", area)[1].replace(",", "")) <= 1500
    assert f"where most happened in {context.settings.spatial.hotspot_window_days} days" in page.text
    labels = {attributes["for"] for tag, attributes in page.tags if tag == "label"}
    assert labels == {"area-any", "area-weekday_evening"}, "the part of the week is chosen without a script"
    assert page.text.index("Bar <b> click, 9 since 2024-06-16") < page.text.index("Busier click, 90"), "what stands out first"
    assert page.text.count("9 events, 2 expected") == 1
    assert "Map of 1 place: home with 3 visits" in shown and "home 80.0% sure 3 100.0% weekday evenings 3×" in page.text
    [hour] = [one["title"] for tag, one in page.tags if tag == "span" and one.get("class") == "cell" and "title" in one]
    assert hour == "Fri 20:00, 3 events, mostly at home"
    assert "77" not in page.text, "nobody but the users of the page"


def test_each_day_has_its_page_and_the_index_lists_them(make_context, tmp_path):
    written = {}
    for day, seconds in ((DAY, 30.0), (DAY + timedelta(days=1), 20.0)):
        context = make_context(day, settings=load_settings(overrides=[
            f"lake={tmp_path / 'lake'}", f"report.path={tmp_path}/pages/{{day}}.html", "train.tracking=null",
        ]))  # fmt: skip
        of_day = {**RUN, "day": day, "first_day": day}
        logs.append(context.lake.root, "runs", [of_day | {"seconds": seconds}, of_day | {"step": "ingest", "seconds": 4.0}])
        write(context, "recommendations", {**ENTRY, "changed_on": day, "day": day})
        write(context, "user_sequences", {"user_id": ENTRY["user_id"], "events": [EVENT], "seen": None, "events_total": 1,
                                          "gone": False, "changed_on": day, "day": day})  # fmt: skip
        report.run(context)
        assert context.details["report"] == f"{tmp_path}/pages/{day}.html" and context.details["users"] == 1
        written[day] = (tmp_path / "pages" / f"{day}.html").read_text()
    assert sorted(path.name for path in (tmp_path / "pages").iterdir()) == ["2024-06-16.html", "2024-06-17.html", "index.html"]
    links = re.findall(r'href="([^"]*)"', (tmp_path / "pages" / "index.html").read_text())
    assert links == ["2024-06-17.html", "2024-06-16.html"]
    first, second = (Page((tmp_path / "pages" / f"{day}.html").read_text()).text for day in written)
    assert "24.0 s for 2 steps, usually 34.0 s" in second and "usually" not in first
    assert re.search("clean 20.0 s 30.0 s 900 MiB", second)
    # Whoever is on the newest page may ask to be gone from it; the others show nobody.
    assert "abababab" in written[DAY] and "abababab" in second and "abababab" not in first
    assert "Users are shown on the newest page alone." in first and "Where it went" in first


def test_an_empty_lake_has_a_page_too(make_context):
    page = page_of(make_context(date(2024, 1, 30), DAY, bootstrap=True))
    assert "History up to Sunday, 16 June 2024" in page.text and "2024-01-30 to 2024-06-16 taken at once" in page.text
    for said in (
        "Nothing was cleaned",
        "Nothing is published yet",
        "No lists were written yet",
        "Drift was not",
        "No sinks in the settings",
        "No event has a place",
        "No series is described yet",
    ):
        assert said in page.text


def test_bars_are_shares_of_the_longest_and_mrr_has_no_length():
    rows = [
        {**QUALITY, "metric": "mrr", "k": 0, "value": 0.2, "lower": 0.1, "upper": 0.25},
        {**QUALITY, "metric": "mrr", "k": 0, "model_version": "baseline:a", "value": 0.1, "lower": None, "upper": None},
        {**QUALITY, "metric": "ndcg", "k": 10, "model_version": "baseline:b"},
    ]
    best, second = report.contenders(rows, "mrr", 10)
    assert best["bar"] == {"value": pytest.approx(0.8), "lower": pytest.approx(0.4), "upper": pytest.approx(1.0)}
    assert second["bar"] == {"value": pytest.approx(0.4), "lower": None, "upper": None} and second["label"] == "a"
    assert best["label"] is None and report._label("baseline-user_frequency-0f") == "user frequency, published"
    zero = [{**QUALITY, "value": 0.0, "lower": 0.0, "upper": 0.0}]
    assert report.contenders(zero, "ndcg", 10)[0]["bar"]["value"] == 0.0


def test_rows_of_a_bootstrap_are_summed_over_its_days():
    details = {"conservation": {"2024-06-15": COUNTS, "2024-06-16": {**COUNTS, "reasons": {"future": 9}}}}
    counts = report.row_counts(report.step_rows([{**RUN, "details": json.dumps(details)}]))
    assert (counts["rows"], counts["events"], counts["days"]) == (200, 190, 2)
    assert counts["reasons"] == [("future", 11), ("bad_time", 6)]
