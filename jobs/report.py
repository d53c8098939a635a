"""One self-contained page about the night: what came in, what ran, how good the model is, whom it would show what."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any

from pyspark.sql import Column
from pyspark.sql import functions as F

from conf.contracts import ANY_SLOT
from jobs import costs
from jobs.bounds import Finding, judged
from jobs.lake import commits, logs
from jobs.lake.context import Context
from jobs.lake.disk import write_whole
from jobs.lake.publications import in_order
from jobs.pipeline import STEPS
from jobs.seeing import night
from jobs.seeing.days import days_page
from jobs.seeing.night import busiest_area, places_of_one, telling_series
from jobs.seeing.page import environment
from jobs.seeing.reading import Reader

Row = dict[str, Any]
LISTED = 6  # items shown of a list
_LOOKED_BACK_DAYS = 60
# Comments of the template: in whatever comes from data their signs are escaped.
_PEOPLE = re.compile("<!-- people -->.*<!-- /people -->", re.DOTALL)
_MEASURES = (("ndcg", 10), ("hit", 1), ("hit", 10), ("mrr", 0), ("coverage", 10))
_DECISIONS = {
    "published": "The new model is published.",
    "refused": "The new model is refused; what served before goes on serving.",
    "kept": "What served before goes on serving.",
    "baseline": "A baseline serves.",
    "manual": "A person chose what serves.",
    "rollback": "A person went back to an earlier version.",
}


def run(context: Context) -> None:
    content, settings = gather(context), context.settings.report
    page, path = render(content), settings.page(context.days.last)
    with commits.delivery("the report"):
        for other in settings.pages():
            if other != path:
                _forget_people(other)
        write_whole(path, page)
        if settings.index is not None:
            write_whole(settings.index, _index(context, content["totals"]["users"]))
    context.note(report=str(path), bytes=len(page.encode()), users=content["totals"]["users"])


def _forget_people(path: Path) -> None:
    """Of all days one page shows users, the newest written: who withdrew consent, or was erased, is on none of the others."""
    before = path.read_text(encoding="utf-8")
    after = _PEOPLE.sub('<p class="soft small">Users are shown on the newest page alone.</p>', before)
    if after != before:
        write_whole(path, after)


def _index(context: Context, users: int) -> str:
    """`users`: how many have lists now, which `runs` does not tell yet."""
    runs, settings = context.log_rows("runs"), context.settings.report
    there = {path.name for path in settings.pages()}
    pages = {row["day"]: name for row in runs if (name := settings.page(row["day"]).name) in there}
    return days_page(runs, pages, {context.days.last: users}, logs.now())


def gather(context: Context) -> Row:
    """Everything the page shows; plain values, bounded by steps, models and sample users."""
    day = context.days.last
    steps = step_rows(context.log_rows("runs", f"day = DATE '{day}'"))
    totals = _totals(context)
    people = _people(context, context.settings.report.users) if totals["users"] else []
    reader = _reader(context)
    return {
        "day": day,
        # Of what came in, not of this run: a page written again knows no bootstrap.
        "first_day": next((row["first_day"] for row in steps if row["step"] == "clean"), context.days.first),
        "made_at": logs.now(),
        "totals": totals,
        "rows": row_counts(steps),
        "steps": steps,
        "quality": {
            name: contenders(rows, context.settings.gate.metric, context.settings.gate.k)
            for name in ("day", "holdout")
            if (rows := _quality(context, name))
        },
        "measures": _MEASURES,
        "gate_metric": _measure_name(context.settings.gate.metric, context.settings.gate.k),
        "serving": serving(context),
        "drift": _drift(context),
        "people": people,
        "area": busiest_area(reader, context.settings),
        "series": telling_series(reader),
        "places": places_of_one(reader, {one["user_id"]: one["events_by_hour"] for one in people}),
        **_usual(context, steps),
        "exports": export_rows(context.log_rows("export_log", f"day = DATE '{day}'")),
        "sinks": len(context.settings.sinks),
    }


def _reader(context: Context) -> Reader:
    """The tables of the pictures as this run left them, read without Spark: a second, not a dozen jobs."""
    known = {name: version for name in night.TABLES if (version := context.version(name)) is not None}
    return Reader.at(context.lake.root, known, context.days.last, context.first_day)


def step_rows(runs: Sequence[Row]) -> list[Row]:
    """The newest record of each step, in the order of the graph; `share` of the slowest step's seconds."""
    newest = {row["step"]: row for row in sorted(runs, key=lambda row: row["finished_at"])}
    ordered = [newest[step.name] for step in STEPS if step.name in newest]
    slowest = max((row["seconds"] for row in ordered), default=0.0) or 1.0
    does = {step.name: step.does for step in STEPS}
    return [
        {
            **row,
            "share": row["seconds"] / slowest,
            "does": does[row["step"]],
            "details": json.loads(row["details"]),
            "rows_out": dict(row["rows_out"] or {}),
        }
        for row in ordered
    ]


