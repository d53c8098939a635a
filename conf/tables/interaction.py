"""When and where together."""

from __future__ import annotations

from conf.contracts import ANY_SLOT, column, fact, snapshot, state
from conf.tables.columns import SLOT_CHECK, UNIT_INTERVAL, user

INTERACTION = (
    state(
        "user_slot_affinity",
        "How much a user turns to a category in a slot.",
        user(),
        column("slot", "string", "part of the week", nullable=False),
        column("category", "string", "category", nullable=False),
        column(
            "weight",
            "double",
            "sum of event weights, halved every half-life",
            nullable=False,
            aged="weight * power(0.5, age_days / half_life_days)",
        ),
        column("half_life_days", "double", "half-life of the weight", unit="day", nullable=False),
        column("affinity", "double", "share of the category in the slot, shrunk to the user's overall share", nullable=False),
        owner="user_id",
        key=("user_id", "slot", "category"),
        checks={"slot_known": SLOT_CHECK, "affinity_range": UNIT_INTERVAL.format("affinity")},
        personal=True,
        purpose="location",
        nothing={"slot": f"'{ANY_SLOT}'", "half_life_days": "1D"},
    ),
    snapshot(
        "region_slot_lift",
        "How much more often a category is chosen in a region and slot than overall.",
        column("region", "string", "region", nullable=False),
        column("slot", "string", "part of the week", nullable=False),
        column("category", "string", "category", nullable=False),
        column("events", "bigint", "events in the window", nullable=False),
        column("lift", "double", "share in region and slot over share overall, shrunk to 1", nullable=False),
        column("z", "double", "two-proportion z value", nullable=False),
        column(
            "q_value",
            "double",
            "exact two-sided p value (Fisher), adjusted for all regions, slots and categories (Benjamini-Hochberg); as if "
            "events were independent",
            nullable=False,
        ),
        key=("region", "slot", "category"),
        checks={"slot_known": SLOT_CHECK, "q_value_range": UNIT_INTERVAL.format("q_value")},
    ),
    fact(
        "transitions",
        "What users turn to after what, and where they go next, by slot; counted on the day on which the second event arrived.",
        column("kind", "string", "what the ends are: category, region, or item where events have places", nullable=False),
        column("origin", "string", "category, region or item of the first of two consecutive target events", nullable=False),
        column("destination", "string", "that of the second", nullable=False),
        column("slot", "string", "part of the week of the second", nullable=False),
        column("transitions", "bigint", "pairs of events", nullable=False),
        column("users", "bigint", "distinct users of that day", nullable=False),
        column("seconds", "double", "sum of the times between the two events", unit="second", nullable=False),
        key=("kind", "origin", "destination", "slot"),
        checks={"kind_known": "kind IN ('category', 'region', 'item')", "slot_known": SLOT_CHECK, "some": "transitions > 0"},
    ),
)
