"""CONTRIBUTING's examples work: its table is written by its step, its sink delivers, its encoder reads as encoders must."""

from __future__ import annotations

import re
import sys
import types
from datetime import date, datetime
from pathlib import Path
from typing import Literal

import torch

from conf import contracts
from conf.learning import Model
from conf.settings import Target
from conf.tables import TABLES
from jobs import pipeline
from jobs.lake.person import Person
from jobs.lake.schema import spark_schema
from models import sequence
from tests.jobs.delivering import delivery, lists
from tests.models import test_sequence

ROOT = Path(__file__).parents[1]
EXAMPLES = {
    re.match(r"# (\S+)", code)[1].rstrip(",;"): code
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.S)
}
DAY = date(2024, 5, 1)


def module(name, **given):
    made = types.ModuleType(name)
    vars(made).update(given)
    future = "" if "from __future__" in EXAMPLES[name] else "from __future__ import annotations\n"
    exec(compile(future + EXAMPLES[name], name, "exec"), vars(made))
    return made


def test_what_is_named_is_there_but_for_what_the_examples_make():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = {*EXAMPLES, *re.findall(r"`((?:conf|jobs|models|dags|tests)/[\w/.]+)`", text)}
    assert len(named) > 10
    named = {name for name in named if "NAME" not in name}
    assert {name for name in named if not (ROOT / name).exists()} == {"jobs/category_daily.py", "jobs/sinks/tsv.py"}


def test_the_table_is_written_by_the_step(spark, make_context, monkeypatch):
    table = eval(EXAMPLES["conf/tables/events.py"], vars(contracts))
    step = eval(EXAMPLES["jobs/pipeline.py"], vars(pipeline))
    steps = pipeline.order((*pipeline.STEPS, step))
    assert steps.index(step) > [one.name for one in steps].index("clean")
    monkeypatch.setitem(TABLES, table.name, table)
    at = datetime(2024, 5, 1, 10)
    event = dict.fromkeys(TABLES["events"].names) | {
        "event_type": "view", "event_timestamp": at, "event_date": DAY, "row_hash": "r", "day": DAY,
    }  # fmt: skip
    rows = [("a", "coffee"), ("a", "coffee"), ("b", "coffee"), ("b", "gym"), ("c", None)]
    made = [{**event, "event_id": str(n), "user_id": user, "category": name} for n, (user, name) in enumerate(rows)]
    schema = spark_schema(TABLES["events"])
    context = make_context(DAY)
    context.lake.replace(
        "events", spark.createDataFrame([tuple(row[name] for name in schema.names) for row in made], schema), "true"
    )
    context = make_context(DAY)
    module("jobs/category_daily.py").run(context)
    found = context.lake.read(table.name, context.outputs[table.name]).collect()
    assert {(row.category, row.events, row.users) for row in found} == {("coffee", 3, 2), ("gym", 1, 1)}


def test_the_sink_delivers(spark, tmp_path):
    settings = module("conf/settings.py", Target=Target, Literal=Literal)
    sys.modules[settings.__name__] = settings  # pydantic resolves its annotations there
    try:
        settings.Tsv.model_rebuild(_types_namespace={"Literal": Literal})
        sink = settings.Tsv(kind="tsv", path=str(tmp_path / "lists.tsv"))
    finally:
        del sys.modules[settings.__name__]
    tsv = module("jobs/sinks/tsv.py", Tsv=settings.Tsv)
    first = delivery(lists(spark, 1, users=2), ("user_id", "rank"))
    assert tsv.manifest(sink) is None and tsv.check(first, sink) is not None
    assert (tsv.deliver(first, sink).rows, tsv.deliver(first, sink).how) == (6, "nothing")
    assert tsv.check(first, sink) is None
    second = delivery(lists(spark, 2, users=3), ("user_id", "rank"))
    assert tsv.deliver(second, sink).rows == 9 and tsv.check(second, sink) is None
    person = Person.of("u1")
    assert len(tsv.rows_of(sink, person)) == 3 and tsv.erase(sink, person) == 3 and tsv.rows_of(sink, person) == []
    assert (tsv.manifest(sink), tsv.check(second, sink)) == (second.manifest, "it holds 6 rows, 9 are here")
    assert [one.name for one in tmp_path.iterdir()] == ["lists.tsv"]


def test_the_encoder_reads_what_came_before_alone(monkeypatch):
    made = module("models/sequence.py", **vars(sequence))
    small = Model(window=8, width=16, heads=2, layers=2)

    def convolution(encoder):
        torch.manual_seed(1)
        return made.Convolution(small).eval()

    monkeypatch.setattr(test_sequence, "made", convolution)
    test_sequence.test_a_state_follows_from_the_event_and_those_before_it("conv")
