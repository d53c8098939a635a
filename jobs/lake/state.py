"""What commands that judge again share: the lake as it stands."""

from __future__ import annotations

from datetime import date

from pyspark.sql import SparkSession

from conf.settings import Settings
from jobs.lake.context import Context
from jobs.lake.runs import Night, finished_night, newest_night, newest_refresh
from jobs.lake.store import Days, Lake


def newest_state(spark: SparkSession, settings: Settings) -> Context:
    """The lake as readers see it: at the end of the newest finished day.

    Raises:
        ValueError: no day is finished.
    """
    night = finished_night(settings.lake)
    return _seen(spark, settings, night, night.day, night.versions)


def readers_state(spark: SparkSession, settings: Settings) -> Context:
    """The same with what a later refresh made.

    Raises:
        ValueError: as `newest_state`.
    """
    seen, refresh, night = newest_state(spark, settings), newest_refresh(settings.lake), newest_night(settings.lake)
    if refresh is None or night is None:
        return seen
    context = _seen(spark, settings, refresh, refresh.day, {**night.versions, **refresh.versions})
    return context.left_as_of(night.day, but=refresh.versions)


def _seen(spark: SparkSession, settings: Settings, night: Night, day: date, versions: dict[str, int]) -> Context:
    return Context(
        settings=settings,
        lake=Lake(spark, settings.lake),
        days=Days(first=day, last=day),
        first_day=night.first_day,
        run_id=night.run_id,
        bootstrap=False,
        pins=versions,
    )
