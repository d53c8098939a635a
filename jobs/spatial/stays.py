"""Places, mobility and whereabouts by slot of all users, in one pass over their last events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf.contracts import ANY_SLOT, SLOTS
from jobs.lake.store import Days
from jobs.spatial.clusters import Ints
from jobs.spatial.mobility import Mobility, describe
from jobs.spatial.places import ROLES, Places, find_places
from jobs.spatial.presence import ELSEWHERE, EVERY_SLOT, Habits, Presence, presence
from jobs.spatial.seen import Path, seen_from, spots_of

# So many days share one neighbourhood graph: fewer repeat its making, more drag along what no day sees.
_BLOCK_DAYS = 16
_SLOT_NAMES = pa.array(SLOTS)
_EVERY_SLOT_NAMES = pa.array(EVERY_SLOT)
_ROLE_NAMES = pa.array(ROLES)
# Without a place all but user and day of the first two lines are null; without a placed event the others too.
# Where a user may be (`whereabouts`) stands on the first row of a day alone.
_STAYS = (
    "user_id string, day date, place_id int, place_latitude double, place_longitude double, radius_m double, "
    "visits bigint, share double, slot_visits map<string,bigint>, main_slots array<string>, role string, confidence double, "
    "radius_of_gyration_m double, returner_radius_m double, daily_range_m double, entropy double, cells int, "
    "home_distance_m double, latitude double, longitude double, "
    "whereabouts array<struct<slot:string,place_id:int,latitude:double,longitude:double,weight:double,probability:double>>"
)


@dataclass(frozen=True, kw_only=True)
class Dwelling:
    """What makes a place: visits within `radius_m` of each other, `min_visits` or more; and what is believed of habits."""

    radius_m: float
    min_visits: int
    habits: Habits


def stays(recent: DataFrame, days: Days, length: int, dwelling: Dwelling) -> DataFrame:
    """One row per user, active day and place, with the user's mobility of that day on each.

    `recent` is what `events_by_user` gives: all that any day of the run may see of its active users.
    A day without a place has one row, null in the columns of the place; one without a placed event
    is null in those of mobility as well.
    """
    slots = F.array(*[F.lit(slot) for slot in SLOTS])
    in_time = Window.partitionBy("user_id").orderBy("event_timestamp", "event_id")
    ordered = recent.select(
        "user_id",
        F.row_number().over(in_time).alias("number"),
        "arrived_on",
        (F.unix_micros("event_timestamp") / F.lit(1e6)).alias("at"),
        "latitude",
        "longitude",
        (F.coalesce(F.array_position(slots, F.col("slot")), F.lit(0)) - 1).cast("int").alias("slot"),
        # Eight bytes in place of a name; no two of one user's items will share them.
        F.when(F.col("item_id").isNull(), F.lit(0)).otherwise(F.xxhash64("item_id")).alias("item"),
        F.coalesce(F.unix_date(F.to_date("local_timestamp")), F.lit(-1)).alias("local_day"),
    )
    return ordered.groupBy("user_id").applyInArrow(_stays_of_user(days, length, dwelling), _STAYS)


def user_places(stays: DataFrame) -> DataFrame:
    """Rows of `user_places`; a user left without a place is gone."""
    return stays.select(
        "user_id",
        F.coalesce("place_id", F.lit(0)).alias("place_id"),
        F.col("place_latitude").alias("latitude"),
        F.col("place_longitude").alias("longitude"),
        F.coalesce("radius_m", F.lit(0.0)).alias("radius_m"),
        F.coalesce("visits", F.lit(0).cast("bigint")).alias("visits"),
        F.coalesce("share", F.lit(0.0)).alias("share"),
        F.coalesce("slot_visits", F.expr("cast(map() AS map<string,bigint>)")).alias("slot_visits"),
        F.coalesce("main_slots", F.expr("cast(array() AS array<string>)")).alias("main_slots"),
        F.coalesce("role", F.lit("other")).alias("role"),
        F.coalesce("confidence", F.lit(0.0)).alias("confidence"),
        F.col("place_id").isNull().alias("gone"),
        F.col("day").alias("changed_on"),
        "day",
    )


def user_slot_places(stays: DataFrame) -> DataFrame:
    """Rows of `user_slot_places`; a user left without a placed event is gone."""
    shown = stays.where(_is_first_of_day()).select("user_id", "day", F.inline_outer("whereabouts"))
    return shown.select(
        "user_id",
        F.coalesce("slot", F.lit(ANY_SLOT)).alias("slot"),
        F.coalesce("place_id", F.lit(ELSEWHERE)).alias("place_id"),
        "latitude",
        "longitude",
        F.coalesce("weight", F.lit(0.0)).alias("weight"),
        F.coalesce("probability", F.lit(0.0)).alias("probability"),
        F.col("slot").isNull().alias("gone"),
        F.col("day").alias("changed_on"),
        "day",
    )


def _is_first_of_day() -> Column:
    return F.col("place_id").isNull() | (F.col("place_id") == 0)


def user_mobility(stays: DataFrame) -> DataFrame:
    """Rows of `user_mobility`; a user left without a placed event is gone."""
    return stays.where(_is_first_of_day()).select(
        "user_id",
        F.coalesce("radius_of_gyration_m", F.lit(0.0)).alias("radius_of_gyration_m"),
        "returner_radius_m",
        F.when(2 * F.col("returner_radius_m") >= F.col("radius_of_gyration_m"), F.lit("returner"))
        .when(F.col("returner_radius_m").isNotNull(), F.lit("explorer"))
        .alias("pattern"),
        "daily_range_m",
        F.coalesce("entropy", F.lit(0.0)).alias("entropy"),
        F.coalesce("cells", F.lit(0)).alias("cells"),
        "home_distance_m",
        "latitude",
        "longitude",
        F.col("radius_of_gyration_m").isNull().alias("gone"),
        F.col("day").alias("changed_on"),
        "day",
    )


def _stays_of_user(days: Days, length: int, dwelling: Dwelling) -> Callable[[pa.Table], pa.Table]:
    first = int(np.datetime64(days.first, "D").astype(np.int64))

    def of_user(events: pa.Table) -> pa.Table:
        path = _path(events)
        spots = spots_of(path)
        active = np.unique(path.arrived_on[path.arrived_on >= first])
        blocks = []
        for start in range(0, len(active), _BLOCK_DAYS):
            block = active[start : start + _BLOCK_DAYS]
            seen = seen_from(path, spots, block, length)
            places = find_places(seen, dwelling.radius_m, dwelling.min_visits)
            found = presence(seen, places, dwelling.habits)
            blocks.append(_rows(events["user_id"][0].as_py(), block, places, (describe(seen, places), found)))
        return pa.concat_tables(blocks)

    return of_user


def _path(events: pa.Table) -> Path:
    in_order = np.argsort(events["number"].to_numpy())
    return Path(
        at=events["at"].to_numpy()[in_order],
        arrived_on=events["arrived_on"].cast(pa.int32()).to_numpy().astype(np.int64)[in_order],
        latitude=events["latitude"].to_numpy()[in_order],
        longitude=events["longitude"].to_numpy()[in_order],
        slot=events["slot"].to_numpy().astype(np.int64)[in_order],
        item=events["item"].to_numpy()[in_order],
        local_day=events["local_day"].to_numpy().astype(np.int64)[in_order],
    )


def _rows(user: str, days: Ints, places: Places, of_days: tuple[Mobility, Presence]) -> pa.Table:
    """The places of each day, or one row of nulls, beside the day's mobility, or nulls; its presence on the first."""
    mobility, found = of_days
    without = np.setdiff1d(np.arange(len(days)), places.day)
    day = np.concatenate([places.day, without])
    is_gone = np.arange(len(day)) >= len(places.day)
    place = pa.array(np.where(is_gone, 0, np.arange(len(day))), mask=is_gone)
    moved = pa.array(np.searchsorted(mobility.day, day), mask=~np.isin(day, mobility.day))
    is_first = is_gone | (np.append(places.place_id, np.zeros(len(without), dtype=np.int64)) == 0)
    shown = pa.array(np.searchsorted(mobility.day, day), mask=~(np.isin(day, mobility.day) & is_first))
    whereabouts = _whereabouts(found, places, mobility.day).take(shown)
    owner = {"user_id": pa.array([user] * len(day)), "day": pa.array(days[day].astype(np.int32)).cast(pa.date32())}
    of_place, of_day = _place_columns(places).take(place), _mobility_columns(mobility).take(moved)
    return pa.table({**owner, **_by_name(of_place), **_by_name(of_day), "whereabouts": whereabouts})


