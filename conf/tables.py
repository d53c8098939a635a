"""Every table's contract: columns, types, units, comments, key, personal data, checks."""

from __future__ import annotations

from conf.contracts import ANY_SLOT, SERIES_WINDOWS, SLOTS, Column, Table, column, fact, log, snapshot, state

_SLOT_CHECK = "slot IN (" + ", ".join(f"'{slot}'" for slot in (*SLOTS, ANY_SLOT)) + ")"
_UNIT_INTERVAL = "{0} >= 0 AND {0} <= 1"


def _user(nullable: bool = False):  # type: ignore[no-untyped-def]
    return column("user_id", "string", "pseudonym of the user (keyed hash, hex)", nullable=nullable, personal=True)


def _item(nullable: bool = False):  # type: ignore[no-untyped-def]
    return column("item_id", "string", "the item, as the source names it", nullable=nullable)


def _position(of: str, personal: bool = False):  # type: ignore[no-untyped-def]
    return (
        column("latitude", "double", f"latitude of {of}, WGS 84", unit="degree", personal=personal),
        column("longitude", "double", f"longitude of {of}, WGS 84", unit="degree", personal=personal),
    )


def _precision(sources: str):  # type: ignore[no-untyped-def]
    return (
        column("position_source", "string", f"where the position comes from: {sources}"),
        column(
            "position_precision_m", "double", "the true position lies within this distance; null: as exact as its source",
            unit="metre",
        ),
    )  # fmt: skip


_ARRIVED = (
    fact(
        "raw_events",
        "Every source row of the main log as it arrived, unparsed, its columns named by the mapping.",
        column("row_hash", "string", "keyed hash of the row's content: equal rows have equal hashes", nullable=False),
        _user(nullable=True),
        _item(nullable=True),
        column("event_type", "string", "the event type as the mapping names it; null for wide rows"),
        column("event_time", "string", "the time as written in the source"),
        column("latitude", "string", "latitude as written, rounded where privacy.coordinate_decimals says so", personal=True),
        column("longitude", "string", "longitude, likewise", personal=True),
        column("place", "string", "name or code of the place, where the source has one", personal=True),
        column("category", "string", "category of the item, where the log carries it"),
        column("device", "string", "device as written"),
        column("scene", "string", "scene (page, channel, app section) as written"),
        column("session_id", "string", "session as written", personal=True),
        column("value", "string", "rating, amount or duration as written"),
        column("text", "string", "review or search words as written", personal=True),
        column("flags", "map<string,string>", "wide rows: event type to flag as written"),
        column("ip", "string", "IP address, coarsened or not at all as privacy.ip says", personal=True),
        *_precision("source (latitude, longitude are the log's) or ip (they were looked up)"),
        column("broken", "string", "the line where it could not be read, without what privacy leaves out", personal=True),
        key=("row_hash",),
        repeats=True,
        personal=True,
    ),
    state(
        "items",
        "What is known of each item.",
        _item(),
        column("title", "string", "title"),
        column("description", "string", "description"),
        column("category", "string", "main category"),
        column("brand", "string", "brand"),
        column("price", "double", "price in the source's currency"),
        *_position("the item, as the source declares it"),
        column("tags", "array<string>", "tags, genres"),
        column("attributes", "map<string,string>", "further attributes that the mapping names"),
        owner="item_id",
        key=("item_id",),
    ),
    state(
        "users",
        "What users or their source declared about them.",
        _user(),
        column("attributes", "map<string,string>", "declared attributes that the mapping names", personal=True),
        owner="user_id",
        key=("user_id",),
        personal=True,
    ),
    state(
        "consents",
        "What users allow: only these purposes may their events be used for.",
        _user(),
        column("purposes", "array<string>", "labels, location, training, export: what is allowed, sorted", nullable=False),
        column("since", "map<string,date>", "purpose to the day since which it is allowed without a break", nullable=False),
        column("notice_version", "string", "the notice under which the user decided"),
        column("stated_at", "timestamp", "when: an event's time, or the end of the day on which a row arrived", nullable=False),
        owner="user_id",
        key=("user_id",),
        personal=True,
    ),
    log(
        "vault",
        "Maps pseudonyms back to the caller's ids; the ids are encrypted under the lake's key.",
        column("user_id", "string", "pseudonym", nullable=False, personal=True),
        column("sealed", "binary", "AES-GCM nonce and ciphertext of the caller's id", nullable=False, personal=True),
        column("added_at", "timestamp", "when the row was added", nullable=False),
        key=("user_id",),
        unequal=("sealed", "added_at"),
        personal=True,
    ),
)

