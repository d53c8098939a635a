"""The defects of a log, planted and counted; every row has one at most."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jobs.simulate.atlas import Flags, Floats, Ints
from jobs.simulate.columns import DAY_MILLIS, SEARCH, Events
from jobs.simulate.world import Purpose, World

MAX_DELAY_DAYS = 5
_JUMP_MILLIS = 3 * 3_600_000

FLAWS = (
    "good",
    "bot",
    "late",
    "duplicate",
    "near_duplicate",
    "position_out_of_range",
    "position_null_island",
    "position_jump",
    "time_future",
    "time_ancient",
    "time_unreadable",
    "missing_position",
    "missing_device",
    "missing_item_id",
    "missing_user_id",
    "missing_event_type",
    "missing_event_timestamp",
    "broken",
)
CODE = {name: code for code, name in enumerate(FLAWS)}
_POSITIONS = [CODE[f"position_{kind}"] for kind in ("out_of_range", "null_island", "jump")]
_TIMES = [CODE[f"time_{kind}"] for kind in ("future", "ancient", "unreadable")]
_MISSING = [code for name, code in CODE.items() if name.startswith("missing_")]
_MISSING_SHARES = (0.4, 0.3, 0.1, 0.07, 0.06, 0.07)


def delays(world: World, part: int, day: int, size: int) -> Ints:
    """Days, per user of a slice, by which that user's rows of day number `day` arrive late."""
    rng = world.stream(Purpose.DELAYS, part, day)
    late = rng.random(size) < world.late_rate
    return late * rng.integers(1, MAX_DELAY_DAYS + 1, size)


def spoiled(world: World, events: Events, rng: np.random.Generator) -> tuple[Events, Ints]:
    """Plants the defects of single rows in sound ones, which come by user and time.

    Returns the events, copies of duplicates and near duplicates behind them, and a code (index into FLAWS) a row.
    """
    flaw = _drawn(world, events, rng)
    copies = np.flatnonzero(flaw == CODE["duplicate"])
    # The first of two equal rows is as good as any: only the copy counts as the defect.
    flaw[copies] = CODE["good"]
    latitude, longitude = _positions(events, flaw, rng)
    wrong = replace(events, at=_times(events.at, flaw, rng), latitude=latitude, longitude=longitude)
    again = np.flatnonzero(flaw == CODE["near_duplicate"])
    flaw[again] = CODE["good"]
    # Times are written to the second; a day's rows stay on their day.
    later = wrong.at[again] + rng.integers(1, 3, len(again)) * 1000
    is_same_day = later // DAY_MILLIS == wrong.at[again] // DAY_MILLIS
    near = replace(wrong.take(again), at=np.where(is_same_day, later, wrong.at[again] - 1000))
    every = Events.stacked([wrong, wrong.take(copies), near])
    kinds = [flaw, np.full(len(copies), CODE["duplicate"]), np.full(len(again), CODE["near_duplicate"])]
    return every, np.concatenate(kinds)


def _drawn(world: World, events: Events, rng: np.random.Generator) -> Ints:
    size = len(events)
    rates = (
        world.duplicate_rate,
        world.position_rate,
        world.time_rate,
        world.missing_rate,
        world.broken_rate,
        world.near_duplicate_rate,
    )
    kind = np.searchsorted(np.cumsum(rates), rng.random(size), side="right")
    missing = rng.choice(_MISSING, size, p=_MISSING_SHARES)
    # A search has no item that could be missing.
    no_item = (missing == CODE["missing_item_id"]) & (events.kind == SEARCH)
    missing = np.where(no_item, CODE["missing_device"], missing)
    position = rng.choice(_POSITIONS, size)
    # A jump is impossible only where another event of the user is near in time.
    alone = (position == CODE["position_jump"]) & ~_has_neighbour(events)
    position = np.where(alone, CODE["position_out_of_range"], position)
    choices = [
        np.full(size, CODE["duplicate"]),
        position,
        rng.choice(_TIMES, size),
        missing,
        np.full(size, CODE["broken"]),
        np.full(size, CODE["near_duplicate"]),
    ]
    return np.select([kind == number for number in range(len(rates))], choices, CODE["good"])


def _has_neighbour(events: Events) -> Flags:
    close = (np.diff(events.user) == 0) & (np.diff(events.at) < _JUMP_MILLIS)
    before = np.concatenate([[False], close])[: len(events)]
    after = np.concatenate([close, [False]])[: len(events)]
    return before | after


def _positions(events: Events, flaw: Ints, rng: np.random.Generator) -> tuple[Floats, Floats]:
    beyond = flaw == CODE["position_out_of_range"]
    null_island = flaw == CODE["position_null_island"]
    jump = flaw == CODE["position_jump"]
    noise = rng.uniform(-2, 2, len(events))
    # The other side of the earth: no speed on earth leads there and back in a few hours.
    across = np.where(events.longitude > 0, -180.0, 180.0)
    latitude = np.select(
        [beyond, null_island, jump],
        [95.0 + 40.0 * np.abs(noise), np.zeros(len(events)), -events.latitude + noise],
        events.latitude,
    )
    longitude = np.select([null_island, jump], [np.zeros(len(events)), events.longitude + across], events.longitude)
    return np.round(latitude, 6), np.round(longitude, 6)


def _times(at: Ints, flaw: Ints, rng: np.random.Generator) -> Ints:
    ahead = rng.integers(2, 401, len(at)) * DAY_MILLIS
    # What a clock shows that has lost its battery.
    reset = rng.integers(0, DAY_MILLIS, len(at))
    return np.select([flaw == CODE["time_future"], flaw == CODE["time_ancient"]], [at + ahead, reset], at)
