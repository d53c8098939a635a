"""What the sinks that tasks write to share: passwords, and what a task said when it failed."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row


def password(variable: str | None, server: str, what: str = "password") -> str | None:
    """From the environment; None where no variable is named. `server`: what kind, and where. `what`: it is called there.

    Raises:
        ValueError: the variable is not set.
    """
    if variable is None:
        return None
    if not (found := os.environ.get(variable)):
        raise ValueError(f"{server}: set {variable}, the variable that is to hold the {what}")
    return found


def collected(rows: DataFrame, kind: str) -> list[Row]:
    """The rows; where a task failed with a `ValueError` about a server of the kind, that one.

    Spark wraps what a task raised into a page of stack traces.
    """
    try:
        return rows.collect()
    except Exception as error:
        if (said := re.search(rf"ValueError: ({kind} at .*)", str(error))) is not None:
            raise ValueError(said[1].strip()) from None
        raise
