"""The feed of `vectors`: changed rows, rows taken back, bad rows counted; nights leave what a bootstrap leaves."""

from dataclasses import replace
from datetime import datetime, timedelta

import pyarrow as pa
import pytest

from conf.mapping import Mapping
from jobs.features import features_as_of
from jobs.ingest.vectors import MOST_NUMBERS, vectored
from jobs.lake.runs import Night, pins
from tests.jobs.feeding import DAYS, MAPPING, VECTORS, refused
from tests.stored import difference, told


def test_nights_leave_what_the_bootstrap_leaves(spark, fed_at_once, fed_by_night):
    assert told(fed_at_once, "item_vectors")
    assert not (differs := difference(spark, "item_vectors", fed_at_once, fed_by_night)), differs
    for settings in (fed_at_once, fed_by_night):
        assert refused(settings, "item_vectors") == [{"bad_vector": 4, "no_item": 1}]


def test_each_change_is_a_row_on_the_day_on_which_it_arrived(fed_at_once):
    rows = told(fed_at_once, "item_vectors", "changed_on = day", "day, item_id")
    sound = pytest.approx([3.0, 0.002, 1.0])
    assert [(row["item_id"], row["vectors"] and dict(row["vectors"]), row["gone"], DAYS.index(row["day"])) for row in rows] == [
        ("i1", {"image": [0.5, -1.0], "audio": sound}, False, 0),
        ("i2", {"image": [1.0, 0.0]}, False, 0),
        ("i3", {"audio": [1.0, 2.0, 3.0]}, False, 0),
        ("i2", None, True, 2),
        ("i3", {"image": [2.0], "audio": [1.0, 2.0, 3.0]}, False, 2),
        ("i2", {"image": [3.0, 0.0]}, False, 3),
    ], "what is said again, in other words, changes nothing; of one day the greatest, before one that takes all back"
    copies = {row["item_id"] for row in told(fed_at_once, "item_vectors", "changed_on < day", "item_id")}
    assert copies == {"i1"}, "a keyframe copies what did not change on it"


def test_a_vector_without_end_is_refused(spark):
    schema = "item_id string, attributes array<struct<key:string,value:string>>, broken string, day date"
    rows = [("i1", [("image", "1 " * length)], None, DAYS[0]) for length in (MOST_NUMBERS, MOST_NUMBERS + 1)]
    assert [row.reason for row in vectored(spark.createDataFrame(rows, schema)).collect()] == [None, "long_vector"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"columns": {"item_id": "i", "image": "v"}}, "under attributes"), ({"attributes": {}}, "at least one kind")],
)
def test_a_mapping_without_vectors_is_refused(changed, said):
    with pytest.raises(ValueError, match=said):
        Mapping.model_validate({**MAPPING, "vectors": {**VECTORS, **changed}})


def test_features_join_what_was_known_of_an_item_before_the_day(fed_at_once):
    night = Night(
        run_id="test", day=DAYS[-1], first_day=DAYS[0], versions=pins(fed_at_once.lake), settings_hash="", code_version="",
    )  # fmt: skip
    items, later = ["i2", "i2", "i2", "i9"], [0, 2, 3, 3]
    moments = [datetime.combine(DAYS[0] + timedelta(days=n), datetime.min.time()) for n in later]
    entities = pa.table({"item_id": items, "event_timestamp": moments})
    found = features_as_of(fed_at_once, night, entities, ["item_vectors"])["item_vectors__vectors"].to_pylist()
    assert [one and dict(one) for one in found] == [None, {"image": [1.0, 0.0]}, None, None]
    with pytest.raises(ValueError, match="the lake has no item_vectors: its log's mapping has no section `vectors:`"):
        features_as_of(fed_at_once, replace(night, versions={}), entities, ["item_vectors"])
