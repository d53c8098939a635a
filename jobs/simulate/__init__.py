"""Logs with planted truth: users who live somewhere, like something, and have their habits.

Each task writes one file of one landing day by itself: it knows the users of its slice from the
seed alone and draws their day anew, so nothing is shuffled, sorted across tasks or collected, and
the bytes do not depend on the number of cores or partitions.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from jobs.simulate import people as persons
from jobs.simulate.catalogue import catalogue_of, rows_of_day
from jobs.simulate.columns import Events
from jobs.simulate.files import (
    as_written,
    defect_rows,
    event_lines,
    merge_pieces,
    piece,
    write_csv,
    write_lines,
)
from jobs.simulate.flaws import CODE, FLAWS, MAX_DELAY_DAYS, delays, spoiled
from jobs.simulate.lives import bots_live, live
from jobs.simulate.people import people_of
from jobs.simulate.truth import truth_tables
from jobs.simulate.world import Purpose, World

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["World", "simulate"]

_UNFINISHED = ".simulate-unfinished"


def simulate(spark: SparkSession, output: str | Path, world: World) -> None:
    """Writes `output/landing/YYYY-MM-DD/` (events, items, users) and `output/truth/*.csv`.

    `output` is a folder that every worker sees under the same path. Everything is written beside
    and renamed at the end, landing last: either it is there whole, or it is not there.

    Raises:
        ValueError: `output/landing` exists and is not empty, or `output/truth` is not ours.
    """
    output = Path(output).absolute()
    _refuse_to_overwrite(output)
    folder = output / _UNFINISHED
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    counts = _written(spark, folder, world)
    _finish_pieces(folder, world)
    for name, rows in truth_tables(world, catalogue_of(world), counts).items():
        write_csv(folder / "truth" / f"{name}.csv", rows)
    shutil.rmtree(output / "truth", ignore_errors=True)
    (folder / "truth").replace(output / "truth")
    (folder / "landing").replace(output / "landing")
    folder.rmdir()


def _refuse_to_overwrite(output: Path) -> None:
    landing, truth = output / "landing", output / "truth"
    if landing.exists() and (not landing.is_dir() or any(landing.iterdir())):
        raise ValueError(f"{landing} exists: give another output folder, or remove it")
    # A run that was killed between its two renames leaves a truth without a landing.
    ours = not truth.exists() or (truth / "summary.csv").is_file()
    if not ours and (not truth.is_dir() or any(truth.iterdir())):
        raise ValueError(f"{truth} was not simulated: give another output folder, or remove it")


def _written(spark: SparkSession, folder: Path, world: World) -> Counter[tuple[int, str]]:
    """Runs the tasks; rows by day and kind."""
    tasks = world.days * world.parts
    # A few per core, so that none is left to wait; the bytes do not depend on it.
    partitions = min(tasks, max(1, spark.sparkContext.defaultParallelism * min(4, tasks // 50 + 1)))
    counted = (
        spark.range(0, tasks, numPartitions=partitions)
        .mapInArrow(
            partial(_write_tasks, folder=folder, world=world),
            "day INT, kind STRING, rows BIGINT",
        )
        .collect()
    )
    counts: Counter[tuple[int, str]] = Counter()
    for row in counted:
        counts[row["day"], row["kind"]] += row["rows"]
    return counts


def _write_tasks(batches: Iterator[pa.RecordBatch], *, folder: Path, world: World) -> Iterator[pa.RecordBatch]:
    """Writes the files of the tasks numbered in `batches`; gives rows by day and kind."""
    for batch in batches:
        for task in batch.column(0).to_pylist():
            # All days of one slice in a row: a worker then draws its users only once.
            part, day = divmod(task, world.days)
            found = np.bincount(_write_day(folder, world, part, day), minlength=len(FLAWS))
            yield pa.RecordBatch.from_pydict(
                {
                    "day": pa.array([day] * len(FLAWS), pa.int32()),
                    "kind": pa.array(FLAWS),
                    "rows": pa.array(found, pa.int64()),
                }
            )


def _write_day(folder: Path, world: World, part: int, day: int) -> np.ndarray:
    """Writes what one slice of users sends on one landing day; the kind of every row."""
    people, catalogue = people_of(world, part), catalogue_of(world)
    date = world.date_of(day).isoformat()
    landing = folder / "landing" / date
    events, flaw = _arrived(world, part, day)
    names = as_written(events, flaw)
    write_lines(landing / f"events-{part:04d}.jsonl", event_lines(events, flaw, people, catalogue, names))
    # Numbered by day first: so the listing comes in the order of landing.
    defective = piece(folder / "truth" / "defective_rows.csv", day * world.parts + part)
    write_csv(defective, defect_rows(names, flaw, date))
    joined = persons.rows_of_day(people, day)
    if len(joined):
        write_csv(piece(landing / "users.csv", part), joined)
    if part == 0 and len(items := rows_of_day(catalogue, day)):
        write_csv(landing / "items.csv", items)
    if day == 0:
        truth = folder / "truth"
        write_csv(piece(truth / "users.csv", part), persons.truth_rows(world, people))
        write_csv(piece(truth / "bursts.csv", part), persons.burst_rows(world, people))
    return flaw


def _arrived(world: World, part: int, day: int) -> tuple[Events, np.ndarray]:
    """The rows of one slice of users that arrive on one day, in order, and what is wrong."""
    people, catalogue = people_of(world, part), catalogue_of(world)
    active = ~people.is_bot & (people.joined <= day)
    on_time = np.flatnonzero(active & (delays(world, part, day, len(people)) == 0))
    sound = live(world, people, catalogue, day, on_time, world.stream(Purpose.LIVES, part, day))
    rows, flaws = spoiled(world, sound, world.stream(Purpose.FLAWS, part, day))
    bots = bots_live(world, people, catalogue, day, world.stream(Purpose.BOT_DAYS, part, day))
    arrived, kinds = [rows, bots], [flaws, np.full(len(bots), CODE["bot"])]
    for delay in range(1, min(MAX_DELAY_DAYS, day) + 1):
        began = day - delay
        late = delays(world, part, began, len(people)) == delay
        users = np.flatnonzero(late & ~people.is_bot & (people.joined <= began))
        rng = world.stream(Purpose.DELAYED_LIVES, part, day, delay)
        rows = live(world, people, catalogue, began, users, rng)
        arrived.append(rows)
        kinds.append(np.full(len(rows), CODE["late"]))
    events, flaw = Events.stacked(arrived), np.concatenate(kinds)
    order = np.lexsort((events.user, events.at))
    return events.take(order), flaw[order]


def _finish_pieces(folder: Path, world: World) -> None:
    """Makes one CSV of the slices that the tasks wrote."""
    for name in ("users.csv", "bursts.csv", "defective_rows.csv"):
        merge_pieces(folder / "truth" / name)
    for day in range(world.days):
        merge_pieces(folder / "landing" / world.date_of(day).isoformat() / "users.csv")
