"""Is every row accounted for? Counted per arrival day from the tables as they were written."""

from __future__ import annotations

from datetime import date
from functools import reduce
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.lake.context import Refused


def conservation(
    arrived: dict[date, int], verdicts: DataFrame, accepted: dict[date, tuple[int, int]], refused: DataFrame
) -> dict[str, dict[str, Any]]:
    """Per arrival day: rows, duplicates, accepted, quarantined, events and reasons.

    `arrived`: rows that came; `verdicts`: day, duplicates; `accepted` (rows, and the events they became) and
    `refused`: the tables as they were written, so that the counts are independent.
    """
    marks = F.transform("reasons", lambda reason: F.concat(F.lit("reason:"), reason))
    every = [
        verdicts.select("day", F.lit("duplicates").alias("what"), F.col("duplicates").cast("bigint").alias("n")),
        refused.select("day", F.explode(F.array_append(marks, F.lit("quarantined"))).alias("what"), F.lit(1).alias("n")),
    ]
    days: dict[str, dict[str, Any]] = {
        str(day): {"rows": rows, "accepted": 0, "quarantined": 0, "duplicates": 0, "events": 0, "reasons": {}}
        for day, rows in sorted(arrived.items())
    }
    for arrival, (rows, events) in accepted.items():
        days[str(arrival)] |= {"accepted": rows, "events": events}
    counts = reduce(DataFrame.unionByName, every).groupBy("day", "what").agg(F.sum("n").alias("n"))
    for row in sorted(counts.collect(), key=lambda row: (row.day, row.what)):
        day = days[str(row.day)]
        if row.what in ("duplicates", "quarantined"):
            day[row.what] = row.n
        else:
            day["reasons"][row.what.removeprefix("reason:")] = row.n
    return days


def check(counted: dict[str, dict[str, Any]]) -> None:
    """Rows = accepted + quarantined + duplicates, on every day.

    Raises:
        Refused: names the days and their counts.
    """
    wrong = {day: of for day, of in counted.items() if of["rows"] != of["accepted"] + of["quarantined"] + of["duplicates"]}
    if wrong:
        raise Refused(f"rows were lost or made up while cleaning, which must never happen; please report it: {wrong}")
