"""The daily series of one user, item, category or region, with what the tables say of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from conf.contracts import SERIES_DAYS
from jobs.query.statement import nearest
from jobs.seeing.areas import nearest_region
from jobs.seeing.entities import Entity
from jobs.seeing.reading import Reader, Row, literal

_LEAST_FOR_STL = 28  # days, as time_series_features has it
_CHANGE_P = 0.05

# Kinds of entities whose names are told where one is unknown: few, and nobody's.
_NAMED = ("category", "region", "region_category", "region_slot")


@dataclass(frozen=True, kw_only=True)
class Series:
    """One event type's daily counts from `first` on.

    `trend` and `season` describe the last days (STL; empty where the series is too short), `anomalies` are the days that
    time_series_features marks, `change` the day since which the level is another, `forecast` the days that follow.
    """

    event_type: str
    first: date
    counts: Sequence[int]
    hours: Sequence[int]
    trend: Sequence[float]
    season: Sequence[float]
    anomalies: Sequence[Row]
    change: Row | None
    forecast: Sequence[Row]
    facts: Row

    @property
    def last(self) -> date:
        return self.first + timedelta(days=len(self.counts) - 1)


def series_of(reader: Reader, entities: Sequence[Entity], days: int) -> dict[Entity, list[Series]]:
    """Each entity's series over the last `days` days, that of the busiest event type first; none where there are no events.

    Raises:
        ValueError: activity_daily has no finished rows.
    """
    if not reader.has("activity_daily"):
        raise ValueError(f"activity_daily has no finished rows in {reader.root} yet: there is no series to draw")
    seen = reader.visible["activity_daily"]
    # What is described reaches over more days than few that are shown. Nothing arrives before its own date.
    since = seen.day - timedelta(days=max(days, SERIES_DAYS) - 1)
    rows = _Rows.of(reader, "(" + " OR ".join(f"({entity.where})" for entity in entities) + ")", since, seen.day)
    found: dict[Entity, list[Series]] = {}
    for entity in entities:
        own = rows.of_entity(entity)
        began = min([seen.first_day, *(row["event_date"] for row in own.counted)])
        first = max(began, seen.day - timedelta(days=days - 1))
        totals: dict[str, int] = {}
        for row in own.counted:
            totals[row["event_type"]] = totals.get(row["event_type"], 0) + row["events"]
        busiest = sorted(totals, key=lambda name: (-totals[name], name))
        found[entity] = [_series(name, own.of_type(name), (first, seen.day, max(seen.first_day, since))) for name in busiest]
    return found


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """What the tables hold of some entities: daily counts, features, days that stood out, forecasts."""

    counted: Sequence[Row]
    described: Sequence[Row]
    marked: Sequence[Row]
    forecast: Sequence[Row]

    @classmethod
    def of(cls, reader: Reader, where: str, first: date, last: date) -> _Rows:
        upto = f"day <= DATE '{last}'"
        return cls(
            counted=reader.rows(
                "SELECT entity_type, entity_id, event_type, event_date, local_hour, sum(events) AS events FROM activity_daily "
                f"WHERE {where} AND day >= DATE '{first}' AND {upto} AND event_date >= DATE '{first}' "
                "GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5"
            ),
            described=reader.rows(f"SELECT * FROM time_series_features WHERE {where}"),
            # As the table had it on that day; what is copied on a keyframe day is the same day.
            marked=reader.rows(
                "SELECT DISTINCT entity_type, entity_id, event_type, changed_on AS date, expected, anomaly "
                f"FROM time_series_features_history WHERE {where} AND {upto} AND is_anomaly AND NOT gone ORDER BY date"
            ),
            forecast=reader.rows(
                "SELECT entity_type, entity_id, event_type, forecast_date AS date, method, expected, lower, upper "
                f"FROM forecasts WHERE {where} ORDER BY forecast_date"
            )
            if reader.has("forecasts")
            else (),
        )

    def of_entity(self, entity: Entity) -> _Rows:
        return self._only(lambda row: (row["entity_type"], row["entity_id"]) == (entity.kind, entity.id))

    def of_type(self, event_type: str) -> _Rows:
        return self._only(lambda row: row["event_type"] == event_type)

    def _only(self, kept: Callable[[Row], bool]) -> _Rows:
        return _Rows(
            counted=[row for row in self.counted if kept(row)],
            described=[row for row in self.described if kept(row)],
            marked=[row for row in self.marked if kept(row)],
            forecast=[row for row in self.forecast if kept(row)],
        )


def _series(name: str, rows: _Rows, days: tuple[date, date, date]) -> Series:
    """`days`: the first that is shown, the last, and the first that may be described."""
    first, last, began = days
    by_day: dict[date, int] = {}
    hours = [0] * 24
    for row in rows.counted:
        by_day[row["event_date"]] = by_day.get(row["event_date"], 0) + row["events"]
        if row["local_hour"] is not None and row["event_date"] >= first:
            hours[row["local_hour"]] += row["events"]
    facts = next(iter(rows.described), {})
    trend, season = _decomposed([by_day.get(day, 0) for day in _days(max(began, last - timedelta(days=SERIES_DAYS - 1)), last)])
    counts = [by_day.get(day, 0) for day in _days(first, last)]
    shown = min(len(trend), len(counts))
    return Series(
        event_type=name,
        first=first,
        counts=counts,
        hours=hours,
        trend=trend[len(trend) - shown :],
        season=season[len(season) - shown :],
        anomalies=[{**row, "events": by_day.get(row["date"], 0)} for row in rows.marked if first <= row["date"] <= last],
        change=_change(facts, last, first),
        forecast=rows.forecast,
        facts=facts,
    )


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def _decomposed(counts: Sequence[int]) -> tuple[list[float], list[float]]:
    """Trend and season by STL, by the very matrices of the step time_series; empty where the series is too short."""
    if len(counts) < _LEAST_FOR_STL:
        return [], []
    import numpy as np

    from jobs.time_series.shape import SEASON_WEEKS, WEEK
    from jobs.time_series.stl import stl

    # Whole weeks, as that step takes them.
    whole = len(counts) // WEEK * WEEK
    of_trend, of_season = stl(whole, WEEK, SEASON_WEEKS)
    values = np.asarray(counts[-whole:], dtype=np.float64)
    return (of_trend @ values).tolist(), (of_season @ values).tolist()


def _change(facts: Row, last: date, first: date) -> Row | None:
    days_ago, p = facts.get("change_days_ago"), facts.get("change_p")
    if days_ago is None or p is None or p > _CHANGE_P:
        return None
    day = last - timedelta(days=days_ago)
    return {"date": day, "log_ratio": facts["change_log_ratio"], "p": p} if day > first else None


def near(reader: Reader, entity: Entity) -> str:
    """What is called nearly so; '' where nothing is, and of users and items, which are many."""
    if entity.kind not in _NAMED:
        return ""
    known = reader.rows(f"SELECT DISTINCT entity_id AS id FROM activity_daily WHERE entity_type = {literal(entity.kind)}")
    names = sorted(row["id"] for row in known)
    return nearest_region(entity.id, names) if entity.kind == "region" else nearest(entity.id, names)