_CLEAN = (
    fact(
        "events",
        "Accepted events, parsed, placed in local time and space.",
        column("event_id", "string", "hash of the source row and the event type", nullable=False),
        _user(),
        _item(nullable=True),
        column("event_type", "string", "what the user did", nullable=False),
        column("event_timestamp", "timestamp", "when, UTC", nullable=False),
        column("event_date", "date", "UTC date of the event", nullable=False),
        column("local_timestamp", "timestamp", "wall clock time at the event's place, stored as if UTC"),
        column("local_date", "date", "local date; null where the log has no times"),
        column("local_hour", "int", "local hour 0..23; null where the log has no times"),
        column("slot", "string", "part of the week in local time; null where the log has no times"),
        *_position("the event, where it is precise enough (spatial.max_precision_m)", personal=True),
        *_precision("source, gazetteer, ip or item"),
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
            "slot_known": f"slot IS NULL OR {_SLOT_CHECK}",
        },
        personal=True,
    ),
    fact(
        "events_quarantine",
        "Source rows that were refused, whole, with every reason.",
        column("row_hash", "string", "hash of the row's content", nullable=False),
        column("reasons", "array<string>", "names of the rules that refused the row", nullable=False),
        _user(nullable=True),
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

_SEQUENCES = (
    state(
        "user_sequences",
        "Each user's last events, oldest first.",
        _user(),
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

_TEXT = (
    state(
        "text_semantics",
        "One row per distinct text: its sentence vector.",
        column("text_hash", "string", "hash of the normalised text", nullable=False),
        column("text", "string", "the text, white space as single spaces, cut to 2,000 characters", personal=True),
        column(
            "vector",
            "array<float>",
            "sentence vector of unit length, to 1e-5 (rounding moves with the batch); null: no word that the encoder knows",
            tolerance=1e-5,
        ),
        column("encoder", "string", "encoder NAME@HASH of its weights/tokens read at most", nullable=False),
        owner="text_hash",
        key=("text_hash",),
        personal=True,
    ),
    state(
        "item_texts",
        "Which texts describe an item.",
        _item(),
        column("text_hash", "string", "hash of the item's title, category and description"),
        owner="item_id",
        key=("item_id",),
    ),
)

# What interests become `age_days` after `changed_on`; jobs/label.py labels with the very same expressions.
_LONG_NOW = "long_weight * power(0.5, age_days / long_half_life_days)"
_SHORT_NOW = "short_weight * power(0.5, age_days / short_half_life_days)"
# A weight that sits on a threshold but for rounding reaches it.
_INTEREST_LABEL = (
    f"CASE WHEN active_weeks >= long_min_weeks AND {_LONG_NOW} >= long_min_weight - 1e-9 THEN 'long' "
    f"WHEN {_SHORT_NOW} >= short_min_weight - 1e-9 THEN 'short' ELSE 'none' END"
)
# A weight that is halved every h days and has watched a user for a days has seen h / ln 2 * (1 - 2^(-a / h)) days' worth.
# The short weight to be expected, were the rate of events what the long weight says:
_EXPECTED = (
    f"{_LONG_NOW} * short_half_life_days * (1 - power(0.5, (known_days + age_days + 1) / short_half_life_days))"
    " / (long_half_life_days * (1 - power(0.5, (known_days + age_days + 1) / long_half_life_days)))"
)
_INTEREST_TREND = (
    "CASE WHEN returned_days + age_days < 14 THEN 'returning' "
    "WHEN idle_days + age_days >= 28 THEN 'fading' "
    f"WHEN {_SHORT_NOW} >= 2 * {_EXPECTED} AND {_SHORT_NOW} - {_EXPECTED} >= 1 THEN 'emerging' "
    f"WHEN {_SHORT_NOW} <= 0.5 * {_EXPECTED} AND {_EXPECTED} - {_SHORT_NOW} >= 1 THEN 'fading' "
    "ELSE 'stable' END"
)

_LABEL = (
    fact(
        "event_labels",
        "Per event the label that its category held for the user before the event's arrival day.",
        column("event_id", "string", "the event", nullable=False),
        _user(),
        column("category", "string", "its category", nullable=False),
        column("label", "string", "long, short or none", nullable=False),
        column("trend", "string", "emerging, stable, fading, returning; null where nothing was known"),
        column("long_weight", "double", "the user's long-term weight on the category before that day", nullable=False),
        column("short_weight", "double", "the short-term weight before that day", nullable=False),
        key=("event_id",),
        checks={"label_known": "label IN ('long', 'short', 'none')"},
        personal=True,
    ),
    state(
        "user_interests",
        "A user's weight on each category, long- and short-term, with label and trend.",
        _user(),
        column("category", "string", "category", nullable=False),
        column(
            "long_weight",
            "double",
            "sum of event weights, halved every long half-life",
            nullable=False,
            aged=_LONG_NOW,
        ),
        column(
            "short_weight",
            "double",
            "sum of event weights, halved every short half-life",
            nullable=False,
            aged=_SHORT_NOW,
        ),
        column("long_half_life_days", "double", "half-life of the long weight", unit="day", nullable=False),
        column("short_half_life_days", "double", "half-life of the short weight", unit="day", nullable=False),
        column("events", "bigint", "events of the user in the category so far, but those of weight 0", nullable=False),
        column("active_weeks", "int", "arrival weeks (Monday to Sunday) with an event", nullable=False),
        column("first_on", "date", "arrival day of the first event", nullable=False),
        column("last_on", "date", "arrival day of the newest event", nullable=False),
        column("idle_days", "int", "days since `last_on`", unit="day", nullable=False, aged="idle_days + age_days"),
        column(
            "returned_days",
            "int",
            "days since an event ended 28 days or more without one; null where none did",
            unit="day",
            aged="returned_days + age_days",
        ),
        column(
            "known_days",
            "int",
            "days since the user's first event in any category",
            unit="day",
            nullable=False,
            aged="known_days + age_days",
        ),
        column("long_min_weeks", "int", "label long: from so many active weeks on", nullable=False),
        column("long_min_weight", "double", "label long: from this long weight on", nullable=False),
        column("short_min_weight", "double", "label short: from this short weight on", nullable=False),
        column("label", "string", "long, else short, else none, by the three thresholds", nullable=False, aged=_INTEREST_LABEL),
        column(
            "trend",
            "string",
            "returning: within 14 days after 28 or more without an event; fading: 28 days without one, or the short weight "
            "is half of what the long weight lets expect, or less, and an event's worth below it; emerging: twice that, "
            "or more, and an event's worth above it; else stable",
            nullable=False,
            aged=_INTEREST_TREND,
        ),
        owner="user_id",
        key=("user_id", "category"),
        checks={
            "label_known": "label IN ('long', 'short', 'none')",
            "trend_known": "trend IN ('emerging', 'stable', 'fading', 'returning')",
        },
        personal=True,
        purpose="labels",
        nothing={"label": "'none'", "trend": "'stable'", "long_half_life_days": "1D", "short_half_life_days": "1D"},
    ),
)

_ENTITY = (
    column("entity_type", "string", "user, item, category, region, region_category or region_slot", nullable=False),
    column("entity_id", "string", "which one; of a pair both, with ' | ' between them", nullable=False, personal=True),
)


def _window(days: int) -> Column:
    """Events of the last so many days; the days that leave the window with time are known from `recent`."""
    left = f"CASE WHEN age_days < {days} THEN element_at(recent, CAST({days} - age_days AS INT)) ELSE 0 END"
    return column(f"events_{days}d", "bigint", f"events of the last {days} days", nullable=False, aged=left)


_TIME_SERIES = (
    fact(
        "activity_daily",
        "Events per entity, type, own date and local hour that arrived on the day; sum over `day` when reading.",
        *_ENTITY,
        column("event_type", "string", "event type", nullable=False),
        column("event_date", "date", "the events' own UTC date", nullable=False),
        column("local_hour", "int", "local hour, 0..23; null where it is not known"),
        column("events", "bigint", "how many", nullable=False),
        key=("entity_type", "entity_id", "event_type", "event_date", "local_hour"),
        checks={"some": "events > 0"},
        personal=True,
    ),
    state(
        "time_series_features",
        "Shape of the daily activity of each entity and event type over the last 91 days; of those that the log has seen.",
        column("entity", "string", "entity_type:entity_id, the owner", nullable=False, personal=True),
        *_ENTITY,
        column("event_type", "string", "event type", nullable=False),
        column("observed_days", "int", "days described: 91, or those since the log's first day", unit="day", nullable=False),
        *map(_window, SERIES_WINDOWS),
        column(
            "recent", "array<bigint>", "events of the last 1, 2, ... 90 days before the end of `changed_on`", nullable=False
        ),
        column("level", "double", "mean events per day", unit="1/day", nullable=False),
        column(
            "slope", "double", "median of the slopes between any two weeks (Theil-Sen); null before 3 weeks", unit="1/day^2"
        ),
        column("volatility", "double", "standard deviation of a day against its weekday; null before 2 weeks", unit="1/day"),
        column("weekly_strength", "double", "share of the detrended variance at a period of 7 days; null before 2 weeks"),
        column("weekly_peak_day", "double", "when that component peaks, from Monday 00:00 on; null without one", unit="day"),
        column("trend", "double", "trend on the last day (STL); null before 4 weeks", unit="1/day"),
        column("trend_strength", "double", "1 - var(remainder) / var(remainder + trend), 0..1"),
        column(
            "season", "array<double>", "season of the last seven days (STL), Monday first; null before 4 weeks", unit="1/day"
        ),
        column("season_strength", "double", "1 - var(remainder) / var(remainder + season), 0..1"),
        column("active_days", "int", "days with events", unit="day", nullable=False),
        column(
            "days_since", "int", "days since the last one with events", unit="day", nullable=False, aged="days_since + age_days"
        ),
        column("gap_mean", "double", "mean of the days from one day with events to the next; null without two", unit="day"),
        column("gap_sd", "double", "their standard deviation", unit="day"),
        column("gap_max", "double", "the longest", unit="day"),
        column("burstiness", "double", "of the gaps: -1 an even pace, 0 random, 1 bursts; null with fewer than two"),
        column("daily_strength", "double", "strength of the daily rhythm: |mean of exp(i 2 pi hour / 24)|; null without hours"),
        column("daily_peak_hour", "double", "local hour at which that rhythm peaks; null without a rhythm", unit="hour"),
        column("hour_entropy", "double", "Shannon entropy of the local hours; null without hours", unit="nat"),
        column(
            "change_days_ago",
            "int",
            "days since the level changed, if it did: the likeliest day; null before 4 weeks",
            unit="day",
            aged="change_days_ago + age_days",
        ),
        column("change_log_ratio", "double", "logarithm of the level since then over the one before"),
        column("change_p", "double", "probability of so great a difference somewhere without any change"),
        column("expected", "double", "what the weeks before let expect of the last day; null before 15 days", unit="1/day"),
        column("anomaly", "double", "z of the last day: (events - expected) / standard deviation"),
        column(
            "anomaly_p", "double", "probability of a day that far off, two-sided; of one with events given that it has some"
        ),
        column(
            "is_anomaly",
            "boolean",
            "the last day stands out among all series of its entity type on that day (Benjamini-Hochberg)",
            nullable=False,
        ),
        owner="entity",
        key=("entity", "event_type"),
        personal=True,
    ),
)

_SPATIAL = (
    state(
        "user_places",
        "Spots where a user dwells: DBSCAN clusters of the user's last events.",
        _user(),
        column("place_id", "int", "number of the place, by visits, from 0", nullable=False),
        *_position("the place: the weighted centre", personal=True),
        column("radius_m", "double", "distance of the farthest visit from the centre", unit="metre", nullable=False),
        column("visits", "bigint", "events there among the user's last events", nullable=False),
        column("share", "double", "share of the user's placed events", nullable=False),
        column("slot_visits", "map<string,bigint>", "visits by slot", nullable=False),
        column("main_slots", "array<string>", "slots in which this is the user's most visited place", nullable=False),
        column("role", "string", "home, work or other", nullable=False),
        column("confidence", "double", "of the role, 0..1", nullable=False),
        owner="user_id",
        key=("user_id", "place_id"),
        checks={"role_known": "role IN ('home', 'work', 'other')", "share_range": _UNIT_INTERVAL.format("share")},
        personal=True,
        purpose="location",
        nothing={"role": "'other'"},
    ),
    state(
        "user_mobility",
        "How a user moves, over the last events.",
        _user(),
        column("radius_of_gyration_m", "double", "root mean square distance from the centre", unit="metre", nullable=False),
        column("returner_radius_m", "double", "the same of the visits to places 0 and 1; null without a place", unit="metre"),
        column("pattern", "string", "returner: that is half the whole radius or more; else explorer; null without a place"),
        column("daily_range_m", "double", "diagonal of the box around a local day's events, mean over days", unit="metre"),
        column("entropy", "double", "Shannon entropy of the shares of distinct cells", unit="nat", nullable=False),
        column("cells", "int", "distinct H3 cells (resolution 9)", nullable=False),
        column("home_distance_m", "double", "median distance from home; null without a home", unit="metre"),
        *_position("the user's last placed event", personal=True),
        owner="user_id",
        key=("user_id",),
        personal=True,
        purpose="location",
    ),
    state(
        "item_positions",
        "Where an item usually is: running mean position of its events and their spread.",
        _item(),
        *_position("the item: mean of its placed events"),
        column("events", "bigint", "placed events so far", nullable=False),
        column("spread_m", "double", "root mean square distance of the events from the mean", unit="metre", nullable=False),
        column("anchor_latitude", "double", "latitude of the item's first placed event", unit="degree", nullable=False),
        column("anchor_longitude", "double", "longitude of that event", unit="degree", nullable=False),
        column("sum_east", "double", "sum of the events less the anchor, eastwards, on the unit sphere", nullable=False),
        column("sum_north", "double", "the same, northwards", nullable=False),
        column("sum_up", "double", "the same, upwards", nullable=False),
        owner="item_id",
        key=("item_id",),
    ),
    fact(
        "cell_daily",
        "Events and users per H3 cell and slot that arrived on the day.",
        column("cell", "string", "H3 cell, resolution 9", nullable=False),
        column("region", "string", "region of the cell's events"),
        column("slot", "string", "part of the week", nullable=False),
        column("category", "string", "category; '' where unknown", nullable=False),
        column("events", "bigint", "events", nullable=False),
        column("users", "bigint", "distinct users of that day", nullable=False),
        key=("cell", "slot", "category", "region"),
        checks={"slot_known": _SLOT_CHECK, "some": "events > 0"},
    ),
    snapshot(
        "hotspots",
        "Cells that, with their neighbours, hold more events than the region's cells do (Getis-Ord Gi*), per slot.",
        column("cell", "string", "H3 cell, resolution 9", nullable=False),
        column("region", "string", "region"),
        column("slot", "string", "part of the week, or any", nullable=False),
        *_position("the cell's centre"),
        column("events", "bigint", "events in the window in the cell", nullable=False),
        column("users", "bigint", "their distinct users", nullable=False),
        column("z", "double", "Gi* z value", nullable=False),
        column("p_value", "double", "one-sided p value", nullable=False),
        column(
            "cluster_id", "int", "number of the connected group of hot cells in the slot, by events, from 0", nullable=False
        ),
        key=("cell", "slot"),
        checks={"slot_known": _SLOT_CHECK},
    ),
    snapshot(
        "hotspot_trends",
        "Cells that become a hotspot, remain one or cease to be one: weekly Gi* and its Mann-Kendall trend.",
        column("cell", "string", "H3 cell, resolution 9", nullable=False),
        column("region", "string", "region"),
        *_position("the cell's centre"),
        column("weeks", "int", "weeks looked at, the last one ends with `day`", nullable=False),
        column("hot_weeks", "int", "weeks in which it was hot", nullable=False),
        column("z", "double", "Gi* z value of the last week", nullable=False),
        column("tau", "double", "Kendall's tau of the weekly z values with time", nullable=False),
        column("p_value", "double", "two-sided p value of that (Mann-Kendall)", nullable=False),
        column(
            "trend",
            "string",
            "emerging: hot last week, in fewer than half of the weeks, and rising; persistent: hot last week and in three "
            "quarters or more; fading: hot in two weeks or more but neither of the last two, and falling",
            nullable=False,
        ),
        key=("cell",),
        checks={"trend_known": "trend IN ('emerging', 'persistent', 'fading')"},
    ),
    snapshot(
        "region_flows",
        "Trips between regions by slot of departure, over the trailing window; groups of few users left out.",
        column("origin", "string", "region of the trip's first event", nullable=False),
        column("destination", "string", "region of its second", nullable=False),
        column("slot", "string", "part of the week of the departure, or any", nullable=False),
        column("trips", "bigint", "pairs of consecutive events of a user", nullable=False),
        column("users", "bigint", "their distinct users", nullable=False),
        column("median_duration_s", "double", "median time between the two events", unit="second", nullable=False),
        column("median_distance_m", "double", "median great-circle distance; null without coordinates", unit="metre"),
        key=("origin", "destination", "slot"),
        checks={"slot_known": _SLOT_CHECK},
    ),
    snapshot(
        "region_stays",
        "How long people are active in a region, by slot of arrival, over the trailing window; few users left out.",
        column("region", "string", "region", nullable=False),
        column("slot", "string", "part of the week in which the stay begins, or any", nullable=False),
        column("stays", "bigint", "runs of a user's consecutive events there", nullable=False),
        column("users", "bigint", "their distinct users", nullable=False),
        column("median_duration_s", "double", "median time from first to last event, of stays with two or more", unit="second"),
        key=("region", "slot"),
        checks={"slot_known": _SLOT_CHECK},
    ),
    snapshot(
        "region_interests",
        "What people turn to in a region, by slot and category, over the trailing window; groups of few users left out.",
        column("region", "string", "region", nullable=False),
        column("slot", "string", "part of the week, or any", nullable=False),
        column("category", "string", "category", nullable=False),
        column("events", "bigint", "events", nullable=False),
        column("users", "bigint", "their distinct users", nullable=False),
        column("share", "double", "share of the events of the region and slot that have a category", nullable=False),
        key=("region", "slot", "category"),
        checks={"slot_known": _SLOT_CHECK},
    ),
)

_INTERACTION = (
    state(
        "user_slot_affinity",
        "How much a user turns to a category in a slot.",
        _user(),
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
        checks={"slot_known": _SLOT_CHECK, "affinity_range": _UNIT_INTERVAL.format("affinity")},
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
        key=("region", "slot", "category"),
        checks={"slot_known": _SLOT_CHECK},
    ),
)

_LEARNING = (
    fact(
        "training_windows",
        "What the trainings of the day read: windows over users' events, each target in one; all arrays of one length.",
        _user(),
        column("until", "timestamp", "the training: of events that arrived before this moment", nullable=False),
        column("fold", "string", "train or validation: of the window's targets", nullable=False),
        column("window", "int", "number of the window in the user's history, from 0", nullable=False),
        column(
            "item", "array<int>", "item index in the version's vocabulary, 0 = padding in front, 1 = unknown", nullable=False
        ),
        column("category", "array<int>", "category index, 0 = padding, 1 = unknown", nullable=False),
        column("event_type", "array<int>", "event type index, 0 = padding, 1 = unknown", nullable=False),
        column(
            "timestamp", "array<bigint>", "seconds since 1970, UTC; 0 = padding", unit="second", nullable=False, personal=True
        ),
        column("hour_of_week", "array<float>", "local hours since Monday 00:00, -1 = unknown", unit="hour", nullable=False),
        column("latitude", "array<float>", "latitude, NaN = unknown", unit="degree", nullable=False, personal=True),
        column("longitude", "array<float>", "longitude, NaN = unknown", unit="degree", nullable=False, personal=True),
        column("is_target", "array<int>", "1 where the event is to be predicted", nullable=False),
        column("shuffle", "bigint", "a hash to order windows by that has nothing to do with time", nullable=False),
        key=("user_id", "until", "fold", "window"),
        files_by="shuffle",
        checks={"fold_known": "fold IN ('train', 'validation')"},
        newest_only=True,
        personal=True,
    ),
    log(
        "model_versions",
        "The registry: immutable versions and what was measured of them.",
        column("model_version", "string", "hash of input rows, code and the settings that change learning", nullable=False),
        column("kind", "string", "interest (other kinds follow)", nullable=False),
        column("method", "string", "its sequence encoder (transformer, lstm ...), or the name of a baseline", nullable=False),
        column("day", "date", "the run date it was trained for", nullable=False),
        column("trained_until", "timestamp", "events before this moment were used", nullable=False),
        column("folder", "string", "folder of the weights, relative to the lake", nullable=False),
        column("settings", "string", "JSON of the settings that change learning", nullable=False),
        column("metrics", "string", "JSON of the validation metrics", nullable=False),
        column("items", "bigint", "items in the vocabulary", nullable=False),
        column("created_at", "timestamp", "when", nullable=False),
        key=("model_version",),
        unequal=("metrics", "created_at"),
    ),
    log(
        "training_runs",
        "One row per training: what it read, how it went.",
        column("run_id", "string", "the run", nullable=False),
        column("day", "date", "run date", nullable=False),
        column("model_version", "string", "the version it made", nullable=False),
        column("windows", "bigint", "windows read", nullable=False),
        column("targets", "bigint", "targets learnt from, per epoch", nullable=False),
        column("epochs", "int", "epochs run", nullable=False),
        column("processes", "int", "processes", nullable=False),
        column("seconds", "double", "wall time of the training", unit="second", nullable=False),
        column("train_loss", "double", "last epoch's mean loss", unit="nat"),
        column("validation_loss", "double", "best mean loss on the validation fold", unit="nat"),
        column("finished_at", "timestamp", "when", nullable=False),
        key=("run_id", "model_version"),
        unequal=("epochs", "processes", "seconds", "train_loss", "validation_loss", "finished_at"),
    ),
    fact(
        "model_quality",
        "How models and baselines ranked the target events of the day, or of a hold-out that ends with it.",
        column("model_version", "string", "the version, or baseline:NAME", nullable=False),
        column(
            "evaluation",
            "string",
            "day (the day's own events), holdout (the last share of days), or paired: the candidate less the published "
            "version on the day, once per bootstrap sample, kept to be pooled over days",
            nullable=False,
        ),
        column(
            "segment",
            "string",
            "all, or some of the events as DIMENSION=NAME (ndcg and hit at 10 only): slot, active (the user's events in the 28 "
            "days before), known (events known of the user), item (again, new to the user, cold: not in the catalogue), region",
            nullable=False,
        ),
        column(
            "metric",
            "string",
            "hit, precision, recall, f1, ndcg, mrr, coverage (share of the catalogue on any list), empty_lists, "
            "novelty (bits), diversity, calibration (nats), category_accuracy, category_macro_f1, "
            "ndcg_behind (how far behind the version that was judged, event by event); "
            "of paired: METRIC@K_difference and METRIC@K_reference (the published version's own value)",
            nullable=False,
        ),
        column("k", "int", "cut-off of the list, 0 = none; of paired: number of the sample, 0 = everybody", nullable=False),
        column("value", "double", "mean over target events", nullable=False),
        column("lower", "double", "lower bound of the 95% bootstrap interval, clustered by user"),
        column("upper", "double", "upper bound of it"),
        column("events", "bigint", "target events judged", nullable=False),
        column("users", "bigint", "their users", nullable=False),
        key=("model_version", "evaluation", "segment", "metric", "k"),
        newest_only=True,
    ),
    log(
        "publications",
        "Which version serves from which day; the newest row with `day` up to D holds for D.",
        column("day", "date", "from this run date on", nullable=False),
        column("kind", "string", "interest", nullable=False),
        column("model_version", "string", "the version served", nullable=False),
        column("decision", "string", "published, refused, kept, baseline, manual or rollback", nullable=False),
        column("candidate", "string", "the version judged"),
        column("reason", "string", "why, in words", nullable=False),
        column("run_id", "string", "the run that decided", nullable=False),
        column("decided_at", "timestamp", "when", nullable=False),
        key=("day", "run_id"),
        unequal=("decided_at",),
    ),
)

_SERVED = (
    state(
        "recommendations",
        "What each user will want, per slot, best first.",
        _user(),
        column("slot", "string", "part of the week, or any", nullable=False),
        column("rank", "int", "from 1", nullable=False),
        _item(),
        column("score", "double", "the ranking's score; comparable within one list", nullable=False),
        column("source", "string", "what put the item on the list", nullable=False),
        column("reason", "string", "why, in words that can be checked", nullable=False),
        column("model_version", "string", "the version that scored", nullable=False),
        column("policy_version", "string", "the policy in force; null: none"),
        column("propensity", "double", "probability with which the policy showed it; 1 without exploration", nullable=False),
        owner="user_id",
        key=("user_id", "slot", "rank"),
        checks={
            "slot_known": _SLOT_CHECK,
            "rank_from_1": "rank >= 1",
            "propensity_range": "propensity > 0 AND propensity <= 1",
        },
        newest_only=True,
        personal=True,
    ),
    fact(
        "drift",
        "How far the day's events, scores and lists have moved from those before; a row per measure.",
        column(
            "subject",
            "string",
            "what moved: category, event_type, slot, region or value of the events; score, lists",
            nullable=False,
        ),
        column(
            "measure",
            "string",
            "psi (population stability index) and kl (Kullback-Leibler divergence), in nats, events against the same weekday "
            "of the weeks before, scores against the day before; of lists new_items (mean share of a user's list that was not "
            "on it the day before) and changed_users (share of users with any change)",
            nullable=False,
        ),
        column("value", "double", "how much; null: nothing to compare with"),
        column("chance", "double", "what chance alone exceeds once in 1,000 nights; null: not known"),
        column("bins", "int", "bins that were compared"),
        column("rows", "bigint", "the day's events, entries of lists, or lists", nullable=False),
        column("users", "bigint", "their users", nullable=False),
        column("reference_rows", "bigint", "those compared with", nullable=False),
        column("reference_users", "bigint", "their users", nullable=False),
        column("model_version", "string", "the version that served on the day; null: none"),
        key=("subject", "measure"),
        newest_only=True,
    ),
    log(
        "export_log",
        "What was delivered to which sink.",
        column("run_id", "string", "the run", nullable=False),
        column("day", "date", "run date", nullable=False),
        column("sink", "string", "name of the sink in the settings", nullable=False),
        column("table_name", "string", "what was exported", nullable=False),
        column("table_version", "bigint", "Delta version exported", nullable=False),
        column("rows", "bigint", "rows written", nullable=False),
        column("status", "string", "done or failed", nullable=False),
        column("error", "string", "one line, where it failed"),
        column("finished_at", "timestamp", "when", nullable=False),
        key=("run_id", "sink", "table_name"),
    ),
    log(
        "runs",
        "One row per step of a run; the row with status done is the step's commit point.",
        column("run_id", "string", "the run", nullable=False),
        column("step", "string", "the step; `night` closes a run of all steps, `maintain` drops days", nullable=False),
        column("day", "date", "run date", nullable=False),
        column("first_day", "date", "first day that the step covered (bootstrap: the log's first)", nullable=False),
        column("status", "string", "done, skipped, refused or failed", nullable=False),
        column("settings_hash", "string", "hash of the settings without resources and sinks", nullable=False),
        column("code_version", "string", "version and hash of the code", nullable=False),
        column("inputs", "map<string,bigint>", "Delta version of every table read", nullable=False),
        column("outputs", "map<string,bigint>", "Delta version of every table written", nullable=False),
        column("rows_out", "map<string,bigint>", "rows written per table", nullable=False),
        column("rows_in", "bigint", "source rows read (ingest, clean)"),
        column("details", "string", "JSON: counts by rule, fingerprints, notes", nullable=False),
        column("seconds", "double", "wall time", unit="second", nullable=False),
        column("peak_memory_mb", "double", "peak resident memory of the driver process tree", unit="MiB"),
        column("error", "string", "one line, where it failed"),
        column("finished_at", "timestamp", "when", nullable=False),
        key=("run_id", "step"),
    ),
)

_PRIVACY = (
    log(
        "erasures",
        "Who was erased, so that their rows do not come back; and what each erasure removed.",
        column("erasure_id", "string", "the erasure", nullable=False),
        column(
            "tombstone", "string", "HMAC-SHA256 of the caller's id under the second key, hex", nullable=False, personal=True
        ),
        column("key_check", "string", "tells whether a key is the one that made the tombstone", nullable=False),
        column("pieces", "int", "of so many words and marks the id consists: what to look for in broken lines", nullable=False),
        column(
            "status", "string", "begun: the tombstone holds; done: nothing of the person was found any more", nullable=False
        ),
        column("rows_removed", "map<string,bigint>", "rows removed per table, at the end"),
        column("details", "string", "JSON of the certificate, at the end"),
        column("recorded_at", "timestamp", "when", nullable=False),
        key=("erasure_id", "status"),
        personal=True,
    ),
)

TABLES: dict[str, Table] = {
    table.name: table
    for group in (
        _ARRIVED, _CLEAN, _SEQUENCES, _TEXT, _LABEL, _TIME_SERIES, _SPATIAL, _INTERACTION, _LEARNING, _SERVED, _PRIVACY,
    )
    for table in group
}  # fmt: skip
