"""One run of step `score` on a lake of its own; one JSON line. Called by score_users.py."""

from __future__ import annotations

import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import checkins
import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from score_night import EVENTS, FIRST, drawn, night, publish, scored, sequences

from conf.settings import load_settings
from conf.tables import TABLES
from jobs.lake import session
from jobs.lake.schema import spark_schema

MAPPING = "conf/sources/simulated.yaml"
BLOCKED = 20  # one item in so many
_LENGTH = 200  # events of a user that are kept


def declared(spark: SparkSession, items: int) -> DataFrame:
    known = {"item_id": F.format_string("i%06d", "id"), "price": F.pmod("id", F.lit(BLOCKED)).cast("double")}
    known |= {"gone": F.lit(False), "changed_on": F.lit(FIRST), "day": F.lit(FIRST)}
    columns = spark_schema(TABLES["items"])
    return spark.range(items).select(*[known.get(one.name, F.lit(None)).cast(one.dataType).alias(one.name) for one in columns])


def check_ins_of(spark: SparkSession, log: checkins.Log, users: int) -> DataFrame:
    """Rows of user_sequences: the newest check-ins of Foursquare's users, over and over under other names."""
    rows = log.rows.assign(
        event_timestamp=[datetime.fromtimestamp(at, UTC) for at in log.at_E],
        local_timestamp=[moment.replace(tzinfo=UTC).to_pydatetime() for moment in log.rows["local"]],
        number=np.arange(len(log.rows)),
    ).rename(columns={"venue_id": "item_id"})
    rows["slot"] = np.where(rows["local"].dt.dayofweek < 5, "weekday_morning", "weekend_morning")
    names = ("event_timestamp", "local_timestamp", "item_id", "category", "latitude", "longitude", "slot")
    given = spark.createDataFrame(rows[["user_id", "number", *names]])
    [element] = [one.dataType.elementType for one in spark_schema(TABLES["user_sequences"]) if one.name == "events"]
    known = {name: F.col(name) for name in names} | {"event_id": F.col("number").cast("string")}
    known |= {"event_type": F.lit(checkins.CHECK_IN), "arrived_on": F.lit(FIRST)}
    event = F.struct(*[known.get(one.name, F.lit(None)).cast(one.dataType).alias(one.name) for one in element])
    people = given.groupBy("user_id").agg(
        F.array_sort(F.collect_list(F.struct("number", event.alias("event")))).alias("events")
    )
    copies = -(-users // log.rows["user_id"].nunique())
    newest = F.slice(F.col("events.event"), -F.least(F.lit(_LENGTH), F.size("events")), _LENGTH)
    return people.crossJoin(spark.range(copies).withColumnRenamed("id", "copy")).select(
        F.concat_ws("-", "copy", "user_id").alias("user_id"),
        newest.alias("events"),
        F.lit(None).cast("array<string>").alias("seen"),
        F.size("events").cast("bigint").alias("events_total"),
        F.lit(False).alias("gone"),
        F.lit(FIRST).alias("changed_on"),
        F.lit(FIRST).alias("day"),
    )


def main(ranker: str, users: int, items: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="wherewhen-bench-") as scratch:
        mapping = Path(scratch) / "log.yaml"
        told = Path(MAPPING).read_text().replace("repeats: true", "repeats: false")
        mapping.write_text(told if ranker == "network" else Path("conf/sources/foursquare.yaml").read_text())
        overrides = [
            f"lake={scratch}/lake",
            "spark.master=local[2]",
            "spark.driver_memory=2g",
            f"sources.events.mapping={mapping}",
        ]
        if ranker == "network":
            overrides += ["score.caps={category: 10}", "score.block=price = 0"]
        settings = load_settings(overrides=overrides)
        spark = session.start(settings, torch=True)
        context = night(spark, settings, FIRST, {})
        if ranker == "network":
            publish(Path(settings.lake), drawn(items))
            rows = sequences(spark.range(users), FIRST, is_new=False, items=items)
            context.write("items", declared(spark, items))
            context.write("user_sequences", rows.withColumn("seen", F.array_distinct("events.item_id")))
        else:
            log = checkins.check_ins()
            vocabulary, parts = log.vocabulary(), checkins.lessons(log, log.vocabulary())
            items = len(vocabulary.items)
            publish(Path(settings.lake), checkins.hybrid(checkins.known(log, vocabulary, int(log.at_E.max()) + 1), parts, 1))
            context.write("user_sequences", check_ins_of(spark, log, users))
        seconds = scored(context)
        users, rows_out = context.state("user_sequences").count(), context.rows_out["recommendations"]
        return {"users": users, "items": items, "events": EVENTS, "seconds": round(seconds, 1), "rows": rows_out}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))) + "\n")
