"""Accepted events and refused rows, and each user's last events."""

from __future__ import annotations

from conf.contracts import column, fact, snapshot, state
from conf.tables.columns import SLOT_CHECK, item, position, precision, user

CLEAN = (
    fact(
        "events",
        "Accepted events, parsed, placed in local time and space.",
        column("event_id", "string", "hash of the source row and the event type", nullable=False),
        user(),
        item(nullable=True),
        column("event_type", "string", "what the user did", nullable=False),
        column("event_timestamp", "timestamp", "when, UTC", nullable=False),
        column("event_date", "date", "UTC date of the event", nullable=False),
        column("local_timestamp", "timestamp", "wall clock time at the event's place, stored as if UTC"),
        column("local_date", "date", "local date; null where the log has no times"),
        column("local_hour", "int", "local hour 0..23; null where the log has no times"),
        column("slot", "string", "part of the week in local time; null where the log has no times"),
        *position("the event, where it is precise enough (spatial.max_precision_m)", personal=True),
        *precision("source, gazetteer, ip or item"),
        column("time_zone", "string", "IANA time zone at the event's place"),
        column("cell", "string", "H3 cell, resolution 9", personal=True),
        column("region", "string", "nearest populated place: COUNTRY/first-order division/name"),
        column("category", "string", "category of the item as known on arrival"),
        column("value", "double", "rating, amount or duration"),
        column("text", "string", "review or search words", personal=True),
        column("device", "string", "device"),
        column("scene", "string", "scene"),
        column("session_id", "string", "session", personal=True),
        column(
            "consents",
            "array<string>",
            "what the user allowed as of the arrival day, sorted; null: the log asks for no consent",
        ),
        column("row_hash", "string", "the raw row it came from", nullable=False),
        key=("event_id",),
        checks={
            "latitude_range": "latitude IS NULL OR (latitude >= -90 AND latitude <= 90)",
            "longitude_range": "longitude IS NULL OR (longitude >= -180 AND longitude <= 180)",
            "local_hour_range": "local_hour IS NULL OR (local_hour >= 0 AND local_hour <= 23)",
            "slot_known": f"slot IS NULL OR {SLOT_CHECK}",
        },
        personal=True,
    ),
    fact(
        "events_quarantine",
        "Source rows that were refused, whole, with every reason.",
        column("row_hash", "string", "hash of the row's content", nullable=False),
        column("reasons", "array<string>", "names of the rules that refused the row", nullable=False),
        user(nullable=True),
        column("row", "string", "the raw row as JSON", nullable=False, personal=True),
        key=("row_hash",),
        personal=True,
    ),
    snapshot(
        "value_ranges",
        "Which values are usual for an event type: median and spread, made monthly from what had arrived.",
        column("event_type", "string", "event type as it arrived; '' where rows have none", nullable=False),
        column("center", "double", "median of asinh(value)", nullable=False),
        column("spread", "double", "1.4826 times the median absolute deviation of asinh(value), at least 0.25", nullable=False),
        column("rows", "bigint", "rows with a value", nullable=False),
        key=("event_type",),
    ),
)

SEQUENCES = (
    state(
        "user_sequences",
        "Each user's last events, oldest first.",
        user(),
        column(
            "events",
            "array<struct<event_id:string,event_timestamp:timestamp,item_id:string,event_type:string,"
            "category:string,latitude:double,longitude:double,region:string,local_timestamp:timestamp,"
            "slot:string,value:double,device:string,scene:string,arrived_on:date>>",
            "the last N events by (event_timestamp, event_id), oldest first",
            nullable=False,
            personal=True,
        ),
        column(
            "seen",
            "array<string>",
            "every item the user has taken (target events), sorted; null where the mapping allows repeats",
            personal=True,
        ),
        column("events_total", "bigint", "events of the user so far, those cut off included", nullable=False),
        owner="user_id",
        key=("user_id",),
        keep_keyframes=2,
        personal=True,
    ),
)
