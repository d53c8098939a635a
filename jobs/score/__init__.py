"""Ranks the whole catalogue for every user and slot with the version that serves, and says why.

A slot is asked about at its middle hour in the week that follows the day: on a weekday that is
Wednesday, at the weekend Saturday; nights count to the day they begin, so theirs is 02:00 on the
Thursday and the Sunday. The user is taken to be at the main place of that slot (`user_places`), else
where last seen. `any` hides the hour and asks from where the user was last seen, right after the day.
Who has done nothing for some days is asked as on an earlier one (`jobs.score.moments.ASKED_FROM`).
Logs without times have `any` alone, asked one second after the user's last event.

While the same version serves, only those are ranked again whose lists may come out different (`jobs.score.due`);
written are the users whose rows did.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.contracts import ANY_SLOT, SLOTS
from conf.tables import TABLES
from jobs import feedback
from jobs.lake.context import Context, Skipped
from jobs.lake.publications import POLICY, version_in_force
from jobs.lake.store import Days, keyframes
from jobs.score.approximate import MEASURED, index_of, looked_at
from jobs.score.blending import Blend
from jobs.score.due import items_counted, served_before, told_before, users_due
from jobs.score.items import collected, item_facts, ruled
from jobs.score.lists import Scorer
from jobs.score.moments import EVENT_FIELDS
from models.baselines import BASELINES

if TYPE_CHECKING:
    from models.queries import Ranker

_USERS_AT_ONCE = 256  # rows of user_sequences that a worker holds


def run(context: Context) -> None:
    served = served_version(context)
    if served is None:
        raise Skipped("no model and no baseline is published: nothing was learnt yet")
    spark, settings = context.spark, context.settings
    items = ruled(context.state("items"), settings.score, context.days.last)
    yesterday = served_before(context)
    known = item_facts(items_counted(context, yesterday), items, context.history("items"))
    catalogue = collected(known, settings.score)
    facts = spark.sparkContext.broadcast(catalogue)
    scorer = Scorer(
        folder=served.folder,
        load=_load_ranker,
        facts=facts,
        day=context.days.last,
        k=settings.score.k,
        slots=settings.score.slots and settings.mapping.has_times,
        has_times=settings.mapping.has_times,
        repeats=settings.mapping.repeats,
        length=settings.sequences.length,
        targets=settings.mapping.target_events,
        caps=settings.score.caps,
        diversity=settings.score.diversity,
        blend=(blend := policy_in_force(context)),
        nearest=looked_at(context, served.method, blend),
    )
    if blend is not None:
        context.note(policy=blend.version)
    index, due = None, None
    if scorer.nearest is not None:
        index = index_of(context, scorer, lambda: _some_input(context))
    made_by = {"model_version": served.model_version, "index": index, "policy": None if blend is None else blend.version}
    if (told := told_before(context, yesterday, made_by, Path(served.folder), catalogue)) is not None:
        due = users_due(context, told).persist()
        # Counted before it is used, so that plans know how many they are: few are sought where rows lie, without a shuffle.
        context.note(users_due=due.count())
    context.note(ranked="everybody" if due is None else "who may get other lists")
    sequences, places = (context.state(name, among=due) for name in ("user_sequences", "user_places"))
    lists = context.before("recommendations", among=due)
    users = scoring_input(sequences, places, digests(lists), dismissed(context))
    rows = changed_lists(users.mapInArrow(scorer, scorer.schema), served, blend, context.days.last)
    if keyframes(context.days, context.first_day):
        rows = rows.persist()  # read twice: as changes and for the copies
    context.note(model_version=served.model_version, source=served.source)
    with batches_of(spark, _USERS_AT_ONCE):
        context.write("recommendations", rows)
    facts.destroy()
    context.write("served_items", spark.createDataFrame(catalogue).withColumn("day", F.lit(context.days.last)))


def _some_input(context: Context) -> DataFrame:
    """`scoring_input` of some users, as if they had no lists."""
    some, nothing = context.state("user_sequences").limit(MEASURED), context.before("recommendations").limit(0)
    return scoring_input(some, context.state("user_places"), digests(nothing), dismissed(context))


@dataclass(frozen=True, kw_only=True)
class Served:
    """The version in force. `folder` is absolute; `source` is what its items are marked with."""

    model_version: str
    folder: str
    source: str

    @property
    def method(self) -> str:
        return self.source.partition(":")[2]


def served_version(context: Context) -> Served | None:
    """The version of the newest publication up to the run's last day; None where there is none.

    Raises:
        ValueError: the registry does not know the version.
    """
    known = version_in_force(context, before=context.days.last + timedelta(days=1))
    if known is None:
        return None
    method = known["method"]
    return Served(
        model_version=known["model_version"],
        folder=context.lake.path(known["folder"]),
        source=f"{'baseline' if method in BASELINES else 'model'}:{method}",
    )


def policy_in_force(context: Context) -> Blend | None:
    """The policy that mixes lists, as it was before the run; None: none learnt yet, or the settings say none.

    Raises:
        ValueError: the registry does not know it.
    """
    settings = context.settings.policy
    if settings.by == "none":
        return None
    known = version_in_force(context, before=context.days.last + timedelta(days=1), kind=POLICY)
    if known is None:
        return None
    return Blend.of(context.lake.path(known["folder"]), known["model_version"], settings, context.days.last)


def digests(lists: DataFrame) -> DataFrame:
    """One number per user that tells two states of the user's lists apart: `user_id, digest_before`."""
    compared = F.xxhash64(*_COMPARED)
    return lists.groupBy("user_id").agg(F.bit_xor(compared).alias("digest_before"))


