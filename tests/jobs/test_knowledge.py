"""What train gathers of items from the stored states, as of a day."""

import hashlib
from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from conf.settings import load_settings
from conf.tables import TABLES
from jobs.lake.schema import spark_schema
from jobs.train.knowledge import fingerprint, knowledge, sizes, told

FIRST, MIDDLE, LAST = date(2024, 1, 25), date(2024, 1, 29), date(2024, 2, 2)  # over the first of a month, a keyframe
TEXT = "text_mini_lm_ab12_128_" + hashlib.sha256(b"mini-lm@ab12/128").hexdigest()[:8]
OURS, OTHER = "mini-lm@ab12/128", "other@1/64"


def write(context, name, rows):
    schema = spark_schema(TABLES[name])
    empty = dict.fromkeys(schema.names)
    full = [{**empty, "gone": False, **row, "changed_on": row["day"]} for row in rows]
    context.write(name, context.spark.createDataFrame([tuple(row[column] for column in schema.names) for row in full], schema))


def text(name, vector, encoder=OURS, day=FIRST):
    return {"text_hash": name, "vector": vector, "encoder": encoder, "day": day}


def tag(item, name, weight, day=FIRST, **more):
    return {"item_id": item, "tag": name, "weight": weight, "sources": ["tag"], "day": day, **more}


@pytest.fixture(scope="module")
def lake(make_context_in, tmp_path_factory):
    """lake(...) -> contexts over a lake in which texts, tags and vectors of items change."""
    settings = load_settings(overrides=[f"lake={tmp_path_factory.mktemp('told')}"])
    context = make_context_in(settings, FIRST, LAST, first_day=FIRST, bootstrap=True)
    texts = [("a", "t1", FIRST), ("b", "t1", FIRST), ("a", "t2", MIDDLE), ("c", "t3", FIRST), ("d", "t4", FIRST)]
    rows = [{"item_id": item, "text_hash": name, "day": day} for item, name, day in texts]
    write(context, "item_texts", [*rows, {"item_id": "b", "text_hash": None, "gone": True, "day": LAST}])
    read = [text("t1", [3.0, 4.0]), text("t2", [0.0, 1.0], day=MIDDLE), text("t3", None), text("t4", [1.0], OTHER)]
    write(context, "text_semantics", read)
    tags = [tag("a", "red", 1.0), tag("a", "big", 0.5), tag("b", "red", 2.0), tag("a", "red", 1.0, MIDDLE)]
    write(context, "item_tags", [*tags, tag("b", "", 0.0, MIDDLE, gone=True)])
    vectors = [("a", {"look": [0.0, 2.0], "sound": [1.0]}), ("b", {"look": [0.0, 0.0]}), ("c", {"look": [1.0, 0.0, 0.0]})]
    rows = [{"item_id": item, "vectors": values, "day": FIRST} for item, values in vectors]
    rows += [{"item_id": "e", "vectors": {"look": [5.0, 0.0]}, "day": MIDDLE}]
    write(context, "item_vectors", [*rows, {"item_id": "a", "vectors": None, "gone": True, "day": date(2024, 1, 31)}])
    return lambda *days, **more: make_context_in(settings, *days, first_day=FIRST, **more)


def known(told, until):
    """Of each kind the items' vectors, None where there is none."""
    found = knowledge(told, until, ["a", "b", "c", "d", "e"]).vectors
    return {kind: [_rounded(row) for row in rows] for kind, rows in found.items()}


def _rounded(row):
    return None if np.isnan(row[0]) else pytest.approx(row.tolist(), abs=1e-3)


def test_a_bootstrap_knows_of_each_day_what_had_arrived(lake):
    found = told(lake(FIRST, LAST, bootstrap=True))
    assert sizes(found) == {"tags": 64, TEXT: 2, "vectors_look": 2, "vectors_sound": 1}
    early, later = (known(found, until) for until in (MIDDLE, LAST))
    assert early[TEXT] == [[0.6, 0.8], [0.6, 0.8], None, None, None], "of unit length, by one encoder"
    assert later[TEXT] == [[0.0, 1.0], [0.6, 0.8], None, None, None], "the last day's change is not known"
    assert early["vectors_look"] == [[0.0, 1.0], None, None, None, None], "zeros and another length say nothing"
    assert later["vectors_look"] == [None, None, None, None, [1.0, 0.0]]
    assert early["vectors_sound"][0] == [1.0] and later["vectors_sound"] == [None] * 5
    assert early["tags"][2:] == [None] * 3 and later["tags"][1:] == [None] * 4


def test_tags_add_up_by_weight_and_are_the_same_in_every_lake(lake):
    found = told(lake(FIRST, LAST, bootstrap=True))["tags"]
    early, later = found.as_of(MIDDLE, ["a", "b"]).astype(float), found.as_of(LAST, ["a", "b"]).astype(float)
    red = early[1]
    assert set(np.round(np.abs(red), 3)) == {0.125}, "signs alone"
    np.testing.assert_allclose(later[0], red, atol=1e-3)
    assert np.isnan(later[1]).all(), "taken back"
    # Each number is of red and of big, half as much: both signs alike, or not.
    ratios = np.abs(early[0]) / np.abs(early[0]).min()
    assert set(np.round(ratios, 2)) == {1.0, 3.0} and early[0] @ red > 0.7


def test_a_night_knows_what_the_bootstrap_knew(lake):
    whole, night = told(lake(FIRST, LAST, bootstrap=True)), told(lake(LAST))
    items = ["a", "b", "c", "d", "e"]
    assert sizes(night).items() <= sizes(whole).items()
    for kind, one in night.items():
        np.testing.assert_array_equal(one.as_of(LAST, items), whole[kind].as_of(LAST, items))
    left_out = {kind for kind in whole if kind not in night}
    assert all(np.isnan(whole[kind].as_of(LAST, items)).all() for kind in left_out)


def test_nothing_is_known_in_a_lake_without_such_tables_or_where_it_is_off(lake, make_context, make_settings, tmp_path):
    settings = make_settings("conf/local.yaml", f"lake={tmp_path / 'bare'}")
    assert told(make_context(FIRST, bootstrap=True, settings=settings)) == {}
    context = lake(FIRST, LAST, bootstrap=True)
    context.settings = context.settings.model_copy(
        update={"model": context.settings.model.model_copy(update={"knowledge": False})}
    )
    assert told(context) == {}


def test_the_fingerprint_is_of_what_is_known_and_not_of_rounding(lake):
    found, items = told(lake(FIRST, LAST, bootstrap=True)), ["a", "b"]
    one, other = (fingerprint(found, until, items) for until in (MIDDLE, LAST))
    assert set(one) == set(found) and one[TEXT] != other[TEXT] and one["tags"] != other["tags"]
    moved = {kind: replace(told_of, vector=told_of.vector + np.float16(1e-3)) for kind, told_of in found.items()}
    again = fingerprint(moved, MIDDLE, items)
    assert again[TEXT] == one[TEXT] and again["tags"] != one["tags"], "texts by what they say, all else by its numbers"
