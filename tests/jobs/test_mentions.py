"""Brands and products that texts name: precision and recall on sentences written for it; nights and bootstrap agree."""

from __future__ import annotations

import time
from datetime import date, datetime, timedelta

import pytest

from conf.tables import TABLES
from jobs import text
from jobs.lake.compare import compare
from jobs.lake.schema import spark_schema
from jobs.text.mentions import LEAST_CONFIDENCE, Names, found_in
from jobs.text.names import LONGEST, item_names, tokens_of, words_of

FIRST, LAST = date(2024, 1, 30), date(2024, 2, 2)
DAYS = [FIRST + timedelta(days=n) for n in range(4)]


def known(kind, name, item_id=None, ordinary=0.0):
    return {"kind": kind, "words": " ".join(words_of(name)), "name": name, "item_id": item_id, "ordinary": ordinary}


NAMES = Names.of(
    [
        *[known("brand", name) for name in ("Nordvik", "Café Lumière", "Juniper & Sons", "Old Mill", "McDonald's", "海底捞")],
        *[known("brand", "Apple", ordinary=0.5), known("brand", "Gap", ordinary=0.7), known("brand", "Best", ordinary=0.9)],
        known("product", "Nordvik Trail Shoes", "shoes"), known("product", "Nordvik Trail Shoes II", "newer"),
        known("product", "Heat (1995)", "heat", ordinary=0.4), known("product", "The Old Mill Café", None),
    ]
)  # fmt: skip
# What each names; a name in brackets may or may not be found.
SAID = [
    ("I bought the Nordvik trail shoes last week", {"Nordvik Trail Shoes"}),
    ("the nordvik trail shoes ii are better than the Nordvik Trail Shoes", {"Nordvik Trail Shoes", "Nordvik Trail Shoes II"}),
    ("Nordvik makes good shoes for the trail.", {"Nordvik"}),
    ("love my nordvik jacket", {"Nordvik"}),
    ("Breakfast at Cafe Lumiere, then home", {"Café Lumière"}),
    ("CAFÉ LUMIÈRE IS CLOSED", {"Café Lumière"}),
    ("McDonald’s again, and Juniper & Sons after", {"McDonald's", "Juniper & Sons"}),
    ("We walked to The Old Mill Café and past the Old Mill", {"The Old Mill Café", "Old Mill"}),
    ("my new Apple laptop", {"Apple"}),
    ("an apple a day, or two apples", set()),
    ("there is a gap between the boards", set()),
    ("bought it at Gap for little", {"Gap"}),
    ("the best shoes, best price", set()),
    ("We watched Heat last night", {"Heat (1995)"}),
    ("the heat was hard to bear", set()),
    ("an old windmill by the sea", set()),
    ("a nordic trail, no shoes", set()),
    ("海底捞的服务很好", {"海底捞"}),
    ("海底的世界很美", set()),
    ("sons of a juniper", set()),
]


def test_precision_and_recall_on_sentences_written_for_it():
    pairs = [
        (wanted, {name for (_, name), (_, sure) in found_in(words, NAMES).items() if sure >= 0.5}) for words, wanted in SAID
    ]
    right = sum(len(wanted & found) for wanted, found in pairs)
    precision, recall = right / sum(len(found) for _, found in pairs), right / sum(len(wanted) for wanted, _ in pairs)
    assert precision >= 0.95 and recall >= 0.95, [pair for pair in pairs if pair[0] != pair[1]]


def test_the_longest_name_counts_and_links_to_its_item():
    [(found, sure)] = found_in("my Nordvik Trail Shoes II", NAMES).values()
    assert (found.kind, found.item_id) == ("product", "newer") and sure > 0.95
    [(shared, _)] = found_in("The Old Mill Café", NAMES).values()
    assert shared.item_id is None
    assert found_in("my Nordvik Trail Shoes II", NAMES, own=("Nordvik trail shoes II",)) == {}
    assert {name for _, name in found_in("Nordvik beside Gap", NAMES, own=("nordvik",))} == {"Gap"}


