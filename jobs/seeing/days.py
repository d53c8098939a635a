"""The index over the pages of all days: how each night went, from `runs` alone. It names nobody."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from jobs.costs import newest_by_day
from jobs.lake.logs import Row
from jobs.seeing.page import environment

# So many days at most, the newest.
MOST = 366
_WIDTH, _HEIGHT = 1000.0, 120.0

View = dict[str, Any]


def days_page(runs: Sequence[Row], pages: Mapping[date, str], lists: Mapping[date, int], made_at: datetime) -> str:
    """The newest day first.

    Args:
        pages: the file that each day's page is, beside the index.
        lists: users with lists, of days of which `runs` does not say it yet.
    """
    by_day = newest_by_day(row for row in runs if row["status"] != "refreshed")
    found = [_day(day, rows, pages.get(day)) for day, rows in sorted(by_day.items())][-MOST:]
    measure = next((one["measure"] for one in reversed(found) if one["measure"]), None)
    for one in found:
        one["lists"] = lists.get(one["day"], one["lists"])
        if one["measure"] != measure:
            one["value"] = None  # of another measure than the others are shown by
    charts = {
        "seconds": _line([(one["day"], None if one["is_bootstrap"] else one["seconds"]) for one in found]),
        "value": _line([(one["day"], one["value"]) for one in found]),
    }
    template = environment().get_template("seeing/days.html.jinja")
    return template.render(days=found[::-1], charts=charts, measure=measure, made_at=made_at)


def _day(day: date, rows: Mapping[str, Row], page: str | None) -> View:
    details = {step: json.loads(row["details"]) for step, row in rows.items()}
    judged = details.get("evaluate", {})
    rows_in = details.get("clean", {}).get("conservation")
    counted = {name: sum(one[name] for one in rows_in.values()) if rows_in else None for name in ("rows", "quarantined")}
    return {
        "day": day,
        "page": page,
        "is_bootstrap": any(row["first_day"] != day for row in rows.values()),
        "seconds": sum(row["seconds"] for row in rows.values()),
        "failed": sorted(step for step, row in rows.items() if row["status"] == "failed"),
        **counted,
        "lists": details.get("report", {}).get("users"),
        "decision": judged.get("decision"),
        "measure": judged.get("measure"),
        "value": _value(judged.get("day", {}), judged.get("model_version") or ""),
        "drift": len(details.get("drift", {}).get("drift", ())),
        "undelivered": _undelivered(details.get("export", {}).get("sinks")),
    }


def _value(values: Mapping[str, float], version: str) -> float | None:
    """Of what serves; the published version of a baseline is judged under the baseline's name."""
    baseline = f"baseline:{version.split('-')[1]}" if version.startswith("baseline-") else version
    return values.get(version, values.get(baseline))


def _undelivered(sinks: object) -> list[str]:
    """Of what export notes of each sink: rows, or why none were delivered."""
    return sorted(sink for sink, said in sinks.items() if isinstance(said, str)) if isinstance(sinks, dict) else []


def _line(points: Sequence[tuple[date, float | None]]) -> View | None:
    """A curve over the days, from 0: its pieces without a gap, and what stands at the ends; None for fewer than two points."""
    known = [(day, value) for day, value in points if value is not None]
    if len(known) < 2:
        return None
    first, last = known[0][0], known[-1][0]
    most = max(value for _, value in known) or 1.0
    pieces: list[list[str]] = []
    before: date | None = None
    for day, value in known:
        if before is None or day - before > timedelta(days=1):
            pieces.append([])
        pieces[-1].append(f"{_WIDTH * (day - first).days / (last - first).days:.1f},{_HEIGHT * (1 - value / most):.1f}")
        before = day
    # A day between two gaps is a point, which a line of no length with round ends shows.
    lines = [" ".join(piece if len(piece) > 1 else piece * 2) for piece in pieces]
    return {"lines": lines, "first": first, "last": last, "most": most, "newest": known[-1][1]}
