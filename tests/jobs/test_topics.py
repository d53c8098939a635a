"""Topics of items' texts: planted categories are found again, under names that can be read; nights and bootstrap agree."""

from __future__ import annotations

from collections import Counter
from datetime import date

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import functions as F
from sklearn.metrics import normalized_mutual_info_score

from conf.tables import TABLES
from jobs.lake.compare import compare
from jobs.text import topics
from jobs.text.topics import LEAST_TEXTS, Fit, clusters, nearest, telling, topic_names
from tests.jobs.texts import DAYS, FIRST, MADE_UP, stored


def told_of(fits, days, encoders, vectors):
    batch = pa.RecordBatch.from_pydict(
        {
            "day": pa.array(days, pa.date32()),
            "encoder": pa.array(encoders, pa.string()),
            "vector": pa.array(vectors, pa.list_(pa.float32())),
        }
    )
    [told] = telling(fits)(iter([batch]))
    return told.column("topic").to_pylist(), told.column("topic_confidence").to_pylist()


def a_fit(day=FIRST, encoder="e", names=("one", "two"), centroids=((1, 0), (0, 1))):
    return Fit(day=day, encoder=encoder, names=names, centroids_KD=np.array(centroids, np.float32))


def test_a_text_is_told_by_its_encoders_newest_fit_up_to_its_day():
    fits = [a_fit(), a_fit(encoder="f", names=("f one", "f two")), a_fit(day=DAYS[2], names=("new one", "new two"))]
    days = [DAYS[0], DAYS[1], DAYS[2], DAYS[3], DAYS[3], DAYS[3], date(2024, 1, 29), DAYS[3]]
    encoders = ["e", "e", "e", "e", "f", "g", "e", "e"]
    vectors = [[1, 0], [0, 1], [1, 0], [0, 1], [0.8, 0.6], [1, 0], [1, 0], None]
    names, confidence = told_of(fits, days, encoders, vectors)
    assert names == ["one", "two", "new one", "new two", "f one", None, None, None]
    assert [value is None for value in confidence] == [name is None for name in names]
    assert confidence[0] > 0.999 and 0.9 < confidence[4] < confidence[0]
    assert told_of(fits, [], [], []) == ([], []) and told_of([], [FIRST], ["e"], [[1, 0]]) == ([None], [None])


def test_confidence_is_shared_by_what_is_as_near():
    best, confidence = nearest(np.array([[1, 1], [1, 0.9]]), np.array([[1.0, 0], [0, 1.0]]))
    assert best.tolist() == [0, 0] and confidence[0] == pytest.approx(0.5) and 0.5 < confidence[1] < 1


def test_planted_groups_are_found_in_any_order_and_equal_vectors_do_no_harm():
    rng = np.random.default_rng(0)
    planted = np.repeat(np.arange(6), 3)
    vectors = np.eye(16)[planted] + rng.normal(0, 0.05, (18, 16))
    assert normalized_mutual_info_score(planted, clusters(vectors)) == 1
    assert set(clusters(np.ones((40, 4)))) == {0}


def texts_table(words, rng=None):
    count = len(words)
    order = np.arange(count) if rng is None else rng.permutation(count)
    rows = {
        "text_hash": [f"{n:04}" for n in order],
        "encoder": ["e"] * count,
        "vector": [np.eye(8)[int(n) % 8] + 0.01 * np.cos(n + np.arange(8)) for n in order],
        "keywords": [words[n] for n in order],
        "day": [FIRST] * count,
    }
    kinds = [pa.string(), pa.string(), pa.list_(pa.float32()), pa.list_(pa.string()), pa.date32()]
    return pa.table([pa.array(column, kind) for column, kind in zip(rows.values(), kinds, strict=True)], names=list(rows))


def test_a_fit_does_not_depend_on_the_order_of_texts_and_needs_enough_of_them():
    words = [[f"noun{n % 8}", "shop"] if n % 5 else None for n in range(32)]
    made = [topics._fitted(texts_table(words, rng)).to_pylist() for rng in (None, np.random.default_rng(1))]
    assert made[0] == made[1] and len(made[0]) == 8
    assert {row["name"].split(", ")[0] for row in made[0]} == {f"noun{n}" for n in range(8)}
    assert [row["topic"] for row in made[0]] == list(range(1, 9)) and sum(row["texts"] for row in made[0]) == 32
    assert topics._fitted(texts_table(words[: LEAST_TEXTS - 1])).num_rows == 0


