import hashlib

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import functions as F

from conf.tables import TABLES
from jobs import text
from jobs.lake.compare import compare
from jobs.text.describing import item_text
from jobs.text.encoding import encoding
from jobs.text.reading import Reading, read
from models import encoder, ngrams
from tests.jobs.texts import DAYS, FIRST, ITEMS, REVIEWED, stored, written
from tests.planting import plant

LONG = " ".join(["river"] * 400)
OWN = {row["item_id"] for row in ITEMS}


def own_texts(context, rows):
    """Of rows of `text_semantics` those that are not of the catalogue and its reviews, whose topics are tested elsewhere."""
    others = [row.text_hash for row in stored(context, "item_texts").where(~F.col("item_id").isin(*OWN)).collect()]
    return [row for row in rows.collect() if row.text_hash not in others and row.text not in REVIEWED]


def changed_texts(context, day=None):
    rows = stored(context, "text_semantics").where("changed_on = day")
    return rows if day is None else rows.where(F.col("day") == F.lit(day))


def vector_of(words):
    return encoder.load(precision=encoder.precision(), threads=1).encode([words])[0]


def test_nights_and_bootstrap_leave_the_same_vectors(read_by_night, read_at_once):
    for name in ("text_semantics", "item_texts"):
        comparison = compare(stored(read_by_night[-1], name), stored(read_at_once, name), TABLES[name])
        assert comparison.equal, f"{name}: {comparison}"
    assert len(own_texts(read_at_once, stored(read_at_once, "text_semantics"))) == 9


def test_texts_are_read_once_as_people_wrote_them(read_at_once):
    found = {row.text: row for row in own_texts(read_at_once, changed_texts(read_at_once))}
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

    told = stored(read_at_once, "item_texts").where(F.col("item_id").isin(*OWN)).collect()
    described = {(row.item_id, row.day): row for row in told}
    assert len(told) == 9
    cup, mill = (found[words].text_hash for words in ("Blue Cup. Coffee Shop. Coffee by the river", "Old Mill. Museum"))
    assert described["cafe", DAYS[0]].text_hash == described["twin", DAYS[0]].text_hash == cup
    assert described["late", DAYS[2]].text_hash == mill
    assert described["bare", DAYS[0]].text_hash is None
    assert described["twin", DAYS[4]].gone and described["twin", DAYS[4]].text_hash is None


def test_a_known_text_is_not_encoded_again(read_by_night):
    """Reviews of the second day are known but for two; that day brings items of the catalogue too."""
    second = read_by_night[1]
    known, new = ({row.text for row in changed_texts(second, day).collect()} for day in DAYS[:2])
    assert "lovely coffee" in known and not known & new and second.details["texts_encoded"] == len(new)


def test_a_night_encodes_only_the_hundredth_that_is_new_and_characters_where_words_are_unknown(make_context, caplog):
    old = [f"a word about shop {number}" for number in range(200)]
    new = [f"the {name} one" for name in ("first", "second")]
    chinese = ["这家咖啡店的拿铁很香", "店里的拿铁咖啡味道香浓", "从机场坐地铁到市中心要一小时"]
    others = [*chinese, "😀 🎉", "lone", "great coffee 😀"]
    known = [written(FIRST, words) for words in [*old, *others]]
    arriving = [written(DAYS[1], words, user_id="v") for words in [*old, *others, *new]]
    context = make_context(FIRST)
    plant(context.lake.root, "items", ITEMS[:1])
    plant(context.lake.root, "events", [*known, *arriving])
    counts = {}
    with caplog.at_level("WARNING"):
        for day in DAYS[:2]:
            context = make_context(day, first_day=FIRST)
            text.run(context)
            counts[day] = (context.details["texts_encoded"], context.details.get("texts_by_ngrams"))
    assert counts == {FIRST: (207, 3), DAYS[1]: (2, None)}, "of words that the encoder does not know there are vectors once"
    assert {row.text for row in changed_texts(context, DAYS[1]).collect()} == set(new)
    assert "3 of 207 new texts are in words that all-MiniLM-L6-v2 does not know" in caplog.text

    found = {row.text: row for row in context.state("text_semantics").collect()}
    assert {words for words, row in found.items() if row.encoder.startswith("ngrams@1/all-MiniLM")} == set(chinese)
    assert found["😀 🎉"].vector is None and found["great coffee 😀"].vector is not None
    like, other = (np.dot(found[chinese[0]].vector, found[words].vector) for words in chinese[1:])
    assert like > 0.3
    assert other < 0.1


def test_another_encoder_encodes_everything_again_and_once(read_by_another):
    nights = dict(zip(DAYS[1:3], read_by_another, strict=False))
    changed = {
        day: {row.text: row.encoder for row in own_texts(context, changed_texts(context, day))}
        for day, context in nights.items()
    }
    assert set(changed[DAYS[1]]) == {"lovely coffee", "Blue Cup. Coffee Shop. Coffee by the river"}
    assert set(changed[DAYS[2]]) == {"Old Mill. Museum"}
    assert {version.split("/")[1] for new in changed.values() for version in new.values()} == {"8"}
    state = own_texts(nights[DAYS[2]], nights[DAYS[2]].state("text_semantics"))
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
