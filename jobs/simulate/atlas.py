"""Real cities: centres of their neighbourhoods, time zones, and where people gather there.

Coordinates are degrees (WGS 84), distances metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from conf.contracts import SLOTS

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

METRES_PER_DEGREE = 111_195.0


@dataclass(frozen=True, kw_only=True)
class City:
    """A city. `districts` are (name, latitude, longitude); the first is where most people work."""

    name: str
    time_zone: str
    language: str
    share: float
    districts: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Hotspot:
    """Many people's events close together, in some slots only.

    radius: metres. weight: the share of the city's visits in those slots that goes here.
    """

    name: str
    city: str
    district: str
    latitude: float
    longitude: float
    radius: float
    slots: tuple[str, ...]
    categories: tuple[str, ...]
    weight: float


CITIES = (
    City(
        name="New York",
        time_zone="America/New_York",
        language="en",
        share=0.34,
        districts=(
            ("Midtown", 40.7549, -73.9840),
            ("Lower East Side", 40.7180, -73.9870),
            ("Williamsburg", 40.7140, -73.9613),
            ("Astoria", 40.7644, -73.9235),
        ),
    ),
    City(
        name="Chicago",
        time_zone="America/Chicago",
        language="en",
        share=0.2,
        districts=(
            ("The Loop", 41.8837, -87.6289),
            ("Wicker Park", 41.9088, -87.6796),
            ("Lincoln Park", 41.9214, -87.6513),
            ("Hyde Park", 41.7943, -87.5907),
        ),
    ),
    City(
        name="London",
        time_zone="Europe/London",
        language="en",
        share=0.26,
        districts=(
            ("Holborn", 51.5174, -0.1182),
            ("Shoreditch", 51.5245, -0.0785),
            ("Southwark", 51.5035, -0.0900),
            ("Camden Town", 51.5390, -0.1426),
        ),
    ),
    City(
        name="Berlin",
        time_zone="Europe/Berlin",
        language="de",
        share=0.2,
        districts=(
            ("Mitte", 52.5200, 13.4050),
            ("Friedrichshain", 52.5120, 13.4540),
            ("Prenzlauer Berg", 52.5410, 13.4120),
            ("Neukölln", 52.4811, 13.4350),
        ),
    ),
)
DISTRICTS = max(len(city.districts) for city in CITIES)

_OUT = ("weekday_evening", "weekend_evening", "weekend_night")
_MARKET = ("weekend_morning", "weekend_afternoon")
_OUT_CATEGORIES = ("Bar", "Restaurant", "Music Venue", "Cinema")
_MARKET_CATEGORIES = ("Farmers Market", "Coffee Shop", "Bakery", "Park")


def _night_out(city: str, district: str, latitude: float, longitude: float) -> Hotspot:
    return Hotspot(
        name=f"{district} nightlife",
        city=city,
        district=district,
        latitude=latitude,
        longitude=longitude,
        radius=250.0,
        slots=_OUT,
        categories=_OUT_CATEGORIES,
        weight=0.3,
    )


def _market(city: str, district: str, latitude: float, longitude: float) -> Hotspot:
    return Hotspot(
        name=f"{district} market",
        city=city,
        district=district,
        latitude=latitude,
        longitude=longitude,
        radius=150.0,
        slots=_MARKET,
        categories=_MARKET_CATEGORIES,
        weight=0.25,
    )


HOTSPOTS = (
    _night_out("New York", "Lower East Side", 40.7205, -73.9885),
    _market("New York", "Midtown", 40.7359, -73.9906),
    _night_out("Chicago", "Wicker Park", 41.9096, -87.6776),
    _market("Chicago", "Lincoln Park", 41.9146, -87.6341),
    _night_out("London", "Shoreditch", 51.5262, -0.0780),
    _market("London", "Southwark", 51.5055, -0.0910),
    _night_out("Berlin", "Friedrichshain", 52.5106, 13.4577),
    _market("Berlin", "Prenzlauer Berg", 52.5436, 13.4026),
)


@dataclass(frozen=True, kw_only=True)
class LocalClock:
    """What the clocks on the wall say during one UTC date; arrays are city x UTC hour.

    hour: 0..23. weekend: Saturday or Sunday. slot: index into SLOTS.
    """

    hour: Ints
    weekend: Ints
    slot: Ints


def local_clock(day: date) -> LocalClock:
    """Local hours and slots of every city for the 24 UTC hours of `day`, with daylight saving."""
    midnight = datetime.combine(day, time(), tzinfo=UTC)
    local = [[(midnight + timedelta(hours=hour)).astimezone(ZoneInfo(city.time_zone)) for hour in range(24)] for city in CITIES]
    hours = np.array([[moment.hour for moment in row] for row in local], dtype=np.int64)
    weekday = np.array([[moment.weekday() for moment in row] for row in local], dtype=np.int64)
    return LocalClock(hour=hours, weekend=(weekday >= 5).astype(np.int64), slot=slot_of(weekday, hours))


def slot_of(weekday: Ints, hour: Ints) -> Ints:
    """Index into SLOTS of a local weekday (Monday is 0) and hour."""
    quarter = np.select([hour < 6, hour < 12, hour < 18, hour < 22], [0, 1, 2, 3], 0)
    # A night counts to the day on which it begins.
    begins = np.where(hour < 6, (weekday + 6) % 7, weekday)
    return (begins >= 5) * (len(SLOTS) // 2) + quarter


def shifted(latitude: Floats, longitude: Floats, north: Floats, east: Floats) -> tuple[Floats, Floats]:
    """Positions moved by metres to the north and to the east (fine for a few kilometres)."""
    return (
        latitude + north / METRES_PER_DEGREE,
        longitude + east / (METRES_PER_DEGREE * np.cos(np.radians(latitude))),
    )
