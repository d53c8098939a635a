"""The commands of models, without a JVM: models, publish, rollback, policy, check; and tune, which may need one."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from jobs.cli import DONE, REFUSED, day_of, settings, terminal_width


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (models, publish, rollback, policy, check, tune):
        app.command()(command)


def models(
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="Show this version's card.", show_default=False)
    ] = None,
    format_: Annotated[Literal["table", "json"], typer.Option("--format", help="How the list is written to stdout.")] = "table",
) -> None:
    """List the model versions, how each was judged, what was decided and which one serves; or one version's card.

    Example: wherewhen models, then wherewhen models 8c2f01aa54d0e3b7
    """
    from jobs.publishing import card, versions, write_versions

    loaded = settings()
    if version is not None:
        sys.stdout.write(card(loaded, version))
        return
    sys.stdout.write(write_versions(versions(loaded), loaded.gate.label, format_, width=terminal_width()))


def publish(
    version: Annotated[str, typer.Argument(help="A version, as `wherewhen models` shows it; or rule.", show_default=False)],
) -> None:
    """Let a version serve from the next run on, whatever the gate says; the next candidate is judged against it.

    It takes the place of what serves of its kind; `rule` takes a learned labeller's.

    Example: wherewhen publish 8c2f01aa54d0e3b7
    """
    from jobs.publishing import publish as serve

    sys.stdout.write(serve(settings(), version) + "\n")


def rollback(
    kind: Annotated[
        Literal["interest", "labeller", "policy"], typer.Option(help="What kind of version goes back.")
    ] = "interest",
) -> None:
    """Let the version that served before serve again, from the next run on. A second one goes back further.

    Example: wherewhen rollback && wherewhen run --day 2024-06-16 --from-step score
    """
    from jobs.publishing import rollback as back

    sys.stdout.write(back(settings(), kind) + "\n")


def policy(
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="Another than the one in force.", show_default=False)
    ] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Say what it would have earned, by the answers to lists.")
    ] = False,
    shares: Annotated[
        str | None,
        typer.Option(help="With --evaluate: the same mix for everybody, as in ranked=0.9,own=0.1.", show_default=False),
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="With --evaluate: the newest so many days of feedback.")] = 14,
    format_: Annotated[Literal["table", "json"], typer.Option("--format", help="How it is written to stdout.")] = "table",
) -> int:
    """Show what lists are mixed from, by context; or what a mix would have earned. Ends with 3 where answers are too few.

    Example: wherewhen policy; then wherewhen policy --evaluate --shares ranked=0.9,popular=0.1
    """
    from jobs.mixes import judged, shown, write_mix, write_verdict

    if not evaluate:
        if shares is not None:
            raise typer.BadParameter("it says what to evaluate: add --evaluate", param_hint="--shares")
        sys.stdout.write(write_mix(shown(settings(), version), format_, width=terminal_width()))
        return DONE
    found = judged(settings(), version, shares, days)
    sys.stdout.write(write_verdict(found, format_, width=terminal_width()))
    return DONE if found.is_enough else REFUSED


def check(
    day: Annotated[str, typer.Option(help="Run date, YYYY-MM-DD (UTC).")],
    format_: Annotated[Literal["table", "json"], typer.Option("--format", help="How it is written to stdout.")] = "table",
) -> int:
    """Show how far a day's events, scores and lists moved from those before, beside the bounds; ends with 3 past one.

    A bound is that of the settings, or what chance alone explains where the day has few users.
    Example: wherewhen --set drift.max_new_items=0.5 check --day 2024-06-16
    """
    from jobs.checking import findings, write_findings

    found = findings(settings(), day_of(day))
    sys.stdout.write(write_findings(found, format_, width=terminal_width()))
    return REFUSED if any(one.is_past for one in found) else DONE


def tune(
    day: Annotated[str, typer.Option(help="Search on the windows of this day's newest training, YYYY-MM-DD (UTC).")],
    trials: Annotated[int, typer.Option(min=1, help="So many trials in all, those of earlier calls included.")] = 20,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Stop after so many seconds; what is tried then is tried again.")
    ] = None,
) -> None:
    """Search the settings with which the model ranks best on the validation fold; the best go to stdout, as YAML.

    What is tried stands under tune.space in conf/local.yaml. Stopped or killed, the same command goes on; what serves, and
    all tables, stay as they are.
    Example: wherewhen --set tune.space.train.batch_size=null tune --day 2024-06-15 --trials 30 > best.yaml
    """
    from jobs.tune import tune as search

    sys.stdout.write(search(settings(), day_of(day), trials=trials, timeout=timeout))
