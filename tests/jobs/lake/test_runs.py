"""Which version of a table counts."""

from datetime import date

from jobs.lake.runs import pins

DAY = date(2024, 1, 31)


def test_of_a_table_the_newest_write_counts_and_of_a_log_that_several_steps_add_to_all_that_were_added(small_lake):
    small_lake.finish(DAY, {"model_versions": 5, "training_windows": 7}, step="train")
    small_lake.finish(DAY, {"model_versions": 4, "event_labels": 2}, step="labeller")  # side by side, its rows came first
    small_lake.finish(DAY, {"training_windows": 6}, step="train")  # restored from elsewhere, say: what was written last
    small_lake.finish(DAY, {"model_versions": 9}, step="evaluate", status="failed")
    assert pins(small_lake.root) == {"model_versions": 5, "training_windows": 6, "event_labels": 2}
