import pytest

from conf.tables import TABLES
from jobs.pipeline import STEPS, Step, choose, dependencies, downstream, order


def step(name, reads=(), writes=(), appends=()):
    return Step(name=name, stage="any", does="", reads=reads, writes=writes, appends=appends)


def test_order_follows_reads_and_writes_whatever_the_listing():
    names = [one.name for one in order(reversed(STEPS))]
    for name, upstream in dependencies().items():
        assert all(names.index(before) < names.index(name) for before in upstream)
    assert [one.name for one in order()] == [one.name for one in STEPS], "the listing is already in order"


def test_every_table_written_has_a_contract_and_every_data_table_a_writer():
    written = {table for one in STEPS for table in one.writes}
    assert written <= set(TABLES)
    assert set(TABLES) - written == {"runs", "erasures"}, "runs is written by the runner, erasures by the command erase"


def test_a_cycle_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"cycle: .*a.*b"):
        order([step("a", reads=("y",), writes=("x",)), step("b", reads=("x",), writes=("y",))])


def test_reading_the_state_before_makes_no_edge():
    steps = [step("a", reads=("y@-1",), writes=("x",)), step("b", reads=("x",), writes=("y",))]
    assert [one.name for one in order(steps)] == ["a", "b"]


def test_nobody_waits_for_a_step_that_adds_rows_to_a_log_of_another():
    steps = [
        step("a", writes=("log",)), step("b", reads=("log?",), writes=("x",), appends=("log",)),
        step("c", reads=("log",), writes=("y",)),
    ]  # fmt: skip
    assert dependencies(steps) == {"a": set(), "b": set(), "c": {"a"}}
    assert [one.name for one in downstream("b", steps)] == ["b"], "c is not made again for what b adds"
    assert steps[1].tables_written == ("x", "log")
    with pytest.raises(ValueError, match="b appends to log, which no step writes"):
        order([step("b", writes=("x",), appends=("log",))])


def test_only_to_logs_rows_are_added():
    assert {table for one in STEPS for table in one.appends} == {"model_versions", "publications"}
    assert all(TABLES[table].kind == "log" for one in STEPS for table in one.appends)


def test_two_writers_and_unknown_tables_are_errors():
    with pytest.raises(ValueError, match="x is written by both a and b"):
        order([step("a", writes=("x",)), step("b", writes=("x",))])
    with pytest.raises(ValueError, match="a reads nothing_like_it, which no step writes"):
        order([step("a", reads=("nothing_like_it",))])


def test_downstream_follows_what_is_read_of_the_day_and_of_days_before():
    steps = [
        step("a", writes=("x",)), step("b", reads=("x@-1",), writes=("y",)), step("c", reads=("y",), writes=("z",)),
        step("d", reads=("z?",), writes=("w",)),
    ]  # fmt: skip
    assert [one.name for one in downstream("a", steps)] == ["a", "b", "c"], "what stands in a registry is not made again"
    assert [one.name for one in downstream("label")] == ["label", "labeller"]
    assert [one.name for one in downstream("ingest")] == [one.name for one in STEPS]


def test_choose_takes_ranges_and_lists_in_order():
    assert [one.name for one in choose(only=("clean", "ingest"))] == ["ingest", "clean"]
    assert [one.name for one in choose("clean", "text")] == ["clean", "sequences", "text"]
    with pytest.raises(ValueError, match="there is no step cleen; the steps are ingest, clean"):
        choose("cleen")
    with pytest.raises(ValueError, match="comes after"):
        choose("text", "clean")
