"""How well unsupervised keypoints tell where joints are: by linear regression.

A keypoint without supervision has no name. So a linear map from all keypoints to all
joints is fitted on some images, and judged on others; three papers' protocols differ in
whether it has a constant, whether left and right may be exchanged, and what is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sfm_features.types import F64, I64, Bool

HUMAN36M_MIRRORED = (
    *((1, 6), (2, 7), (3, 8), (4, 9), (5, 10), (17, 25), (18, 26), (19, 27)),
    *((20, 28), (21, 28), (22, 30), (23, 31)),
)
"""Joints of left and right as AutoLink exchanges them; it says 28 twice, for 29, and to
compare with its figures one has to."""

_MOST_SWAPS = 10
_MOST_ROUNDS = 1000
_OUTLIER_SIGMAS = 3.0
_RIDGE = 1.0


@dataclass(frozen=True)
class Sample:
    """Keypoints (N, K, 2) as shares of the image, and joints (N, J, 2)."""

    keypoints: F64
    joints: F64

    def __post_init__(self) -> None:
        assert self.keypoints.ndim == 3 and self.keypoints.shape[2] == 2
        assert self.joints.ndim == 3 and len(self.joints) == len(self.keypoints)


def swapped_error(
    fitted: Sample, tested: Sample, mirrored: Sequence[tuple[int, int]]
) -> float:
    """Return Human3.6M's error: mean distance of joints, sides exchanged if better.

    Joints are shares of the image's side. There is no constant. The worst images of
    the fit, beyond three standard deviations, are left out of a second one.
    """
    order = _mirror_order(fitted.joints.shape[1], mirrored)
    x, joints = _flatten(fitted.keypoints), fitted.joints
    joints, apart = _settle_sides(x, joints, order)
    kept = apart < apart.mean() + _OUTLIER_SIGMAS * apart.std(ddof=1)
    linear = _solve(x[kept], _flatten(joints[kept]))
    predicted = (_flatten(tested.keypoints) @ linear).reshape(tested.joints.shape)
    errors = _distance(predicted, tested.joints)
    swapped = _distance(predicted, tested.joints[:, order])
    if (errors > swapped).sum() > _MOST_SWAPS:  # as AutoLink stops
        errors = np.minimum(errors, swapped)
    return float(errors.mean())


def summed_error(fitted: Sample, tested: Sample, side_px: float = 255.0) -> float:
    """Return Taichi's error: mean absolute errors summed over joints and coordinates.

    Joints are pixels of 0..255, -1 where there is none; each coordinate has a fit of
    its own, with a constant.
    """
    x, x_test = (_with_constant(s.keypoints * side_px) for s in (fitted, tested))
    total = 0.0
    for joint in range(fitted.joints.shape[1]):
        for axis in range(2):
            y, y_test = (s.joints[:, joint, axis] for s in (fitted, tested))
            known, known_test = np.abs(y + 1) > 1e-6, np.abs(y_test + 1) > 1e-6
            linear = _solve(x[known], y[known])
            errors = np.abs(x_test[known_test] @ linear - y_test[known_test])
            total += float(errors.mean()) if len(errors) else 0.0
    return total


def share_correct(
    fitted: Sample, tested: Sample, limit_px: float = 6.0, side_px: float = 255.0
) -> float:
    """Return DeepFashion's accuracy: the share of joints found within a few pixels."""
    linear = _solve(_flatten(fitted.keypoints) * side_px, _flatten(fitted.joints))
    predicted = (_flatten(tested.keypoints) * side_px) @ linear
    apart = np.linalg.norm(
        predicted.reshape(tested.joints.shape) - tested.joints, axis=2
    )
    return float((apart < limit_px).mean())


def share_on_background(keypoints: F64, masks: Bool, slack_px: int = 0) -> float:
    """Return the share of keypoints (N, K, 2) that lie off the masks (N, H, W).

    A keypoint within `slack_px` of the mask counts as on it.
    """
    height, width = masks.shape[1:]
    column = np.floor(keypoints[..., 0] * width).astype(int).clip(0, width - 1)
    row = np.floor(keypoints[..., 1] * height).astype(int).clip(0, height - 1)
    rows = np.arange(len(masks))[:, None]
    found = np.zeros(column.shape, np.bool_)
    steps = range(-slack_px, slack_px + 1)
    for dy in steps:
        for dx in steps:
            if dx * dx + dy * dy <= slack_px * slack_px:
                y, x = (row + dy).clip(0, height - 1), (column + dx).clip(0, width - 1)
                found |= masks[rows, y, x]
    return float(1 - found.mean())


def _settle_sides(x: F64, joints: F64, order: I64) -> tuple[F64, F64]:
    """Exchange left and right where that fits better, and fit again, until settled."""
    joints = joints.copy()
    apart = np.zeros(len(joints))
    for _ in range(_MOST_ROUNDS):
        linear = _solve(x, _flatten(joints))
        predicted = (x @ linear).reshape(joints.shape)
        apart = _distance(predicted, joints)
        worse = apart > _distance(predicted, joints[:, order])
        if worse.sum() <= _MOST_SWAPS:
            break
        joints[worse] = joints[worse][:, order]
    return joints, apart


def _mirror_order(count: int, mirrored: Sequence[tuple[int, int]]) -> I64:
    order = np.arange(count)
    for a, b in mirrored:
        order[a], order[b] = b, a
    return order


def _solve(x: F64, y: F64) -> F64:
    """Solve x @ linear = y in the mean square; where many would do, a small one."""
    square = x.T @ x
    if np.linalg.matrix_rank(square) < len(square):
        square = square + _RIDGE * 1e-3 * np.eye(len(square))
    return np.asarray(np.linalg.solve(square, x.T @ y), np.float64)


def _flatten(points: F64) -> F64:
    return np.asarray(points, np.float64).reshape(len(points), -1)


def _with_constant(points: F64) -> F64:
    return np.concatenate([_flatten(points), np.ones((len(points), 1))], axis=1)


def _distance(one: F64, other: F64) -> F64:
    """Return the mean distance (N,) of the joints of N images."""
    return np.asarray(np.linalg.norm(one - other, axis=2).mean(1), np.float64)
