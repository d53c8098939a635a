"""What was known of an interest and of its user before each day on which the user had events of it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf.tables import TABLES
from models.labeller import Past
from models.lasting import OF_USER, OWN, STATE, Clock, Ints, Moments

_THRESHOLDS = ("long_min_weeks", "long_min_weight", "short_min_weight")
READ = (
    "user_id", "category", "day", "last_on", "known_days", "long_half_life_days", "short_half_life_days", *OWN, *_THRESHOLDS,
)  # fmt: skip


def moments(states: DataFrame) -> DataFrame:
    """`user_id, category, n` (days since 1970), `passed`, those of `STATE`, the rule's `label`, `is_long`; a row per moment.

    `states`: rows of user_interests as written, `READ`. A row whose `last_on` is its `day` is a moment. Of that the row
    itself says nothing: what is known is from the user's rows of the newest day before, on which all of them were written.
    """
    own = F.struct(*OWN, *_THRESHOLDS)
    before = F.lag(own).over(Window.partitionBy("user_id", "category").orderBy("day")).alias("own")
    users = states.groupBy("user_id", "day").agg(
        _sum("long_weight").alias("user_long_weight"),
        _sum("short_weight").alias("user_short_weight"),
        F.count("*").alias("user_categories"),
        F.max("known_days").alias("user_known_days"),
        F.max("long_half_life_days").alias("long_half_life_days"),
        F.max("short_half_life_days").alias("short_half_life_days"),
    )
    of_user = F.lag(F.struct("day", *OF_USER)).over(Window.partitionBy("user_id").orderBy("day")).alias("of_user")
    known = (
        states.select("user_id", "category", "day", "last_on", before)
        .where(F.col("last_on") == F.col("day"))
        .join(users.select("user_id", "day", of_user), on=["user_id", "day"], how="inner")
        .withColumn("age_days", F.datediff("day", "of_user.day") - 1)
        .select(
            "user_id", "category", "age_days", F.unix_date("day").alias("n"), "own.*", *[f"of_user.{name}" for name in OF_USER]
        )
    )
    label = F.when(F.col("events") > 0, F.expr(str(TABLES["user_interests"].column("label").aged))).otherwise("none")
    return known.select(
        "user_id",
        "category",
        F.col("n").cast("bigint").alias("n"),
        F.col("age_days").cast("double").alias("passed"),
        *[F.col(name).cast("double").alias(name) for name in STATE],
        label.alias("label"),
        (label == "long").alias("is_long"),
    )


def _sum(name: str) -> Column:
    """The same to the last digit, in whatever order rows come: what is learnt from equal rows is equal."""
    return F.aggregate(F.array_sort(F.collect_list(name)), F.lit(0.0), lambda total, value: total + value)


def past(rows: pa.Table, clock: Clock, until: int) -> Past:
    """Rows of `moments`, with `user`, any whole number, in place of `user_id`; in order, so that equal rows teach the same.

    `until`: days since 1970.
    """
    rows = rows.sort_by([(name, "ascending") for name in ("user", "category", "n")])
    found, categories = moments_of(rows, user_M=rows["user"].to_numpy())
    return Past(moments=found, categories=categories, clock=clock, until=until)


def moments_of(rows: pa.Table | pa.RecordBatch, user_M: Ints) -> tuple[Moments, list[str]]:
    """Rows of `moments` in their order, and the categories by number."""
    column = {name: np.asarray(rows[name]) for name in ("category", "n", "passed", "is_long", *STATE)}
    names, category = np.unique(column["category"], return_inverse=True)
    found = Moments(
        user_M=user_M,
        category_M=category.astype(np.int64),
        day_M=column["n"],
        passed_M=column["passed"],
        state_MS=np.stack([column[name] for name in STATE], axis=1),
        ruled_M=column["is_long"],
    )
    return found, names.tolist()
