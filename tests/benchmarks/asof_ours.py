"""The features as of each moment, as `jobs.features` joins them; one JSON line. Called by asof.py."""

from __future__ import annotations

import json
import sys
import time

import pyarrow.dataset as ds
from asof_rows import FEATURES

from conf.contracts import column, state
from jobs.features.asof import Known, as_of
from jobs.features.stored import session


def main(folder: str) -> dict[str, object]:
    began = time.monotonic()
    values = [column(f"f{number}", "double", "a feature") for number in range(FEATURES)]
    contract = state("made", "made", column("user_id", "string", "owner"), *values, owner="user_id", key=("user_id",))
    known = Known(prefix="made", contract=contract, rows="states", key="user_id", owner=("user_id",))
    sums = ", ".join(f"sum({name})" for name in known.joined if name.startswith("made__f"))
    with session("2g") as database:
        database.execute("SET threads = 2")
        started = time.monotonic()
        # As what is stored is read, and what is asked is kept.
        database.register("stored", ds.dataset(f"{folder}/states.parquet").scanner().to_reader())
        database.execute("CREATE TEMP TABLE states AS SELECT * FROM stored")
        database.execute(
            "CREATE TEMP TABLE asked AS SELECT row_number() OVER () AS _row, event_timestamp AS _at, "
            f"event_timestamp::DATE AS _day, user_id FROM read_parquet('{folder}/asked.parquet')"
        )
        found = database.execute(f"SELECT count(*), {sums} FROM asked LEFT JOIN ({as_of(known)}) USING (_row)").fetchone()
    return {"seconds": time.monotonic() - started, "startup_s": started - began, "sums": list(found)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1])) + "\n")
