"""Exact correspondences between two views, from depth."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from sfm_features.geometry import project, unproject
from sfm_features.types import F32, F64, Bool, Camera, Pose

STEP = 1.5
"""How many times the slope beside it a step of depth may be and still be a surface."""
BEND = 2e-3
"""The share of itself by which 1 / depth may bend between two pixels."""
CLOSE = 0.01
"""The share by which depths may differ and still be of one surface."""


class Posed(Protocol):
    """What has a camera and a pose."""

    @property
    def camera(self) -> Camera:
        """The camera."""
        ...

    @property
    def cam_from_world(self) -> Pose:
        """Where it stands."""
        ...


def correspond(
    depth_a: F32, view_a: Posed, depth_b: F32, view_b: Posed, xy_a: F64 | F32
) -> tuple[F64, Bool]:
    """Find the pixels (N, 2) of `b` that show what pixels (N, 2) of `a` show.

    Returns them and a mask (N,): False where `a` shows the sky or the rim of something,
    or where `b` does not see it. Coordinates are nan where nothing can be said.
    """
    xy = np.asarray(xy_a, np.float64)
    nearness_a, smooth = read_nearness(depth_a, xy)
    known = np.asarray(smooth & (nearness_a > 0))
    depth = 1 / np.where(known, nearness_a, 1)
    in_a = unproject(view_a.camera, xy) * depth[:, None]
    a, b = view_a.cam_from_world, view_b.cam_from_world
    world = (in_a - a.translation) @ a.rotation
    in_b = world @ b.rotation.T + b.translation
    known &= in_b[:, 2] > 1e-6
    xy_b = np.full(xy.shape, np.nan)
    xy_b[known] = project(view_b.camera, in_b[known])
    width, height = view_b.camera.width, view_b.camera.height
    with np.errstate(invalid="ignore"):
        inside = ((xy_b >= 0) & (xy_b <= (width - 1, height - 1))).all(1)
    visible = known & inside
    nearness_b, _ = read_nearness(depth_b, np.where(visible[:, None], xy_b, 0))
    agrees = np.abs(nearness_b * in_b[:, 2] - 1) < CLOSE
    return xy_b, np.asarray(visible & agrees, np.bool_)


def read_nearness(depth: F32, xy: F64) -> tuple[F64, Bool]:
    """Read 1 / depth (N,) between pixels, and where that stays on one surface.

    On a plane 1 / depth is linear in the image, so this is exact but for the bend of
    the lens inside one pixel.
    """
    height, width = depth.shape
    inside: Bool = np.all((xy >= 0) & (xy <= (width - 1, height - 1)), axis=1)
    nearness = 1 / depth.astype(np.float64)
    near = np.pad(nearness, 1, mode="reflect", reflect_type="odd")
    base = np.where(inside[:, None], np.floor(xy), 0).astype(np.int64)
    base = np.minimum(base, (width - 2, height - 2))
    share = np.where(inside[:, None], xy - base, 0)
    rows = base[:, 1, None] + np.arange(4)
    cols = base[:, 0, None] + np.arange(4)
    patch = near[rows[:, :, None], cols[:, None, :]]
    fx, fy = share[:, 0, None], share[:, 1]
    lines = patch[:, 1:3, 1] * (1 - fx) + patch[:, 1:3, 2] * fx
    value = lines[:, 0] * (1 - fy) + lines[:, 1] * fy
    smooth = _is_smooth(patch) & _is_smooth(patch.transpose(0, 2, 1))
    exact = (share == np.round(share)).all(1)
    sky = (patch[:, 1:3, 1:3] <= 0).any((1, 2))
    return value, np.asarray(inside & (exact | (smooth & ~sky)), np.bool_)


def _is_smooth(patch: F64) -> Bool:
    """Tell whether the inner steps along the rows (N, 4, 4) are like those beside."""
    steps = np.diff(patch[:, 1:3], axis=2)
    before, inner, after = (np.abs(steps[:, :, k]) for k in range(3))
    value = np.abs(patch[:, 1:3, 1])
    like = inner <= STEP * np.maximum(before, after) + 1e-5 * value
    # A line through two points misses a bent one by a quarter of the bend at most.
    bend = np.abs(np.diff(steps, axis=2)).max(2) / 4
    return np.asarray((like & (bend <= BEND * value)).all(1), np.bool_)
