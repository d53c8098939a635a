"""policy: from how lists did, how much of them is to come from which source, by region, slot and activity.

Every night makes the next version from the one before and the answers of the day (`models.policy`): it moves a little, and
nothing that comes back can move it by more. Versions are in the registry (kind `policy`): `wherewhen rollback --kind policy`
goes back to an earlier one, `policy.by: none` mixes no lists from then on.
"""

from __future__ import annotations

import json
from datetime import datetime, time
from pathlib import Path

import numpy as np
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf.contracts import IMPRESSION
from jobs.answered import ENTRY, answered_lists, sampled_below
from jobs.feedback import earns
from jobs.lake import logs
from jobs.lake.context import Context, Skipped
from jobs.lake.publications import POLICY, version_in_force
from jobs.score.blending import PART, SHUFFLED, SOURCES, TOGETHER, context_of, limits_of
from models import registry
from models.off_policy import compared
from models.policy import METHOD, Evidence, Policy
from models.policy import Context as Of

_PUBLISHED = "published"
_JUDGED_DAYS, _ROUNDING = 28, 1e-9
_DIGITS = 6
_OF_LIST = ("user_id", "list_day", "slot", "rank")


def run(context: Context) -> None:
    if context.settings.policy.by == "none":
        raise Skipped("policy.by is none: lists are the ranking's alone")
    if context.settings.feedback is None or not context.mapping.has_times:
        raise Skipped("the log maps no feedback, or has no times: nothing tells how lists did")
    before = _before(context)
    policy = before
    if not context.bootstrap:
        earlier = context.before("feedback", context.settings.policy.answer_days + 1)
        entries = answered(context.arrivals("feedback"), earlier, context.settings.policy.rewards)
        if (allowed := context.allowing(*context.purposes)) is not None:
            entries = entries.join(allowed.select("user_id"), on="user_id", how="left_semi")
        policy = before.after(told(entries, before, context.settings.score.k), seed=context.days.last.toordinal())
        if (loss := surely_lost(context, before, policy)) is not None:
            policy = policy.held_at(before)
            context.log.warning("policy of %s: shares stay as they were: %s", context.days.last, loss)
            context.note(held=loss)
    _publish(context, before, policy)


def _before(context: Context) -> Policy:
    """What was in force before the day, under the limits that are set now."""
    limits = limits_of(context.settings.policy)
    known = version_in_force(context, before=context.days.last, kind=POLICY)
    if known is None:
        return Policy.first(SOURCES, limits)
    policy = Policy.load(Path(context.lake.path(known["folder"])))
    if policy.sources != SOURCES:
        context.log.warning("policy: the one before mixed %s, another release's: learning begins anew", policy.sources)
        return Policy.first(SOURCES, limits)
    return policy.under(limits)


