"""Which of the day's candidates is decided on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date

from pyspark.sql import Window
from pyspark.sql import functions as F

from jobs.evaluate import quality
from jobs.evaluate.versions import Rows
from jobs.lake import logs
from jobs.lake.context import Context
from jobs.lake.publications import INTEREST, RANKER

Worth = Mapping[str, float]  # by kind
_WEEK = 7  # days of both kinds by which one is taken to be the better


def in_turn(
    made: Sequence[logs.Row],
    published: logs.Row | None,
    held: Mapping[str, float],
    recently: Mapping[str, float],
    margin: float,
) -> list[logs.Row]:
    """The day's candidates, first the one that is to be decided on.

    It is of the kind that serves, until the other has ranked better by the margin (`lately`); where neither kind serves it is
    of the one that ranked best where its like was held out.
    """
    serving = None if published is None else published["kind"]
    if recently:
        worth = {kind: value * (1.0 + margin if kind == serving else 1.0) for kind, value in recently.items()}
    else:
        worth = {**held, **({serving: math.inf} if serving is not None else {})}
    return sorted(made, key=lambda row: -worth.get(row["kind"], 0.0))


def lately(context: Context, registry: Rows) -> dict[str, float]:
    """Of each kind how its candidates ranked the events of their days, over the newest `gate.days` on which all were judged.

    Nothing where these are fewer than a week.
    """
    settings, by_day = context.settings.gate, F.dense_rank().over(Window.orderBy(F.desc("day")))
    metric, k = settings.measure
    is_asked = (
        (F.col("evaluation") == quality.DAY)
        & (F.col("segment") == quality.ALL)
        & (F.col("metric") == metric)
        & (F.col("k") == k)
    )
    stored = context.before("model_quality").where(is_asked).withColumn("_back", by_day).where(F.col("_back") <= settings.days)
    kinds = {(row["model_version"], row["day"]): row["kind"] for row in registry if row["kind"] in (INTEREST, RANKER)}
    found: dict[date, dict[str, tuple[float, int]]] = {}
    for row in stored.select("model_version", "day", "value", "events").collect():
        if (kind := kinds.get((row["model_version"], row["day"]))) is not None:
            found.setdefault(row["day"], {})[kind] = row["value"], row["events"]
    both = [day for day in found.values() if len(day) == len((INTEREST, RANKER))]
    if len(both) < _WEEK:
        return {}
    events = sum(day[INTEREST][1] for day in both)
    return {kind: sum(value * count for value, count in (day[kind] for day in both)) / events for kind in (INTEREST, RANKER)}
