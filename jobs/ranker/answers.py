"""Lists that were answered, as moments that trees learn from: what was taken, and what was shown and passed over.

An entry that was answered stands against those shown in the same list that were not. It counts what the answer earns
(`policy.rewards`), by how little its rank is looked at, up to a bound: else what stood first would be learnt to be best
(Joachims, Swaminathan and Schnabel, "Unbiased Learning-to-Rank with Biased Feedback", WSDM 2017). A list is asked about when it
was first shown that day, so that what answered it is not yet known.
"""

from __future__ import annotations

from datetime import date

import numpy as np
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf.contracts import IMPRESSION
from jobs.evaluate import moments
from jobs.feedback import TABLE, earns
from jobs.lake.context import Context
from jobs.score.blending import SHUFFLED
from models.position_bias import from_shuffled, regression_em

# However often one answers, so many of their newest answers count, and none for more than so many.
_PER_USER, _MOST = 20, 10.0
_LIST = ("user_id", "list_day", "slot", "shown_on")


def rows(context: Context, events: DataFrame, since: date, until: date) -> DataFrame | None:
    """What `models.hybrid.lessons_of_lists` reads, of answers that came back from `since` on and before `until`.

    events: all that came before `until`. None: nothing ever came back.
    """
    if context.version(TABLE) is None:
        return None
    seen = entries(context, since, until).persist()
    examined_K = examined(seen, context.settings.score.k)
    context.note(examined=[round(float(one), 3) for one in examined_K])
    asked = answered(seen, examined_K)
    theirs = events.join(asked.select("user_id").distinct(), on="user_id", how="left_semi")
    return moments.together(moments.lake_rows(theirs), moments.asked_rows(asked))


def entries(context: Context, since: date, until: date) -> DataFrame:
    """Entries that were shown on a day: columns of `_LIST`, `rank, item_id, source, shown_at, reward` (at most 1)."""
    told = context.earlier(TABLE).where(F.col("day").between(F.lit(since), F.lit(until)) & (F.col("day") < F.lit(until)))
    if (allowed := context.allowing(*context.purposes)) is not None:
        told = told.join(allowed.select("user_id"), on="user_id", how="left_semi")
    shown_at = F.min(F.when(F.col("event_type") == IMPRESSION, F.col("event_timestamp")))
    matched = told.where(F.col("unmatched").isNull()).withColumn("shown_on", F.to_date("event_timestamp"))
    of_entry = matched.groupBy(*_LIST, "rank", "item_id").agg(
        F.first("source").alias("source"),
        shown_at.alias("shown_at"),
        F.least(F.lit(1.0), F.sum(earns(context.settings.policy.rewards))).alias("reward"),
    )
    return of_entry.where(F.col("shown_at").isNotNull())


def examined(seen: DataFrame, k: int) -> np.ndarray:
    """How much each rank is looked at, the first 1, (K,): from lists that were shuffled; where too few of these were answered
    by regression EM over items, which takes an item to deserve the same of whomever it is shown to.
    """
    liked = F.greatest(F.lit(0.0), F.col("reward"))
    sums = (
        seen.where(F.col("rank") <= k)
        .groupBy((F.col("source") == SHUFFLED).alias("shuffled"), "item_id", "rank")
        .agg(F.count("*").alias("shown"), F.sum(liked).alias("liked"))
        .orderBy("item_id", "rank", "shuffled")
        .toArrow()
    )
    is_shuffled, rank_E = np.array(sums["shuffled"].to_pylist(), dtype=bool), sums["rank"].to_numpy() - 1
    shown_E, liked_E = sums["shown"].to_numpy().astype(float), sums["liked"].to_numpy()
    shown_K, answered_K = (
        np.bincount(rank_E[is_shuffled], weights=given_E[is_shuffled], minlength=k) for given_E in (shown_E, liked_E)
    )
    if (told := from_shuffled(shown_K, answered_K)) is None:
        item_E = sums["item_id"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
        told = regression_em(rank_E, liked_E, item_E, k, shown_E)
    # Nobody looks more at what stands further down; and where nothing was shown nothing is known.
    return np.fmin.accumulate(np.nan_to_num(told.examined_K, nan=1.0))


def answered(seen: DataFrame, examined_K: np.ndarray) -> DataFrame:
    """Moments for `moments.asked_rows`: one per answer to a list of which something was passed over."""
    entry = F.struct("rank", "item_id", "reward")
    lists = seen.groupBy(*_LIST).agg(
        F.min("shown_at").alias("event_timestamp"),
        F.array_sort(F.collect_list(entry)).alias("entries"),
    )
    passed = F.transform(F.filter("entries", lambda one: one.reward <= 0), lambda one: one.item_id)
    told = lists.withColumn("passed", passed).where(F.size("passed") > 0)
    answers = told.select(
        *_LIST, "event_timestamp", "passed", F.explode(F.filter("entries", lambda one: one.reward > 0)).alias("answer")
    )
    newest = Window.partitionBy("user_id").orderBy(F.desc("event_timestamp"), F.xxhash64(*_LIST, "answer.item_id"))
    counted = answers.withColumn("_place", F.row_number().over(newest)).where(F.col("_place") <= _PER_USER)
    return counted.select(
        "user_id",
        "event_timestamp",
        F.col("answer.item_id").alias("item_id"),
        F.xxhash64(*_LIST, "answer.item_id").alias("row"),
        F.create_map(F.lit("passed"), F.to_json("passed"), F.lit("worth"), _worth(examined_K).cast("string")).alias("groups"),
    )


def _worth(examined_K: np.ndarray) -> Column:
    looked = F.array(*[F.lit(float(one)) for one in examined_K])
    share = F.coalesce(F.try_element_at(looked, F.col("answer.rank")), F.lit(float(examined_K[-1])))
    return F.least(F.lit(_MOST), F.col("answer.reward") / F.greatest(share, F.lit(1e-6)))
