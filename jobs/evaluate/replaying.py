"""`evaluate --events`: later events of a file, each ranked as it would have been served before it happened."""

from __future__ import annotations

import csv
import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from conf.settings import Settings
from jobs import clean
from jobs.clean.places import java_zones
from jobs.clean.rules import parsed, reasons, rules
from jobs.evaluate import contest, moments, versions
from jobs.evaluate.exams import is_target
from jobs.evaluate.fitting import baselines, fit
from jobs.evaluate.judging import rank
from jobs.ingest import raw_events
from jobs.ingest.landing import Landing
from jobs.ingest.reading import Source, empty, has_files, read
from jobs.ingest.sources import own_day
from jobs.lake.context import NO_TIMES_DAY, Context
from jobs.lake.identities import load_key
from jobs.lake.output import replaced
from jobs.lake.publications import in_force
from jobs.lake.state import newest_state
from jobs.pipeline import choose
from models import metrics
from models.baselines import BASELINES
from models.judging import Contender

log = logging.getLogger("wherewhen")

HEADER = ("row", "user_id", "event_timestamp", "item_id", "rank", "candidates")
_SHOWN = (("hit", 10), ("ndcg", 10), ("mrr", 0))
_PROGRESS_SECONDS = 10.0
_LONG_AGO = date(1900, 1, 1)


def evaluate_file(
    spark: SparkSession,
    settings: Settings,
    events: Path,
    output: Path,
    *,
    model: str | None = None,
    hide_time: bool = False,
    freeze_history: bool = False,
) -> dict[str, Any]:
    """Rank every target event of a file in the format of the main log, the model frozen, the lake as it is.

    `output` gets a line per data line of `events`, in its order: `HEADER`, the ids and the time as
    written there; `rank` is empty where the line is unreadable, no target event, or its item is not in
    the catalogue. `model`: a version or the name of a baseline; None: what serves on the newest
    finished day. Gives back how many lines were read, judged and ranked, and the mean metrics of the
    judged (an empty rank counts as a miss).

    Raises:
        ValueError: nothing is finished or published, no such model, `events` cannot be read or
            `output` not be written.
    """
    context = newest_state(spark, settings)
    contender = _contender(context, model)
    options = contest.options(context, hide_time=hide_time, freeze_history=freeze_history)
    log.info("replaying %s with %s, the lake as of %s", events, contender.name, context.days.last)
    partitions = max(settings.spark.shuffle_partitions, 4 * spark.sparkContext.defaultParallelism)
    with replaced(output) as scratch:
        try:
            with _file_in_order(spark), _watched(spark):
                lines, told = _lines(context, events)
                told = told.persist()
                rows = moments.together(_known(context, told), told)
                ranks = rank(moments.ordered(rows, partitions), contender, options).persist()
                summary = _write(lines.join(ranks, on="row", how="left").orderBy("row"), scratch)
        finally:
            spark.catalog.clearCache()
    return {"model_version": contender.name, "day": context.days.last, **summary}


def _contender(context: Context, model: str | None) -> Contender:
    registry, root = context.log_rows("model_versions"), context.lake.root
    newest = in_force(context.log_rows("publications"), before=context.days.last + timedelta(days=1))
    served = None if newest is None else newest["model_version"]
    name = served if model is None else model.removeprefix(versions.PREFIX)
    if name is None:
        raise ValueError(f"nothing is published in {root}: name a version or a baseline (--model {' or '.join(BASELINES)})")
    if name not in BASELINES:
        return Contender(name=name, folder=versions.folder(root, versions.known(registry, name)))
    # Counting is learning: of those alone who allow it.
    [learning] = choose(only=("train",))
    targets = context.seen_by(learning).history("events").where(is_target(context))
    catalogue = None if served is None else versions.vocabulary(root, versions.known(registry, served))
    counts = fit(targets, context.mapping.target_events, catalogue)
    fitted = baselines([name], targets, counts, context.settings.baselines)
    return Contender(name=f"{versions.PREFIX}{name}", ranker=fitted[name])


def _lines(context: Context, events: Path) -> tuple[DataFrame, DataFrame]:
    """The file's lines as written (`row`, `user_id`, `event_time`, `item_id`), and its good ones as events to be told.

    Lines go through the pipeline's own reading, parsing and rules; a line's arrival day is its own
    date. Exact duplicates are asked about each, and have one event id between them.
    """
    settings, mapping, spark = context.settings, context.mapping, context.spark
    read_rows = _read(context, events)
    # Both count the rows of one partition that keeps the file's order.
    lines = read_rows.select(F.monotonically_increasing_id().alias("row"), "user_id", "event_time", "item_id")
    day = F.coalesce(own_day(mapping.events), F.lit(context.days.last)) if mapping.has_times else F.lit(NO_TIMES_DAY)
    raw = raw_events(read_rows.withColumn("day", day), mapping.events, load_key(), settings.privacy)
    numbered = raw.withColumn("row", F.monotonically_increasing_id())
    judged = parsed(numbered, mapping).withColumn(
        "reasons", reasons(rules(mapping, settings.ingest.lookback_days, settings.clean))
    )
    good = judged.where(F.size("reasons") == 0).drop("reasons").persist()

    categories = context.state("items").select(
        "item_id",
        F.col("category").alias("item_category"),
        F.lit(_LONG_AGO).alias("since"),
        F.lit(None).cast("date").alias("until"),
    )
    consents = clean.consents_as_of(context, _LONG_AGO)
    distinct = clean.with_consents(good.dropDuplicates(["row_hash"]), consents)
    made = clean.events(
        clean.typed(distinct, mapping), categories, mapping, java_zones(spark), settings.spatial.max_precision_m
    )
    each = made.join(good.select("row", "row_hash"), on="row_hash", how="inner")
    asks = is_target(context)
    if mapping.events.wide:
        # A wide line may hold several target events of the same user, time and item: one asks for all.
        first = F.min(F.when(asks, F.col("event_type"))).over(Window.partitionBy("row"))
        each, asks = each.withColumn("_asking", first), F.col("event_type") == F.col("_asking")
    return lines, moments.new_rows(each, F.when(asks, F.col("row")))