def test_names_tell_topics_apart_and_are_never_equal_or_empty():
    coffee = [["coffee shop", "espresso", "corner"], ["coffee shop", "flat white", "corner"], ["espresso", "corner"]]
    books = [["novel", "corner"], ["nordvik novel", "corner"], ["books", "corner"]]
    names = topic_names([coffee, books, coffee, [[], []], [["咖啡", "拿铁"], ["咖啡"]], [["lone"]]])
    assert names[0].startswith("coffee shop, espresso") and names[1].startswith("novel")
    assert len(set(names)) == len(names) and names[3] == "topic 4" and names[4].startswith("咖啡") and names[5] == "lone"


def test_planted_categories_are_found_again_by_nights_and_bootstrap_alike(read_by_night, read_at_once):
    # Of text_semantics test_text says it.
    comparison = compare(stored(read_by_night[-1], "text_topics"), stored(read_at_once, "text_topics"), TABLES["text_topics"])
    assert comparison.equal and comparison.rows > 0, str(comparison)

    fits = stored(read_at_once, "text_topics").collect()
    assert set(_grouped(fits)) == {DAYS[0], DAYS[2]} and {row.encoder.split("@")[0] for row in fits} == {"all-MiniLM-L6-v2"}
    for found in _grouped(fits).values():
        names = [row["name"] for row in found]
        assert len(set(names)) == len(names) and all(len(name.split(", ")) >= 2 for name in names)
        assert [row.topic for row in found] == list(range(1, len(found) + 1)) and not any(MADE_UP in name for name in names)

    read = {row.text: row for row in stored(read_at_once, "text_semantics").where("changed_on = day").collect()}
    # The last two are in no words that the encoder knows, and too few such texts describe items.
    untold = ("", "😀", "x" * 2000, "咖啡很好喝")
    for words in untold:
        assert read[words].topic is None and read[words].topic_confidence is None, words
    of_fit = {day: {row["name"] for row in found} for day, found in _grouped(fits).items()}
    for words, row in read.items():
        if words not in untold:
            assert row.topic in of_fit[DAYS[0] if row.day < DAYS[2] else DAYS[2]] and 0 < row.topic_confidence <= 1, words
    assert "novel" in read["A novel that I could not put down"].topic
    assert "music" in read["They play loud live music on the stage"].topic

    told = (
        stored(read_at_once, "items").where(~F.col("gone")).select("item_id", "category", "day")
        .join(stored(read_at_once, "item_texts").select("item_id", "day", "text_hash"), on=["item_id", "day"])
        .join(stored(read_at_once, "text_semantics").where("changed_on = day").select("text_hash", "topic"), on="text_hash")
        .where(F.col("day") == F.lit(FIRST)).collect()
    )  # fmt: skip
    assert len(told) >= 100
    likeness = normalized_mutual_info_score([row.category for row in told], [row.topic for row in told])
    by_topic = [Counter(row.category for row in told if row.topic == topic) for topic in {row.topic for row in told}]
    purity = sum(max(found.values()) for found in by_topic) / len(told)
    assert likeness > 0.6, f"NMI {likeness:.2f}, purity {purity:.2f} of {len(told)} texts in {len(by_topic)} topics"


def _grouped(rows):
    days = sorted({row.day for row in rows})
    return {day: sorted((row for row in rows if row.day == day), key=lambda row: row.topic) for day in days}


def test_another_encoder_makes_topics_anew_and_once(read_by_another):
    context = read_by_another[-1]
    made = {(row.day, row.encoder.split("/")[1]) for row in stored(context, "text_topics").collect()}
    assert made == {(DAYS[0], "128"), (DAYS[1], "8"), (DAYS[2], "8")}
    state = context.state("text_semantics")
    is_known = ~F.col("encoder").startswith("ngrams") & F.col("vector").isNotNull()
    assert state.where(is_known & F.col("topic").isNull()).count() == 0 and state.where(is_known).count() > 100
