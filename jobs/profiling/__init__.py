"""`profile`: what stands in a file, which mapping would make events of it, and what cleaning would say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jobs.profiling.kinds import Column, column_of
from jobs.profiling.proposal import Proposal, propose
from jobs.profiling.sample import Sample, sample

__all__ = ["Profile", "profile"]


@dataclass(frozen=True, kw_only=True)
class Profile:
    sample: Sample
    columns: tuple[Column, ...]
    proposal: Proposal


def profile(path: Path, rows: int) -> Profile:
    """Look at the first `rows` rows of a file; writes nothing and needs no Spark.

    Raises:
        ValueError: the file is missing, empty, unreadable or of no known format.
    """
    read = sample(path, rows)
    now = datetime.now(UTC).replace(tzinfo=None)
    columns = tuple(column_of(str(name), read.rows[name], now) for name in read.rows.columns)
    return Profile(sample=read, columns=columns, proposal=propose(read, columns, now))
