"""The commands that only read, without a JVM: query, recommend, features, tables, describe, runs, plan, doctor."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from jobs.cli import DONE, FAILED, day_of, settings, terminal_width

log = logging.getLogger("wherewhen")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (query, recommend, features, tables, describe, runs, plan, doctor):
        app.command()(command)


def query(
    sql: Annotated[str, typer.Argument(metavar="SELECT", help="One SELECT.", show_default=False)],
    user: Annotated[str | None, typer.Option(help="A user's own id: `:user` in the SQL becomes the pseudonym.")] = None,
    format_: Annotated[
        Literal["table", "csv", "json", "parquet", "geojson"],
        typer.Option("--format", help="How the rows are written to stdout; geojson where they have a place."),
    ] = "table",
    version: Annotated[
        list[str] | None, typer.Option("--version", metavar="TABLE=N", help="Read this Delta version; may be repeated.")
    ] = None,
    at_run: Annotated[str | None, typer.Option(metavar="RUN_ID", help="Read what this run left, or read.")] = None,
) -> None:
    """Answer one SELECT from the tables of the newest finished night, without Spark.

    A table's NAME is its state as of that night (weights aged, without the gone), a snapshot's newest partition,
    all rows of a fact or log; NAME_history is every stored row. GeoJSON takes the place from the columns cell, or
    latitude and longitude, or origin and destination, or region.

    Example: wherewhen query "select slot, rank, item_id, reason from recommendations where user_id = :user" --user 42

    Example: wherewhen query "select * from region_flows where slot = 'weekday_morning'" --format geojson > flows.geojson
    """
    from jobs.query import answer, as_parquet, render

    if format_ == "parquet" and sys.stdout.isatty():
        raise typer.BadParameter("parquet is not for a terminal: redirect it, as in --format parquet > rows.parquet")
    loaded = settings()
    rows = answer(loaded, sql, user=user, versions=dict(map(_version, version or ())), at_run=at_run)
    if format_ == "parquet":
        sys.stdout.buffer.write(as_parquet(rows))
    elif format_ == "geojson":
        from jobs.query.geojson import as_geojson

        sys.stdout.write(as_geojson(rows, loaded))
    else:
        sys.stdout.write(render(rows, format_, width=terminal_width()))


def _version(text: str) -> tuple[str, int]:
    table, _, number = text.partition("=")
    if not table or not number.isdecimal():
        raise typer.BadParameter(f"--version {text}: write TABLE=N, for example --version events=12")
    return table, int(number)


def recommend(
    users: Annotated[Path, typer.Option(help="A CSV with a column user_id: whom to ask about.", show_default=False)],
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="ISO 8601, UTC if it says no offset; else as the newest day ends."),
    ] = None,
    near: Annotated[str | None, typer.Option(metavar="LAT,LON", help="Where; else where each user was last known.")] = None,
    history: Annotated[
        Path | None,
        typer.Option(
            help="A CSV of what users did since the night, - is stdin: user_id, item_id, event_time, and perhaps event_type, "
            "latitude, longitude."
        ),
    ] = None,
    k: Annotated[int | None, typer.Option("-k", min=1, help="Items a user; score.k else.")] = None,
    output: Annotated[Path | None, typer.Option(help="A CSV; stdout else.", show_default=False)] = None,
) -> None:
    """Recommend to some users now and here, from the stored state and the version that serves, without Spark.

    Users whom the lake does not know get what is ranked for somebody without a past.

    Example: wherewhen recommend --users users.csv --output lists.csv

    Example: wherewhen recommend --users users.csv --at 2024-06-17T18:30-04:00 --near 40.75,-73.98 -k 5
    """
    from jobs.lake.output import replaced
    from jobs.recommend import recommend as write_lists
    from jobs.recommend.reading import moment, place
    from jobs.recommend.served import Asked

    asked = Asked(at=None if at is None else moment(at, "--at"), near=None if near is None else place(near, "--near"), k=k)
    loaded = settings()
    if output is None:
        said = write_lists(loaded, users, sys.stdout, asked, history)
    else:
        with replaced(output) as scratch, scratch.open("w", newline="", encoding="utf-8") as file:
            said = write_lists(loaded, users, file, asked, history)
    log.info("%s", said)


def features(
    entities: Annotated[Path, typer.Option(help="CSV or Parquet: event_timestamp (UTC), and user_id, item_id, region ...")],
    output: Annotated[Path, typer.Option(help="File to write: its rows with the features; .csv or .parquet.")],
    tables: Annotated[
        str | None, typer.Option(metavar="T,T", help="Tables to join; default: all whose keys are given.")
    ] = None,
) -> None:
    """Join to each row of a file what was known of its user, item, region or category before the day of its moment.

    Columns are named TABLE__COLUMN. A table with several rows per owner needs the rest of its key, such as category.
    Example: wherewhen features --entities asked.csv --tables user_mobility,time_series_features --output joined.parquet
    """
    from jobs.features import features_file

    joined = features_file(settings(), entities, output, None if tables is None else tables.split(","))
    log.info("%s: joined %s", output, ", ".join(joined))


def tables(
    format_: Annotated[Literal["table", "json"], typer.Option("--format", help="How it is written to stdout.")] = "table",
) -> None:
    """List the tables: kind, rows, size, newest day, version, what they hold, and which are stale.

    Stale is a table some of whose days were made by other code or settings than today's, or from a table that is;
    `wherewhen rebuild TABLE` mends it. Example: wherewhen --set lake=/data/lake tables
    """
    from jobs.catalogue import summaries, write_summaries

    sys.stdout.write(write_summaries(summaries(settings()), format_, width=terminal_width()))


def describe(
    table: Annotated[str, typer.Argument(help="A table's name.", show_default=False)],
    rows: Annotated[int, typer.Option(min=0, help="So many rows of it as a sample.")] = 3,
    format_: Annotated[Literal["table", "json"], typer.Option("--format", help="How it is written to stdout.")] = "table",
) -> None:
    """Show a table's contract: columns, types, units, key, checks; what is stored of it, how fresh, and some rows.

    The rows are of its newest day, as stored. Example: wherewhen describe user_interests --rows 1
    """
    from jobs.catalogue import description, write_description

    sys.stdout.write(write_description(description(settings(), table, rows), format_, width=terminal_width()))


def runs(
    day: Annotated[str | None, typer.Option(help="Runs of this day only, YYYY-MM-DD.")] = None,
    last: Annotated[int, typer.Option(min=1, help="So many runs, the newest.")] = 5,
    format_: Annotated[Literal["table", "json"], typer.Option("--format", help="How it is written to stdout.")] = "table",
) -> None:
    """Show what ran: each step's status, time, memory and rows, or why it failed.

    Example: wherewhen runs --day 2024-06-16
    """
    from jobs.catalogue import recorded, write_runs

    found = recorded(settings().lake, None if day is None else day_of(day), last)
    sys.stdout.write(write_runs(found, format_, width=terminal_width()))


def plan(
    format_: Annotated[Literal["text", "json"], typer.Option("--format", help="How it is written to stdout.")] = "text",
) -> None:
    """Foretell the next night's time and memory, step by step, as the newest seven nights went: medians, and the most.

    Example: wherewhen --set lake=/data/lake plan
    """
    import json

    from jobs.planning import as_json, as_text
    from jobs.planning import plan as foretold

    found = foretold(settings())
    if format_ == "json":
        sys.stdout.write(json.dumps(as_json(found), indent=1) + "\n")
    else:
        sys.stdout.write(as_text(found, terminal_width()))


def doctor(
    fetch_jars: Annotated[
        bool, typer.Option("--fetch-jars", help="Fetch Delta's jars from Maven Central and keep them.")
    ] = False,
) -> int:
    """Check Java, memory, disk, jars, packages, the key, the lake, sources and sinks; say how to mend each.

    Example: wherewhen --config conf/foursquare.yaml --set lake=/data/lake doctor
    """
    from jobs.doctor import checks

    loaded = settings()
    if fetch_jars:
        from jobs.lake.session import fetch_jars as fetch

        fetch()
    well = True
    for check in checks(loaded):
        well = well and check.problem is None
        sys.stdout.write(check.line() + "\n")
    return DONE if well else FAILED