def _usual(context: Context, steps: Sequence[Row]) -> Row:
    """What the steps took in the nights before; nothing of a day that is no night."""
    day = context.days.last
    since = day - timedelta(days=_LOOKED_BACK_DAYS)
    known = costs.nights(context.log_rows("runs", f"day >= DATE '{since}' AND day <= DATE '{day}'"))
    usual = costs.usual(known, before=day) if day in known else {}
    return {"usual": usual, "usual_s": sum(usual[row["step"]].seconds for row in steps if row["step"] in usual)}


def row_counts(steps: Sequence[Row]) -> Row | None:
    """Rows in, and what became of them, over the days that `clean` covered; None before it ran."""
    details: Row = next((row["details"] for row in steps if row["step"] == "clean"), {})
    days = details.get("conservation")
    if days is None:
        return None
    total = {
        name: sum(day[name] for day in days.values()) for name in ("rows", "accepted", "quarantined", "duplicates", "events")
    }
    reasons: Counter[str] = Counter()
    for day in days.values():
        reasons.update(day["reasons"])
    return {**total, "reasons": sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0])), "days": len(days)}


def contenders(rows: Sequence[Row], metric: str, k: int) -> list[Row]:
    """Models and baselines, best first by the gate's measure: its bar and all measures."""
    k = 0 if metric == "mrr" else k
    names = sorted({row["model_version"] for row in rows})
    found = []
    for name in names:
        of = {(row["metric"], row["k"]): row for row in rows if row["model_version"] == name}
        main = of.get((metric, k))
        if main is not None:
            values = {measure: of[measure]["value"] for measure in _MEASURES if measure in of}
            found.append({"name": name, "label": _label(name), "main": main, "values": values})
    longest = max([*(one["main"]["upper"] or one["main"]["value"] for one in found), 1e-9])
    for one in found:
        main = one["main"]
        one["bar"] = {bound: None if main[bound] is None else main[bound] / longest for bound in ("value", "lower", "upper")}
    return sorted(found, key=lambda one: (-one["main"]["value"], one["name"]))


def _label(version: str) -> str | None:
    """What a baseline is called, one made for the day or one that was published; None for a model."""
    if version.startswith("baseline:"):
        return version.removeprefix("baseline:").replace("_", " ")
    return f"{version.split('-')[1].replace('_', ' ')}, published" if version.startswith("baseline-") else None


def _measure_name(metric: str, k: int) -> str:
    return metric if metric == "mrr" or not k else f"{metric}@{k}"


def serving(context: Context) -> Row | None:
    """The publication in force: version, method, decision in words."""
    day = context.days.last
    newest_first = in_order(context.log_rows("publications", f"day <= DATE '{day}'"))[::-1]
    if not newest_first:
        return None
    newest = newest_first[0]
    without_break = takewhile(lambda row: row["model_version"] == newest["model_version"], newest_first)
    versions = {row["model_version"]: row for row in context.log_rows("model_versions")}
    known = versions.get(newest["model_version"], {})
    return {
        **newest,
        "said": _DECISIONS.get(newest["decision"], newest["decision"]),
        "method": known.get("method", "unknown"),
        "trained_until": known.get("trained_until"),
        "items": known.get("items"),
        "since": min(row["day"] for row in without_break),
        "of_today": newest["day"] == day,
    }


