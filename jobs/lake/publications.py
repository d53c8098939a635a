"""Which version served when: the log `publications`, read in one way."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from jobs.lake import logs

INTEREST = "interest"


def in_order(publications: Iterable[logs.Row]) -> list[logs.Row]:
    """The decisions on interest models, oldest first: by the day they hold for, then by when they were made."""
    return sorted((row for row in publications if row["kind"] == INTEREST), key=lambda row: (row["day"], row["decided_at"]))


def in_force(publications: Iterable[logs.Row], *, before: date | None = None) -> logs.Row | None:
    """The newest decision (of those made for days before `before`): its `model_version` serves; None where there is none."""
    known = [row for row in in_order(publications) if before is None or row["day"] < before]
    return known[-1] if known else None
