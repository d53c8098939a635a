"""Plans for little and for much."""

from __future__ import annotations

from datetime import date

import pytest

from jobs.lake import plans, store
from jobs.lake.plans import LITTLE, suit
from jobs.lake.store import Lake

COMPILED = "spark.sql.codegen.wholeStage"


@pytest.fixture
def is_compiled(spark):
    """is_compiled(): whether Spark would compile a query now. (Of an adaptive plan it says so afterwards.)"""

    def asked():
        plan = spark.range(9).groupBy("id").count()._jdf.queryExecution().executedPlan().toString()
        return "*(1)" in plan and spark.conf.get("spark.sql.codegen.factoryMode") == "FALLBACK"

    suit(spark, 0)
    spark.conf.set("spark.sql.adaptive.enabled", "false")
    yield asked
    spark.conf.set("spark.sql.adaptive.enabled", "true")
    suit(spark, 0)


def test_plans_for_little_are_interpreted_and_those_for_much_compiled(spark, is_compiled):
    assert not is_compiled()
    suit(spark, LITTLE)
    assert is_compiled()
    suit(spark, LITTLE - 1)
    assert not is_compiled()


def test_what_the_session_was_given_stays(spark):
    given = spark._jsc.sc().conf()
    given.set(COMPILED, "true")
    spark.conf.set(COMPILED, "true")
    try:
        suit(spark, 0)
        assert spark.conf.get(COMPILED) == "true"
    finally:
        given.remove(COMPILED)
        suit(spark, 0)
    assert spark.conf.get(COMPILED) == "false"


def test_what_was_read_so_far_counts(spark, is_compiled, tmp_path):
    lake = Lake(spark, str(tmp_path))
    lake.reads(LITTLE - 1)
    assert not is_compiled()
    lake.reads(1)
    assert is_compiled()


def test_tables_count_by_the_files_that_are_read(spark, is_compiled, make_context, monkeypatch):
    day, later = date(2024, 1, 30), date(2024, 1, 31)
    schema = "user_id string, attributes map<string,string>, gone boolean, changed_on date, day date"
    context = make_context(day)
    context.write("users", spark.createDataFrame([("u", {}, False, day, day)], schema))
    for module in (plans, store):
        monkeypatch.setattr(module, "LITTLE", 1)
    seen = make_context(later, first_day=day)
    seen.arrivals("users")
    assert not is_compiled(), "nothing is there of that day"
    seen.before("users")
    assert is_compiled()
