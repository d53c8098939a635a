"""Which hotspots come, stay and go: Gi* of each week, and the trend of its z values.

Legend: C cells of a region, W weeks, oldest first.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import h3.api.basic_str as h3
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy.special import ndtr

from conf.settings import Spatial
from jobs.spatial.clusters import Flags, Ints
from jobs.spatial.hotspots import discoveries, getis_ord, neighbours
from jobs.spatial.sphere import Floats

# A step in the middle of eight weeks is not yet unlikely; in thirteen it is three weeks after it happened.
TREND_WEEKS, LEAST_WEEKS = 13, 8
WEEK_DAYS = 7
EMERGING, PERSISTENT, FADING = "emerging", "persistent", "fading"
# Of either direction 5%.
_SIGNIFICANT = 0.1
_TRENDS = (
    "cell string, region string, latitude double, longitude double, weeks int, hot_weeks int, z double, tau double, "
    "p_value double, trend string, day date"
)


def hotspot_trends(first_day: date, events: DataFrame, settings: Spatial) -> DataFrame:
    """`hotspot_trends` of each `snapshot_day`, over the last `TREND_WEEKS` whole weeks that end with it.

    Regions, neighbours and hot cells are as in `hotspots`, but of each week by itself and of all slots
    together. Left out are cells in which fewer than `hotspot_min_users` users were, as one person's
    habit, regions of fewer than `hotspot_min_cells` cells, and logs of fewer than `LEAST_WEEKS` weeks.

    Args:
        first_day: the log's.
        events: snapshot_day, arrived_on, cell, region, user_id; one row per event of the window.
    """
    seen = F.floor((F.date_diff("snapshot_day", F.lit(first_day)) + 1) / WEEK_DAYS)
    weeks, ago = F.least(seen, F.lit(TREND_WEEKS)), F.floor(F.date_diff("snapshot_day", "arrived_on") / WEEK_DAYS)
    counted = (
        events.where(F.col("cell").isNotNull() & (weeks >= LEAST_WEEKS) & (ago < weeks))
        .groupBy("snapshot_day", weeks.cast("int").alias("weeks"), "cell")
        .agg(
            F.array(*[F.count_if(ago == number) for number in reversed(range(TREND_WEEKS))]).alias("events"),
            F.count_distinct("user_id").alias("users"),
            F.mode("region", deterministic=True).alias("region"),
        )
    )
    return counted.groupBy("snapshot_day", "region").applyInArrow(_trends_of_region(settings), _TRENDS)


def mann_kendall(values_CW: Floats) -> tuple[Floats, Floats]:
    """Kendall's tau of each row with time, and its two-sided p value by the normal approximation, ties corrected.

    Mann (1945), Kendall (1975), with the correction for continuity.
    """
    weeks = values_CW.shape[1]
    score = np.zeros(len(values_CW))
    for lag in range(1, weeks):
        score += np.sign(values_CW[:, lag:] - values_CW[:, :-lag]).sum(axis=1)
    equal_CW = (values_CW[:, :, None] == values_CW[:, None, :]).sum(axis=2)
    variance = (weeks * (weeks - 1) * (2 * weeks + 5) - ((equal_CW - 1) * (2 * equal_CW + 5)).sum(axis=1)) / 18
    z = np.divide(score - np.sign(score), np.sqrt(variance), out=np.zeros_like(score), where=variance > 0)
    return score / (weeks * (weeks - 1) / 2), 2 * ndtr(-np.abs(z))


def trend_of(is_hot_CW: Flags, tau: Floats, p: Floats) -> Ints:
    """0: none of the three, 1: emerging, 2: persistent, 3: fading; as the contract of `hotspot_trends` says."""
    weeks, hot_weeks = is_hot_CW.shape[1], is_hot_CW.sum(axis=1)
    is_moving = p <= _SIGNIFICANT
    is_emerging = is_hot_CW[:, -1] & (2 * hot_weeks < weeks) & is_moving & (tau > 0)
    is_persistent = is_hot_CW[:, -1] & (4 * hot_weeks >= 3 * weeks)
    is_fading = ~is_hot_CW[:, -2:].any(axis=1) & (hot_weeks >= 2) & is_moving & (tau < 0)
    return np.select([is_emerging, is_persistent, is_fading], [1, 2, 3], 0)


def _trends_of_region(settings: Spatial) -> Callable[[pa.Table], pa.Table]:
    names = np.array(["", EMERGING, PERSISTENT, FADING])

    def trends(rows: pa.Table) -> pa.Table:
        rows = rows.take(pc.sort_indices(rows, [("cell", "ascending")]))
        cells = np.array(rows["cell"].to_pylist())
        weeks = rows["weeks"][0].as_py()
        counts_CW = np.array(rows["events"].to_pylist(), np.float64)[:, -weeks:]
        z_CW = getis_ord(counts_CW, neighbours(cells.tolist()))
        is_hot_CW = discoveries(ndtr(-z_CW), settings.hotspot_false_discovery_rate) & (z_CW > 0)
        tau, p = mann_kendall(z_CW)
        trend = trend_of(is_hot_CW, tau, p)
        is_shared = rows["users"].to_numpy() >= settings.hotspot_min_users
        shown = np.flatnonzero((trend > 0) & is_shared & (len(cells) >= settings.hotspot_min_cells))
        centres = np.array([h3.cell_to_latlng(cell) for cell in cells[shown]]).reshape(-1, 2)
        taken = rows.take(pa.array(shown))
        return pa.table(
            {
                "cell": taken["cell"],
                "region": taken["region"],
                "latitude": centres[:, 0],
                "longitude": centres[:, 1],
                "weeks": taken["weeks"],
                "hot_weeks": is_hot_CW[shown].sum(axis=1).astype(np.int32),
                "z": z_CW[shown, -1],
                "tau": tau[shown],
                "p_value": p[shown],
                "trend": pa.array(names[trend[shown]], pa.string()),
                "day": taken["snapshot_day"],
            }
        )

    return trends
