"""The same rules in DuckDB, on the same files; one JSON line. Called by clean.py, in the peers' environment.

What differs: the pseudonym is sha256(key || id), as DuckDB has no HMAC; the vault holds ids as they are, as it has no
AES. All else that ingest and clean do without coordinates is done: one row hash over all fields, exact duplicates
across days, every rule of jobs/clean that this log can break, an item's first category by day, local time and slot.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import duckdb

KEY = "0f" * 32
THREADS = 2
LOOKBACK_DAYS = 30
COLUMNS = ("user_id", "item_id", "event_type", "event_time", "category", "device", "session_id", "value")
ISO = r"\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?(\s*(Z|z|UTC|GMT|[+-]\d{2}(:?\d{2})?))?)?"
EVENT_TYPES = (
    "view", "click", "cart", "purchase", "check_in", "rating", "review", "search", "like", "dislike", "comment", "share",
    "follow", "play", "transaction", "impression", "dismiss",
)  # fmt: skip
# Rule -> when it refuses a row, in the order of the reasons. A rule of jobs/clean is one line here; a rule over several
# rows is a window in `judged`, its condition a line here.
RULES = {
    "no_user": "user_id is null",
    "no_item": "item_id is null and event_type is distinct from 'search'",
    "no_time": "event_time is null",
    "bad_time": "event_time is not null and ts is null",
    "bad_value": "value is not null and (value_ is null or isnan(value_) or isinf(value_))",
    "future": "ts::date > day",
    "clock_skew": "ts::date > day and ts - (day + 1) <= interval 26 hours",
    "too_late": f"ts::date < day - {LOOKBACK_DAYS}",
    "bad_event_type": f"event_type is null or event_type not in {EVENT_TYPES}",
}


EXTREME = "case when n >= 200 and abs(asinh(value_) - center) > 8 * spread then 'extreme_value' end"


def script(landing: Path, output: Path) -> list[str]:
    """The statements, in order."""
    fields = ", '\x1e', ".join(f"'{name}\x1f', {name}" for name in sorted(COLUMNS) if name != "user_id")
    reasons = ", ".join(f"case when {rule} then '{name}' end" for name, rule in RULES.items())
    parts = "(format parquet, partition_by (day), overwrite_or_ignore)"
    return [
        f"""create temp table arrived as
            select {", ".join(f"nullif(trim({name}), '') as {name}" for name in COLUMNS)},
                   strptime(regexp_extract(filename, '(\\d{{4}}-\\d{{2}}-\\d{{2}})/[^/]*$', 1), '%Y-%m-%d')::date as day
            from read_csv('{landing}/*/events*.csv', header = true, all_varchar = true, delim = ',', quote = '"', escape = '"',
                          columns = {{{", ".join(f"'{name}': 'varchar'" for name in COLUMNS)}}}, auto_detect = false,
                          filename = true, store_rejects = true, rejects_limit = 0)""",
        f"""create temp table raw as
            select substring(sha256(concat({fields}, '\x1euser_id\x1f', coalesce(pseudonym, ''))), 1, 32) as row_hash,
                   * exclude (user_id, pseudonym), pseudonym as user_id, null::varchar as broken
            from (select *, sha256('{KEY}' || user_id) as pseudonym from arrived)
            union all by name
            select substring(sha256('broken\x1f' || csv_line), 1, 32) as row_hash, csv_line as broken,
                   strptime(regexp_extract(file_path, '(\\d{{4}}-\\d{{2}}-\\d{{2}})/[^/]*$', 1), '%Y-%m-%d')::date as day
            from (select distinct scan_id, file_id, line, csv_line from reject_errors)
            join reject_scans using (scan_id, file_id)""",
        f"copy raw to '{output}/raw_events' {parts}",
        f"""copy (select distinct user_id as id, sha256('{KEY}' || user_id) as user_id
                  from arrived where user_id is not null)
            to '{output}/vault.parquet' (format parquet)""",
        """create temp table items as
            select item_id, min(day) as first_seen, min(day) filter (category is not null) as known_from,
                   arg_min(category, (day, event_time)) filter (category is not null) as category
            from raw where item_id is not null group by item_id""",
        f"copy items to '{output}/items.parquet' (format parquet)",
        """create temp table ranges as
            with bins as (select coalesce(event_type, '') as kind, round(asinh(try_cast(value as double)) * 100) as bin
                          from raw where day = (select min(day) from raw) and try_cast(value as double) is not null),
                 centers as (select kind, quantile_disc(bin, 0.5) as center, count(*) as n from bins group by kind)
            select kind, center / 100 as center, any_value(n) as n,
                   greatest(quantile_disc(abs(bin - center), 0.5) * 1.4826 / 100, 0.25) as spread
            from bins join centers using (kind) group by kind, center""",
        f"""create temp table alone as
            select f.*, case when broken is not null then ['broken']
                        else list_filter([{reasons}, {EXTREME}], lambda r: r is not null) end as own,
                   epoch_us(ts) as micros, coalesce(user_id, row_hash) as owner
            from (select *, try_cast(value as double) as value_,
                         case when regexp_full_match(event_time, '{ISO}') then try_cast(event_time as timestamp) end as ts,
                         lag(day) over (partition by row_hash order by day) as last_day
                  from raw) f
            left join ranges r on coalesce(event_type, '') = kind and day > (select min(day) from raw)
            where last_day is null or last_day < day - {LOOKBACK_DAYS}""",
        # Rows that arrived on their own date, as nearly all do; those that did not are left out of the comparisons.
        """create temp table compared as
            select row_hash, day, owner,
                   coalesce(micros - lag(micros) over pairs <= 2000000, false) as near,
                   coalesce(lag(day) over pairs = day, false) as known,
                   micros - lag(micros) over moves as gap, lag(micros) over moves - lag(micros, 2) over moves as gap_before,
                   coalesce(micros - lag(micros, 60) over moves <= 60000000, false) as is_burst
            from alone where ts::date = day
            window pairs as (partition by owner, item_id, event_type order by micros, row_hash),
                   moves as (partition by owner order by micros, row_hash)""",
        """create temp table bots as
            select owner, day, list_filter([case when bool_or(is_burst) then 'bot_rate' end,
                       case when count(*) filter (gap_before > 0) >= 20
                            and count(*) filter (gap_before > 0 and abs(gap - gap_before) <= 0.05 * gap_before)
                                >= 0.8 * count(*) filter (gap_before > 0) then 'bot_regularity' end,
                       case when count(*) filter (not known) >= 1000 then 'bot_breadth' end], lambda r: r is not null) as bot
            from compared group by owner, day having len(bot) > 0""",
        """create temp table judged as
            select a.*, own || case when near then ['near_duplicate'] else [] end || coalesce(bot, []) as reasons
            from alone a left join (select distinct row_hash, day, near from compared where near) using (row_hash, day)
            left join bots using (owner, day)""",
        f"""copy (select j.row_hash, sha256(concat_ws('\x1e', j.row_hash, event_type)) as event_id, user_id, j.item_id,
                         event_type, ts as event_timestamp, ts::date as event_date, ts as local_timestamp,
                         ts::date as local_date,
                         hour(ts) as local_hour,
                         case when isodow(ts - interval 6 hour) >= 6 then 'weekend_' else 'weekday_' end
                         || case when hour(ts - interval 6 hour) < 6 then 'morning' when hour(ts - interval 6 hour) < 12
                            then 'afternoon' when hour(ts - interval 6 hour) < 16 then 'evening' else 'night' end as slot,
                         coalesce(j.category, case when i.known_from <= j.day then i.category end) as category,
                         device, session_id, value_ as value, day
                  from judged j left join items i on j.item_id = i.item_id where len(reasons) = 0)
            to '{output}/events' {parts}""",
        f"""copy (select row_hash, reasons, user_id, day,
                         to_json({{{", ".join(f"{name}: {name}" for name in COLUMNS)}, broken: broken}}) as row
                  from judged where len(reasons) > 0) to '{output}/events_quarantine' {parts}""",
    ]


def main(folder: Path, output: Path) -> None:
    began = time.monotonic()
    database = duckdb.connect()
    database.execute(f"set threads = {THREADS}; set temp_directory = '{output}/temp'; set preserve_insertion_order = false")
    output.mkdir(parents=True)
    ready = time.monotonic()
    for statement in script(folder / "landing", output):
        database.execute(statement)
    seconds = time.monotonic() - ready
    rows = database.sql("select count(*) from raw").fetchall()[0][0]
    good, bad = database.sql(
        "select count(*) filter (len(reasons) = 0), count(*) filter (len(reasons) > 0) from judged"
    ).fetchall()[0]
    counts = {"rows": rows, "events": good, "quarantined": bad, "duplicates": rows - good - bad}
    sys.stdout.write(json.dumps({"startup_s": ready - began, "seconds": seconds, "counts": counts}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
