"""How a stored image becomes upright: what EXIF says, and turning there and back."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sfm_features.types import F32

T = TypeVar("T", bound=np.generic)

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the latter: BigTIFF
_EXIF_ORIENTATION = 0x0112

# How the stored array becomes upright: (transpose first, then flip rows, flip columns)
_UPRIGHT = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def read_orientation(exif: bytes) -> int:
    """Read the orientation out of a TIFF block; 1 when absent or senseless."""
    if exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    if not exif.startswith(TIFF_STARTS) or len(exif) < 16:
        return 1
    order = "<" if exif.startswith(b"II") else ">"
    is_big = b"+" in exif[2:4]
    number, entry_bytes, value_at = ("Q", 20, 12) if is_big else ("I", 12, 8)
    (at,) = struct.unpack_from(order + number, exif, 8 if is_big else 4)
    for entry in _directory(exif, order + ("Q" if is_big else "H"), at, entry_bytes):
        tag, kind = struct.unpack_from(order + "HH", exif, entry)
        if tag == _EXIF_ORIENTATION and kind == 3:
            (value,) = struct.unpack_from(order + "H", exif, entry + value_at)
            return value if value in _UPRIGHT else 1
    return 1


def _directory(exif: bytes, count: str, at: int, entry_bytes: int) -> Sequence[int]:
    """Find where the entries of a TIFF directory start, as far as they are there."""
    first = at + struct.calcsize(count)
    if first > len(exif):
        return []
    (entries,) = struct.unpack_from(count, exif, at)
    there = min(entries, (len(exif) - first) // entry_bytes)
    return range(first, first + there * entry_bytes, entry_bytes)


def turn_stored(image: NDArray[T], orientation: int) -> NDArray[T]:
    """Turn an upright image as it is stored: undo `turn_upright`."""
    transpose, flip_rows, flip_columns = _UPRIGHT[orientation]
    if flip_columns:
        image = image[:, ::-1]
    if flip_rows:
        image = image[::-1]
    if transpose:
        image = image.swapaxes(0, 1)
    return np.ascontiguousarray(image)


def turn_upright(image: NDArray[T], orientation: int) -> NDArray[T]:
    """Turn a stored image upright, as a viewer that knows EXIF shows it."""
    transpose, flip_rows, flip_columns = _UPRIGHT[orientation]
    if transpose:
        image = image.swapaxes(0, 1)
    if flip_rows:
        image = image[::-1]
    if flip_columns:
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def turn_back(xy: F32, orientation: int, upright_size: tuple[int, int]) -> F32:
    """Map pixels (N, 2) of the upright image to the stored one."""
    transpose, flip_rows, flip_columns = _UPRIGHT[orientation]
    last_x, last_y = upright_size[0] - 1, upright_size[1] - 1
    x = last_x - xy[:, 0] if flip_columns else xy[:, 0]
    y = last_y - xy[:, 1] if flip_rows else xy[:, 1]
    return np.stack([y, x] if transpose else [x, y], 1).astype(np.float32)


def turn_points(xy: F32, orientation: int, upright_size: tuple[int, int]) -> F32:
    """Map pixels (N, 2) of the stored image to the upright one: undo `turn_back`."""
    transpose, flip_rows, flip_columns = _UPRIGHT[orientation]
    last_x, last_y = upright_size[0] - 1, upright_size[1] - 1
    x, y = (xy[:, 1], xy[:, 0]) if transpose else (xy[:, 0], xy[:, 1])
    x, y = last_x - x if flip_columns else x, last_y - y if flip_rows else y
    return np.stack([x, y], 1).astype(np.float32)
