"""Which measures of a night's drift are past their bounds. No Spark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from conf.settings import Drift

PSI, KL, NEW_ITEMS, CHANGED_USERS = "psi", "kl", "new_items", "changed_users"
# A subject that is reported alone: one event may turn the lists of a new user over, and a night may have few of them.
LISTS_OF_NEW = "lists of new users"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A measure of one night beside its bound; `value` None: there was nothing to compare with."""

    subject: str
    measure: str
    value: float | None
    bound: float

    @property
    def is_past(self) -> bool:
        return self.value is not None and self.value > self.bound

    def __str__(self) -> str:
        value = "nothing to compare with" if self.value is None else f"{self.value:.4g}"
        return f"{self.subject} {self.measure} {value}, bound {self.bound:.4g}"


def judged(rows: Iterable[Mapping[str, Any]], settings: Drift) -> list[Finding]:
    """Rows of table `drift` beside their bounds: the setting's, or what chance alone explains where that is more."""
    bounds = {
        PSI: settings.max_psi,
        KL: settings.max_kl,
        NEW_ITEMS: settings.max_new_items,
        CHANGED_USERS: settings.max_changed_users,
    }
    return [
        Finding(
            subject=row["subject"],
            measure=row["measure"],
            value=row["value"],
            bound=1.0 if row["subject"] == LISTS_OF_NEW else max(bounds[row["measure"]], row["chance"] or 0.0),
        )
        for row in rows
    ]
