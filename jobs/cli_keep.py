"""The commands that keep a lake and prove it: replay, audit, maintain."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from jobs.cli import DONE, FAILED, day_of, settings


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (replay, audit, maintain):
        app.command()(command)


def replay(
    run_id: Annotated[str, typer.Argument(help="A run, as `wherewhen runs` shows it.", show_default=False)],
) -> int:
    """Run the steps of a run again on the versions that it read, and compare row by row what comes out.

    Writes to no lake, sink or report. Ends with 1 where something differs, with 3 where what was read or written
    then is no longer stored (names table and version). Example: wherewhen replay 20240616-0f3a5c7e9b12
    """
    from jobs.lake.session import start
    from jobs.replay import replay as repeat

    loaded = settings()
    equal = True
    for finding in repeat(start(loaded, torch=True), loaded, run_id):
        equal = equal and finding.equal is not False
        sys.stdout.write(finding.line() + "\n")
        sys.stdout.flush()
    return DONE if equal else FAILED


def audit(
    day: Annotated[str, typer.Option(help="The cut, YYYY-MM-DD: what arrived on it or later is changed.")],
) -> int:
    """Change all that arrived from DAY on in a scratch copy, make every feature again, and compare what describes earlier days.

    Ends with 1 where a row of an earlier day moved: it was made from what came later. Example: wherewhen audit --day 2024-06-10
    """
    from jobs.audit import audit as prove
    from jobs.lake.session import start

    loaded = settings()
    held = True
    for finding in prove(start(loaded, torch=True), loaded, day_of(day)):
        held = held and finding.equal
        sys.stdout.write(finding.line() + "\n")
        sys.stdout.flush()
    return DONE if held else FAILED


def maintain(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
) -> None:
    """Compact logs, drop days past their retention, delete what no version still needed holds.

    Needed are the versions of the runs of the last `maintain.keep_days` days and of the newest night, and what a running
    reader could hold. Example: wherewhen --set 'maintain.retention={raw_events: 400}' maintain --dry-run
    """
    from jobs.lake.maintenance import maintain as keep

    for done in keep(settings(), dry_run=dry_run):
        sys.stdout.write(done.line() + "\n")
