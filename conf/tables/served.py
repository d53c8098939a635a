"""What is served and delivered, and the records of runs and erasures."""

from __future__ import annotations

from conf.contracts import column, fact, log, snapshot, state
from conf.tables.columns import SLOT_CHECK, item, user

SERVED = (
    state(
        "recommendations",
        "What each user will want, per slot, best first.",
        user(),
        column("slot", "string", "part of the week, or any", nullable=False),
        column("rank", "int", "from 1", nullable=False),
        item(),
        column("score", "double", "the ranking's score; comparable within one list", nullable=False),
        column("source", "string", "what put the item on the list", nullable=False),
        column("reason", "string", "why, in words that can be checked", nullable=False),
        column("model_version", "string", "the version that scored", nullable=False),
        column("policy_version", "string", "the policy in force; null: none"),
        column("propensity", "double", "probability with which the policy showed it; 1 without exploration", nullable=False),
        owner="user_id",
        key=("user_id", "slot", "rank"),
        checks={
            "slot_known": SLOT_CHECK,
            "rank_from_1": "rank >= 1",
            "propensity_range": "propensity > 0 AND propensity <= 1",
        },
        newest_only=True,
        personal=True,
    ),
    snapshot(
        "served_items",
        "The items that lists are made of, as they were when the day's lists were made.",
        item(),
        column("title", "string", "title"),
        column("category", "string", "category"),
        column("users", "bigint", "users whose kept target events hold it", nullable=False),
        column("kept", "int", "events kept of each of these where older ones were cut off, else 0", nullable=False),
        column("withdrawn", "boolean", "true where it may not be listed", nullable=False),
        key=("item_id",),
        newest_only=True,
        retention_days=30,
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

PRIVACY = (
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
