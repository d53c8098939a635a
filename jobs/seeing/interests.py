"""A user's interests in words: for the terminal, for programs, for the page."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from datetime import date
from typing import Any

from jobs.query.rendering import aligned
from jobs.seeing.chart import SIDE, View, dates, line, ticks
from jobs.seeing.trajectory import Interest, Moment

_BLOCKS = "▁▂▃▄▅▆▇█"
_INDENT = "    "
_WIDEST = 120
_ROOM_ABOVE = 1.08
_FACTS = (
    "category", "label", "trend", "long_weight", "short_weight", "events", "active_weeks", "active_days", "first_on",
    "last_on", "idle_days", "span_days", "burstiness", "label_until",
)  # fmt: skip


def why(row: dict[str, Any], day: date) -> str:
    """Why a row of user_interests is called long, short or none, and when that ends.

    Args:
        day: the day whose end the row describes.
    """
    weeks = _week(day) - _week(row["first_on"]) + 1
    seen = f"active in {row['active_weeks']} week{_s(row['active_weeks'])} of {weeks}, last {_ago(row['idle_days'])}"
    long = f"{row['long_min_weeks']} week{_s(row['long_min_weeks'])} and weight {row['long_min_weight']:g}"
    short = f"weight {row['short_min_weight']:g}"
    has_long, has_short = f"{row['active_weeks']} and {row['long_weight']:.2f}", f"{row['short_weight']:.2f}"
    said = {
        "long": f"long needs {long}, has {has_long}",
        "short": f"short needs {short} of late, has {has_short}; long would need {long}, has {has_long}",
        "none": f"short needs {short} of late, has {has_short}; long needs {long}, has {has_long}",
    }[row["label"]]
    ends = f"; until {row['label_until']} if nothing happens" if row["label_until"] is not None else ""
    return f"{seen}; {said}{ends}"


def _week(day: date) -> int:
    """Number of the week, Monday to Sunday."""
    return (day.toordinal() - 1) // 7


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _ago(days: int) -> str:
    return "today" if days == 0 else f"{days} day{_s(days)} ago"


def spark_line(path: Sequence[Moment]) -> str:
    """The long weight as a line of blocks, the highest of them the greatest weight."""
    top = max(1e-12, *(moment.long_weight for moment in path))
    return "".join(_BLOCKS[round((len(_BLOCKS) - 1) * max(moment.long_weight, 0.0) / top)] for moment in path)


def as_text(user: str, interests: Sequence[Interest], day: date, *, width: int | None) -> str:
    """A line per interest, with why it is called so beneath."""
    first = interests[0].path[0].day
    counted = ", ".join(
        f"{number} {label}"
        for label in ("long", "short", "none")
        if (number := sum(interest.now["label"] == label for interest in interests))
    )
    names = ["category", "label", "trend", "long", "short", "label until", "next days", f"long weight from {first}"]
    rows = [
        [
            interest.category,
            interest.now["label"],
            interest.now["trend"],
            f"{interest.now['long_weight']:.2f}",
            f"{interest.now['short_weight']:.2f}",
            str(interest.now["label_until"] or "-"),
            "-" if interest.ahead is None else f"{interest.ahead:.0%}",
            spark_line(interest.path),
        ]
        for interest in interests
    ]
    columns = [list(values) for values in zip(*rows, strict=True)]
    head, *lines = aligned(names, columns, right=("long", "short", "next days"), width=width).splitlines()
    told = [f"User {user} at the end of {day}: {counted}", "", head]
    for interest, its_line in zip(interests, lines, strict=True):
        reason = textwrap.wrap(why(interest.now, day), (width or _WIDEST) - len(_INDENT))
        told += [its_line, *(_INDENT + piece for piece in reason)]
    return "\n".join(told) + "\n"


def as_json(user: str, interests: Sequence[Interest], day: date) -> str:
    """One object: the user, the day, and per interest what is known of it, why, and its path."""
    found = [
        {
            **{name: _plain(interest.now[name]) for name in _FACTS},
            "next_days_share": interest.ahead,
            "why": why(interest.now, day),
            "path": [{name: _plain(value) for name, value in vars(moment).items()} for moment in interest.path],
        }
        for interest in interests
    ]
    return json.dumps({"user_id": user, "day": day.isoformat(), "interests": found}, ensure_ascii=False, indent=1) + "\n"


def picture(interest: Interest, day: date) -> View:
    """What the page draws of an interest: both weights as lines, the label as a band beneath, places in thousandths."""
    path = interest.path
    top = _ROOM_ABOVE * max(1.0, *(max(moment.long_weight, moment.short_weight) for moment in path))
    first, days = path[0].day, max(1, (path[-1].day - path[0].day).days)

    def x(at: date) -> float:
        return round(SIDE * (at - first).days / days, 1)

    def y(value: float) -> float:
        return round(SIDE * (1 - max(value, 0.0) / top), 1)

    return {
        **{name: interest.now[name] for name in _FACTS},
        "why": why(interest.now, day),
        "ahead": None if interest.ahead is None else f"{interest.ahead:.0%} of the next days",
        "long": line([(x(moment.day), y(moment.long_weight)) for moment in path]),
        "short": line([(x(moment.day), y(moment.short_weight)) for moment in path]),
        "bands": [{"label": label, "x": x(begin), "width": x(end) - x(begin)} for label, begin, end in _bands(path)],
        "needs": y(interest.now["long_min_weight"]),
        "heights": [{"y": y(value), "text": f"{value:g}"} for value in ticks(top)],
        "dates": [{"x": x(at), "text": text} for at, text in dates(first, path[-1].day)],
    }


def _bands(path: Sequence[Moment]) -> list[tuple[str, date, date]]:
    """Spans of one label that is not none, up to the day of the next."""
    found: list[tuple[str, date, date]] = []
    for moment, following in zip(path, [*path[1:], path[-1]], strict=True):
        if found and found[-1][0] == moment.label and found[-1][2] == moment.day:
            found[-1] = (moment.label, found[-1][1], following.day)
        elif moment.label != "none":
            found.append((moment.label, moment.day, following.day))
    return found


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value