def test_confidence_falls_with_case_and_with_ordinary_words():
    def sure(words, name):
        return next((sure for (_, found), (_, sure) in found_in(words, NAMES).items() if found == name), 0.0)

    assert sure("my Apple", "Apple") > sure("Apple is here", "Apple") > sure("my apple", "Apple") > 0
    assert sure("my Nordvik", "Nordvik") > sure("my nordvik", "Nordvik") > sure("my Apple", "Apple")
    assert sure("the best", "Best") == 0 < LEAST_CONFIDENCE < sure("my Best shoes", "Best")
    assert sure("my apple, and my Apple", "Apple") == sure("my Apple", "Apple"), "the surest place counts"


@pytest.mark.parametrize("words", ["", " ", "😀🎉", "12 34", "\x00\u200b", "x" * 1_000_000, "Nordvi" * 1000, "ﬁ ǅ İ ß", "ا ب"])
def test_hostile_texts_name_nothing(words):
    assert found_in(words, NAMES) == {}


def test_a_million_characters_take_seconds_and_names_of_them_are_none():
    began = time.monotonic()
    assert set(found_in("Nordvik and the rest " * 50_000, NAMES)) == {("brand", "Nordvik")}
    assert words_of("word " * 200_000) == () and time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Café  Lumière", ("cafe", "lumiere")), ("McDonald’s", ("mcdonald",)), ("Heat (1995)", ("heat",)),
        ("(500) Days", ("days",)), ("(Untitled)", ("untitled",)), ("1984", ()), ("X", ()), ("", ()), ("...", ()),
        ("海底捞", ("海", "底", "捞")), (" ".join("abcdefghijk"[: LONGEST + 1]), ()),
    ],
)  # fmt: skip
def test_a_names_words(name, words):
    assert words_of(name) == words


def test_tokens_know_where_sentences_begin():
    found = [(token.word, token.begins) for token in tokens_of('Well. Apple\'s is good, Apple is "Apple"')]
    assert found == [
        ("well", True), ("apple", True), ("is", False), ("good", False), ("apple", False), ("is", False), ("apple", True),
    ]  # fmt: skip


ITEM = {"title": None, "description": None, "category": "Shoes", "brand": None, "gone": False}
ITEMS = [
    {
        "item_id": "shoes",
        "title": "Nordvik Trail Shoes",
        "description": "Fits what Apple sells. Nordvik made.",
        "brand": "Nordvik",
    },
    {"item_id": "phone", "title": "Phone 3", "description": "An Apple", "brand": "Apple"},
    {"item_id": "pie", "title": "Pie", "description": "apple and apple", "brand": "NORDVIK "},
    {"item_id": "one", "title": "Old Mill", "brand": "Nordvik"},
    {"item_id": "other", "title": "Old  Mill"},
    {"item_id": "odd", "title": " ", "description": "x" * 1_000_000, "brand": "😀"},
]
EVENT = {
    "event_id": "e", "user_id": "u", "item_id": "shoes", "event_type": "review", "event_timestamp": datetime(2024, 1, 30, 12),
    "event_date": FIRST, "row_hash": "r",
}  # fmt: skip
REVIEWS = {
    DAYS[0]: ["Love the Nordvik trail shoes", "an apple", "", "Old Mill", "my Late Comer"],
    DAYS[1]: ["my Late Comer again", "love the\tNordvik trail shoes", "Love the Nordvik trail shoes "],
    DAYS[2]: ["my Late Comer at last"],
    DAYS[3]: ["Nordvik, and the Late Comer"],
}


def rows(spark, name, row, changes):
    schema = spark_schema(TABLES[name])
    return spark.createDataFrame([tuple({**row, **change}.get(field.name) for field in schema) for change in changes], schema)


def test_the_catalogues_names_and_what_else_their_words_mean(spark):
    found = item_names(rows(spark, "items", ITEM | {"day": FIRST, "changed_on": FIRST}, ITEMS)).collect()
    names = {(row.kind, row["name"]): row for row in found}
    assert set(names) == {
        ("brand", "Nordvik"), ("brand", "Apple"), ("product", "Nordvik Trail Shoes"), ("product", "Phone 3"),
        ("product", "Pie"), ("product", "Old Mill"),
    }  # fmt: skip
    assert names["brand", "Nordvik"]["items"] == 3 and names["brand", "Nordvik"].ordinary == 0
    assert names["brand", "Apple"].ordinary == pytest.approx(2 / 3)
    assert names["product", "Old Mill"].item_id is None and names["product", "Old Mill"]["items"] == 2
    assert names["product", "Pie"].item_id == "pie" and names["brand", "Apple"].item_id is None


