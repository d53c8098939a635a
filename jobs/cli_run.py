"""The commands that work on Spark: those that run steps, simulate, judge, export or report."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli import DONE, REFUSED, day_of, settings

if TYPE_CHECKING:
    from jobs.runner import Outcome, StepReport

log = logging.getLogger("wherewhen")

DayOption = Annotated[str, typer.Option(help="Run date, YYYY-MM-DD (UTC).")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (
        demo,
        profile,
        simulate,
        run,
        refresh,
        backfill,
        rebuild,
        requarantine,
        evaluate,
        compare,
        tune_baselines,
        export,
        report,
    ):
        app.command()(command)


def demo(
    users: Annotated[int, typer.Option(min=20, help="Simulated users.")] = 120,
    items: Annotated[int, typer.Option(min=20, help="Simulated items.")] = 300,
    days: Annotated[int, typer.Option(min=10, help="Days of history, the night included.")] = 21,
    seed: Annotated[int, typer.Option(help="Another seed, another world.")] = 1,
) -> None:
    """Simulate logs, bootstrap a history, run a night through every step, show recommendations.

    Replaces ./lake, and only one that a demo made. Example: wherewhen demo --users 1000
    """
    from jobs.demo import run_demo

    run_demo(settings(), users=users, items=items, days=days, seed=seed, watch=Watch())


def profile(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, JSON lines or Parquet; .gz too.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option(metavar="MAPPING.yaml", help="Write the proposed mapping here, else to stdout.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Look at so many rows, the first.")] = 100_000,
) -> None:
    """Show what a log's columns hold, propose its mapping, and count what cleaning would refuse.

    Ids of users are masked, and the lake is neither read nor written. A mapping that cannot be proposed whole ends with 1.
    Example: wherewhen profile checkins.csv.gz --output mine.source.yaml
    """
    from jobs.profiling import profile as look
    from jobs.profiling.showing import heading, rules_table, table

    if output is not None and output.exists():
        raise ValueError(f"{output} exists: give another name, or remove it")
    began = time.monotonic()
    loaded, found = settings(), look(file, rows)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    sys.stdout.write(heading(found.sample) + "\n" + table(found.columns, found.proposal.uses(), width))
    sys.stdout.write("" if output is not None else f"\n{found.proposal.as_yaml()}")
    sys.stdout.flush()
    if output is not None:
        output.write_text(found.proposal.as_yaml())
        log.info("wrote %s", output)
    if found.proposal.missing:
        where = f"add it to {output}" if output is not None else "write the mapping by hand"
        raise ValueError(f"{file}: no column seems to be {' or '.join(found.proposal.missing)}: {where}")
    from jobs.lake.session import start
    from jobs.profiling.firing import firing

    log.info("looked at %s rows in %.1f s; now the cleaning rules", f"{len(found.sample.rows):,}", time.monotonic() - began)
    fired = firing(start(loaded), file, found.proposal.mapping(), loaded, len(found.sample.rows))
    sys.stdout.write("\n" + rules_table(fired))


def simulate(
    output: Annotated[Path, typer.Option(help="Folder to write landing/ and truth/ into.")],
    users: Annotated[int, typer.Option(min=1)] = 500,
    items: Annotated[int, typer.Option(min=1)] = 300,
    days: Annotated[int, typer.Option(min=1)] = 60,
    end_day: Annotated[str, typer.Option(help="Last landing day, YYYY-MM-DD.")] = "2024-06-30",
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 1,
) -> None:
    """Write logs with planted truth: OUTPUT/landing/YYYY-MM-DD/ and OUTPUT/truth/.

    Example: wherewhen simulate --output /tmp/world --users 2000 --items 500 --days 90 --end-day 2024-06-30 --seed 7
    """
    from jobs.lake.session import start
    from jobs.simulate import World
    from jobs.simulate import simulate as write_world

    began = time.monotonic()
    world = World(users=users, items=items, days=days, end_day=day_of(end_day), seed=seed)
    write_world(start(settings()), output, world)
    log.info("wrote %s in %.0f s; run it with: wherewhen --set sources.events.path=%s/landing run --day %s --bootstrap",
             output, time.monotonic() - began, output, end_day)  # fmt: skip


def run(
    day: DayOption,
    bootstrap: Annotated[bool, typer.Option("--bootstrap", help="Take the whole history up to DAY at once.")] = False,
    from_step: Annotated[str | None, typer.Option(help="Begin with this step.")] = None,
    to_step: Annotated[str | None, typer.Option(help="End with this step.")] = None,
    only: Annotated[str | None, typer.Option(help="Only these steps, separated by commas.")] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Take what landed as it is: no folder, few or many rows, other types.")
    ] = False,
) -> int:
    """Run the pipeline for one day.

    Ends with 3 when a check refused something (a day out of order; a candidate model, after all was delivered).
    Who is named by alert.url_env is told of it, and of drift past its bounds.
    Example: wherewhen --config conf/foursquare.yaml --set sources.events.path=checkins.csv.gz run --day 2012-12-20 --bootstrap
    """
    from jobs import alert
    from jobs.lake.refused import Refused
    from jobs.lake.session import start
    from jobs.pipeline import choose
    from jobs.runner import run as run_steps

    loaded = settings().accepting() if accept else settings()
    steps = choose(from_step, to_step, tuple(filter(None, (only or "").split(","))))
    spark = start(loaded, torch=any(step.torch for step in steps))
    try:
        outcome = run_steps(spark, loaded, day_of(day), steps=steps, bootstrap=bootstrap, watch=Watch())
    except Refused as refused:
        alert.tell(loaded, day_of(day), refusals=[str(refused)])
        raise
    _close(outcome)
    for refusal in outcome.refusals:
        log.warning("refused: %s", refusal)
    alert.tell(loaded, outcome.days.last, refusals=outcome.refusals, drift=outcome.drift, run_id=outcome.run_id)
    alone = bool(from_step or to_step or only)
    return REFUSED if outcome.refusals and not alone else DONE


def refresh() -> None:
    """Between two nights: take what landed since the last, rank those in it again and deliver their lists.

    It reads the landing folder of the day after the newest night as far as it is filled, and may run every hour. It does not
    finish the day, and a night afterwards leaves what it would have left without.
    Example: wherewhen --config mine.yaml refresh
    """
    from jobs.lake.session import start
    from jobs.refresh import refresh as take_in

    loaded = settings()
    done = take_in(start(loaded, torch=True), loaded, Watch())
    if done.run_id is None:
        sys.stderr.write(f"nothing landed for {done.days.last} since the last refresh; lists stay as they are\n")


def backfill(
    start: Annotated[str, typer.Option(help="First day, YYYY-MM-DD.")],
    end: Annotated[str, typer.Option(help="Last day, YYYY-MM-DD.")],
    only: Annotated[str | None, typer.Option(help="Only these steps, separated by commas.")] = None,
) -> None:
    """Run days one after the other; stopped, the same command goes on where it was.

    Example: wherewhen backfill --start 2024-06-01 --end 2024-06-07
    """
    from jobs.backfill import run_days
    from jobs.lake.session import start as start_session
    from jobs.pipeline import choose

    loaded = settings()
    steps = choose(only=tuple(filter(None, (only or "").split(","))))
    spark = start_session(loaded, torch=any(step.torch for step in steps))
    run_days(spark, loaded, day_of(start), day_of(end), steps=steps, watch=Watch())


def rebuild(
    table: Annotated[str, typer.Argument(help="A table's name.", show_default=False)],
) -> int:
    """Make a table, and all that is made of it, again for the whole history from what is stored.

    For tables that `wherewhen tables` calls stale, or whose contract changed. Items, users and raw_events are read
    again from where they landed, all others from raw_events.
    Example: wherewhen rebuild user_sequences
    """
    from jobs.lake.session import start
    from jobs.rebuild import rebuild as make_again
    from jobs.rebuild import steps_of

    loaded = settings()
    spark = start(loaded, torch=any(step.torch for step in steps_of(table)))
    outcome = make_again(spark, loaded, table, Watch())
    _close(outcome)
    for refusal in outcome.refusals:
        log.warning("refused: %s", refusal)
    return REFUSED if outcome.refusals else DONE


def requarantine(
    reason: Annotated[str, typer.Option(help="The rule's name, as in events_quarantine.reasons.")],
    from_: Annotated[str, typer.Option("--from", metavar="D", help="Rows that arrived since this day, YYYY-MM-DD.")],
) -> None:
    """Judge quarantined rows again after a rule was mended: a backfill from clean on, resumable.

    Example: wherewhen requarantine --reason bad_time --from 2024-06-01
    """
    from jobs.lake.session import start
    from jobs.requarantine import requarantine as judge_again

    loaded = settings()
    before, after = judge_again(start(loaded, torch=True), loaded, reason, day_of(from_), Watch())
    sys.stdout.write(f"{reason}: {before} rows before, {after} now\n")


def evaluate(
    events: Annotated[Path, typer.Option(help="Later events, in the format of sources.events.")],
    output: Annotated[Path, typer.Option(help="CSV to write: row,user_id,event_timestamp,item_id,rank,candidates.")],
    model: Annotated[str | None, typer.Option(help="A model version; default: the one published.")] = None,
    hide_time: Annotated[bool, typer.Option("--hide-time", help="Give the query the time of the user's last event.")] = False,
    freeze_history: Annotated[
        bool, typer.Option("--freeze-history", help="History is the lake and the current trajectory only.")
    ] = False,
) -> None:
    """Rank the catalogue before each event of a later log, and say where the event's item stood.

    Example: wherewhen --config conf/foursquare.yaml --set lake=DIR evaluate --events later.csv.gz --output ranks.csv
    """
    from jobs.evaluate import evaluate_file
    from jobs.lake.session import start

    loaded = settings()
    summary = evaluate_file(
        start(loaded, torch=True), loaded, events, output, model=model, hide_time=hide_time, freeze_history=freeze_history
    )
    for name, value in summary.items():
        log.info("%s: %s", name, f"{value:.4f}" if isinstance(value, float) else value)


def compare(
    output: Annotated[Path | None, typer.Option(help="CSV to write: every measure of each, whole and by segment.")] = None,
    hide_time: Annotated[bool, typer.Option("--hide-time", help="Give the query the time of the user's last event.")] = False,
    freeze_history: Annotated[
        bool, typer.Option("--freeze-history", help="History is what came before the hold-out, and the current trajectory.")
    ] = False,
) -> None:
    """Judge the newest hold-out version and the baselines (`baselines.judged`) side by side on what came after its training.

    Nothing in the lake changes.
    Example: wherewhen --set 'baselines.judged=[popularity, kernels, als]' compare --hide-time --output quality.csv
    """
    from jobs.evaluate.comparing import compare as judge_again
    from jobs.lake.session import start

    loaded = settings()
    lines = judge_again(start(loaded, torch=True), loaded, output, hide_time=hide_time, freeze_history=freeze_history)
    sys.stdout.write("\n".join(lines) + "\n")


def tune_baselines(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Baselines; default: all.")] = None,
    draws: Annotated[int, typer.Option(min=1, help="So many settings of each in each of three rounds.")] = 15,
) -> None:
    """Search the numbers with which the baselines rank best on what came before the hold-out; they go to stdout, as YAML.

    Example: wherewhen tune-baselines markov kernels > baselines.yaml
    """
    from jobs.evaluate.tuning import tune_baselines as search
    from jobs.lake.session import start

    loaded = settings()
    sys.stdout.write(search(start(loaded, torch=True), loaded, names or [], draws))


def export(
    sink: Annotated[str | None, typer.Option(help="One sink of the settings; default: all.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Compare what the sinks hold; 1: one holds something else.")] = False,
    whole: Annotated[bool, typer.Option("--whole", help="Send everything, whatever the sinks hold.")] = False,
) -> None:
    """Deliver the newest finished night to the sinks: what each lacks.

    Example: wherewhen --set 'sinks.files={kind: csv, path: out/lists}' export --sink files

    Example: wherewhen --config mine.yaml export --check
    """
    from jobs.export import export as deliver
    from jobs.lake.session import start

    loaded = settings()
    deliver(start(loaded), loaded, sink, whole=whole, dry_run=dry_run, check=check)


def report() -> None:
    """Write the page of the newest finished day again.

    Example: wherewhen --set report.path=/var/www/night.html report
    """
    from jobs.lake.runs import newest_night
    from jobs.lake.session import start
    from jobs.pipeline import choose
    from jobs.runner import run as run_steps

    loaded = settings()
    night = newest_night(loaded.lake)
    if night is None:
        raise ValueError(f"no night is finished in {loaded.lake}: run one first")
    run_steps(start(loaded), loaded, night.day, steps=choose(only=("report",)), watch=Watch())
    sys.stdout.write(f"{loaded.report.page(night.day)}\n")


class Watch:
    """Progress: a live line on a terminal, one plain line a step elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._status = self._console.status("") if self._console.is_terminal else None

    def __call__(self, step: str, report: StepReport | None) -> None:
        if report is None:
            if self._status is not None:
                self._status.update(f"{step} ...")
                self._status.start()
            return
        if self._status is not None:
            self._status.stop()
        rows = ", ".join(f"{name} {count:,}" for name, count in report.rows_out.items())
        said = f"{report.status}: {report.message}" if report.message else rows
        log.info("  %-12s %6.1f s  %s", step, report.seconds, said)


def _close(outcome: Outcome) -> None:
    total = sum(report.seconds for report in outcome.reports)
    whole = (
        f"{outcome.days.first} to {outcome.days.last}" if outcome.days.first != outcome.days.last else f"{outcome.days.last}"
    )
    log.info("%s: %d steps in %.0f s (run %s)", whole, len(outcome.reports), total, outcome.run_id)
