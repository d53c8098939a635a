"""`compare`: the hold-out version and the baselines side by side, whole and in parts, without a trace in the lake."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from pyspark.sql import SparkSession

from conf.settings import Settings
from jobs.evaluate import contest, exams, quality, versions
from jobs.lake import logs
from jobs.lake.context import Context
from jobs.lake.output import replaced
from jobs.lake.state import newest_state
from jobs.pipeline import choose
from models.judging import LISTED, Judged

COLUMNS = ("model_version", "segment", "metric", "k", "value", "lower", "upper", "events", "users")


def compare(
    spark: SparkSession, settings: Settings, output: Path | None, *, hide_time: bool = False, freeze_history: bool = False
) -> list[str]:
    """Lines to read; with `output` a CSV of `COLUMNS` besides. The versions are the newest that were trained to be held
    out; where a log has no times they are the newest at all, and the events are each user's last.

    Raises:
        ValueError: there is no finished day or no such version, or `output` cannot be written.
    """
    [step] = choose(only=("evaluate",))
    context = newest_state(spark, settings).seen_by(step)
    candidates = held_out(context)
    version = candidates[0]
    if context.mapping.has_times:
        exam = exams.holdout_exam(context, version["trained_until"].date())
    else:
        exam = exams.last_events_exam(context)
    how = contest.terms(context, hide_time=hide_time, freeze_history=freeze_history)
    with nullcontext() if output is None else replaced(output) as scratch:
        judged = contest.contest(context, exam, contest.fitted(context, exam, version), candidates, how).judged
        if scratch is not None:
            _write(contest.rows(context, judged, quality.HOLDOUT), scratch)
    asked = [name for name, is_so in (("time hidden", hide_time), ("history frozen", freeze_history)) if is_so]
    title = f"after {version['trained_until']:%Y-%m-%d}" + (f" ({', '.join(asked)})" if asked else "")
    return [*contest.lines(context, judged, title), *_by_segment(judged)]


def _write(rows: list[quality.Row], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def held_out(context: Context) -> list[logs.Row]:
    """The newest versions that were trained until a cut; of a log without times the newest.

    Raises:
        ValueError: there is none.
    """
    made = context.log_rows("model_versions")
    days = sorted({row["day"] for row in made}, reverse=True)
    choice = versions.held_out if context.mapping.has_times else lambda rows, day: versions.candidates(rows, day, False)
    found: list[logs.Row] = next((some for day in days if (some := choice(made, day))), [])
    if not found:
        raise ValueError(
            f"{context.lake.root} has no version to judge: `run --bootstrap` trains one until a cut, on enough days"
        )
    return found


def _by_segment(judged: Mapping[str, Judged]) -> list[str]:
    """ndcg of each segment, a column a contender, the best first."""
    best_first = sorted(judged, key=lambda name: -judged[name].mean(("ndcg", LISTED)))
    if not best_first:
        return ["nothing to judge by: no target event came after it"]
    segments = sorted({name for one in judged.values() for name in one.segments})
    names = [contest.label(name) for name in best_first]
    width = max(map(len, segments), default=0)
    lines = ["", f"ndcg@{LISTED} by segment", f"  {'':<{width}}  {'events':>8}  " + "  ".join(names)]
    for segment in segments:
        tallies = [judged[name].segments.get(segment) for name in best_first]
        events = max(0.0 if tally is None else tally.events for tally in tallies)
        means = ["-" if tally is None else f"{tally.mean_M[0]:.4f}" for tally in tallies]
        shown = "  ".join(f"{mean:>{len(name)}}" for mean, name in zip(means, names, strict=True))
        lines.append(f"  {segment:<{width}}  {events:>8,.0f}  {shown}")
    return lines
