"""What commands that judge again share: the lake as it stands."""

from __future__ import annotations

from pyspark.sql import SparkSession

from conf.settings import Settings
from jobs.lake.context import Context
from jobs.lake.runs import newest_night
from jobs.lake.store import Days, Lake


def newest_state(spark: SparkSession, settings: Settings) -> Context:
    """The lake as readers see it: at the end of the newest finished day.

    Raises:
        ValueError: no day is finished.
    """
    night = newest_night(settings.lake)
    if night is None:
        raise ValueError(f"{settings.lake} has no finished day to start from: run the pipeline first (run --day D --bootstrap)")
    return Context(
        settings=settings,
        lake=Lake(spark, settings.lake),
        days=Days(first=night.day, last=night.day),
        first_day=night.first_day,
        run_id=night.run_id,
        bootstrap=False,
        pins=night.versions,
    )