_OF_ENTRY = ("slot", "rank", "item_id", "score", "reason", "propensity")
_COMPARED = (*_OF_ENTRY, "source", "model_version", "policy_context", "holdout")


def _digest(lists: Column, served: Served) -> Column:
    """`digests` of an array of entries."""
    version = F.lit(served.model_version)
    return F.aggregate(
        lists,
        F.lit(0).cast("bigint"),
        lambda so_far, entry: so_far.bitwiseXOR(
            F.xxhash64(
                *[entry[name] for name in _OF_ENTRY],
                F.coalesce(entry.source, F.lit(served.source)),
                version,
                "policy_context",
                "holdout",
            )
        ),
    )


def dismissed(context: Context) -> DataFrame | None:
    """`user_id, unwanted`: the items that users have dismissed of late in answer to their lists; None: nothing comes back."""
    if context.version(feedback.TABLE) is None:
        return None
    day = context.days.last
    since = day - timedelta(days=context.settings.score.dismissed_days - 1)
    told = feedback.dismissed(context, Days(first=since, last=day))
    return told.groupBy("user_id").agg(F.sort_array(F.collect_set("item_id")).alias("unwanted"))


def scoring_input(sequences: DataFrame, places: DataFrame, before: DataFrame, unwanted: DataFrame | None = None) -> DataFrame:
    """One row per user known now or listed before: event columns as arrays, main places by slot, digest, unwanted items.

    `place_latitude` and `place_longitude` have one element per slot of `SLOTS`, null where the user
    has no main place then.
    """
    mains = [
        F.min(F.when(F.array_contains("main_slots", slot), F.struct("place_id", "latitude", "longitude"))) for slot in SLOTS
    ]
    by_slot = places.groupBy("user_id").agg(F.array(*mains).alias("mains"))
    users = sequences.join(by_slot, on="user_id", how="left").join(before, on="user_id", how="full_outer")
    if unwanted is None:
        users = users.withColumn("unwanted", F.lit(None).cast("array<string>"))
    else:
        users = users.join(unwanted, on="user_id", how="left")
    return users.select(
        "user_id",
        *[F.col(f"events.{field}").alias(field) for field in EVENT_FIELDS],
        "seen",
        "unwanted",
        F.try_element_at(F.array_compact("events.region"), F.lit(-1)).alias("region"),
        F.when(F.col("events_total") > F.size("events"), F.size("events")).otherwise(0).alias("kept"),
        F.col("mains.latitude").alias("place_latitude"),
        F.col("mains.longitude").alias("place_longitude"),
        "digest_before",
    )


def changed_lists(scored: DataFrame, served: Served, blend: Blend | None, day: date) -> DataFrame:
    """Rows of `recommendations` for the users whose lists differ from before; a gone row where none is left."""
    gone, version = F.size("lists") == 0, None if blend is None else blend.version
    differs = F.col("digest_before").isNull() | (F.col("digest_before") != _digest(F.col("lists"), served))
    nothing = F.struct(
        F.lit(ANY_SLOT).alias("slot"),
        F.lit(1).alias("rank"),
        F.lit("").alias("item_id"),
        F.lit(0.0).alias("score"),
        F.lit("").alias("reason"),
        F.lit(None).cast("string").alias("source"),
        F.lit(1.0).alias("propensity"),
    )
    return (
        scored.where(F.when(gone, F.col("digest_before").isNotNull()).otherwise(differs))
        .select(
            "user_id",
            "policy_context",
            "holdout",
            gone.alias("gone"),
            F.explode(F.when(gone, F.array(nothing)).otherwise(F.col("lists"))).alias("entry"),
        )
        .select(
            "user_id",
            "entry.slot",
            "entry.rank",
            "entry.item_id",
            "entry.score",
            F.coalesce("entry.source", F.lit(served.source)).alias("source"),
            "entry.reason",
            F.lit(served.model_version).alias("model_version"),
            F.when(F.col("entry.source").isNotNull(), F.lit(version)).cast("string").alias("policy_version"),
            "entry.propensity",
            "policy_context",
            "holdout",
            "gone",
            F.lit(day).alias("changed_on"),
            F.lit(day).alias("day"),
        )
        .select(*TABLES["recommendations"].names)
    )


@contextmanager
def batches_of(spark: SparkSession, rows: int) -> Iterator[None]:
    """Arrow batches of so many rows, and as many tasks as there are partitions, however small these are."""
    wanted = {
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(rows),
        "spark.sql.adaptive.coalescePartitions.enabled": "false",
    }
    before = {key: spark.conf.get(key, None) for key in wanted}
    try:
        for key, value in wanted.items():
            spark.conf.set(key, value)
        yield
    finally:
        for key, known in before.items():
            if known is None:
                spark.conf.unset(key)
            else:
                spark.conf.set(key, known)


def _load_ranker(folder: str) -> Ranker:
    from models.registry import load_ranker

    return load_ranker(Path(folder))
