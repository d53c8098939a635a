"""One user's interests over time, from every change that user_interests keeps, aged to each day that is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from conf.tables import TABLES
from jobs.query.views import aged
from jobs.seeing.reading import Reader, Row, literal

_TABLE, _AHEAD = "user_interests", "interest_forecasts"
_ORDER = {"long": 0, "short": 1}


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What an interest was at the end of a day; weights of 0 and no label before the user's first event in it."""

    day: date
    long_weight: float
    short_weight: float
    label: str
    trend: str | None


@dataclass(frozen=True, kw_only=True)
class Interest:
    """A category: `now` is its row of user_interests at the end of the newest day, `path` leads there.

    ahead: its share of the user's next days, as `interest_forecasts` has them; None without a forecast of the user.
    """

    now: Row
    path: Sequence[Moment]
    ahead: float | None = None

    @property
    def category(self) -> str:
        return str(self.now["category"])


def interests_of(reader: Reader, pseudonym: str, *, days: int, points: int) -> list[Interest]:
    """Long ones first, then short ones, each by their weight; their paths over at most `days` days, at most `points` of them.

    Raises:
        ValueError: the user is unknown, or has no interests.
    """
    who = f"user_id = {literal(pseudonym)}"
    now = reader.rows(f"SELECT * FROM {_TABLE} WHERE {who}") if reader.has(_TABLE) else []
    if not now:
        raise ValueError(_why_nothing(reader, who))
    last = reader.visible[_TABLE].day
    shown = _days(max(last - timedelta(days=days - 1), min(row["first_on"] for row in now)), last, points)
    found = {(row["category"], row["at"]): row for row in reader.rows(_path_sql(who, shown))}
    ahead = _ahead(reader, who)
    return [
        Interest(
            now=row,
            path=[_moment(found.get((row["category"], day)), day) for day in shown],
            ahead=ahead.get(row["category"], 0.0) if ahead else None,
        )
        for row in _ordered(now)
    ]


def _ahead(reader: Reader, who: str) -> dict[str, float]:
    """Category to its share of what is left of the week that was forecast; below a hundredth of a day it counts for nothing."""
    if not reader.has(_AHEAD):
        return {}
    left = f"{who} AND forecast_date > DATE '{reader.visible[_AHEAD].day}'"
    each = f"SELECT DISTINCT horizon_days, day_share FROM {_AHEAD} WHERE {left}"
    share = f"sum(share * day_share) / (SELECT sum(day_share) FROM ({each}) AS days)"
    rows = reader.rows(f"SELECT category, {share} AS share FROM {_AHEAD} WHERE {left} GROUP BY category")
    return {row["category"]: row["share"] for row in rows}


def _why_nothing(reader: Reader, who: str) -> str:
    if reader.has("user_sequences") and reader.rows(f"SELECT user_id FROM user_sequences WHERE {who}"):
        return "this user has no interests: none of the events has a category and counts, or labels are not allowed"
    return f"this user is not known in {reader.root}: give the id as the log has it, or set another lake with --set lake=FOLDER"


def _ordered(rows: Sequence[Row]) -> list[Row]:
    def place(row: Row) -> tuple[int, float, str]:
        weight = row["short_weight"] if row["label"] == "short" else row["long_weight"]
        return _ORDER.get(row["label"], len(_ORDER)), -weight, row["category"]

    return sorted(rows, key=place)


def _days(first: date, last: date, points: int) -> list[date]:
    """At most `points` days at an even pace, the last of them `last`."""
    step = -(-((last - first).days + 1) // points)
    back = range(0, (last - first).days + 1, step)
    return [last - timedelta(days=number) for number in reversed(back)]


def _path_sql(who: str, shown: Sequence[date]) -> str:
    """The user's whole state at the end of each day: that of the newest change up to it, aged."""
    contract = TABLES[_TABLE]
    values = ", ".join(aged(contract.column(name)) for name in ("long_weight", "short_weight", "label", "trend"))
    days = ", ".join(f"(DATE '{day}')" for day in shown)
    history = f"(SELECT * FROM {_TABLE}_history WHERE {who} AND day <= DATE '{shown[-1]}')"
    # A change is copied on keyframe days; retention may leave the copies alone.
    return (
        f"WITH told AS {history}, changes AS (SELECT changed_on, min(day) AS day FROM told GROUP BY changed_on), "
        f"shown AS (SELECT column1 AS at FROM (VALUES {days}) AS days), "
        "held AS (SELECT at, max(changed_on) AS changed_on FROM shown JOIN changes ON changed_on <= at GROUP BY at), "
        "state AS (SELECT told.*, at, at - told.changed_on AS age_days FROM told "
        "JOIN changes ON told.changed_on = changes.changed_on AND told.day = changes.day "
        "JOIN held ON told.changed_on = held.changed_on WHERE NOT gone) "
        f"SELECT category, at, {values} FROM state ORDER BY category, at"
    )


def _moment(row: Row | None, day: date) -> Moment:
    if row is None:
        return Moment(day=day, long_weight=0.0, short_weight=0.0, label="none", trend=None)
    return Moment(**{name: row[name] for name in ("long_weight", "short_weight", "label", "trend")}, day=day)
