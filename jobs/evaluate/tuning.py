"""`tune-baselines`: the numbers with which each baseline ranks best, searched on what came before the hold-out.

Random search (Bergstra, Bengio: "Random Search for Hyper-Parameter Optimization", JMLR 2012), wide first and then around
the best: a few numbers each, and many are judged in one pass over the same moments.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import yaml
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.baselines import BASELINES, Baselines
from conf.settings import Settings
from jobs.evaluate import comparing, contest, exams, moments
from jobs.evaluate.fitting import baselines, fit
from jobs.evaluate.judging import judge
from jobs.lake.context import Context
from jobs.lake.state import newest_state
from jobs.pipeline import choose
from jobs.train.cutting import held_out_from
from models.counts import Counts
from models.judging import LISTED, Contender

log = logging.getLogger("wherewhen")
MEASURE = ("ndcg", LISTED)
# Each number is drawn within such a factor of the best so far, one round after the other; powers of a mix within 0..2.
_FACTORS = (8.0, 3.0, 1.5)
# More of them only cost more, and Spark's plans of very many overflow its stack.
_FIXED = ("iterations",)
_POWERS = ("frequency", "recency", "hour", "weekday", "previous", "itself")


def tune_baselines(spark: SparkSession, settings: Settings, names: Sequence[str], draws: int) -> str:
    """Settings of the named baselines as YAML, after so many draws of each in each of three rounds.

    Raises:
        ValueError: one has no numbers to tune, or there is no finished day, or too little before the hold-out.
    """
    tuned = [name for name in BASELINES if name in Baselines.model_fields]
    if wrong := [name for name in names if name not in tuned]:
        raise ValueError(f"{', '.join(wrong)}: no baseline with numbers to tune; these are {', '.join(tuned)}")
    [step] = choose(only=("evaluate",))
    context = newest_state(spark, settings).seen_by(step)
    exam = _exam(context)
    rows = moments.ordered(exam.rows, settings.spark.shuffle_partitions).persist()
    counts = fit(exam.fitted_on, context.mapping.target_events)
    targets = exam.fitted_on.persist()
    found: dict[str, dict[str, Any]] = {}
    said = []
    for name in names or tuned:
        before, after, given = _search(context, name, (rows, targets, counts), draws)
        found[name] = {key: _rounded(value) for key, value in given.items()}
        said.append(f"#   {name}: {before:.4f} as it is, {after:.4f} with these")
    heading = "# ndcg@10 on the share of days (or the target) before the hold-out:"
    return "\n".join([heading, *said]) + "\n" + yaml.safe_dump({"baselines": found}, sort_keys=False)


def _exam(context: Context) -> exams.Exam:
    if not context.mapping.has_times:
        return exams.last_events_exam(context, before_last=1)
    until = comparing.held_out(context)[0]["trained_until"].date()
    stored = context.history("events").where(F.col("day") < F.lit(until)).select("day").distinct()
    days = sorted(row["day"] for row in stored.collect())
    cut = held_out_from(days, context.settings.evaluate.holdout_share)
    if cut is None:
        raise ValueError(f"{context.lake.root}: only {len(days)} day before {until}, which is too little to tune on")
    return exams.holdout_exam(context, cut, until)


Ground = tuple[DataFrame, DataFrame, Counts]


def _search(context: Context, name: str, ground: Ground, draws: int) -> tuple[float, float, dict[str, Any]]:
    """ndcg of the settings as they are and of the best, and these."""
    random = np.random.default_rng(context.settings.train.seed)
    best = getattr(context.settings.baselines, name).model_dump()
    first = value = -1.0
    for factor in _FACTORS:
        tried = [best, *_drawn(random, best, factor, draws)]
        values = _judged(context, name, tried, ground)
        first = values[0] if first < 0 else first
        value, best = max(values), tried[int(np.argmax(values))]
        shown = ", ".join(f"{key} {_rounded(one)}" for key, one in best.items())
        log.info("%s: ndcg@10 %.4f of %d within a factor of %.1f: %s", name, value, len(tried), factor, shown)
    return first, value, best


def _drawn(random: np.random.Generator, best: dict[str, Any], factor: float, draws: int) -> Iterator[dict[str, Any]]:
    for _ in range(draws):
        drawn: dict[str, Any] = {}
        for key, value in best.items():
            if key in _FIXED:
                drawn[key] = value
            elif key in _POWERS:
                spread = random.uniform(-1, 1) * min(1.0, factor / 4)
                drawn[key] = float(np.clip(value + spread, 0.0, 2.0))
            else:
                scaled = value * factor ** random.uniform(-1, 1)
                drawn[key] = max(2, round(scaled)) if isinstance(value, int) else float(scaled)
        yield drawn


def _judged(context: Context, name: str, tried: Sequence[dict[str, Any]], ground: Ground) -> list[float]:
    """The measure of each; all are judged in one pass."""
    rows, targets, counts = ground
    contenders = []
    for number, numbers in enumerate(tried):
        given = Baselines.model_validate({name: numbers})
        made = baselines([name], targets, counts, given)[name]
        contenders.append(Contender(name=f"{name} {number}", ranker=made))
    judged = judge(rows, contenders, contest.terms(context)).judged
    return [judged[one.name].mean(MEASURE) if one.name in judged else float("nan") for one in contenders]


def _rounded(value: float) -> float:
    """Three figures say all that a search knows."""
    return value if isinstance(value, int) else float(f"{value:.3g}")
