"""What commands that judge again share: the lake as it stands, and a file that is there whole or not at all."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def replaced(output: Path) -> Iterator[Path]:
    """A file beside `output` to write to, which takes its place when all went well.

    Raises:
        ValueError: `output` cannot be written; said before the work, not after it.
    """
    if output.is_dir():
        raise ValueError(f"--output {output} is a folder: name a file in it")
    scratch = output.absolute().parent / f".{output.name}-{uuid.uuid4().hex[:8]}.part"
    try:
        scratch.touch()
    except OSError as error:
        raise ValueError(f"--output {output} cannot be written: {error.strerror or error}") from None
    try:
        yield scratch
        scratch.replace(output)
    finally:
        scratch.unlink(missing_ok=True)