def answered(arrived: DataFrame, earlier: DataFrame, rewards: dict[str, float]) -> DataFrame:
    """Entries that were shown: user_id, slot, rank, source, propensity, policy_context, `shown`, and the `reward` they earned.

    `shown`: on how many days more than was known before. An entry earns the sum of what was done to it, from 0 up to 1 for
    each day on which it was shown, and of that what it had not earned before. What nobody says was shown says nothing.

    Args:
        arrived, earlier: rows of `feedback`, of the day and from before it.
    """
    matched = F.col("unmatched").isNull() & F.col("propensity").isNotNull()
    is_mixed = F.col("policy_version").isNotNull()
    rows = (
        arrived.withColumn("_now", F.lit(True)).unionByName(earlier.withColumn("_now", F.lit(False))).where(matched & is_mixed)
    )
    value = earns(rewards)
    is_shown = F.col("event_type") == IMPRESSION
    was, is_now = ~F.col("_now"), F.col("_now")
    kept = [F.first(name).alias(name) for name in ("source", "propensity", "policy_context")]
    dates = rows.groupBy(*_OF_LIST, F.to_date("event_timestamp")).agg(
        *kept,
        F.count_if(is_shown & is_now).alias("_shown_now"),
        F.count_if(is_shown & was).alias("_shown_before"),
        F.bool_or(is_now).alias("_told_now"),
        F.least(F.lit(1.0), F.sum(value)).alias("_worth"),
        F.least(F.lit(1.0), F.sum(F.when(was, value).otherwise(0.0))).alias("_worth_before"),
    )
    sums = ("_shown_now", "_shown_before", "_worth", "_worth_before")
    known = dates.groupBy(*_OF_LIST).agg(
        *kept, F.bool_or("_told_now").alias("_told_now"), *[F.sum(name).alias(name) for name in sums]
    )

    def earned(worth: str, shown: Column) -> Column:
        return F.greatest(F.lit(0.0), F.least(shown.cast("double"), F.col(worth)))

    shown = F.col("_shown_now") + F.col("_shown_before")
    return known.where(F.col("_told_now") & (shown > 0)).select(
        "user_id",
        "slot",
        "rank",
        "source",
        "propensity",
        "policy_context",
        F.col("_shown_now").cast("double").alias("shown"),
        (earned("_worth", shown) - earned("_worth_before", F.col("_shown_before"))).alias("reward"),
    )


def told(entries: DataFrame, policy: Policy, k: int) -> Evidence:
    """`models.policy.evidence` of the entries of all users, in SQL: what is collected grows with contexts alone."""
    examined_K = policy.examined(k)
    is_shuffled = F.col("source") == SHUFFLED
    looked = F.try_element_at(F.array(*[F.lit(float(one)) for one in examined_K]), F.col("rank"))
    seen = F.coalesce(looked, F.lit(float(examined_K[-1]))) * F.col("shown")
    by_user = Window.partitionBy("user_id", is_shuffled)
    most = policy.limits.lists_per_user * float(examined_K.sum())
    looked_at = entries.withColumn("_seen", seen).withColumn("_told", F.greatest("_seen", F.abs("reward")))
    counts = F.least(F.lit(1.0), F.lit(most) / F.greatest(F.sum("_told").over(by_user), F.lit(1e-12)))
    counted = looked_at.withColumn("_counts", counts)
    weighed = counted.where(~is_shuffled).withColumn("_weight", F.col("_counts") / F.col("propensity"))
    sums = (
        weighed.select(
            "policy_context",
            "slot",
            "_weight",
            "_seen",
            "reward",
            F.explode(F.split("source", f"\\{TOGETHER}")).alias("source"),
        )
        .where(F.col("source").isin(*SOURCES))  # another release's are no longer mixed
        .groupBy("policy_context", "slot", "source")
        .agg(
            F.sum(F.col("_weight") * F.col("_seen")).alias("seen"),
            F.sum(F.col("_weight") ** 2 * F.col("_seen")).alias("spread"),
            F.sum(F.col("_weight") * F.col("reward")).alias("earned"),
        )
        .orderBy("policy_context", "slot", "source")
        .collect()
    )
    contexts: dict[Of, int] = {}
    for row in sums:
        contexts.setdefault(context_of(row["policy_context"] or PART, row["slot"]), len(contexts))
    arrays = {name: np.zeros((len(contexts), len(SOURCES))) for name in ("seen", "spread", "earned")}
    for row in sums:
        place = contexts[context_of(row["policy_context"] or PART, row["slot"])], SOURCES.index(row["source"])
        for name, values in arrays.items():
            # In whatever order Spark has summed them.
            values[place] = round(row[name], _DIGITS)
    shown_K, answered_K = np.zeros(k), np.zeros(k)
    shuffled = counted.where(is_shuffled & (F.col("rank") <= k)).groupBy("rank")
    of_rank = shuffled.agg(*[F.sum(F.col(name) * F.col("_counts")).alias(name) for name in ("shown", "reward")])
    for row in of_rank.collect():
        shown_K[row["rank"] - 1], answered_K[row["rank"] - 1] = round(row["shown"], _DIGITS), round(row["reward"], _DIGITS)
    return Evidence(
        contexts=tuple(contexts),
        seen_CS=arrays["seen"],
        spread_CS=arrays["spread"],
        earned_CS=arrays["earned"],
        shown_K=shown_K,
        answered_K=answered_K,
    )


