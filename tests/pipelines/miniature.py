"""What the miniatures of data sets have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from samples import write_image
from small_town import Photo

from sfm_features.geometry import (
    project,
    quaternion_wxyz,
    rotation_angle_deg,
    rotation_from_quaternion,
    unproject,
)
from sfm_features.types import F64, I64, Camera, Model, Pose, RegisteredImage

HELD_OUT = (2, 5, 8, 11)
"""Stations whose photographs are queries; the others are the map."""
CPU = ["--device", "cpu"]


def write_photos(folder: Path, photos: Mapping[str, Photo]) -> None:
    """Write photographs under their names, JPEG or PNG."""
    for name, photo in photos.items():
        write_image(folder / name, photo.rgb)


def show_camera(camera: Camera) -> str:
    """Write a camera as lists of intrinsics do: `MODEL w h params`."""
    numbers = (camera.width, camera.height, *camera.params)
    return " ".join([camera.model, *map(str, numbers)])


def show_centre(pose: Pose) -> list[float]:
    """List qw qx qy qz, world to camera, and the camera's centre."""
    return [*quaternion_wxyz(pose.rotation).tolist(), *pose.centre.tolist()]


def assert_close(pose: Pose, true: Pose, metres: float, degrees: float) -> None:
    """Check a pose against the truth."""
    assert np.linalg.norm(pose.centre - true.centre) < metres
    assert rotation_angle_deg(pose.rotation @ true.rotation.T) < degrees


def read_submission(path: Path) -> dict[str, Pose]:
    """Read `name qw qx qy qz tx ty tz`, cam_from_world, as the server would."""
    poses = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, *rest = line.split(" ")
        numbers = np.array(rest, float)
        assert len(numbers) == 7 and name not in poses
        rotation = rotation_from_quaternion(numbers[:4])
        poses[name] = Pose(rotation, numbers[4:])
    return poses


def read_rows(output: Path, name: str) -> list[dict[str, object]]:
    """Read the rows of a table that a pipeline wrote down."""
    found = json.loads((output / "results.json").read_text(encoding="utf-8"))
    return found["results"][name]["rows"]


def move(photo: Photo, shift: tuple[float, float, float]) -> Photo:
    """Put the world's origin far away, so that a centre is no translation."""
    pose = photo.cam_from_world
    translation = pose.translation - pose.rotation @ np.array(shift)
    return replace(photo, cam_from_world=Pose(pose.rotation, translation))


def make_model(photos: Mapping[str, Photo]) -> Model:
    """Make a model with some points on surfaces, seen wherever depth agrees."""
    points = np.concatenate([_sample(photo) for photo in photos.values()])
    images = {}
    for name, photo in photos.items():
        rows, xy = _see(photo, points)
        images[name] = RegisteredImage(
            name, photo.camera, photo.cam_from_world, xy.astype(np.float32), rows
        )
    seen = np.concatenate([image.point_ids for image in images.values()])
    lengths = np.bincount(seen, minlength=len(points)).astype(np.int64)
    grey = np.full((len(points), 3), 128, np.uint8)
    return Model(images, points, grey, np.ones(len(points)), lengths)


def _sample(photo: Photo, step: int = 24) -> F64:
    """Take points (P, 3) in the world under a grid of pixels."""
    height, width = photo.depth.shape
    x, y = np.meshgrid(np.arange(9, width, step), np.arange(9, height, step))
    depth = photo.depth[y, x].ravel()
    near = np.isfinite(depth)
    rays = unproject(photo.camera, np.stack([x.ravel(), y.ravel()], 1)[near] * 1.0)
    pose = photo.cam_from_world
    return (rays * depth[near, None] - pose.translation) @ pose.rotation


def _see(photo: Photo, points: F64) -> tuple[I64, F64]:
    """Return the rows (K,) of points that a photograph shows, and where (K, 2)."""
    pose = photo.cam_from_world
    local = points @ pose.rotation.T + pose.translation
    xy = np.nan_to_num(project(photo.camera, local), nan=-1).clip(-1, 9999)
    column, row = np.rint(xy).astype(int).T
    height, width = photo.depth.shape
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    depth = photo.depth[row.clip(0, height - 1), column.clip(0, width - 1)]
    rows = np.flatnonzero(inside & (np.abs(depth - local[:, 2]) < 0.05 * depth))
    return rows.astype(np.int64), xy[rows]
