"""The pictures of the night's report: the busiest area, some series, one user's places. Bounded, however large the lake is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from conf.settings import Settings
from jobs.seeing.areas import Window, areas
from jobs.seeing.chart import chart
from jobs.seeing.entities import Entity
from jobs.seeing.heatmap import heatmap
from jobs.seeing.person import person
from jobs.seeing.reading import Reader, Row, literal
from jobs.seeing.series import series_of

TABLES = ("cell_daily", "hotspots", "hotspot_trends", "activity_daily", "time_series_features", "forecasts", "user_places")
_CELLS = 1500
_DAYS = 91
_SERIES = {"category": 2, "region": 1}

View = dict[str, Any]


def busiest_area(reader: Reader, settings: Settings) -> View | None:
    """The heatmap of the busiest area, and the days it counts; None for a log without places."""
    if not reader.has("cell_daily"):
        return None
    window = Window(last=reader.day, days=settings.spatial.hotspot_window_days)
    found, _ = areas(reader, window, most=1, most_cells=_CELLS)
    return {"days": window.days, "view": heatmap(found[0])} if found else None


def telling_series(reader: Reader) -> list[View]:
    """Charts of a few categories and regions: those that stand out on the day before those that are busiest."""
    if not (reader.has("activity_daily") and reader.has("time_series_features")):
        return []
    stands_out = f"CASE WHEN is_anomaly AND changed_on = DATE '{reader.day}' THEN 1 ELSE 0 END"
    chosen: dict[Entity, str] = {}
    for kind, count in _SERIES.items():
        rows = reader.rows(
            f"SELECT entity_id, event_type, {stands_out} AS stands_out, events_28d FROM time_series_features "
            f"WHERE entity_type = {literal(kind)} AND events_28d > 0 ORDER BY 3 DESC, 4 DESC, 1, 2 LIMIT {4 * count}"
        )
        of_kind: dict[Entity, str] = {}
        for row in rows:
            of_kind.setdefault(Entity(kind=kind, id=row["entity_id"], label=row["entity_id"]), row["event_type"])
        chosen |= dict(list(of_kind.items())[:count])
    if not chosen:
        return []
    found = series_of(reader, list(chosen), _DAYS)
    return [
        {"label": entity.label, "kind": entity.kind, "chart": chart(series)}
        for entity, event_type in chosen.items()
        for series in found[entity]
        if series.event_type == event_type
    ]


def places_of_one(reader: Reader, events: Mapping[str, Sequence[Row]]) -> tuple[str, View] | None:
    """Places and week of the one with most places among some users, given by their events; None where none has any."""
    if not events or not reader.has("user_places"):
        return None
    users = ", ".join(map(literal, sorted(events)))
    rows = reader.rows(f"SELECT * FROM user_places WHERE user_id IN ({users}) ORDER BY user_id, place_id")
    owners = [row["user_id"] for row in rows]
    if not owners:
        return None
    user = min(owners, key=lambda one: (-owners.count(one), one))
    return user, person([row for row in rows if row["user_id"] == user], events[user])
