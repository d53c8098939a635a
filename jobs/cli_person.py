"""The commands about one person: erase and subject."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.cli import settings

log = logging.getLogger("wherewhen")

UserOption = Annotated[str, typer.Option(help="The person's own id, as the source names it.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (erase, subject):
        app.command()(command)


def erase(
    user: UserOption,
    output: Annotated[
        Path | None, typer.Option(metavar="CERT.json", help="Where the certificate goes; default: LAKE/_erasures/.")
    ] = None,
) -> None:
    """Remove a person from every table, the vault, sinks and report, for good; write a certificate.

    A tombstone keeps the person's rows out of all later runs. An id that was never seen gets one too.
    Stopped, the same command goes on. privacy.erase_landing=true takes the person out of the landing files as well.
    Ends with 1 when a scan of all bytes still finds the person: then nothing is certified.

    Example: wherewhen --set lake=/data/lake erase --user u000012 --output u000012-erased.json
    """
    from jobs.erase import erase as run_erasure

    done = run_erasure(settings(), user, output)
    log.info("erased: %s rows; the certificate is", f"{done.rows:,}")
    sys.stdout.write(f"{done.certificate}\n")


def subject(
    user: UserOption,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE.json or FOLDER", help="A JSON document, or a file per table in a folder.")
    ] = None,
) -> None:
    """Hand out everything that is held about a person, as JSON: every stored row, sinks, models trained on it.

    Example: wherewhen --set lake=/data/lake subject --user u000012 --output u000012.json
    """
    from jobs.subject import document, write_folder
    from jobs.subject import subject as gather

    found = gather(settings(), user)
    rows = sum(map(len, found["tables"].values()))
    log.info("%s rows in %d tables", f"{rows:,}", len(found["tables"]))
    if output is None:
        sys.stdout.write(document(found))
    elif output.suffix == ".json":
        output.write_text(document(found), encoding="utf-8")
        sys.stdout.write(f"{output}\n")
    else:
        write_folder(found, output)
        sys.stdout.write(f"{output}\n")