def _read(context: Context, events: Path) -> DataFrame:
    feed = context.mapping.events
    where = "--events"
    if not has_files(feed):
        return read(context.spark, Source(feed=feed, where=where, path=str(events), files=None))
    place = Landing(context.spark).find(str(events), where)
    if len(place.files) != 1:
        raise ValueError(f"{where} {events} is not one file: rows are counted within a file, so give a single one")
    source = Source(feed=feed, where=where, path=str(events), files=place.files)
    if all(file.size == 0 for file in place.files):
        raise empty(str(events))
    return read(context.spark, source)


def _known(context: Context, told: DataFrame) -> DataFrame:
    """What the lake holds of the file's users: their stored sequences, which end before their first line.

    Of users for whom they do not (late lines, or lines that are in the lake), every event is read: a
    sequence holds the last events, not the last before any moment.
    """
    users = told.groupBy("user_id").agg(F.min("event_timestamp").alias("first_line"))
    stored = context.state("user_sequences").join(users, on="user_id", how="inner")
    overlaps = F.col("first_line") <= F.element_at("events", -1)["event_timestamp"]
    known = moments.sequence_rows(stored.where(~overlaps))
    late = stored.where(overlaps).select("user_id")
    if late.isEmpty():
        return known
    theirs = context.history("events").join(late, on="user_id", how="left_semi")
    return moments.together(known, moments.lake_rows(theirs))


def _write(rows: DataFrame, path: Path) -> dict[str, Any]:
    """Write the answers, line by line as they come; count them on the way."""
    sums = _Sums()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for row in rows.select("row", "user_id", "event_time", "item_id", "rank", "candidates").toLocalIterator(True):
            sums.add(row["rank"])
            writer.writerow([row[0], row[1], row[2], row[3], row["rank"] or None, row["candidates"]])
    return sums.summary()


@dataclass
class _Sums:
    """Counts of lines, and sums of the metrics over those that were judged, some thousands at a time."""

    lines: int = 0
    judged: int = 0
    ranked: int = 0

    def __post_init__(self) -> None:
        self._waiting: list[int] = []
        self._sum_M = np.zeros(len(_SHOWN))

    def add(self, rank: int | None) -> None:
        self.lines += 1
        if rank is None:
            return
        self.judged += 1
        self.ranked += rank != metrics.EMPTY
        self._waiting.append(rank)
        if len(self._waiting) >= 10_000:
            self._flush()

    def _flush(self) -> None:
        self._sum_M += metrics.values(np.array(self._waiting, dtype=np.int64), _SHOWN).sum(axis=0)
        self._waiting.clear()

    def summary(self) -> dict[str, Any]:
        self._flush()
        means = self._sum_M / self.judged if self.judged else np.zeros(len(_SHOWN))
        named = {f"{name}@{k}" if k else name: float(mean) for (name, k), mean in zip(_SHOWN, means, strict=True)}
        return {"lines": self.lines, "judged": self.judged, "ranked": self.ranked, **(named if self.judged else {})}


@contextmanager
def _file_in_order(spark: SparkSession) -> Iterator[None]:
    """One task reads a file, so that its rows can be counted in their order."""
    wanted = {"spark.sql.files.maxPartitionBytes": str(1 << 60), "spark.sql.files.minPartitionNum": "1"}
    before = {key: spark.conf.get(key, None) for key in wanted}
    for key, value in wanted.items():
        spark.conf.set(key, value)
    try:
        yield
    finally:
        for key, old in before.items():
            if old is None:
                spark.conf.unset(key)
            else:
                spark.conf.set(key, old)


@contextmanager
def _watched(spark: SparkSession) -> Iterator[None]:
    """Says every ten seconds how many parts of the work in progress are done."""
    group, done = f"evaluate-{uuid.uuid4().hex[:8]}", threading.Event()
    context = spark.sparkContext
    tracker = context.statusTracker()

    def say() -> None:
        while not done.wait(_PROGRESS_SECONDS):
            jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
            stages = [tracker.getStageInfo(stage) for job in jobs if job is not None for stage in job.stageIds]
            running = [stage for stage in stages if stage is not None and stage.numActiveTasks > 0]
            for stage in running[:1]:
                log.info("replaying: %d of %d parts done", stage.numCompletedTasks, stage.numTasks)

    context.setJobGroup(group, "evaluate --events")
    teller = threading.Thread(target=say, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()
        context.setLocalProperty("spark.jobGroup.id", None)  # type: ignore[arg-type]
        context.setLocalProperty("spark.job.description", None)  # type: ignore[arg-type]
