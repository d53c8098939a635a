"""The feed of `context`: late and changed rows, rows taken back, bad rows counted; nights leave what a bootstrap leaves."""

import shutil
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from conf.mapping import Mapping
from jobs.features import features
from jobs.lake import logs
from jobs.lake.runs import NIGHT, pins, row
from tests.jobs.feeding import CONTEXT, DAYS, MAPPING, refused
from tests.stored import difference, told


def test_nights_leave_what_the_bootstrap_leaves(spark, fed_at_once, fed_by_night):
    assert told(fed_at_once, "context")
    assert not (differs := difference(spark, "context", fed_at_once, fed_by_night)), differs
    for settings in (fed_at_once, fed_by_night):
        assert refused(settings, "context") == [
            {"bad_cell": 1, "bad_time": 1, "ends_before_it_begins": 1, "no_name": 1, "no_time": 1}
        ]


def test_each_change_is_a_row_on_the_day_on_which_it_arrived(fed_at_once):
    rows = told(fed_at_once, "context", "changed_on = day", "day, name")
    found = [(row["name"], row["value"], row["number"], row["gone"], DAYS.index(row["day"])) for row in rows]
    assert found == [
        ("holiday", "yes", None, False, 0),
        ("parade", "yes", None, False, 0),
        ("rain", "2.5", 2.5, False, 0),
        ("parade", None, None, True, 2),
        ("rain", "7", 7.0, False, 2),
        ("parade", "again", None, False, 3),
    ], "of one day the greatest; what is said again changes nothing; what was never told cannot be taken back"
    [holiday, parade, rain, *_] = rows
    holds = [datetime(2024, 1, 31, hour, tzinfo=UTC) for hour in (9, 12)]
    assert [rain["valid_from"], rain["valid_until"]] == holds, "Berlin, three hours"
    assert holiday["region"] == "DE" and holiday["cell"] is None and parade["cell"] == "891f1d4893bffff"
    copies = [row["name"] for row in told(fed_at_once, "context", "changed_on < day", "day, name")]
    assert copies == ["holiday"], "a keyframe copies what did not change on it"


def test_features_know_what_was_told_before_the_day(fed_at_once, tmp_path):
    shutil.copytree(fed_at_once.lake, tmp_path / "lake")
    settings = fed_at_once.model_copy(update={"lake": str(tmp_path / "lake")})
    logs.append(settings.lake, "runs", [_night(settings)])
    moments = [
        (1, datetime(2024, 1, 31, 10, tzinfo=UTC), None),
        (2, datetime(2024, 2, 2, 12, tzinfo=UTC), "DE/Berlin/Berlin"),
        (3, datetime(2024, 2, 2, 12, tzinfo=UTC), "FR"),
    ]
    number, moment, region = zip(*moments, strict=True)
    asked = pa.table({"number": number, "event_timestamp": moment, "region": pa.array(region, pa.string())})
    rows = features(settings, asked, ["context"]).to_pylist()
    assert [dict(row["context__values"]) for row in rows] == [{"rain": "2.5"}, {"holiday": "yes"}, {}]
    assert [dict(row["context__numbers"]) for row in rows] == [{"rain": 2.5}, {}, {}]


def _night(settings):
    """The record that the night is finished."""
    return row("night", NIGHT, DAYS[-1], first_day=DAYS[0], outputs=pins(settings.lake))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"columns": {"name": "what"}}, "valid_from must be mapped"),
        ({"columns": {**CONTEXT["columns"], "temperature": "t"}}, "unknown temperature"),
        ({"time_format": "position"}, "context needs times"),
    ],
)
def test_a_mapping_that_says_not_what_holds_when_is_refused(changed, said):
    with pytest.raises(ValueError, match=said):
        Mapping.model_validate({**MAPPING, "context": {**CONTEXT, **changed}})
