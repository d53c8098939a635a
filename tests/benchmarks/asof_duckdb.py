"""The same by DuckDB's ASOF JOIN; one JSON line. Called by asof.py."""

from __future__ import annotations

import json
import sys
import time

import duckdb
from asof_rows import FEATURES


def main(folder: str) -> dict[str, object]:
    began = time.monotonic()
    database = duckdb.connect(config={"threads": 2})
    sums = ", ".join(f"sum(f{number})" for number in range(FEATURES))
    started = time.monotonic()
    found = database.execute(
        f"""select count(*), {sums}
            from (select user_id, (event_timestamp at time zone 'UTC')::date as day from '{folder}/asked.parquet') as asked
            asof left join '{folder}/states.parquet' as states
            on asked.user_id = states.user_id and asked.day > states.day"""
    ).fetchone()
    return {"seconds": time.monotonic() - started, "startup_s": started - began, "sums": list(found)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1])) + "\n")
