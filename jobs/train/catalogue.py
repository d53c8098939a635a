"""The names that a training knows: items, their categories, event types; with how often each item was a target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.lake.context import Context
from jobs.train.cutting import Plan
from models.queries import Vocabulary

# An item that was never a target counts as half an event.
_UNSEEN = 0.5


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """`log_share_V`: log of each item's share of the targets, (V,) float32."""

    vocabulary: Vocabulary
    log_share_V: np.ndarray


def declared(context: Context) -> DataFrame:
    """What was declared of items before the day: `item_id, category, gone, known_on`, a row per change."""
    if not context.bootstrap:
        state = context.before("items")
        return state.select("item_id", "category", F.lit(False).alias("gone"), F.col("changed_on").alias("known_on"))
    rows = context.earlier("items") if context.mapping.has_times else context.history("items")
    return rows.where(F.col("day") == F.col("changed_on")).select("item_id", "category", "gone", F.col("day").alias("known_on"))


def catalogues(
    events: DataFrame, items: DataFrame, plans: Sequence[Plan], target_types: Sequence[str], before: Vocabulary | None
) -> list[Catalogue]:
    """One per plan: the names in what had arrived by then, appended to those known `before` (a warm start).

    `events`: `cutting.EVENT`; `items`: `item_id, category, gone, known_on`, a row per change. Brings to the
    driver what the catalogue bounds: a row per item and event type, a row per item's change.
    """
    taken = _taken(events, plans, target_types)
    declared = [row.asDict() for row in items.collect()]
    return [_catalogue(plan, number, taken, declared, before) for number, plan in enumerate(plans)]


def _taken(events: DataFrame, plans: Sequence[Plan], target_types: Sequence[str]) -> list[dict[str, Any]]:
    """Per item and event type: targets of each plan, and the categories seen with it, the newest of each plan apart."""
    newest = F.struct(F.unix_micros("event_timestamp").alias("at"), "event_id", "category")
    columns = {}
    for number, plan in enumerate(plans):
        learnt = plan.learnt(target_types)
        if plan.validation_from is not None:
            learnt = learnt & (F.col("event_timestamp") < F.lit(plan.validation_from))
        columns[f"events_{number}"] = F.count_if(plan.known)
        columns[f"targets_{number}"] = F.count_if(learnt)
        columns[f"categories_{number}"] = F.collect_set(F.when(plan.known, F.col("category")))
        columns[f"newest_{number}"] = F.max(F.when(plan.known & F.col("category").isNotNull(), newest))
    grouped = events.groupBy("item_id", "event_type").agg(*[made.alias(name) for name, made in columns.items()])
    return [row.asDict() for row in grouped.collect()]


def _catalogue(
    plan: Plan, number: int, taken: list[dict[str, Any]], declared: list[dict[str, Any]], before: Vocabulary | None
) -> Catalogue:
    known = [row for row in taken if row[f"events_{number}"]]
    in_order = sorted(declared, key=lambda row: row["known_on"])
    newest = {row["item_id"]: row for row in in_order if _is_known(row["known_on"], plan)}
    items = [row for row in newest.values() if not row["gone"]]
    category: dict[str, str] = {}
    placed = [row for row in known if row["item_id"] is not None and row[f"newest_{number}"] is not None]
    for row in sorted(placed, key=lambda row: row[f"newest_{number}"]):
        category[row["item_id"]] = row[f"newest_{number}"]["category"]
    category |= {row["item_id"]: row["category"] for row in items if row["category"] is not None}
    names = {row["item_id"] for row in known if row["item_id"] is not None} | {row["item_id"] for row in items}
    categories = {name for row in known for name in row[f"categories_{number}"]} | set(category.values())
    old = before or Vocabulary(items=(), item_categories=(), categories=(), event_types=())
    new_items = _new(names, old.items)
    vocabulary = Vocabulary(
        items=old.items + new_items,
        item_categories=old.item_categories + tuple(category.get(item, "") for item in new_items),
        categories=old.categories + _new(categories, old.categories),
        event_types=old.event_types + _new({row["event_type"] for row in known}, old.event_types),
    )
    targets: dict[str, int] = {}
    for row in known:
        targets[row["item_id"]] = targets.get(row["item_id"], 0) + row[f"targets_{number}"]
    count_V = np.array([targets.get(item, 0) for item in vocabulary.items])
    return Catalogue(vocabulary=vocabulary, log_share_V=log_share(count_V))


def log_share(count_V: np.ndarray) -> np.ndarray:
    """Log of each item's share, (V,) float32, of how often each was a target."""
    some_V = count_V.astype(np.float64) + _UNSEEN
    share_V: np.ndarray = np.log(some_V / max(some_V.sum(), 1.0)).astype(np.float32)
    return share_V


def _is_known(on: date, plan: Plan) -> bool:
    return on < plan.until.date()


def _new(names: Iterable[str], old: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(names) - {"", *old}))
