"""A model as transforms.json, which nerfstudio and instant-ngp read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sfm_features.errors import InputError, OptionError
from sfm_features.geometry import opencv_parameters
from sfm_features.types import F64, Camera, Model, Pose

_NAMES = {"fx": "fl_x", "fy": "fl_y"}  # the others are called as OpenCV calls them
_NGP_DISTANCE = 4.0 * 0.33
"""Mean distance of cameras in instant-ngp's cube: of its own converter, and its scale
for other scenes."""
_NGP_AABB_SCALE = 16


def make_transforms(
    model: Model, files: Mapping[str, str], points_file: str | None
) -> dict[str, Any]:
    """Describe cameras and poses; `files` tells where each image's photograph is.

    The world stays the model's; cameras look along -z and have y up, as in OpenGL. What
    is the same for all images stands at the top, the rest with each.
    """
    cameras = {image.camera for image in model.images.values()}
    described = {camera: _describe_camera(camera) for camera in cameras}
    content: dict[str, Any] = {"camera_model": "OPENCV"}
    if len(cameras) == 1:
        content |= next(iter(described.values()))
    content |= _fit_into_cube(model)
    if points_file is not None:
        content["ply_file_path"] = points_file
    frames = []
    for name, image in sorted(model.images.items()):
        frame: dict[str, Any] = {"file_path": files[name]}
        if len(cameras) > 1:
            frame |= described[image.camera]
        matrix = _world_from_opengl(image.cam_from_world)
        if not np.isfinite(matrix).all():
            raise InputError(
                f"{name}: its pose in the model is not finite; make the model again"
            )
        frames.append({**frame, "transform_matrix": matrix.tolist()})
    return {**content, "frames": frames}


def _describe_camera(camera: Camera) -> dict[str, float]:
    try:
        values = opencv_parameters(camera)
    except OptionError as error:
        raise InputError(
            f"camera model {camera.model}: transforms.json is written with OpenCV's "
            "k1, k2, p1 and p2 only, which cannot say it; use --format undistorted"
        ) from error
    if not np.isfinite(list(values.values())).all():
        raise InputError(
            f"camera {camera.model} {list(camera.params)}: is not finite; make the "
            "model again"
        )
    renamed = {_NAMES.get(name, name): value for name, value in values.items()}
    return {"w": camera.width, "h": camera.height, **renamed}


def _world_from_opengl(cam_from_world: Pose) -> F64:
    """Return (4, 4) from axes right, up and back; COLMAP's are right, down, forward."""
    matrix = np.eye(4)
    matrix[:3, :3] = cam_from_world.rotation.T * [1, -1, -1]
    matrix[:3, 3] = cam_from_world.centre
    return matrix


def _fit_into_cube(model: Model) -> dict[str, Any]:
    """Tell instant-ngp how to lay a model of any size into its unit cube.

    Other programs find out by themselves, and pass these over.
    """
    centres = np.array([i.cam_from_world.centre for i in model.images.values()])
    seen = model.points if len(model.points) else centres
    middle = np.median(seen, axis=0)
    distance = float(np.linalg.norm(centres - middle, axis=1).mean())
    if not (np.isfinite(distance) and distance > 0):
        return {}
    scale = _NGP_DISTANCE / distance
    offset = (0.5 - scale * middle).tolist()
    return {"aabb_scale": _NGP_AABB_SCALE, "scale": scale, "offset": offset}
