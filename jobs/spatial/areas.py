"""Areas in which events lie together, per region and part of the week: by density and by k-means, with names for people.

Both are made of a trailing window's events. Areas of fewer than `planning_min_users` people are left out.
"""

from __future__ import annotations

from collections.abc import Callable

import h3.api.basic_str as h3
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from conf.settings import Spatial
from jobs.clean.places import nearest_places
from jobs.spatial.clusters import Ints
from jobs.spatial.dbscan import CLUSTER, dbscan
from jobs.spatial.sphere import EARTH_RADIUS_M, Floats, unit_vectors
from jobs.spatial.windows import by_slot

DENSITY, K_MEANS = "dbscan", "kmeans"
# k of k-means: the square root of half the cells, a rule of thumb (Mardia, Kent and Bibby, 1979), and no more than these.
_MOST_MEANS = 20
_WINDS = ("north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west")
_GROUP = ("snapshot_day", "region", "slot")
_MEANS = (
    "snapshot_day date, region string, slot string, x double, y double, z double, radius_m double, events bigint, users bigint"
)
_AREAS = (
    "method string, slot string, area_id int, name string, region string, latitude double, longitude double, "
    "radius_m double, events bigint, users bigint, day date"
)


def hotspot_areas(events: DataFrame, settings: Spatial) -> DataFrame:
    """`hotspot_areas` of each `snapshot_day`.

    Args:
        events: snapshot_day, region, slot, user_id, cell, latitude, longitude, one row per event of its window.
    """
    known = events.where(F.col("region").isNotNull() & F.col("latitude").isNotNull() & F.col("longitude").isNotNull())
    placed = by_slot(known.select("snapshot_day", "region", "slot", "user_id", "cell", "latitude", "longitude"))
    found = [
        rows.where(F.col("users") >= settings.planning_min_users).withColumn("method", F.lit(method))
        for method, rows in ((DENSITY, _dense_areas(placed, settings)), (K_MEANS, _mean_areas(placed, settings)))
    ]
    return found[0].unionByName(found[1]).groupBy("snapshot_day", "method", "slot").applyInArrow(_named, _AREAS)


def _dense_areas(placed: DataFrame, settings: Spatial) -> DataFrame:
    """Clusters by DBSCAN: a point is core when `area_min_share` of its region's and slot's events lie around it.

    A share, as what is dense in a village is nothing in a city; and never fewer than `planning_min_users` events.
    """
    share = F.count(F.lit(1)).over(Window.partitionBy(*_GROUP)) * settings.area_min_share
    least = F.greatest(F.ceil(share), F.lit(settings.planning_min_users))
    points = placed.drop("cell").withColumn("least", least)
    north, east = F.radians("latitude"), F.radians("longitude")
    vector = {"x": F.cos(north) * F.cos(east), "y": F.cos(north) * F.sin(east), "z": F.sin(north)}
    found = dbscan(points, settings.place_radius_m, F.col("least"), by=_GROUP).where(F.col(CLUSTER).isNotNull())
    # The extent does not depend on the order in which it is taken, as a sum of squares would.
    extent = [F.pow(F.max(axis) - F.min(axis), 2) for axis in vector]
    return (
        found.withColumns(vector)
        .groupBy(*_GROUP, CLUSTER)
        .agg(
            *[F.mean(axis).alias(axis) for axis in vector],
            (F.sqrt(extent[0] + extent[1] + extent[2]) / 2 * EARTH_RADIUS_M).alias("radius_m"),
            F.count(F.lit(1)).alias("events"),
            F.count_distinct("user_id").alias("users"),
        )
        .drop(CLUSTER)
    )


def _mean_areas(placed: DataFrame, settings: Spatial) -> DataFrame:
    """Parts of a region by k-means over its cells, each weighing its events; of regions of `hotspot_min_cells` or more."""
    counts = (
        placed.where(F.col("cell").isNotNull())
        .groupBy(*_GROUP, "cell")
        .agg(F.count(F.lit(1)).alias("events"), F.count_distinct("user_id").alias("users"))
    )
    return counts.groupBy(*_GROUP).applyInArrow(_means_of_region(settings.hotspot_min_cells), _MEANS)


