"""`plan`: what the next night is to take, step by step, as the newest nights of the lake went. No Spark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date

from conf.settings import Settings
from jobs.costs import NIGHTS, Cost, duration, nights, usual
from jobs.lake import logs
from jobs.query.rendering import aligned


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What each step of the next night is to cost, by the nights of `days`."""

    costs: Mapping[str, Cost]
    days: tuple[date, ...]

    @property
    def seconds(self) -> float:
        return sum(cost.seconds for cost in self.costs.values())

    @property
    def most(self) -> float:
        """Were every step to take as long as it ever did in them."""
        return sum(cost.most for cost in self.costs.values())

    @property
    def memory_mb(self) -> float | None:
        return max((cost.memory_mb for cost in self.costs.values() if cost.memory_mb is not None), default=None)


def plan(settings: Settings) -> Plan:
    """
    Raises:
        ValueError: no night has run yet.
    """
    known = nights(logs.read(settings.lake, "runs", "status = 'done'"))
    if not known:
        raise ValueError(f"{settings.lake} has no night to go by (a bootstrap is none): run one first")
    return Plan(costs=usual(known), days=tuple(sorted(known)[-NIGHTS:]))


def as_json(found: Plan) -> dict[str, object]:
    whole = {"seconds": found.seconds, "most": found.most, "memory_mb": found.memory_mb}
    return {"nights": [str(day) for day in found.days], "steps": [asdict(cost) for cost in found.costs.values()], **whole}


def as_text(found: Plan, width: int | None) -> str:
    costs = list(found.costs.values())
    columns = {
        "step": [*(cost.step for cost in costs), "all"],
        "usually": [*(duration(cost.seconds) for cost in costs), duration(found.seconds)],
        "at most": [*(duration(cost.most) for cost in costs), duration(found.most)],
        "MiB at most": [*(_memory(cost.memory_mb) for cost in costs), _memory(found.memory_mb)],
    }
    first, last = found.days[0], found.days[-1]
    said = f"the last {len(found.days)} nights went, {first} to {last}" if first != last else f"the night of {first} went"
    table = aligned(list(columns), list(columns.values()), right={"usually", "at most", "MiB at most"}, width=width)
    return f"The next night, as {said}:\n\n{table}"


def _memory(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
