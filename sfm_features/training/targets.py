"""What the detector is told about each pixel of a crop."""

from __future__ import annotations

import numpy as np

from sfm_features.types import F64, Bool

IGNORED, EMPTY, KEYPOINT = -1, 0, 1
"""What the detector is told about a pixel."""
SPREAD_PX = 0.6
"""Standard deviation of the hill that a keypoint is drawn as."""


def draw_target(xy: F64, shown: Bool, visible: Bool) -> np.ndarray:
    """Draw what the detector is told (S, S) i8.

    It learns nothing outside of the photo, nor where a keypoint cannot be seen.
    """
    target = np.where(shown, EMPTY, IGNORED).astype(np.int8)
    columns, rows = np.rint(xy).astype(np.int64).T
    target[rows, columns] = np.where(visible[rows, columns], KEYPOINT, IGNORED)
    return target


def draw_heat(xy: F64, size_px: int) -> np.ndarray:
    """Spread each keypoint's weight of one over the pixels around it (S, S).

    The logarithm of such a hill is a parabola, the decoder's own model of a peak; a
    single marked pixel would hide from the network where between pixels a keypoint is.
    """
    steps = np.arange(-2, 3)
    nearest = np.rint(xy).astype(np.int64)
    columns, rows = (nearest[:, i, None] + steps for i in (0, 1))
    weight_x, weight_y = (
        np.exp(-((place - xy[:, i, None]) ** 2) / (2 * SPREAD_PX**2))
        * ((place >= 0) & (place < size_px))
        for i, place in ((0, columns), (1, rows))
    )
    hills = weight_y[:, :, None] * weight_x[:, None, :]
    hills /= hills.sum(axis=(1, 2), keepdims=True)
    index = rows.clip(0, size_px - 1)[:, :, None] * size_px
    index = index + columns.clip(0, size_px - 1)[:, None, :]
    heat = np.bincount(index.ravel(), hills.ravel(), size_px * size_px)
    return heat.reshape(size_px, size_px).astype(np.float16)
