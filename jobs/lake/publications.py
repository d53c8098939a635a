"""Which version served when: the log `publications`, read in one way.

Kinds of versions are apart: a decision is on one of them, and what serves is what the newest decision on its kind says.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import TYPE_CHECKING

from jobs.lake import logs

if TYPE_CHECKING:
    from jobs.lake.context import Context  # loads Spark, which readers do without

INTEREST, LABELLER, POLICY = "interest", "labeller", "policy"
KINDS = (INTEREST, LABELLER, POLICY)
BASELINE, RANKER = "baseline", "ranker"  # kinds of versions, which serve in an interest model's place
RULE = "rule"  # what serves where no labeller does; no version of the registry


def serves_as(version: logs.Row) -> str:
    """The kind of decisions in which a version of the registry takes part."""
    return INTEREST if version["kind"] in (BASELINE, RANKER) else str(version["kind"])


def in_order(publications: Iterable[logs.Row], *, kind: str = INTEREST) -> list[logs.Row]:
    """The decisions on a kind of models, oldest first: by the day they hold for, then by when they were made."""
    return sorted((row for row in publications if row["kind"] == kind), key=lambda row: (row["day"], row["decided_at"]))


def in_force(publications: Iterable[logs.Row], *, before: date | None = None, kind: str = INTEREST) -> logs.Row | None:
    """The newest decision (of those made for days before `before`): its `model_version` serves; None where there is none."""
    known = [row for row in in_order(publications, kind=kind) if before is None or row["day"] < before]
    return known[-1] if known else None


def version_in_force(context: Context, *, before: date, kind: str = INTEREST) -> logs.Row | None:
    """The registry's row of the version that serves by the decisions for days before `before`; None where there is none.

    Raises:
        ValueError: the registry does not know it.
    """
    found = in_force(context.log_rows("publications"), before=before, kind=kind)
    if found is None:
        return None
    version = found["model_version"]
    known = context.log_rows("model_versions", f"model_version = '{version}'")
    if not known:
        raise ValueError(f"version {version} is published but not in model_versions: publish another (wherewhen models)")
    return known[-1]
