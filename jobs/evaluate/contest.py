"""Who is judged side by side: the baselines of the settings, and versions over the same catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from jobs.evaluate import moments, quality, versions
from jobs.evaluate.exams import Exam
from jobs.evaluate.fitting import baselines, fit
from jobs.evaluate.judging import judge, threads_of_a_task
from jobs.evaluate.kinds import told_apart
from jobs.lake import logs
from jobs.lake.context import Context
from models.baselines import BASELINES, Baseline
from models.judging import Contender, Judged, Terms, Verdicts
from models.replay import Options

Fitted = Mapping[str, Baseline]


def fitted(context: Context, exam: Exam, version: logs.Row | None) -> Fitted:
    """The baselines of the settings, over the version's catalogue, so that all rank the same items."""
    vocabulary = None if version is None else versions.vocabulary(context.lake.root, version)
    given = context.settings.baselines
    counts = fit(exam.fitted_on, context.mapping.target_events, vocabulary)
    return baselines(given.judged, exam.fitted_on, counts, given)


def options(context: Context, *, hide_time: bool = False, freeze_history: bool = False) -> Options:
    """How moments of the log are asked."""
    settings, mapping = context.settings, context.mapping
    return Options(
        length=settings.sequences.length,
        target_types=mapping.target_events,
        worth=settings.train.worth,
        repeats=mapping.repeats,
        hide_time=hide_time,
        freeze_history=freeze_history,
    )


def terms(context: Context, *, hide_time: bool = False, freeze_history: bool = False) -> Terms:
    settings = context.settings
    return Terms(
        options=options(context, hide_time=hide_time, freeze_history=freeze_history),
        ks=tuple(sorted({*settings.evaluate.ks, settings.gate.k})),
        samples=settings.evaluate.bootstrap_samples,
        threads=threads_of_a_task(context.spark),
    )


def contest(
    context: Context, exam: Exam, others: Fitted, judged: Sequence[logs.Row], how: Terms, *, against: str | None = None
) -> Verdicts:
    """Baselines under their names and versions under theirs; the first version is held against all, above all `against` one."""
    root, by_name = context.lake.root, {row["model_version"]: row for row in judged}
    contenders = [Contender(name=name, ranker=one) for name, one in others.items()]
    contenders += [Contender(name=name, folder=versions.folder(root, row)) for name, row in by_name.items()]
    names = tuple(by_name)
    compared = (names[0], against, context.settings.gate.measure) if against is not None and against != names[0] else None
    how = replace(how, compared=compared, ahead=names[0] if names else None)
    rows = told_apart(context, exam.rows)
    return judge(moments.ordered(rows, context.settings.spark.shuffle_partitions), contenders, how)


def rows(context: Context, judged: Mapping[str, Judged], evaluation: str) -> list[quality.Row]:
    """Rows of `model_quality`."""
    day = context.days.last
    return [row for name, one in judged.items() for row in quality.quality_rows(label(name), one, evaluation, day)]


def label(name: str) -> str:
    return f"{versions.PREFIX}{name}" if name in BASELINES else name


def lines(context: Context, judged: Mapping[str, Judged], title: str) -> list[str]:
    """Side by side, to read."""
    return quality.side_by_side({label(name): one for name, one in judged.items()}, context.settings.gate, title)
