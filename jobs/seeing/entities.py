"""Whose series is drawn: a user, an item, a category, a region, or one of the two last in one of the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from conf.contracts import SLOTS
from conf.settings import Settings, SettingsError
from jobs.query import pseudonym_of
from jobs.query.statement import nearest
from jobs.seeing.reading import literal

# What may be named together, and what activity_daily calls the two.
_PAIRS = {("region", "category"): "region_category", ("region", "slot"): "region_slot"}


@dataclass(frozen=True, kw_only=True)
class Entity:
    """As activity_daily names it; `label` is what people call it."""

    kind: str
    id: str
    label: str

    @property
    def where(self) -> str:
        return f"entity_type = {literal(self.kind)} AND entity_id = {literal(self.id)}"


def chosen(given: Mapping[str, str | None], settings: Settings) -> Entity:
    """The entity that options name: `user` (the id as the log has it), `item`, `category`, `region`, `slot`.

    Raises:
        SettingsError: nothing, or what has no series together, or no such part of the week.
    """
    named = {kind: value for kind, value in given.items() if value is not None}
    if (slot := named.get("slot")) is not None and slot not in SLOTS:
        raise SettingsError(f"there is no part of the week {slot}{nearest(slot, SLOTS)}; they are {', '.join(SLOTS)}")
    for pair, kind in _PAIRS.items():
        if set(named) == set(pair):
            both = [named[one] for one in pair]
            return Entity(kind=kind, id=" | ".join(both), label=f"{both[1].replace('_', ' ')} in {both[0]}")
    if len(named) != 1 or "slot" in named:
        raise SettingsError(
            "say whose series: one of --user, --item, --category or --region; or --region with --category or with --slot"
        )
    [(kind, value)] = named.items()
    if kind == "user":
        return Entity(kind=kind, id=pseudonym_of(value, settings), label=f"User {value}")
    return Entity(kind=kind, id=value, label=value)
