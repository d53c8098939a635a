"""Answers as GeoJSON (RFC 7946), for maps and planners' tools: a feature a row, with all its columns as properties."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from conf.settings import Settings, SettingsError
from jobs.query.geometry import Geometry, Position, centres, line, point, polygon
from jobs.query.rendering import plain_rows

if TYPE_CHECKING:
    from arro3.core import Table

Row = dict[str, Any]
_ASKED = "select region, cell, sum(events) as events from cell_daily where region is not null group by region, cell"


def as_geojson(rows: Table, settings: Settings) -> str:
    """The rows as one FeatureCollection, a feature a line.

    Their place is taken from the first of these that they have: `cell` (its hexagon), `latitude` and
    `longitude`, `origin` and `destination` (a line between the regions' positions), `region` (its position). A
    region's position is the mean of its events in cell_daily. What has no place is a feature without a geometry.

    Raises:
        SettingsError: the rows have none of these columns.
        ValueError: two columns are called the same.
    """
    place, by_region = _placing(rows.column_names)
    positions = _positions(settings) if by_region else {}
    lines = [
        json.dumps({"type": "Feature", "geometry": place(row, positions), "properties": row}, ensure_ascii=False)
        for row in plain_rows(rows)
    ]
    return '{"type": "FeatureCollection", "features": [\n' + ",\n".join(lines) + "\n]}\n"


def _placing(names: list[str]) -> tuple[Callable[[Row, Mapping[str, Position]], Geometry | None], bool]:
    """How a row finds its place, and whether it needs the regions' positions for that."""
    if "cell" in names:
        return lambda row, _: polygon(_word(row["cell"])), False
    if {"latitude", "longitude"} <= set(names):
        return lambda row, _: point(_number(row["latitude"]), _number(row["longitude"])), False
    if {"origin", "destination"} <= set(names):
        return lambda row, at: line(at.get(row["origin"]), at.get(row["destination"])), True
    if "region" in names:
        return lambda row, at: point(*at[row["region"]][::-1]) if row["region"] in at else None, True
    raise SettingsError(
        "--format geojson needs a place in each row: select cell, or latitude and longitude, "
        "or origin and destination, or region"
    )


def _positions(settings: Settings) -> dict[str, Position]:
    from jobs.query import answer

    try:
        found = answer(settings, _ASKED)
    except ValueError as error:
        raise ValueError(f"regions have no position without cells: {error}") from None
    return centres(zip(*(found.column(name).to_pylist() for name in ("region", "cell", "events")), strict=True))


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
