"""What of a row must not reach the lake: addresses, and coordinates more exact than the settings allow.

A row without coordinates gets those of its IP address first. Positions are looked up once per
distinct address of a batch, in a file in MaxMind's format that the driver sends to the workers.
"""

from __future__ import annotations

import hashlib
import io
import math
import tempfile
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any

import maxminddb
import pandas as pd
from pyspark import Broadcast
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.settings import Privacy

_METRES_PER_DEGREE = 111_195.0
# Files that give no radius are of cities.
_RADIUS_KM = 50.0
_PREFIX = {4: 24, 6: 48}
_POSITION = "latitude double, longitude double, precision_m double"
_NO_POSITION = "struct<latitude:double,longitude:double,precision_m:double>"
_IPV4 = r"\b\d{1,3}(?:\.\d{1,3}){3}\b"
_IPV6 = r"(?i)(?:[0-9a-f]{0,4}:){3,7}[0-9a-f]{0,4}|[0-9a-f]{1,4}::[0-9a-f]{0,4}"
_NOWHERE = (None, None, None)
_OPEN: dict[str, maxminddb.Reader] = {}


def limited(rows: DataFrame, privacy: Privacy) -> DataFrame:
    """`rows` (as `reading.read` gives them) with `ip`, `latitude`, `longitude` and `broken` as the lake may hold them.

    Adds `position_source` (source or ip) and `position_precision_m`.

    Raises:
        ValueError: the IP database is missing or broken.
    """
    latitude, longitude, ip = (
        F.col(name) if name in rows.columns else F.lit(None).cast("string") for name in ("latitude", "longitude", "ip")
    )
    has_own = latitude.isNotNull() | longitude.isNotNull()
    looked_up = F.lit(None).cast(_NO_POSITION)
    if "ip" in rows.columns and (database := read_database(privacy)) is not None:
        held = rows.sparkSession.sparkContext.broadcast(database)
        looked_up = ip_positions(F.when(~has_own, ip), held, hashlib.sha256(database).hexdigest())
    found = rows.withColumn("_found", looked_up)
    from_ip = F.col("_found.latitude").isNotNull()
    exact = privacy.coordinate_decimals
    precision = F.lit(None).cast("double") if exact is None else F.lit(rounding_m(exact))
    shown_ip = {"drop": F.lit(None).cast("string"), "coarsen": coarsened(ip), "keep": ip}[privacy.ip]
    return found.withColumns(
        {
            "latitude": F.when(from_ip, F.col("_found.latitude").cast("string")).otherwise(rounded(latitude, 90, exact)),
            "longitude": F.when(from_ip, F.col("_found.longitude").cast("string")).otherwise(rounded(longitude, 180, exact)),
            "position_source": F.when(from_ip, "ip").when(has_own, "source"),
            "position_precision_m": F.when(from_ip, F.col("_found.precision_m")).when(has_own, precision),
            "ip": shown_ip,
            "broken": _without_details(F.col("broken"), privacy, "ip" in rows.columns),
        }
    ).drop("_found")


def rounded(written: Column, limit: int, decimals: int | None) -> Column:
    """A coordinate as written, with so many decimals. What is none on the globe keeps its form, but not its digits.

    So it is still seen to be wrong. What is rounded to (0, 0) lies in the open sea.
    """
    if decimals is None:
        return written
    number = written.try_cast("double")
    on_the_globe = F.coalesce(number.between(-limit, limit), F.lit(False))
    return F.when(on_the_globe, F.round(number, decimals).cast("string")).otherwise(F.regexp_replace(written, r"\d", "#"))


def rounding_m(decimals: int) -> float:
    """How far rounding both coordinates moves a position at most, metres (at the equator).

    >>> rounding_m(2)
    786.3
    """
    return round(_METRES_PER_DEGREE * 10**-decimals * math.sqrt(0.5), 1)


def read_database(privacy: Privacy) -> bytes | None:
    """The file of positions, checked; None where the settings name none.

    Raises:
        ValueError: it is missing, unreadable or no such file.
    """
    if privacy.ip_database is None:
        return None
    said = f"privacy.ip_database: {privacy.ip_database}"
    try:
        content = Path(privacy.ip_database).read_bytes()
        maxminddb.Reader(io.BytesIO(content), maxminddb.MODE_FD).close()  # type: ignore[arg-type]
    except OSError as error:
        raise ValueError(f"{said} cannot be read ({error.strerror}): give the path of a city file (.mmdb)") from None
    except (maxminddb.InvalidDatabaseError, ValueError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"{said} is not a database in MaxMind's format ({why}): fetch it again") from None
    return content


def ip_positions(ip: Column, database: Broadcast[bytes], digest: str) -> Column:
    """Struct of latitude, longitude (degrees) and precision_m of an address; null where the file knows none."""

    @F.pandas_udf(_POSITION)  # type: ignore[call-overload]
    def positions(addresses: pd.Series) -> pd.DataFrame:
        codes, distinct = pd.factorize(addresses)
        # The last row stands for no address.
        known = [*map(partial(_position, _reader(database, digest)), distinct), _NOWHERE]
        frame = pd.DataFrame(known, columns=["latitude", "longitude", "precision_m"], dtype="float64")
        return frame.iloc[codes].reset_index(drop=True)

    return positions(ip)


def coarsened(ip: Column) -> Column:
    """The network of an address: /24 of IPv4, /48 of IPv6; null where it is none."""

    @F.pandas_udf("string")  # type: ignore[call-overload]
    def networks(addresses: pd.Series) -> pd.Series:
        codes, distinct = pd.factorize(addresses)
        names = pd.Series([*map(_network, distinct), None], dtype=object)
        return names.iloc[codes].reset_index(drop=True)

    return networks(ip)


def _network(text: str) -> str | None:
    address = _address(text)
    return None if address is None else str(ip_network((int(address), _PREFIX[address.version]), strict=False))


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.strip())
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _reader(database: Broadcast[bytes], digest: str) -> maxminddb.Reader:
    """Opened once per process; from a file, as the fast reader takes no bytes."""
    if digest not in _OPEN:
        with tempfile.NamedTemporaryFile(suffix=".mmdb") as file:
            file.write(database.value)
            file.flush()
            _OPEN[digest] = maxminddb.open_database(file.name)
    return _OPEN[digest]


def _position(reader: maxminddb.Reader, text: str) -> tuple[float | None, float | None, float | None]:
    address = _address(text)
    # A file of IPv4 alone refuses other addresses.
    if address is None or not address.is_global or address.version > reader.metadata().ip_version:
        return _NOWHERE
    record: Any = reader.get(address)
    location = record.get("location") if isinstance(record, dict) else None
    if not isinstance(location, dict):
        return _NOWHERE
    latitude, longitude, radius_km = (location.get(name) for name in ("latitude", "longitude", "accuracy_radius"))
    if not isinstance(latitude, int | float) or not isinstance(longitude, int | float):
        return _NOWHERE
    return float(latitude), float(longitude), 1000.0 * (radius_km if isinstance(radius_km, int | float) else _RADIUS_KM)


def _without_details(line: Column, privacy: Privacy, has_ip: bool) -> Column:
    """A line that could not be read, without the addresses and decimals that its fields may not have."""
    if has_ip and privacy.ip != "keep":
        line = F.regexp_replace(F.regexp_replace(line, _IPV4, "[ip]"), _IPV6, "[ip]")
    if privacy.coordinate_decimals is not None:
        line = F.regexp_replace(line, rf"(\d\.\d{{{privacy.coordinate_decimals}}})\d+", "$1")
    return line
