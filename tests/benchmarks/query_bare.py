"""The same rows by delta-rs's QueryBuilder with what a state means written out by hand; one JSON line. Called by query.py."""

from __future__ import annotations

import json
import sys
import time
from statistics import median

import deltalake
from query_rows import COLUMNS, JOINED, KEYFRAME, LAST, USED

from conf.tables import TABLES
from jobs.query.versions import Seen
from jobs.query.views import view


def main(root: str, user: str, times: int) -> dict[str, object]:
    began = time.monotonic()
    seen = Seen(version=None, day=LAST, first_day=KEYFRAME)
    interests, mobility = (f"({view(TABLES[name], seen)})" for name in USED)
    sql = f"SELECT {COLUMNS} FROM {interests} {JOINED.format(mobility=mobility, user=user)}"

    def answer() -> int:
        engine = deltalake.QueryBuilder()
        for name in USED:
            engine = engine.register(f"{name}_history", deltalake.DeltaTable(f"{root}/{name}"))
        return engine.execute(sql).read_all().num_rows

    rows = answer()
    startup, taken = time.monotonic() - began, []
    used = time.process_time()
    for _ in range(times):
        started = time.monotonic()
        answer()
        taken.append(time.monotonic() - started)
    return {"seconds": median(taken), "cpu_s": (time.process_time() - used) / times, "startup_s": startup, "rows": rows}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]))) + "\n")
