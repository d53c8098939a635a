"""The commands that draw, without a JVM: map, plot and interests."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from jobs.cli import settings, terminal_width

log = logging.getLogger("wherewhen")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (map_, plot, interests):
        app.command(name=command.__name__.rstrip("_"))(command)


def map_(
    region: Annotated[str | None, typer.Option(help="One region, as COUNTRY/division/name; else the busiest areas.")] = None,
    user: Annotated[str | None, typer.Option(help="A user's own id: the user's places and week instead.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="So many days of events; spatial.hotspot_window_days else.")] = None,
    output: Annotated[Path, typer.Option(help="The page.")] = Path("map.html"),
) -> None:
    """Draw a heatmap of where it happens, by part of the week, with hotspots and their trends; or one user's places.

    The page is one file that fetches nothing. Regions that lie together share a map.

    Example: wherewhen map --output map.html

    Example: wherewhen map --region "US/New York/New York City" --days 28

    Example: wherewhen map --user u000012 --output u000012.html
    """
    from jobs.seeing.pages import map_page, person_page

    if user is not None and (region is not None or days is not None):
        raise typer.BadParameter("--user shows the user's own places: leave out --region and --days")
    loaded = settings()
    _write(output, person_page(loaded, user) if user is not None else map_page(loaded, region=region, days=days))


def plot(
    user: Annotated[str | None, typer.Option(help="A user's own id.")] = None,
    item: Annotated[str | None, typer.Option(help="An item.")] = None,
    category: Annotated[str | None, typer.Option(help="A category; with --region, of that region.")] = None,
    region: Annotated[str | None, typer.Option(help="A region, as COUNTRY/division/name.")] = None,
    slot: Annotated[str | None, typer.Option(help="With --region: a part of the week.")] = None,
    days: Annotated[int, typer.Option(min=7, help="So many days.")] = 182,
    output: Annotated[Path, typer.Option(help="The page.")] = Path("plot.html"),
) -> None:
    """Draw the daily series of one user, item, category or region: trend and season, anomalies, change of level, forecast.

    The page is one file that fetches nothing; each event type has a chart.

    Example: wherewhen plot --category Bar --output bars.html

    Example: wherewhen plot --region "US/New York/New York City" --slot weekday_evening

    Example: wherewhen plot --user u000012 --days 28
    """
    from jobs.seeing.entities import chosen
    from jobs.seeing.pages import plot_page

    loaded = settings()
    entity = chosen({"user": user, "item": item, "category": category, "region": region, "slot": slot}, loaded)
    _write(output, plot_page(loaded, entity, days=days))


_POINTS, _POINTS_DRAWN = 26, 364


def interests(
    user: Annotated[str, typer.Argument(metavar="USER", help="A user's own id.", show_default=False)],
    days: Annotated[int, typer.Option(min=1, help="So many days back.")] = 182,
    most: Annotated[int, typer.Option(min=1, help="So many categories: long interests, then short ones, then the rest.")] = 12,
    output: Annotated[Path | None, typer.Option(metavar="PAGE.html", help="Draw them on a page instead.")] = None,
    format_: Annotated[Literal["text", "json"], typer.Option("--format", help="How it is written to stdout.")] = "text",
) -> None:
    """Show a user's interests over time: label, trend, weights, how the long weight went, and why each is called so.

    Each comes with the day from which it has another label if nothing happens. The page is one file that fetches nothing.

    Example: wherewhen interests u000012

    Example: wherewhen interests u000012 --days 364 --output u000012.html

    Example: wherewhen interests u000012 --most 3 --format json
    """
    from jobs.query import pseudonym_of
    from jobs.seeing.interests import as_json, as_text
    from jobs.seeing.pages import interests_page
    from jobs.seeing.reading import Reader
    from jobs.seeing.trajectory import interests_of

    loaded = settings()
    reader = Reader.of(loaded)
    points = _POINTS if output is None else _POINTS_DRAWN
    found = interests_of(reader, pseudonym_of(user, loaded), days=days, points=points)
    day = found[0].path[-1].day
    if len(found) > most:
        log.info("%d of %d categories; --most %d shows all", most, len(found), len(found))
    shown = found[:most]
    if output is not None:
        _write(output, interests_page(user, shown, day))
    elif format_ == "json":
        sys.stdout.write(as_json(user, shown, day))
    else:
        sys.stdout.write(as_text(user, shown, day, width=terminal_width()))


def _write(output: Path, page: str) -> None:
    from jobs.lake.disk import write_whole

    write_whole(output, page)
    log.info("%s, %.0f KiB", output, len(page.encode()) / 1024)