def _whereabouts(found: Presence, places: Places, days: Ints) -> pa.Array:
    """A list for each of the days, which are those of `found`."""
    at_place = pa.array(found.place, mask=found.place == ELSEWHERE)
    columns = {
        "slot": _EVERY_SLOT_NAMES.take(pa.array(found.slot)),
        "place_id": pa.array(places.place_id.astype(np.int32)).take(at_place).fill_null(ELSEWHERE),
        "latitude": pa.array(places.latitude).take(at_place),
        "longitude": pa.array(places.longitude).take(at_place),
        "weight": pa.array(found.weight),
        "probability": pa.array(found.probability),
    }
    rows = pa.StructArray.from_arrays(list(columns.values()), names=list(columns))
    return pa.ListArray.from_arrays(_offsets(np.searchsorted(days, found.day), len(days)), rows)


def _place_columns(places: Places) -> pa.Table:
    place, slot = np.nonzero(places.slot_visits)
    main_place, main_slot = np.nonzero(places.is_main)
    size = len(places.day)
    return pa.table(
        {
            "place_id": places.place_id.astype(np.int32),
            "place_latitude": places.latitude,
            "place_longitude": places.longitude,
            "radius_m": places.radius_m,
            "visits": places.visits,
            "share": places.share,
            "slot_visits": pa.MapArray.from_arrays(
                _offsets(place, size), _SLOT_NAMES.take(pa.array(slot)), pa.array(places.slot_visits[place, slot])
            ),
            "main_slots": pa.ListArray.from_arrays(_offsets(main_place, size), _SLOT_NAMES.take(pa.array(main_slot))),
            "role": _ROLE_NAMES.take(pa.array(places.role)),
            "confidence": places.confidence,
        }
    )


def _mobility_columns(mobility: Mobility) -> pa.Table:
    return pa.table(
        {
            "radius_of_gyration_m": mobility.radius_of_gyration_m,
            "returner_radius_m": pa.array(mobility.returner_radius_m, from_pandas=True),
            "daily_range_m": pa.array(mobility.daily_range_m, from_pandas=True),
            "entropy": mobility.entropy,
            "cells": mobility.cells.astype(np.int32),
            "home_distance_m": pa.array(mobility.home_distance_m, from_pandas=True),
            "latitude": mobility.latitude,
            "longitude": mobility.longitude,
        }
    )


def _offsets(row: Ints, rows: int) -> pa.Array:
    """Where each row's elements begin, for elements given with their row, in order."""
    return pa.array(np.searchsorted(row, np.arange(rows + 1)).astype(np.int32))


def _by_name(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return dict(zip(table.column_names, table.columns, strict=True))
