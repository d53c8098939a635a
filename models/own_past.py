"""How much each item of a history counts for the moment: its events weighed by age, hour, pace, and what came before them.

Shape suffixes: B moments, L events of history, T events of all histories in row order, P pairs of a moment and an item of
its history, K kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.facts import sort_of_day
from models.queries import FIRST, PADDING, Histories, Queries

_DAY, _MINUTE = 86_400.0, 60.0
_TODAY_DAYS = 0.75
# Widths: hours on the clock, of the week; the log of a ratio of gaps; kilometres between where two events began.
_HOUR, _PART_OF_DAY, _HOUR_OF_WEEK, _PACE, _NEAR_KM = 1.0, 2.0, 1.5, 0.7, 0.3
_EARTH_KM = 6371.0
KERNELS = (
    "ever", "season", "month", "week", "day", "hour", "part_of_day", "hour_lately", "hour_of_week", "sort_of_day",
    "after_item", "after_item_pace", "after_place", "after_place_pace", "after_place_hour", "after_place_pace_hour",
    "pace", "pace_hour", "after_category",
)  # fmt: skip
OF_PAIR = ("age", "back", "between", "overdue", "today", "again")


@dataclass(frozen=True, kw_only=True)
class OwnPast:
    """Pairs in the order of (moment, item). `weight_KP` sums the events of a pair under each of `KERNELS`, `all_KB` those of
    the moment. `of_pair_P`: `OF_PAIR`, NaN where it cannot be said. `last_B`, `gap_B`: the newest item, -1 where it is not
    of the catalogue, and the seconds since.
    """

    row_P: np.ndarray
    item_P: np.ndarray
    weight_KP: np.ndarray
    all_KB: np.ndarray
    of_pair_P: dict[str, np.ndarray]
    last_B: np.ndarray
    gap_B: np.ndarray
    row_T: np.ndarray
    category_T: np.ndarray
    weight_KT: np.ndarray


def kilometres(latitude: np.ndarray, longitude: np.ndarray, to_latitude: np.ndarray, to_longitude: np.ndarray) -> np.ndarray:
    """Equirectangular, degrees in; NaN where one is. Within 1% up to 500 km."""
    north, turn = np.radians(to_latitude - latitude), np.abs(to_longitude - longitude)
    east = np.radians(np.minimum(turn, 360.0 - turn)) * np.cos(np.radians((latitude + to_latitude) / 2))
    return _EARTH_KM * np.hypot(north, east)


def own_past(histories: Histories, queries: Queries, category_V: np.ndarray) -> OwnPast:
    size = len(category_V)
    known_BL = histories.item_BL >= FIRST
    row_T, place_T = np.nonzero(known_BL)
    item_T = histories.item_BL[row_T, place_T].astype(np.int64) - FIRST
    time_T = histories.timestamp_BL[row_T, place_T]
    age_T = np.maximum(queries.timestamp_B[row_T] - time_T, _MINUTE) / _DAY
    last_B, gap_B = _newest(histories, queries)
    weight_KT = _weights(histories, queries, (row_T, place_T, item_T, time_T, age_T), (last_B, gap_B), category_V)
    pair_P, pair_T = np.unique(row_T * size + item_T, return_inverse=True)
    weight_KP = np.stack([np.bincount(pair_T, weights=weight_T, minlength=len(pair_P)) for weight_T in weight_KT])
    all_KB = np.stack([np.bincount(row_T, weights=weight_T, minlength=len(last_B)) for weight_T in weight_KT])
    return OwnPast(
        row_P=pair_P // max(size, 1),
        item_P=pair_P % max(size, 1),
        weight_KP=weight_KP,
        all_KB=all_KB,
        of_pair_P=_of_pairs(pair_T, len(pair_P), row_T, place_T, item_T, age_T, histories.item_BL.shape[1]),
        last_B=last_B,
        gap_B=gap_B,
        row_T=row_T,
        category_T=histories.category_BL[row_T, place_T].astype(np.int64),
        weight_KT=weight_KT,
    )


def _newest(histories: Histories, queries: Queries) -> tuple[np.ndarray, np.ndarray]:
    rows, length = np.arange(len(histories.item_BL)), histories.item_BL.shape[1]
    place_B = np.where(histories.item_BL != PADDING, np.arange(length), -1).max(axis=1, initial=-1)
    some_B = place_B >= 0
    if not length:
        return np.full(len(rows), -1), np.full(len(rows), np.nan)
    item_B = np.where(some_B, histories.item_BL[rows, place_B].astype(np.int64) - FIRST, -1)
    told_B = some_B & (queries.hour_of_week_B >= 0)
    gap_B = np.where(told_B, np.maximum(queries.timestamp_B - histories.timestamp_BL[rows, place_B], _MINUTE), np.nan)
    return np.maximum(item_B, -1), gap_B


def _weights(
    histories: Histories,
    queries: Queries,
    events: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    newest: tuple[np.ndarray, np.ndarray],
    category_V: np.ndarray,
) -> np.ndarray:
    """Of each event under each kernel, in 0..1, (K, T). What is not known of time or place weighs all events alike."""
    row_T, place_T, item_T, time_T, age_T = events
    last_B, gap_B = newest
    hour_T, now_T = histories.hour_of_week_BL[row_T, place_T], queries.hour_of_week_B[row_T]
    told_T = (hour_T >= 0) & (now_T >= 0)
    apart_T = np.where(told_T, np.abs(hour_T - now_T), 0.0)
    on_clock_T = np.minimum(apart_T % 24.0, 24.0 - apart_T % 24.0)
    hour_T_, part_T = (np.exp(-0.5 * (on_clock_T / width) ** 2) for width in (_HOUR, _PART_OF_DAY))
    of_week_T = np.exp(-0.5 * (np.minimum(apart_T, 168.0 - apart_T) / _HOUR_OF_WEEK) ** 2)
    sort_T = np.where(told_T, sort_of_day(hour_T) == sort_of_day(now_T), True).astype(np.float64)
    part_T = part_T * sort_T

    # What came before each event, in its history; of the first one nothing.
    first_T = np.diff(row_T, prepend=-1) != 0
    before_T = np.where(first_T, -1, np.roll(item_T, 1))
    gap_before_T = np.where(first_T, np.nan, np.maximum(time_T - np.roll(time_T, 1), _MINUTE))
    pace_T = np.exp(-0.5 * (np.log(gap_before_T / gap_B[row_T]) / _PACE) ** 2)
    pace_T = np.where(np.isnan(gap_B[row_T]), 1.0, np.nan_to_num(pace_T))
    from_latitude_T, from_longitude_T = (
        np.where(first_T, np.nan, np.roll(values[row_T, place_T], 1))
        for values in (histories.latitude_BL, histories.longitude_BL)
    )
    apart_km_T = kilometres(from_latitude_T, from_longitude_T, queries.latitude_B[row_T], queries.longitude_B[row_T])
    near_T = np.nan_to_num(np.exp(-apart_km_T / _NEAR_KM))
    last_T = last_B[row_T]
    same_T = ((before_T == last_T) & (before_T >= 0)).astype(np.float64)
    kind_before_T, kind_last_T = category_V[np.maximum(before_T, 0)], category_V[np.maximum(last_T, 0)]
    alike_T = ((before_T >= 0) & (last_T >= 0) & (kind_before_T == kind_last_T)).astype(np.float64)

    season_T, month_T, week_T, day_T = (np.exp(-age_T / days) for days in (90.0, 30.0, 7.0, 1.5))
    weights = {
        "ever": np.ones(len(row_T)), "season": season_T, "month": month_T, "week": week_T, "day": day_T,
        "hour": hour_T_ * season_T, "part_of_day": part_T * season_T, "hour_lately": hour_T_ * np.exp(-age_T / 14.0),
        "hour_of_week": of_week_T * season_T, "sort_of_day": sort_T * month_T,
        "after_item": same_T * season_T, "after_item_pace": same_T * pace_T,
        "after_place": near_T * season_T, "after_place_pace": near_T * pace_T * season_T,
        "after_place_hour": near_T * part_T * season_T,
        "after_place_pace_hour": near_T * pace_T * part_T * np.exp(-age_T / 45.0),
        "pace": pace_T * season_T, "pace_hour": pace_T * hour_T_ * season_T, "after_category": alike_T * part_T * season_T,
    }  # fmt: skip
    return np.stack([weights[name] for name in KERNELS])


def _of_pairs(
    pair_T: np.ndarray, pairs: int, row_T: np.ndarray, place_T: np.ndarray, item_T: np.ndarray, age_T: np.ndarray, length: int
) -> dict[str, np.ndarray]:
    count_P = np.bincount(pair_T, minlength=pairs)
    newest_P, oldest_P, place_P = np.full(pairs, np.inf), np.zeros(pairs), np.zeros(pairs)
    np.minimum.at(newest_P, pair_T, age_T)
    np.maximum.at(oldest_P, pair_T, age_T)
    np.maximum.at(place_P, pair_T, place_T)
    again_T = (np.diff(row_T, prepend=-1) == 0) & (np.roll(item_T, 1) == item_T)
    between_P = np.where(count_P > 1, (oldest_P - newest_P) / np.maximum(count_P - 1, 1), np.nan)
    with np.errstate(divide="ignore"):
        overdue_P = newest_P / np.where(between_P > 0, between_P, np.nan)
    return {
        "age": np.log(newest_P),
        "back": length - place_P,
        "between": between_P,
        "overdue": overdue_P,
        "today": np.bincount(pair_T, weights=age_T < _TODAY_DAYS, minlength=pairs),
        "again": np.bincount(pair_T, weights=again_T, minlength=pairs) / np.maximum(count_P, 1),
    }
