"""A series as a chart: days as bars, trend and season as lines, anomalies, change of level, forecast with its interval.

Places are in thousandths of the chart's box, from its left and its top: the page stretches the box, not the letters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

from jobs.seeing.series import Series

SIDE = 1000
_ROOM_ABOVE = 1.08
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

View = dict[str, Any]


def chart(series: Series) -> View:
    """All that the page draws of a series: plain values, its lines as SVG path data."""
    end = max([series.last, *(row["date"] for row in series.forecast)])
    days = (end - series.first).days + 1
    offset = len(series.counts) - len(series.trend)
    both = [trend + season for trend, season in zip(series.trend, series.season, strict=True)]
    top = _ROOM_ABOVE * max([1.0, *series.counts, *both, *(row["upper"] or row["expected"] for row in series.forecast)])

    def x(number: float) -> float:
        return round(SIDE * number / days, 1)

    def y(value: float) -> float:
        return round(SIDE * (1 - max(value, 0.0) / top), 1)

    ahead = [((row["date"] - series.first).days, row) for row in series.forecast]
    known = [(number, row) for number, row in ahead if row["lower"] is not None and row["upper"] is not None]
    band = [(x(number + 0.5), y(row["upper"])) for number, row in known]
    band += [(x(number + 0.5), y(row["lower"])) for number, row in reversed(known)]
    return {
        "name": series.event_type.replace("_", " "),
        "first": series.first,
        "last": series.last,
        "total": sum(series.counts),
        "bars": "".join(
            f"M{x(number + 0.1)} {SIDE}V{y(count)}H{x(number + 0.9)}V{SIDE}z"
            for number, count in enumerate(series.counts)
            if count
        ),
        "trend": line([(x(offset + number + 0.5), y(value)) for number, value in enumerate(series.trend)]),
        "seasonal": line([(x(offset + number + 0.5), y(value)) for number, value in enumerate(both)]),
        "anomalies": [
            {**row, "x": x((row["date"] - series.first).days + 0.5), "y": y(row["events"])} for row in series.anomalies
        ],
        "change": _change(series, x),
        "forecast": line([(x(number + 0.5), y(row["expected"])) for number, row in ahead]),
        "band": line(band, closed=True),
        "forecast_method": series.forecast[0]["method"] if series.forecast else None,
        "forecast_days": len(series.forecast),
        "now": x(len(series.counts)),
        "heights": [{"y": y(value), "text": f"{value:g}"} for value in ticks(top)],
        "dates": [{"x": x((day - series.first).days), "text": text} for day, text in dates(series.first, end)],
        "facts": series.facts,
        "week": _columns(series.facts.get("season") or (), _WEEKDAYS),
        "hours": _columns(series.hours if any(series.hours) else (), [f"{hour:02d}" for hour in range(24)]),
        "days": _read_out(series, end),
    }


def line(points: Sequence[tuple[float, float]], *, closed: bool = False) -> str:
    """Points as SVG path data."""
    return "M" + "L".join(f"{x} {y}" for x, y in points) + ("z" if closed else "") if points else ""


def _change(series: Series, x: Any) -> View | None:
    if series.change is None:
        return None
    day, ratio = series.change["date"], math.exp(series.change["log_ratio"])
    return {"x": x((day - series.first).days), "date": day, "ratio": ratio, "p": series.change["p"]}


def ticks(top: float) -> list[float]:
    """Three to five round values above 0: steps of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(top / 3))
    step = next(size * power for size in (1, 2, 5, 10) if top / (size * power) <= 5)
    return [step * number for number in range(1, int(top / step) + 1)]


def dates(first: date, last: date) -> list[tuple[date, str]]:
    """Mondays of a few weeks, firsts of months where there are many."""
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    if len(days) <= 70:
        mondays = [day for day in days if day.weekday() == 0]
        return [(day, f"{day.day} {day:%b}") for day in mondays[:: max(1, len(mondays) // 5)]]
    firsts = [day for day in days if day.day == 1]
    return [(day, f"{day:%b %Y}" if day.month == 1 else f"{day:%b}") for day in firsts[:: max(1, len(firsts) // 6)]]


def _columns(values: Sequence[float], names: Sequence[str]) -> list[View]:
    """Small columns from 0, up or down, in thousandths of their box."""
    if not values:
        return []
    top, bottom = max(0.0, *values), min(0.0, *values)
    room = (top - bottom) or 1.0
    zero = SIDE * top / room
    return [
        {
            "name": name,
            "value": value,
            "y": round(min(zero, SIDE * (top - value) / room), 1),
            "height": round(SIDE * abs(value) / room, 1),
        }
        for name, value in zip(names, values, strict=True)
    ]


def _read_out(series: Series, end: date) -> View:
    """What the script tells of the day under the pointer."""
    offset = len(series.counts) - len(series.trend)
    expected = {row["date"]: row for row in series.forecast}
    ahead = [series.last + timedelta(days=number + 1) for number in range((end - series.last).days)]
    rows = [expected.get(day) for day in ahead]
    return {
        "first": series.first.isoformat(),
        "counts": list(series.counts),
        "trend": [*[None] * offset, *(round(value, 2) for value in series.trend)],
        "forecast": [row and [row["expected"], row["lower"], row["upper"]] for row in rows],
        "anomalies": [(row["date"] - series.first).days for row in series.anomalies],
    }