def export_rows(rows: Sequence[Row]) -> list[Row]:
    """The newest record of each sink."""
    newest = {row["sink"]: row for row in sorted(rows, key=lambda row: row["finished_at"])}
    return [newest[name] for name in sorted(newest)]


def _totals(context: Context) -> Row:
    first = (F.col("slot") == ANY_SLOT) & (F.col("rank") == 1)
    is_new = F.col("changed_on") == F.lit(context.days.last)
    lists = context.state("recommendations").agg(
        F.count_if(first).alias("users"),
        F.count_if(first & is_new).alias("changed"),
        F.count_if(F.col("rank") == 1).alias("lists"),
        F.count("*").alias("entries"),
    )
    events = context.state("user_sequences").agg(F.sum("events_total").alias("events"), F.count("*").alias("known"))
    return lists.crossJoin(events).first().asDict()  # type: ignore[union-attr]


def _quality(context: Context, evaluation: str) -> list[Row]:
    rows = context.history("model_quality").where(
        (F.col("day") == F.lit(context.days.last)) & (F.col("evaluation") == evaluation) & (F.col("segment") == "all")
    )
    return [row.asDict() for row in rows.collect()]


def _drift(context: Context) -> list[Finding]:
    rows = context.history("drift").where(F.col("day") == F.lit(context.days.last)).orderBy("subject", F.desc("measure"))
    return judged([row.asDict() for row in rows.collect()], context.settings.drift)


def _people(context: Context, count: int) -> list[Row]:
    """Some users with two of their lists: the smallest pseudonyms, which are as good as drawn by lot, and stay the same."""
    lists = context.state("recommendations")
    chosen = lists.where((F.col("slot") == ANY_SLOT) & (F.col("rank") == 1)).select("user_id").orderBy("user_id").limit(count)
    chosen = F.broadcast(chosen)
    names = context.state("items").select("item_id", "title", "category")
    shown = (
        lists.where(F.col("rank") <= LISTED).join(chosen, on="user_id", how="left_semi").join(names, on="item_id", how="left")
    )
    entries = [row.asDict() for row in shown.orderBy("user_id", "slot", "rank").collect()]
    sequences = context.state("user_sequences").join(chosen, on="user_id", how="left_semi")
    past = sequences.select(
        "user_id",
        "events_total",
        F.col("events.slot").alias("slots"),
        F.col("events.category").alias("categories"),
        F.transform("events", _by_hour).alias("by_hour"),
    )
    return [person(row.asDict(), entries) for row in past.orderBy("user_id").collect()]


def _by_hour(event: Column) -> Column:
    """Where an event was in the week and on the map: weekdays from 0, Monday."""
    local = event["local_timestamp"]
    return F.struct(
        F.weekday(local).alias("weekday"),
        F.hour(local).alias("hour"),
        event["latitude"].alias("latitude"),
        event["longitude"].alias("longitude"),
    )


def person(past: Row, entries: Sequence[Row]) -> Row:
    """One user's card: habits, and the lists for `any` and for the slot of most events."""
    slots = Counter(slot for slot in past["slots"] if slot is not None)
    categories = Counter(category for category in past["categories"] if category)
    usual = min(slots, key=lambda slot: (-slots[slot], slot), default=None)
    own = [entry for entry in entries if entry["user_id"] == past["user_id"]]
    return {
        "user_id": past["user_id"],
        "name": f"{past['user_id'][:8]}…",
        "events_by_hour": [event.asDict() for event in past["by_hour"]],
        "events": past["events_total"],
        "usual": usual,
        "categories": sorted(categories.items(), key=lambda pair: (-pair[1], pair[0]))[:3],
        "changed_on": max((entry["changed_on"] for entry in own), default=None),
        "lists": [
            {"slot": slot, "entries": found}
            for slot in (ANY_SLOT, usual)
            if slot is not None and (found := [entry for entry in own if entry["slot"] == slot])
        ],
    }


def render(content: Row) -> str:
    """The page. Whatever comes from data is escaped; an undefined name is an error."""
    return environment().get_template("report.html.jinja").render(content)
