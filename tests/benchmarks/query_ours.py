"""One user's features by `jobs.query.answer`, again and again; one JSON line. Called by query.py."""

from __future__ import annotations

import json
import sys
import time
from statistics import median

from query_rows import COLUMNS, JOINED

from conf.settings import load_settings
from jobs.query import answer


def main(root: str, user: str, times: int) -> dict[str, object]:
    began = time.monotonic()
    settings = load_settings(overrides=[f"lake={root}"])
    sql = f"SELECT {COLUMNS} FROM user_interests {JOINED.format(mobility='user_mobility', user=user)}"
    rows = answer(settings, sql).num_rows
    startup, taken = time.monotonic() - began, []
    used = time.process_time()
    for _ in range(times):
        started = time.monotonic()
        answer(settings, sql)
        taken.append(time.monotonic() - started)
    return {"seconds": median(taken), "cpu_s": (time.process_time() - used) / times, "startup_s": startup, "rows": rows}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]))) + "\n")
