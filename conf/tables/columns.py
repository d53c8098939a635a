"""Columns and checks that several contracts share."""

from __future__ import annotations

from conf.contracts import ANY_SLOT, SLOTS, column

SLOT_CHECK = "slot IN (" + ", ".join(f"'{slot}'" for slot in (*SLOTS, ANY_SLOT)) + ")"
UNIT_INTERVAL = "{0} >= 0 AND {0} <= 1"


def user(nullable: bool = False):  # type: ignore[no-untyped-def]
    return column("user_id", "string", "pseudonym of the user (keyed hash, hex)", nullable=nullable, personal=True)


def item(nullable: bool = False):  # type: ignore[no-untyped-def]
    return column("item_id", "string", "the item, as the source names it", nullable=nullable)


def position(of: str, personal: bool = False):  # type: ignore[no-untyped-def]
    return (
        column("latitude", "double", f"latitude of {of}, WGS 84", unit="degree", personal=personal),
        column("longitude", "double", f"longitude of {of}, WGS 84", unit="degree", personal=personal),
    )


def precision(sources: str):  # type: ignore[no-untyped-def]
    return (
        column("position_source", "string", f"where the position comes from: {sources}"),
        column(
            "position_precision_m", "double", "the true position lies within this distance; null: as exact as its source",
            unit="metre",
        ),
    )  # fmt: skip
