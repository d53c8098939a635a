"""The pages of `wherewhen map`, `wherewhen plot` and `wherewhen interests`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from conf.settings import Settings
from jobs.query import pseudonym_of
from jobs.seeing.areas import Window, areas
from jobs.seeing.chart import chart
from jobs.seeing.entities import Entity
from jobs.seeing.heatmap import heatmap
from jobs.seeing.interests import picture
from jobs.seeing.page import page
from jobs.seeing.person import events_of, person, places_of
from jobs.seeing.reading import Reader
from jobs.seeing.series import near, series_of
from jobs.seeing.trajectory import Interest

_AREAS, _CELLS = 6, 4000
_EVENT_TYPES = 4


def map_page(settings: Settings, *, region: str | None, days: int | None) -> str:
    """Heatmaps of the busiest areas, or of one region.

    Raises:
        ValueError: nothing is finished, nothing has a place, or the region is unknown.
    """
    reader = Reader.of(settings)
    if not reader.has("cell_daily"):
        raise ValueError(f"cell_daily has no finished rows in {reader.root} yet: there is nothing to map")
    window = Window(last=reader.visible["cell_daily"].day, days=days or settings.spatial.hotspot_window_days)
    found, known = areas(reader, window, most=_AREAS, most_cells=_CELLS, region=region)
    if not found:
        said = f"no event of the {window.days} days up to {window.last} has a place in {reader.root}: there is nothing to map"
        raise ValueError(said)
    views = [heatmap(area) for area in found]
    rest = f"; {known - len(views)} less busy areas are left out, --region NAME shows any" if known > len(views) else ""
    return page(
        "map.html.jinja",
        reader.day,
        {
            "title": views[0]["name"] if len(views) == 1 else "Where it happens",
            "said": f"Events of the {window.days} days up to {window.last}, hotspots and their trends{rest}.",
            "areas": views,
            "days": window.days,
        },
    )


def person_page(settings: Settings, user: str) -> str:
    """One user's places and week; `user` is the id as the log has it.

    Raises:
        ValueError: the user is unknown, or has no places.
    """
    reader = Reader.of(settings)
    who = pseudonym_of(user, settings)
    places = places_of(reader, who)
    around = []
    if reader.has("cell_daily"):
        window = Window(last=reader.visible["cell_daily"].day, days=settings.spatial.hotspot_window_days)
        around = areas(reader, window, most=_AREAS, most_cells=_CELLS)[0]
    return page(
        "person.html.jinja",
        reader.day,
        {
            "title": f"User {user}",
            "said": f"{len(places)} place{'' if len(places) == 1 else 's'} of the last events, by role, and the week.",
            "person": person(places, events_of(reader, who), around),
        },
    )


def interests_page(user: str, interests: Sequence[Interest], day: date) -> str:
    """One user's interests over time, a chart each; `user` is the id as the log has it."""
    first = min(interest.path[0].day for interest in interests)
    return page(
        "interests.html.jinja",
        day,
        {
            "title": f"What user {user} wants",
            "said": f"Weights of {len(interests)} categor{'y' if len(interests) == 1 else 'ies'} at the end of each day, "
            f"from {first} to {day}, and what they were called.",
            "interests": [picture(interest, day) for interest in interests],
        },
    )


def plot_page(settings: Settings, entity: Entity, *, days: int) -> str:
    """The series of one entity, a chart an event type.

    Raises:
        ValueError: nothing is known of it; says what is near.
    """
    reader = Reader.of(settings)
    found = series_of(reader, [entity], days)[entity][:_EVENT_TYPES]
    if not found:
        kind = entity.kind.replace("_", " and ")
        raise ValueError(
            f"{entity.label}: no event of this {kind} in the last {days} days is in {reader.root}{near(reader, entity)}"
        )
    return page(
        "plot.html.jinja",
        reader.day,
        {
            "title": entity.label,
            "said": f"Daily events of this {entity.kind.replace('_', ' and ')}, by event type.",
            "charts": [chart(one) for one in found],
        },
    )