def _means_of_region(min_cells: int) -> Callable[[pa.Table], pa.Table]:
    def means(rows: pa.Table) -> pa.Table:
        rows = rows.take(pc.sort_indices(rows, [("cell", "ascending")]))
        if rows.num_rows < min_cells:
            rows = rows.slice(0, 0)
        points = unit_vectors(*np.array([h3.cell_to_latlng(cell) for cell in rows["cell"].to_pylist()]).reshape(-1, 2).T)
        events, users = rows["events"].to_numpy(), rows["users"].to_numpy()
        label = k_means(points, events, number_of_means(len(points)))
        found = np.unique(label)
        centre = np.array([np.average(points[label == one], axis=0, weights=events[label == one]) for one in found]).reshape(
            -1, 3
        )
        squares = ((points - centre[np.searchsorted(found, label)]) ** 2).sum(axis=1)
        spread = [np.sqrt(np.average(squares[label == one], weights=events[label == one])) for one in found]
        whole = {name: rows[name].combine_chunks().take(pa.array(np.zeros(len(found), dtype=np.int64))) for name in _GROUP}
        return pa.table(
            {
                **whole,
                **dict(zip("xyz", centre.T, strict=True)),
                "radius_m": np.array(spread, dtype=np.float64) * EARTH_RADIUS_M,
                "events": np.array([events[label == one].sum() for one in found], dtype=np.int64),
                # Of a person in several cells it is not known here, so this is the least that the area has.
                "users": np.array([users[label == one].max() for one in found], dtype=np.int64),
            }
        )

    return means


def number_of_means(cells: int) -> int:
    return min(_MOST_MEANS, max(1, round(np.sqrt(cells / 2))))


def k_means(points: Floats, weight: Ints, k: int) -> Ints:
    """Which of at most k means each point belongs to, (n,): scikit-learn's, begun with points far apart, the heaviest first.

    So the result rests on no random number (Gonzalez, 1985, for the choice of the first means).
    """
    from sklearn.cluster import KMeans

    if not len(points):
        return np.zeros(0, dtype=np.int64)
    chosen = [int(weight.argmax())]
    far = ((points - points[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < k and (far * weight).max() > 0:
        chosen.append(int((far * weight).argmax()))
        far = np.minimum(far, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    model = KMeans(n_clusters=len(chosen), init=points[chosen], n_init=1)
    result: Ints = model.fit(points, sample_weight=weight).labels_.astype(np.int64)
    return result


def _named(rows: pa.Table) -> pa.Table:
    """Areas of a day, method and slot: numbered by their events, each with a name."""
    rows = rows.take(pc.sort_indices(rows, [("events", "descending"), ("region", "ascending"), ("x", "ascending")]))
    x, y, z = (rows[axis].to_numpy() for axis in "xyz")
    latitude, longitude = np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))
    columns = {name: rows[name] for name in ("method", "slot", "region", "radius_m", "events", "users")}
    added = {
        "area_id": np.arange(rows.num_rows, dtype=np.int32),
        "name": pa.array(names_of(latitude, longitude), pa.string()),
        "latitude": latitude,
        "longitude": longitude,
        "day": rows["snapshot_day"],
    }
    every = {**columns, **added}
    return pa.table({name: every[name] for name in (part.split()[0] for part in _AREAS.split(", "))})


def names_of(latitude: Floats, longitude: Floats) -> list[str]:
    """The populated place nearest to each position; of several by one name also where from it they lie, then a number."""
    places, where = nearest_places(np.stack([latitude, longitude], axis=1))
    names = np.array([place.rsplit("/", 1)[1] for place in places], dtype=object)
    north = np.degrees(np.arcsin(np.clip(where[:, 2], -1, 1)))
    east = np.degrees(np.arctan2(where[:, 1], where[:, 0]))
    up = latitude - north
    right = ((longitude - east + 180) % 360 - 180) * np.cos(np.radians(latitude))
    wind = np.round(np.arctan2(right, up) / (np.pi / 4)).astype(int) % len(_WINDS)
    directed = [f"{name} {_WINDS[number]}" for name, number in zip(names, wind, strict=True)]
    result: list[str] = []
    for name, longer in zip(names.tolist(), directed, strict=True):
        chosen = name if (names == name).sum() == 1 else longer
        count = result.count(chosen) + sum(one.startswith(f"{chosen} ") and one[len(chosen) + 1 :].isdigit() for one in result)
        result.append(chosen if count == 0 else f"{chosen} {count + 1}")
    return result
