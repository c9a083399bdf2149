"""Where photographs were taken, according to their EXIF."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pycolmap
from tqdm import tqdm

from sfm_features.colmap.cameras import read_exif_bitmap
from sfm_features.types import F64


def read_gps(
    images_dir: Path, names: Sequence[str]
) -> dict[str, tuple[float, float, float]]:
    """Read latitude and longitude (degrees) and altitude (metres, nan if not given)."""
    found = {}
    for name in tqdm(names, desc="read GPS", unit="image"):
        bitmap = read_exif_bitmap(images_dir / name)
        if bitmap is None:
            continue
        latitude, longitude = bitmap.exif_latitude(), bitmap.exif_longitude()
        if latitude is None or longitude is None:
            continue
        # Cameras without a fix write zeros, or values that are not numbers.
        if math.isfinite(latitude + longitude) and (latitude or longitude):
            altitude = bitmap.exif_altitude()
            if altitude is None:
                altitude = math.nan
            found[name] = (latitude, longitude, altitude)
    return found


def choose_origin(
    positions: Mapping[str, tuple[float, float, float]],
) -> tuple[float, float, float]:
    """Return the position that is nearest to the middle of all, the first by name.

    Not their mean: one that is far off would move it, and so would a date line.
    """
    geodetic = _fill_altitudes(positions)
    in_space = np.asarray(pycolmap.GPSTransform().ellipsoid_to_ecef(geodetic))
    off = np.linalg.norm(in_space - np.median(in_space, axis=0), axis=1)
    latitude, longitude, altitude = geodetic[np.argmin(off)].tolist()
    return latitude, longitude, altitude


def gps_to_local_metres(
    positions: Mapping[str, tuple[float, float, float]],
    origin: tuple[float, float, float] | None = None,
) -> dict[str, F64]:
    """Convert positions to metres east, north and up (3,) of an origin.

    It is the first position by name, if none is given. One without an altitude (nan)
    is put at the middle of the others': at sea level it would be far from its
    neighbours.
    """
    if not positions:
        return {}
    geodetic = _fill_altitudes(positions)
    there = geodetic[0] if origin is None else origin
    local = pycolmap.GPSTransform().ellipsoid_to_enu(geodetic, *there)
    return dict(zip(sorted(positions), np.asarray(local, np.float64), strict=True))


def _fill_altitudes(positions: Mapping[str, tuple[float, float, float]]) -> F64:
    """Return positions (N, 3) by name, with the middle altitude where none is known."""
    geodetic = np.array([positions[name] for name in sorted(positions)], np.float64)
    known = np.isfinite(geodetic[:, 2])
    geodetic[~known, 2] = np.median(geodetic[known, 2]) if known.any() else 0.0
    return geodetic
