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


def gps_to_local_metres(
    positions: Mapping[str, tuple[float, float, float]],
) -> dict[str, F64]:
    """Convert positions to metres east, north and up (3,) of the first one by name.

    One without an altitude (nan) is put at the middle of the others': at sea level it
    would be far from its neighbours.
    """
    names = sorted(positions)
    if not names:
        return {}
    geodetic = np.array([positions[name] for name in names], np.float64)
    known = np.isfinite(geodetic[:, 2])
    geodetic[~known, 2] = np.median(geodetic[known, 2]) if known.any() else 0.0
    local = pycolmap.GPSTransform().ellipsoid_to_enu(geodetic, *geodetic[0])
    return dict(zip(names, np.asarray(local, np.float64), strict=True))
