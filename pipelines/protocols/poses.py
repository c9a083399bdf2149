"""Poses as data sets write them, to cam_from_world, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sfm_features.errors import InputError
from sfm_features.geometry import invert, quaternion_wxyz, rotation_from_quaternion
from sfm_features.photo_files import read_lines
from sfm_features.types import F64, Pose

Numbers = Sequence[float] | F64
_ROUNDING = 1e-3
"""How far from a rotation the nine numbers of a matrix may be, by rounding."""


def pose_from_centre(wxyz: Numbers, centre: Numbers) -> Pose:
    """Make a pose of a rotation world to camera and the camera's centre.

    So write NVM, Extended CMU Seasons and Cambridge Landmarks.
    """
    rotation = rotation_from_quaternion(wxyz)
    return Pose(rotation, -rotation @ np.asarray(centre, np.float64))


def pose_from_camera_to_world(matrix: Numbers) -> Pose:
    """Make a pose of 16 or 4 x 4 numbers camera to world: 7-Scenes, RobotCar."""
    world_from_cam = np.asarray(matrix, np.float64).reshape(4, 4)
    rotation = world_from_cam[:3, :3]
    off = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if not off < _ROUNDING or np.linalg.det(rotation) < 0:
        raise ValueError("its first three rows and columns are no rotation")
    # Digits that the file left out would bend every angle measured against it.
    u, _, vt = np.linalg.svd(rotation)
    return invert(Pose(u @ vt, world_from_cam[:3, 3]))


def write_pose(pose: Pose) -> str:
    """Write `qw qx qy qz tx ty tz`, world to camera, as COLMAP and servers want it."""
    numbers = [*quaternion_wxyz(pose.rotation), *np.asarray(pose.translation)]
    return " ".join(str(float(number)) for number in numbers)


def read_numbered(path: Path, count: int, header: int = 0) -> dict[str, list[float]]:
    """Read lines `name` and so many numbers, below so many lines of another kind."""
    found: dict[str, list[float]] = {}
    for line in read_lines(path)[header:]:
        name, *words = line.split()
        try:
            numbers = [float(word) for word in words]
        except ValueError:
            numbers = []
        if len(numbers) != count or not np.isfinite(numbers).all():
            raise InputError(
                f"{path}: {line[:60]!r} is not a name and {count} numbers; unpack the "
                "file again"
            )
        if name in found:
            raise InputError(f"{path}: names {name!r} twice; unpack the file again")
        found[name] = numbers
    return found
