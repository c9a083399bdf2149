"""The points of a model, seen as pixels that show the same thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sfm_features.colmap import project_points
from sfm_features.types import F64, I64, Model, RegisteredImage

_STEP = 1e-3
"""How far beside a point to look, as a share of its distance: about a pixel."""


@dataclass(frozen=True)
class Tracks:
    """Observations of points, those of a point in a row.

    `image` (O,) is a row of `names`, `keypoint` (O,) one of the image's keypoints,
    `xy` (O, 2) its pixel. `reference` (O,) is the observation of the same point that it
    is compared with, and `linear` (O, 2, 2) turns a small step in the reference's image
    into one in its own, as if what is there faced its viewers.
    """

    names: Sequence[str]
    image: I64
    keypoint: I64
    xy: F64
    reference: I64
    linear: F64

    def __len__(self) -> int:
        return len(self.image)

    def group_by_image(self) -> list[I64]:
        """List, for each name, the observations in that image."""
        return group(self.image, len(self.names))


def read_tracks(model: Model) -> Tracks:
    """Gather a model's observations; a reference looks as all do on average."""
    names = sorted(model.images)
    shots = [model.images[name] for name in names]
    seen = [np.flatnonzero(shot.point_ids >= 0) for shot in shots]
    image = np.repeat(np.arange(len(names)), [len(rows) for rows in seen])
    keypoint = _join(seen)
    point = _join([s.point_ids[rows] for s, rows in zip(shots, seen, strict=True)])
    order = np.argsort(point, kind="stable")
    image, keypoint, point = image[order], keypoint[order], point[order]
    xy = np.empty((len(order), 2))
    for shot, mine in zip(shots, group(image, len(shots)), strict=True):
        xy[mine] = shot.keypoints[keypoint[mine]]
    centres = np.array([s.cam_from_world.centre for s in shots]).reshape(-1, 3)
    away = centres[image] - model.points[point]
    facing = np.zeros_like(model.points)
    np.add.at(facing, point, _normalise(away))
    facing = _normalise(facing)[point]
    reference = _choose_references(point, (_normalise(away) * facing).sum(axis=1))
    length = _STEP * np.linalg.norm(away[reference], axis=1)
    steps = _project_steps(shots, image, model.points[point], facing, length)
    linear = steps @ _invert(steps[reference])
    return Tracks(names, image, keypoint, xy, reference, linear)


def group(labels: I64, count: int) -> list[I64]:
    """List, for each label from 0 to `count` - 1, the rows that have it."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.searchsorted(labels[order], np.arange(1, count)))


def _choose_references(point: I64, alike: F64) -> I64:
    """Return for each observation the one of the same point that is most alike."""
    best = np.lexsort((-alike, point))
    return best[np.searchsorted(point[best], point)]


def _project_steps(
    shots: Sequence[RegisteredImage], image: I64, xyz: F64, facing: F64, length: F64
) -> F64:
    """Project two steps beside each point, square to where its viewers are.

    Returns (O, 2, 2), a column for each step.
    """
    axis = np.eye(3)[np.abs(facing).argmin(axis=1)]
    first = _normalise(np.cross(facing, axis)) * length[:, None]
    second = np.cross(facing, first)
    steps = np.empty((len(image), 2, 2))
    for shot, mine in zip(shots, group(image, len(shots)), strict=True):
        at, right, down = (
            project_points(there[mine], shot.cam_from_world, shot.camera)
            for there in (xyz, xyz + first, xyz + second)
        )
        steps[mine] = np.stack((right - at, down - at), axis=2)
    return steps


def _invert(matrices: F64) -> F64:
    """Invert (N, 2, 2); where that cannot be, nan or infinity comes out."""
    (a, b), (c, d) = matrices.transpose(1, 2, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = np.array([[d, -b], [-c, a]]) / (a * d - b * c)
    inverse: F64 = columns.transpose(2, 0, 1)
    return inverse


def _normalise(vectors: F64) -> F64:
    unit: F64 = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _join(parts: Sequence[I64]) -> I64:
    return np.concatenate([*parts, np.zeros(0, np.int64)])
