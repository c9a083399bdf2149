"""Our cameras and poses to COLMAP's and back."""

from __future__ import annotations

import numpy as np
import pycolmap

from sfm_features.types import Camera, Pose


def to_colmap_camera(camera: Camera, camera_id: int = 1) -> pycolmap.Camera:
    """Make COLMAP's camera; always a fresh one, for COLMAP changes it in place."""
    return pycolmap.Camera(
        camera_id=camera_id,
        model=camera.model,
        width=camera.width,
        height=camera.height,
        params=list(camera.params),
    )


def from_colmap_camera(camera: pycolmap.Camera) -> Camera:
    """Read COLMAP's camera."""
    params = tuple(float(value) for value in camera.params)
    return Camera(camera.model_name, camera.width, camera.height, params)


def to_colmap_pose(pose: Pose) -> pycolmap.Rigid3d:
    """Make COLMAP's rigid transform."""
    return pycolmap.Rigid3d(pycolmap.Rotation3d(pose.rotation), pose.translation)


def from_colmap_pose(rigid: pycolmap.Rigid3d) -> Pose:
    """Read COLMAP's rigid transform."""
    matrix = np.asarray(rigid.matrix(), np.float64)
    return Pose(matrix[:, :3].copy(), matrix[:, 3].copy())
