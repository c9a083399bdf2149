"""Cameras of Strecha's multi-view stereo benchmark: one NAME.camera for each image.

Nine lines of text: K (3 x 3), three distortions (all 0), R camera-to-world (3 x 3), the
camera's centre, the width and height of the image.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sfm_features.errors import InputError
from sfm_features.images import decode
from sfm_features.types import F64, Camera, Pose

_NUMBERS = 9 + 3 + 9 + 3 + 2
_SUFFIX = ".camera"


def read_cameras(folder: Path) -> dict[str, Pose]:
    """Read cam_from_world of each image of a folder of `.camera` files."""
    return {name: pose for name, (_, _, pose) in read_calibrated(folder).items()}


def has_cameras(folder: Path) -> bool:
    """Tell whether a folder holds such files."""
    return any(folder.glob(f"*{_SUFFIX}"))


def read_calibrated(folder: Path) -> dict[str, tuple[F64, int, Pose]]:
    """Read K (3, 3), the width that it is meant for, and cam_from_world of images."""
    paths = sorted(folder.glob(f"*{_SUFFIX}"))
    if not paths:
        raise InputError(f"{folder}: has no {_SUFFIX} files; check --strecha-cameras")
    return {path.name.removesuffix(_SUFFIX): _read_one(path) for path in paths}


def read_scene(folder: Path) -> tuple[dict[str, Camera], dict[str, Pose]]:
    """Read cameras, for the size that photos have, and poses of a folder of a scene.

    It holds images/ and gt_dense_cameras/, as the benchmark's do.
    """
    cameras: dict[str, Camera] = {}
    poses: dict[str, Pose] = {}
    for name, (k, width, pose) in read_calibrated(folder / "gt_dense_cameras").items():
        size = decode(folder / "images" / name).size
        cameras[name] = fit_camera(k, width, size)
        poses[name] = pose
    return cameras, poses


def fit_camera(calibration: F64, width: int, size: tuple[int, int]) -> Camera:
    """Make the camera of an image of `size` from K (3, 3) for another `width`."""
    # COLMAP's pixels: the corner is 0, so the principal point simply shrinks.
    k = calibration * size[0] / width
    return Camera("PINHOLE", *size, (*map(float, (k[0, 0], k[1, 1], *k[:2, 2])),))


def _read_one(path: Path) -> tuple[F64, int, Pose]:
    try:
        numbers = np.array(path.read_text(encoding="utf-8").split(), np.float64)
    except ValueError as error:
        raise InputError(f"{path}: is no camera ({error}); replace it") from error
    if len(numbers) != _NUMBERS:
        raise InputError(
            f"{path}: has {len(numbers)} numbers instead of {_NUMBERS}; replace it"
        )
    world_from_cam, centre = numbers[12:21].reshape(3, 3), numbers[21:24]
    pose = Pose(world_from_cam.T, -world_from_cam.T @ centre)
    return numbers[:9].reshape(3, 3), int(numbers[24]), pose
