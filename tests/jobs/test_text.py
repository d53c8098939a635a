import hashlib
from datetime import date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import functions as F

from conf.tables import TABLES
from jobs import text
from jobs.lake.compare import compare
from jobs.lake.schema import spark_schema
from jobs.text.describing import item_text
from jobs.text.encoding import encoding
from jobs.text.reading import Reading, read
from models import encoder, ngrams

FIRST, LAST = date(2024, 1, 30), date(2024, 2, 3)
DAYS = [FIRST + timedelta(days=n) for n in range(5)]
LONG = " ".join(["river"] * 400)

ITEM = {
    "item_id": "cafe", "title": "Blue Cup", "description": "Coffee by the river.", "category": "Coffee Shop",
    "gone": False, "changed_on": FIRST, "day": FIRST,
}  # fmt: skip
EVENT = {
    "event_id": "e", "user_id": "u", "item_id": "cafe", "event_type": "review", "event_timestamp": datetime(2024, 1, 30, 12),
    "event_date": FIRST, "row_hash": "r", "text": "lovely coffee", "day": FIRST,
}  # fmt: skip


def rows(spark, name, row, changes):
    schema = spark_schema(TABLES[name])
    return spark.createDataFrame([tuple({**row, **change}.get(field.name) for field in schema) for change in changes], schema)


def item(day, **more):
    return {"day": day, "changed_on": day, **more}


def written(day, text, **more):
    return {"day": day, "event_id": f"{day}-{text}", "text": text, **more}


ITEMS = [
    item(DAYS[0]),
    item(DAYS[0], item_id="bare", title=None, description=" ", category=None),
    item(DAYS[0], item_id="twin", title=" Blue  Cup", description="Coffee by the river"),
    item(DAYS[2], item_id="late", title="Old Mill", description=None, category="Museum"),
    item(DAYS[3], title="Blue Cup II"),
    item(DAYS[4], item_id="twin", gone=True),
]
EVENTS = [
    written(DAYS[0], "lovely coffee"),
    written(DAYS[1], " lovely\tcoffee \n", user_id="v"),
    written(DAYS[1], None, event_type="check_in"),
    written(DAYS[3], "Old Mill. Museum", event_type="search"),
    written(DAYS[3], "  "),
    written(DAYS[4], "river " * 400),
    written(DAYS[4], "lovely coffee", event_id="again"),
    written(DAYS[4], "咖啡很好喝"),
]


@pytest.fixture
def lake_of(make_context, make_settings, tmp_path, spark):
    """The settings of a lake with the inputs in it."""

    def make(name, *overrides):
        settings = make_settings("conf/local.yaml", f"lake={tmp_path / name}", *overrides)
        context = make_context(FIRST, LAST, bootstrap=True, settings=settings)
        context.write("items", rows(spark, "items", ITEM, ITEMS))
        context.write("events", rows(spark, "events", EVENT, EVENTS))
        return settings

    return make


def stored(context, name):
    return context.lake.read(name, context.lake.version(name))


def vector_of(words):
    return encoder.load(precision=encoder.precision(), threads=1).encode([words])[0]


def test_nights_and_bootstrap_leave_the_same_vectors(make_context, lake_of):
    nights = lake_of("nights")
    for day in DAYS:
        context = make_context(day, first_day=FIRST, settings=nights)
        text.run(context)
    at_once = make_context(FIRST, LAST, bootstrap=True, settings=lake_of("bootstrap"))
    text.run(at_once)
    for name, count in (("text_semantics", 9), ("item_texts", 9)):
        comparison = compare(stored(context, name), stored(at_once, name), TABLES[name])
        assert comparison.equal and comparison.rows == count, f"{name}: {comparison}"

    found = {row.text: row for row in stored(at_once, "text_semantics").where("changed_on = day").collect()}
    assert (
        {words: row.day for words, row in found.items()}
        == {
            "lovely coffee": DAYS[0],
            "Blue Cup. Coffee Shop. Coffee by the river": DAYS[0],
            "Old Mill. Museum": DAYS[2],  # the item's text; the search for it on a later day brings nothing new
            "": DAYS[3],
            "Blue Cup II. Coffee Shop. Coffee by the river": DAYS[3],
            LONG[:2000]: DAYS[4],
            "咖啡很好喝": DAYS[4],
        }
    )
    for words, row in found.items():
        assert Reading(**{name: row[name] for name in Reading.__dataclass_fields__}) == read(words)
        if words == "":
            assert row.vector is None
        elif words == "咖啡很好喝":
            assert np.allclose(row.vector, ngrams.vectors([words], 384)[0])
        else:
            assert np.abs(np.array(row.vector) - vector_of(words)).max() < 1e-5
    assert found["lovely coffee"].sentiment > 0 and found["咖啡很好喝"].sentiment > 0 and found[""].sentiment is None
    assert found["lovely coffee"].text_hash == hashlib.sha256(b"lovely coffee").hexdigest()
    assert found[LONG[:2000]].text_hash == hashlib.sha256(LONG.encode()).hexdigest()

    described = {(row.item_id, row.day): row for row in stored(at_once, "item_texts").collect()}
    cup, mill = (found[words].text_hash for words in ("Blue Cup. Coffee Shop. Coffee by the river", "Old Mill. Museum"))
    assert described["cafe", DAYS[0]].text_hash == described["twin", DAYS[0]].text_hash == cup
    assert described["late", DAYS[2]].text_hash == mill
    assert described["bare", DAYS[0]].text_hash is None
    assert described["twin", DAYS[4]].gone and described["twin", DAYS[4]].text_hash is None


