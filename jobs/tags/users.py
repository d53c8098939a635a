"""A user's weights on tags, by the half-lives, labels and trends of categories; of each user the heaviest tags.

A tag that is left out today is new when it comes again, so each day rests on the one before: a night folds one day, a
bootstrap all of them, by the same function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.settings import Label
from conf.tables import TABLES
from jobs.label import GAP_DAYS, SPANS, event_weight, half_life, judged, number, weights_on, with_label_until, worth
from jobs.lake.store import Days

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_NEVER = -1
_COUNTS = ("events", "active_weeks", "last_n", "returned_n")
_FOLDED = (
    "user_id string, tag string, n int, long_weight double, short_weight double, events bigint, active_weeks int, "
    "last_n int, returned_n int, known_n int"
)


def tagged_events(events: DataFrame, item_tags: DataFrame) -> DataFrame:
    """A row per event and tag that its item had at the end of the event's arrival day, with `tag` and `tag_weight`.

    item_tags: as `in_force` gives them.
    """
    tags = item_tags.where(~F.col("gone")).select(
        "item_id", "tag", F.col("weight").alias("tag_weight"), F.col("day").alias("_since"), F.col("until").alias("_until")
    )
    holds = (F.col("_since") <= F.col("day")) & (F.col("_until").isNull() | (F.col("day") < F.col("_until")))
    shown = events.select("user_id", "item_id", "event_type", "event_timestamp", "day")
    return shown.join(tags, on="item_id", how="inner").where(holds).drop("_since", "_until")


def user_tags(tagged: DataFrame, before: DataFrame, days: Days, settings: Label) -> DataFrame:
    """Rows of `user_tags` for each day of the run on which an event that counts arrived from the user.

    Args:
        tagged: `tagged_events`.
        before: user_tags before the first day.
    """
    weight = event_weight(F.col("event_type"), settings) * F.col("tag_weight")
    counted = tagged.withColumn("n", F.unix_date("day")).where(weight != 0)
    daily = counted.groupBy("user_id", "tag", "n").agg(*worth(weight, settings)).persist()
    eve = F.lit(number(days.first) - 1)
    last, returned, known = (F.unix_date("changed_on") - F.col(name) for name in ("idle_days", "returned_days", "known_days"))
    known_before = before.join(daily.select("user_id"), on="user_id", how="left_semi").select(
        "user_id", "tag", eve.alias("n"), *weights_on(eve), "events", "active_weeks",
        last.alias("last_n"), returned.alias("returned_n"), known.alias("known_n"),
    )  # fmt: skip
    rows = known_before.unionByName(daily, allowMissingColumns=True)
    folded = rows.groupBy("user_id").applyInArrow(_fold_of_user(days, settings), _FOLDED)
    day = F.date_from_unix_date("n")
    described = folded.withColumns(
        {
            "idle_days": F.col("n") - F.col("last_n"),
            "returned_days": F.when(F.col("returned_n") != _NEVER, F.col("n") - F.col("returned_n")),
            "known_days": F.col("n") - F.col("known_n"),
            "gone": F.lit(False),
            "changed_on": day,
            "day": day,
        }
    )
    return with_label_until(judged(described, settings)).select(*TABLES["user_tags"].names)


@dataclass(frozen=True, kw_only=True)
class _State:
    """What is known of each tag; changed in place. `weight_ST`: by span of `SPANS`. Days are since 1970, or _NEVER."""

    weight_ST: Floats
    events: Ints
    active_weeks: Ints
    last_n: Ints
    returned_n: Ints

    @staticmethod
    def empty(tags: int) -> _State:
        counts = {name: np.zeros(tags, np.int64) for name in ("events", "active_weeks")}
        never = {name: np.full(tags, _NEVER) for name in ("last_n", "returned_n")}
        return _State(weight_ST=np.zeros((len(SPANS), tags)), **counts, **never)

    def arrive(self, n: int, tag: Ints, weight_SR: Floats, events: Ints) -> None:
        """A day's arrivals, one row a tag."""
        last = self.last_n[tag]
        is_new = last == _NEVER
        self.weight_ST[:, tag] += weight_SR
        self.events[tag] += events
        self.active_weeks[tag] += is_new | (_week(last) != _week(n))
        self.returned_n[tag] = np.where(~is_new & (n - 1 - last >= GAP_DAYS), n, self.returned_n[tag])
        self.last_n[tag] = n

    def forget(self, tag: Ints) -> None:
        self.weight_ST[:, tag] = 0.0
        self.events[tag] = self.active_weeks[tag] = 0
        self.last_n[tag] = self.returned_n[tag] = _NEVER

    def heaviest(self, most: int, half_lives_S: Floats) -> tuple[Ints, Ints]:
        """The tags to keep and those to forget: by weight per day, long or short, whichever is greater.

        In days' worth both spans compare, so what is new need not wait until it outweighs what is old. What counts
        against is as heavy as what counts for.
        """
        known = np.flatnonzero(self.last_n != _NEVER)
        if len(known) <= most:
            return known, known[:0]
        heavy = np.max(np.abs(self.weight_ST[:, known]) / half_lives_S[:, None], axis=0)
        # Sums may differ in their last digits, and must not in their order: equal ones stand in that of their names.
        order = known[np.argsort(-heavy.astype(np.float32), kind="stable")]
        return np.sort(order[:most]), order[most:]


