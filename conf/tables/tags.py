"""Tags: what items carry, and what users turn to, in words."""

from __future__ import annotations

from conf.contracts import column, snapshot, state
from conf.tables.columns import item, user
from conf.tables.interests import JUDGED, JUDGED_CHECKS, JUDGED_NOTHING, WEIGHTS

_TAG = "the tag: lower case, single spaces, cut to 100 characters"

TAGS = (
    state(
        "item_tags",
        "Words under which an item goes, weighted; at most 64, its own before those that follow by relations.",
        item(),
        column("tag", "string", f"{_TAG}; of tags that mean the same the commonest (tag_synonyms)", nullable=False),
        column(
            "weight",
            "double",
            "category, brand and declared tag 1, keyword and topic of the text 0.5, of a relation its own (times that of the "
            "tag by which it follows); the greatest of them",
            nullable=False,
        ),
        column(
            "sources", "array<string>", "who says so: brand, category, keyword, relation, tag, topic; sorted", nullable=False
        ),
        owner="item_id",
        key=("item_id", "tag"),
    ),
    snapshot(
        "tag_synonyms",
        "Which of the commonest tags of items go under another that means the same: made monthly.",
        column("tag", "string", _TAG, nullable=False),
        column("means", "string", "the commoner tag under which it goes; it goes under none itself", nullable=False),
        column("likeness", "double", "1: another spelling; else the cosine of their vectors", nullable=False, tolerance=1e-3),
        key=("tag",),
    ),
    state(
        "user_tags",
        "A user's weight on each tag of the items taken, long- and short-term, with label and trend; the label.tags heaviest.",
        user(),
        column("tag", "string", _TAG, nullable=False),
        *WEIGHTS,
        column("events", "bigint", "events of the user with the tag so far, but those of weight 0", nullable=False),
        column("active_weeks", "int", "arrival weeks (Monday to Sunday) with an event", nullable=False),
        *JUDGED,
        owner="user_id",
        key=("user_id", "tag"),
        checks=JUDGED_CHECKS,
        personal=True,
        purpose="labels",
        nothing=JUDGED_NOTHING,
    ),
)
