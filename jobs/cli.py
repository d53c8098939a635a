"""The command `wherewhen`. Imports what a command needs only when it runs: `query` starts no JVM."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from conf.settings import Settings

DONE, FAILED, USAGE, REFUSED = 0, 1, 2, 3

app = typer.Typer(
    name="wherewhen",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="From raw behaviour logs to nightly, explained recommendations for every user, here and now.",
)


@dataclass
class _Global:
    config: str = "conf/local.yaml"
    overrides: tuple[str, ...] = ()
    debug: bool = False


_given = _Global()


@app.callback()
def _options(
    config: Annotated[str, typer.Option(help="Settings file; it says what differs from conf/local.yaml.")] = "conf/local.yaml",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override one setting; may be repeated.")
    ] = None,
    debug: Annotated[bool, typer.Option(help="Show tracebacks.")] = False,
) -> None:
    _given.config, _given.overrides, _given.debug = config, tuple(set_ or ()), debug


def settings() -> Settings:
    from conf.settings import load_settings

    loaded = load_settings(_given.config, _given.overrides)
    if loaded.segments:
        from jobs.segments import check_all

        check_all(loaded)  # before a night, not at its end
    return loaded


def day_of(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text} is not a day: write YYYY-MM-DD") from None


def terminal_width() -> int | None:
    """None where stdout is no terminal: what a program reads is not cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def main() -> None:
    """Run the command; errors are one line and an exit code."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    for noisy in ("py4j", "pyspark", "torch", "petastorm", "httpx"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    register()
    sys.exit(guarded(lambda: app(standalone_mode=False)))


def register() -> None:
    from jobs import cli_keep, cli_models, cli_person, cli_read, cli_run, cli_see

    cli_run.register(app)
    cli_read.register(app)
    cli_see.register(app)
    cli_keep.register(app)
    cli_models.register(app)
    cli_person.register(app)


def guarded(command: Callable[[], Any]) -> int:
    """Run `command` and turn what it raises into an exit code and one line on stderr."""
    try:
        result = command()
        return result if isinstance(result, int) else DONE
    except typer.Exit as stop:
        return stop.exit_code
    except typer.TyperException as wrong:
        return _usage(wrong)
    except (KeyboardInterrupt, typer.Abort):
        _say("stopped; the steps that are done stay done, the same command goes on from there")
        return FAILED
    except Exception as error:
        if _given.debug:
            raise
        return _fail(error)


def _usage(wrong: typer.TyperException) -> int:
    said = wrong.format_message() if hasattr(wrong, "format_message") else str(wrong)
    if said:
        _say(f"error: {' '.join(said.split())}; see --help")
    else:  # no command at all
        app(["--help"], standalone_mode=False)
    return USAGE


def _fail(error: Exception) -> int:
    from conf.settings import SettingsError

    if isinstance(error, SettingsError):
        _say(f"error: {error}")
        return USAGE
    if type(error).__name__ == "Refused":
        _say(f"refused: {error}")
        return REFUSED
    if isinstance(error, ValueError):
        _say(f"error: {' '.join(str(error).split())}")
        return FAILED
    from jobs.lake.failures import one_line

    _say(f"error: {one_line(error)} (--debug shows the traceback)")
    return FAILED


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    # Run as a file (spark-submit) Python looks for modules beside it first, where a step's name could
    # hide a package; and the commands import `jobs.cli`, whose options must be those that were parsed.
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from jobs.cli import main as command

    command()
