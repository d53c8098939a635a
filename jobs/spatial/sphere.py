"""Positions on the sphere: degrees (WGS 84) in and out, metres for distances.

An offset is a point less an anchor, both on the unit sphere, in the anchor's frame (east, north,
up). Means and distances of near points are taken from offsets: from degrees or unit vectors they
would lose ten digits, and a place where every visit has one position would have a radius of noise.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

EARTH_RADIUS_M = 6_371_008.8  # mean radius (IUGG)


def unit_vectors(latitude: Floats, longitude: Floats) -> Floats:
    """Points on the unit sphere, (n, 3)."""
    north, east = np.radians(latitude), np.radians(longitude)
    return np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], axis=1)


def offsets(latitude: Floats, longitude: Floats, anchor_latitude: Floats, anchor_longitude: Floats) -> Floats:
    """Offsets of points from their anchors, (n, 3), without cancellation."""
    point, anchor = np.radians(latitude), np.radians(anchor_latitude)
    north, east = np.radians(latitude - anchor_latitude), np.radians(longitude - anchor_longitude)
    # 1 - cos, by the half angle.
    short_of_one = 2 * np.sin(east / 2) ** 2
    return np.stack(
        [
            np.cos(point) * np.sin(east),
            np.sin(north) + np.sin(anchor) * np.cos(point) * short_of_one,
            -2 * np.sin(north / 2) ** 2 - np.cos(anchor) * np.cos(point) * short_of_one,
        ],
        axis=1,
    )


def on_sphere(mean: Floats) -> Floats:
    """Mean offsets (n, 3), which lie below the surface, drawn up to it: offsets of the spherical means."""
    short = 2 * mean[:, 2] + (mean**2).sum(axis=1)  # |anchor + mean|^2 - 1
    length = np.sqrt(np.maximum(1 + short, np.finfo(np.float64).tiny))
    drawn = mean.copy()
    drawn[:, 2] -= short / (1 + length)
    result: Floats = drawn / length[:, None]
    return result


def position(offset: Floats, anchor_latitude: Floats, anchor_longitude: Floats) -> tuple[Floats, Floats]:
    """Latitude and longitude of offsets (n, 3) from their anchors."""
    anchor = np.radians(anchor_latitude)
    east, north, up = offset.T
    outward = (1 + up) * np.cos(anchor) - north * np.sin(anchor)
    latitude = np.degrees(np.arctan2(north * np.cos(anchor) + (1 + up) * np.sin(anchor), np.hypot(east, outward)))
    longitude = anchor_longitude + np.degrees(np.arctan2(east, outward))
    return latitude, longitude - 360 * np.round(longitude / 360)


def distance_m(offset: Floats, other: Floats) -> Floats:
    """Great-circle distances between points given by offsets (n, 3) from the same anchors, metres."""
    chord = np.sqrt(((offset - other) ** 2).sum(axis=1))
    result: Floats = 2 * EARTH_RADIUS_M * np.arcsin(np.minimum(chord / 2, 1.0))
    return result


def chord(distance: float) -> float:
    """The straight line through the unit sphere between two points `distance` metres apart on its surface."""
    return 2 * float(np.sin(min(distance / EARTH_RADIUS_M, np.pi) / 2))