def _fold_of_user(days: Days, settings: Label) -> Callable[[pa.Table], pa.Table]:
    first, most = number(days.first), settings.tags
    half_lives_S = np.array([half_life(span, settings) for span in SPANS])

    def fold(rows: pa.Table) -> pa.Table:
        tags, tag_R = np.unique(rows["tag"].to_numpy(), return_inverse=True)
        n_R = _whole(rows, "n")
        weight_SR = np.stack([rows[span].to_numpy() for span in SPANS])
        counts = {name: _whole(rows, name) for name in (*_COUNTS, "known_n")}
        state, held = _State.empty(len(tags)), np.flatnonzero(n_R < first)
        state.weight_ST[:, tag_R[held]] = weight_SR[:, held]
        for name in _COUNTS:
            getattr(state, name)[tag_R[held]] = counts[name][held]
        active = np.unique(n_R[n_R >= first])
        known_n = counts["known_n"][held].min() if len(held) else active[0]
        before, kept = first - 1, []
        for n in active:
            state.weight_ST[:] *= 0.5 ** ((n - before) / half_lives_S)[:, None]
            arrived = np.flatnonzero(n_R == n)
            state.arrive(n, tag_R[arrived], weight_SR[:, arrived], counts["events"][arrived])
            stay, go = state.heaviest(most, half_lives_S)
            state.forget(go)
            kept.append(
                (np.full(len(stay), n), stay, state.weight_ST[:, stay], *(getattr(state, name)[stay] for name in _COUNTS))
            )
            before = n
        n_K, stay_K, weight_SK, *counts_K = (np.concatenate(column, axis=-1) for column in zip(*kept, strict=True))
        return pa.table(
            {
                "user_id": pa.array([rows["user_id"][0].as_py()] * len(n_K), pa.string()),
                "tag": pa.array(tags[stay_K], pa.string()),
                "n": pa.array(n_K, pa.int32()),
                **{f"{span}_weight": pa.array(weight_K) for span, weight_K in zip(SPANS, weight_SK, strict=True)},
                "events": pa.array(counts_K[0]),
                **{name: pa.array(count_K, pa.int32()) for name, count_K in zip(_COUNTS[1:], counts_K[1:], strict=True)},
                "known_n": pa.array(np.full(len(n_K), known_n), pa.int32()),
            }
        )

    return fold


def _whole(rows: pa.Table, name: str) -> Ints:
    found: Ints = rows[name].fill_null(_NEVER).to_numpy().astype(np.int64)
    return found


def _week(n: Ints | int) -> Ints | int:
    """As jobs.label has it: Monday to Sunday."""
    return (n + 3) // 7
