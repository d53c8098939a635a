"""The feed of `relations`: changed rows, rows taken back, bad rows counted; nights leave what a bootstrap leaves."""

import pytest

from conf.mapping import Mapping
from jobs.ingest.relations import related
from tests.jobs.feeding import DAYS, MAPPING, RELATIONS, refused
from tests.stored import difference, told


def test_nights_leave_what_the_bootstrap_leaves(spark, fed_at_once, fed_by_night):
    assert told(fed_at_once, "item_relations")
    assert not (differs := difference(spark, "item_relations", fed_at_once, fed_by_night)), differs
    for settings in (fed_at_once, fed_by_night):
        assert refused(settings, "item_relations") == [{"bad_weight": 5, "no_object": 1, "no_relation": 1, "no_subject": 1}]


def test_each_change_is_a_row_on_the_day_on_which_it_arrived(fed_at_once):
    rows = told(fed_at_once, "item_relations", "changed_on = day", "day, subject")
    found = [
        (*[row[name] for name in ("subject", "relation", "object", "weight", "gone")], DAYS.index(row["day"])) for row in rows
    ]
    assert found == [
        ("coffee", "is", "drink", 1.0, False, 0),
        ("i1", "serves", "Flat White", 0.8, False, 0),
        ("i2", "serves", "tea", 1.0, False, 0),
        ("i1", "serves", "Flat White", 0.9, False, 2),
        ("i2", "serves", "tea", 0.0, True, 2),
        ("i2", "serves", "tea", 0.5, False, 3),
    ], "of one day the heaviest, before one that takes it back; what is said again changes nothing"
    copies = {row["subject"] for row in told(fed_at_once, "item_relations", "changed_on < day", "subject")}
    assert copies == {"coffee"}, "a keyframe copies what did not change on it"


@pytest.mark.parametrize(
    ("columns", "said"),
    [({"subject": "what", "object": "to"}, "relation must be mapped"), ({**RELATIONS["columns"], "time": "t"}, "unknown time")],
)
def test_a_mapping_that_says_not_what_belongs_to_what_is_refused(columns, said):
    with pytest.raises(ValueError, match=said):
        Mapping.model_validate({**MAPPING, "relations": {**RELATIONS, "columns": columns}})


def test_without_a_column_of_weights_each_weighs_one(spark):
    told = spark.createDataFrame(
        [("i1", "is", "x", None, DAYS[0])], "subject string, relation string, object string, broken string, day date"
    )
    [row] = related(told).collect()
    assert (row.weight, row.is_told, row.reason) == (1.0, True, None)