@pytest.fixture
def lake_of(make_context, make_settings, tmp_path, spark):
    def make(name):
        settings = make_settings("conf/local.yaml", f"lake={tmp_path / name}")
        context = make_context(FIRST, LAST, bootstrap=True, settings=settings)
        late = {"item_id": "late", "title": "Late Comer", "description": "By Nordvik, not Apple", "day": DAYS[1]}
        items = [*[{**one, "day": DAYS[0]} for one in ITEMS], late]
        context.write("items", rows(spark, "items", ITEM, [{**one, "changed_on": one["day"]} for one in items]))
        written = [{"day": day, "text": words, "event_id": words[:9]} for day, texts in REVIEWS.items() for words in texts]
        context.write("events", rows(spark, "events", EVENT, written))
        return settings

    return make


def stored(context, name):
    return context.lake.read(name, context.lake.version(name))


def test_nights_and_bootstrap_find_the_same_in_each_text_once(make_context, lake_of):
    nights = lake_of("nights")
    for day in DAYS:
        context = make_context(day, first_day=FIRST, settings=nights)
        text.run(context)
    at_once = make_context(FIRST, LAST, bootstrap=True, settings=lake_of("bootstrap"))
    text.run(at_once)
    for name in ("text_mentions", "item_names"):
        comparison = compare(stored(context, name), stored(at_once, name), TABLES[name])
        assert comparison.equal and comparison.rows > 0, f"{name}: {comparison}"

    texts = {row.text_hash: row.text for row in stored(at_once, "text_semantics").collect()}
    mentions = stored(at_once, "text_mentions").where("changed_on = day").collect()
    found = {(texts[row.text_hash], row["name"]): row for row in mentions}
    assert set(found) == {
        ("Love the Nordvik trail shoes", "Nordvik Trail Shoes"),
        ("love the Nordvik trail shoes", "Nordvik Trail Shoes"),
        ("an apple", "Apple"),
        ("Old Mill", "Old Mill"),
        ("Nordvik Trail Shoes. Shoes. Fits what Apple sells. Nordvik made", "Apple"),  # neither its own title nor its brand
        ("Pie. Shoes. apple and apple", "Apple"),
        ("Late Comer. Shoes. By Nordvik, not Apple", "Nordvik"),
        ("Late Comer. Shoes. By Nordvik, not Apple", "Apple"),
        ("my Late Comer at last", "Late Comer"),  # known from the month's first day on
        ("Nordvik, and the Late Comer", "Late Comer"),
        ("Nordvik, and the Late Comer", "Nordvik"),
    }
    assert found["Love the Nordvik trail shoes", "Nordvik Trail Shoes"].item_id == "shoes"
    assert found["Old Mill", "Old Mill"].item_id is None
    assert found["an apple", "Apple"].confidence < 0.2 and found["my Late Comer at last", "Late Comer"].confidence > 0.9


def test_a_text_that_another_encoder_reads_again_keeps_its_mentions(make_context, lake_of, make_settings, tmp_path):
    settings = lake_of("lake")
    text.run(make_context(FIRST, settings=settings))
    shorter = make_settings("conf/local.yaml", f"lake={tmp_path / 'lake'}", "text.max_tokens=8")
    context = make_context(DAYS[1], first_day=FIRST, settings=shorter)
    before = context.before("text_mentions").collect()
    text.run(context)
    assert context.details["texts_encoded"] > 5
    changed = stored(context, "text_mentions").where(f"day = '{DAYS[1]}'").collect()
    assert {row["name"] for row in changed} == {"Nordvik Trail Shoes", "Nordvik", "Apple"} and len(changed) == 3
    assert len(context.state("text_mentions").collect()) == len(before) + 3