def surely_lost(context: Context, before: Policy, after: Policy) -> str | None:
    """In words, what lists would have earned less by the shares of one policy than of the one before, by all that was shown and
    answered lately; None: nothing, as far as that can be told.

    Nights learn from the newest answers most: a burst of these, forged or not, may speak against what weeks of lists have told.
    """
    earlier = context.before("feedback", _JUDGED_DAYS)
    mixed = F.col("unmatched").isNull() & F.col("policy_version").isNotNull() & (F.col("source") != SHUFFLED)
    rows = context.arrivals("feedback").unionByName(earlier).where(mixed).select(*ENTRY)
    if (allowed := context.allowing(*context.purposes)) is not None:
        rows = rows.join(allowed.select("user_id"), on="user_id", how="left_semi").select(*ENTRY)
    if (below := sampled_below(rows.count())) is not None:
        rows = rows.where(F.col("user_id") < below)
    shown, contexts = answered_lists(rows.orderBy(*ENTRY).toArrow().to_pylist(), context.settings.policy.rewards)
    if not contexts:
        return None
    of = [context_of(*one) for one in contexts]
    try:
        verdict = compared(shown, after.shares(of), before.shares(of))
    except ValueError as error:  # a source that is new in this release
        context.log.info("policy of %s cannot be held against what was shown: %s", context.days.last, error)
        return None
    more = verdict.by["dr"]
    if not verdict.is_enough or not more.high < -_ROUNDING:
        return None
    return (
        f"lists would have earned {-more.value:.4f} less each ({-more.high:.4f} at least), by {verdict.lists:,} lists of "
        f"{_JUDGED_DAYS} days, as good as {verdict.users:,.0f} users"
    )


def _publish(context: Context, before: Policy, policy: Policy) -> None:
    version, day, root = policy.version, context.days.last, context.lake.root
    registry.save(policy, registry.version_folder(root, version))
    if not context.log_rows("model_versions", f"model_version = '{version}'"):
        row = {
            "model_version": version,
            "kind": POLICY,
            "method": METHOD,
            "day": day,
            "trained_until": datetime.combine(day, time.max.replace(microsecond=0)),
            "folder": f"{registry.FOLDER}/{version}",
            "settings": json.dumps({"policy": context.settings.policy.model_dump(mode="json")}),
            "metrics": _metrics(policy),
            "items": len(policy.contexts),
            "created_at": logs.now(),
        }
        context.append("model_versions", [row])
    said = moved(before, policy)
    context.log.info("policy of %s: %s", day, said)
    context.note(moved=said, versions={POLICY: version})
    decision = {
        "day": day,
        "kind": POLICY,
        "model_version": version,
        "decision": _PUBLISHED,
        "candidate": version,
        "reason": said,
        "run_id": context.run_id,
        "decided_at": logs.now(),
    }
    context.append("publications", [decision])


def _metrics(policy: Policy) -> str:
    return json.dumps(
        {f"share_{name}": round(float(share), 6) for name, share in zip(SOURCES, policy.share_CS[0], strict=True)}
    )


def moved(before: Policy, after: Policy) -> str:
    """In words: how far shares went, and what lists everywhere are now mixed from."""
    far_C = 0.5 * np.abs(after.share_CS - before.shares(after.contexts)).sum(axis=1)
    at_bound = int((far_C >= after.limits.step - 1e-9).sum())
    shares = ", ".join(f"{name} {share:.1%}" for name, share in zip(after.sources, after.share_CS[0], strict=True))
    return f"{len(far_C)} contexts moved by up to {far_C.max():.1%}, {at_bound} as far as they may; everywhere: {shares}"
