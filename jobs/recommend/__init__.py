"""`recommend`: lists for some users, at a time and place, from what the newest finished night left. Without Spark.

A user is asked as the night asks for slot `any`, or, with a time, as evaluate asks: by the local clock known last before
it, at the place known last. Users who are not known get what the version ranks for somebody without a past.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TextIO

from conf.settings import Settings
from jobs.recommend import reading
from jobs.recommend.served import COLUMNS, Asked, Served


def recommend(settings: Settings, users: Path, output: TextIO, asked: Asked, history: Path | None = None) -> str:
    """Write a CSV of `COLUMNS` to `output`; a line that says what was done.

    Args:
        users: a CSV with a column `user_id`, the caller's own ids.
        history: a CSV of `reading.HISTORY`, what users did since the night; `-` is stdin.

    Raises:
        ValueError: a file cannot be read (says which line), nothing is finished or published, or the time is past.
    """
    names = reading.users(users)
    since = {} if history is None else reading.history(history, settings.mapping.target_events[0])
    served = Served.of(settings, asked)
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(COLUMNS)
    rows = 0
    for row in served.lists(names, since):
        writer.writerow(row)
        rows += 1
    unknown = f", {served.unknown:,} of them without a past" if served.unknown else ""
    whom = "1 user" if len(names) == 1 else f"{len(names):,} users"
    return f"{rows:,} rows for {whom}{unknown}, by {served.model_version} as of {served.reader.day}"