def test_a_known_text_is_not_encoded_again(make_context, lake_of):
    settings = lake_of("lake")
    text.run(make_context(FIRST, settings=settings))
    context = make_context(DAYS[1], first_day=FIRST, settings=settings)
    text.run(context)
    assert context.details["texts_encoded"] == 0


def test_a_night_that_adds_a_hundredth_of_texts_encodes_only_those(make_context, make_settings, spark):
    context = make_context(FIRST, DAYS[1], bootstrap=True)
    old = [f"a word about shop {number}" for number in range(200)]
    new = [f"the {name} one" for name in ("first", "second")]
    known = [written(FIRST, words) for words in old]
    arriving = [written(DAYS[1], words, user_id="v") for words in [*old, *new]]
    context.write("items", rows(spark, "items", ITEM, ITEMS[:1]))
    context.write("events", rows(spark, "events", EVENT, [*known, *arriving]))
    counts = {}
    for day in DAYS[:2]:
        context = make_context(day, first_day=FIRST)
        text.run(context)
        counts[day] = context.details["texts_encoded"]
    assert counts == {FIRST: 201, DAYS[1]: 2}
    changed = stored(context, "text_semantics").where((F.col("day") == F.lit(DAYS[1])) & (F.col("changed_on") == F.col("day")))
    assert {row.text for row in changed.collect()} == set(new)


def test_texts_in_words_that_the_encoder_does_not_know_get_vectors_of_characters_once(make_context, spark, caplog):
    chinese = ["这家咖啡店的拿铁很香", "店里的拿铁咖啡味道香浓", "从机场坐地铁到市中心要一小时"]
    context = make_context(FIRST, DAYS[1], bootstrap=True)
    context.write("items", rows(spark, "items", ITEM, ITEMS[:1]))
    texts = [*chinese, "😀 🎉", "lone", "great coffee 😀"]
    context.write("events", rows(spark, "events", EVENT, [written(FIRST, words) for words in texts]))
    context = make_context(FIRST, first_day=FIRST)
    with caplog.at_level("WARNING"):
        text.run(context)
    assert context.details["texts_by_ngrams"] == 3
    assert "3 of 7 new texts are in words that all-MiniLM-L6-v2 does not know" in caplog.text
    found = {row.text: row for row in context.state("text_semantics").collect()}
    assert {words for words, row in found.items() if row.encoder.startswith("ngrams@1/all-MiniLM")} == set(chinese)
    assert found["😀 🎉"].vector is None and found["great coffee 😀"].vector is not None
    like, other = (np.dot(found[chinese[0]].vector, found[words].vector) for words in chinese[1:])
    assert like > 0.3
    assert other < 0.1
    again = make_context(DAYS[1], first_day=FIRST)
    text.run(again)
    assert again.details["texts_encoded"] == 0


def test_another_encoder_encodes_everything_again_and_once(make_context, lake_of):
    settings = lake_of("lake")
    text.run(make_context(FIRST, settings=settings))
    shorter = lake_of("lake", "text.max_tokens=8")
    changed = {}
    for day in DAYS[1:3]:
        context = make_context(day, first_day=FIRST, settings=shorter)
        text.run(context)
        new = stored(context, "text_semantics").where((F.col("day") == F.lit(day)) & (F.col("changed_on") == F.lit(day)))
        changed[day] = {row.text: row.encoder for row in new.collect()}
    assert set(changed[DAYS[1]]) == {"lovely coffee", "Blue Cup. Coffee Shop. Coffee by the river"}
    assert set(changed[DAYS[2]]) == {"Old Mill. Museum"}
    assert {version.split("/")[1] for new in changed.values() for version in new.values()} == {"8"}
    state = context.state("text_semantics").collect()
    assert len(state) == 3 and len({row.encoder for row in state}) == 1


def test_a_wrong_folder_stops_the_step_before_it_writes(make_context, make_settings):
    context = make_context(FIRST, settings=make_settings("conf/local.yaml", "text.encoder=/no/such/folder"))
    with pytest.raises(ValueError, match="/no/such/folder does not exist"):
        text.run(context)
    assert context.outputs == {}


def test_no_rows_load_no_model(monkeypatch, make_settings):
    monkeypatch.setattr(encoder, "load", lambda *args, **more: pytest.fail("the model was loaded"))
    empty = pa.RecordBatch.from_pydict({"text": pa.array([], "string")})
    assert list(encoding(make_settings().text, "v")(iter([empty]))) == []


@pytest.mark.parametrize(
    ("title", "category", "description", "said"),
    [
        ("Blue Cup", "Coffee Shop", "By the river. ", "Blue Cup. Coffee Shop. By the river"),
        ("Dr. Who\u00a0 ", None, "  ", "Dr. Who"),
        (None, "", None, None),
        ("Heat\n(1995)", "Action", None, "Heat (1995). Action"),
    ],
)
def test_item_text(spark, title, category, description, said):
    frame = spark.createDataFrame([(title, category, description)], "title string, category string, description string")
    [row] = frame.select(item_text(F.col("title"), F.col("category"), F.col("description")).alias("text")).collect()
    assert row.text == said
