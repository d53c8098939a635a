"""A log made fast, to measure on: not the simulator's world, but rows like its rows, with the same kinds of defects.

CSV landing folders, one a day; users and items are drawn from long-tailed distributions, times lie evenly over the
day. No coordinates: DuckDB can look up neither H3 cells nor the nearest place, so the clean benchmark leaves geography
out on both sides.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

LAST_DAY = date(2024, 6, 30)
TYPES = ("view", "click", "cart", "purchase", "check_in", "rating")
COLUMNS = ("user_id", "item_id", "event_type", "event_time", "category", "device", "session_id", "value")
MAPPING = """description: the log of the benchmarks
target_events: [purchase]
events:
  format: csv
  files: "events*"
  options: {header: "true"}
  time_format: iso
  columns:
    {user_id: user_id, item_id: item_id, event_type: event_type, event_time: event_time, category: category,
     device: device, session_id: session_id, value: value}
"""
# Shares of the rows, each with one defect.
DEFECTS = {
    "user_id": 0.002, "item_id": 0.002, "event_time": 0.001, "unreadable": 0.002, "future": 0.001, "too_late": 0.001,
    "event_type": 0.001, "value": 0.001,
}  # fmt: skip
DUPLICATES, BROKEN = 0.005, 0.001
ROWS_PER_FILE = 500_000


def write(folder: Path, rows: int, days: int, seed: int = 1) -> None:
    """About `rows` rows over `days` landing folders below `folder`, and the mapping beside them."""
    rng = np.random.default_rng(seed)
    users, items = max(100, rows // 100), max(100, min(50_000, rows // 50))
    categories = rng.integers(0, 200, items)
    for number in range(days):
        day = LAST_DAY - timedelta(days=days - 1 - number)
        landing = folder / "landing" / str(day)
        landing.mkdir(parents=True)
        left = rows // days
        part = 0
        while left > 0:
            count = min(left, ROWS_PER_FILE)
            _write_file(landing / f"events-{part:03d}.csv", _drawn(rng, day, count, users, items, categories), rng)
            left, part = left - count, part + 1
    (folder / "mapping.yaml").write_text(MAPPING)


def _drawn(rng: np.random.Generator, day: date, count: int, users: int, items: int, categories: np.ndarray) -> pa.Table:
    user = (users * rng.random(count) ** 2).astype(np.int64)
    item = (items * rng.random(count) ** 3).astype(np.int64)
    kind = rng.choice(len(TYPES), count, p=(0.6, 0.2, 0.07, 0.05, 0.05, 0.03))
    start = np.datetime64(day).astype("datetime64[ms]").astype(np.int64)
    at = start + np.sort(rng.integers(0, 86_400_000, count))
    defect = rng.random(count)
    edges = np.cumsum([0.0, *DEFECTS.values()])
    which = {name: (defect >= low) & (defect < high) for name, low, high in zip(DEFECTS, edges, edges[1:], strict=False)}
    at = np.where(which["future"], at + 3 * 86_400_000, np.where(which["too_late"], at - 90 * 86_400_000, at))
    moment = pc.strftime(pa.array(at, pa.timestamp("ms")), format="%Y-%m-%dT%H:%M:%SZ")
    texts = {
        "user_id": _blank(_named("u", user), which["user_id"]),
        "item_id": _blank(_named("i", item), which["item_id"]),
        "event_type": _where(which["event_type"], "klick", pa.array(TYPES).take(pa.array(kind))),
        "event_time": _blank(_where(which["unreadable"], "31/02/2024 25:61", moment), which["event_time"]),
        "category": _blank(_named("c", categories[item]), rng.random(count) < 0.25),
        "device": pa.array(("android", "ios", "web")).take(pa.array(rng.integers(0, 3, count))),
        "session_id": _named("s", user * 1000 + at // 3_600_000 % 24),
        "value": _where(
            which["value"],
            "four",
            _blank(pc.cast(pa.array(rng.integers(1, 6, count)), pa.string()), kind != TYPES.index("rating")),
        ),
    }
    return pa.table(texts)


def _write_file(path: Path, table: pa.Table, rng: np.random.Generator) -> None:
    again = rng.integers(0, len(table), int(len(table) * DUPLICATES))
    whole = pa.concat_tables([table, table.take(pa.array(again))])
    options = csv.WriteOptions(quoting_style="none")
    with path.open("wb") as file:
        csv.write_csv(whole, file, options)
        short = table.slice(0, int(len(table) * BROKEN)).select(COLUMNS[:3])
        csv.write_csv(short, file, csv.WriteOptions(quoting_style="none", include_header=False))


def _named(letter: str, numbers: np.ndarray) -> pa.StringArray:
    return pc.binary_join_element_wise(letter, pc.cast(pa.array(numbers), pa.string()), "")


def _blank(values: pa.StringArray, gone: np.ndarray) -> pa.StringArray:
    return pc.if_else(pa.array(gone), pa.scalar(None, pa.string()), values)


def _where(is_so: np.ndarray, text: str, values: pa.StringArray) -> pa.StringArray:
    return pc.if_else(pa.array(is_so), pa.scalar(text), values)
