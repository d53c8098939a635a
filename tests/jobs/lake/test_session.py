"""The session of the tests, which is one like any other."""

import psutil

from jobs.lake import session


def test_the_first_worker_comes_from_the_daemon_that_queries_ask(spark):
    """Spark keeps a daemon for each way to ask; one has imported in vain if nobody asks its way again."""
    session._first_worker(spark)
    spark.range(1).mapInArrow(lambda batches: batches, "id BIGINT").collect()
    below = [one for process in psutil.Process().children() if process.name() == "java" for one in process.children()]
    assert len([one for one in below if "jobs.lake.daemon" in one.cmdline()]) == 1
