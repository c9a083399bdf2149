"""How two calibrated cameras stand to each other, estimated from matches and judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import mean

import cv2
import numpy as np

from pipelines.benchmarks.results import Cell
from pipelines.protocols.ledger import Figures
from sfm_features import metrics
from sfm_features.colmap import estimate_relative_pose
from sfm_features.geometry import calibration_matrix, compose, invert, unproject
from sfm_features.types import F32, F64, Camera, Pair, Pose

Cameras = tuple[Camera, Camera]
Estimate = Callable[[F32, F32, Cameras, float, int], Pose | None]
_CONFIDENCE = 0.99999
_ROUNDS = 10_000
_LEAST_INLIERS = 5
AUC_DEG = (5, 10, 20)


@dataclass(frozen=True)
class PoseTask:
    """Two images, their cameras, and b_from_a, of which the length is of no use."""

    names: Pair
    cameras: Cameras
    b_from_a: Pose


def relate(a_from_world: Pose, b_from_world: Pose) -> Pose:
    """Return b_from_a."""
    return compose(b_from_world, invert(a_from_world))


def make_pinhole(calibration: F64, size: tuple[int, int]) -> Camera:
    """Make the camera of a matrix K (3, 3) whose pixels are COLMAP's."""
    k = calibration
    params = (k[0, 0], k[1, 1], k[0, 2], k[1, 2])
    return Camera("PINHOLE", *size, tuple(map(float, params)))


def measure_task(
    task: PoseTask, xy_a: F32, xy_b: F32, estimator: str, max_error_px: float, seed: int
) -> Figures:
    """Return the errors in degrees of the pose that matches (N, 2) lead to."""
    estimate = ESTIMATORS[estimator]
    pose = estimate(xy_a, xy_b, task.cameras, max_error_px, seed)
    if pose is None:
        return {"rotation": inf, "translation": inf}
    rotation, translation = metrics.relative_pose_error_deg(pose, task.b_from_a)
    return {"rotation": rotation, "translation": translation}


def find_areas(found: Sequence[Figures]) -> dict[str, Cell]:
    """Sum up by the area under the curve of the larger of both errors."""
    areas = metrics.auc(list_errors(found), AUC_DEG)
    return {f"AUC@{t}": area for t, area in zip(AUC_DEG, areas, strict=True)}


def list_errors(found: Sequence[Figures]) -> list[float]:
    """Return the larger of both errors of each pair, in degrees."""
    return [max(figures["rotation"], figures["translation"]) for figures in found]


def mean_accuracy(errors_deg: Sequence[float], most_deg: int = 10) -> float:
    """Return the Image Matching Challenge's mAA: the mean over 1, 2 ... degrees.

    Each of them counts errors below it, and the last one those equal to it, too. It is
    not the area under the curve.
    """
    errors = np.asarray(errors_deg)
    shares = [float((errors < t).mean()) for t in range(1, most_deg)]
    return mean([*shares, float((errors <= most_deg).mean())])


def _estimate_with_colmap(
    xy_a: F32, xy_b: F32, cameras: Cameras, max_error_px: float, seed: int
) -> Pose | None:
    found = estimate_relative_pose(xy_a, xy_b, *cameras, max_error_px, seed)
    return None if found is None else found.pose


def _estimate_essential(
    xy_a: F32, xy_b: F32, cameras: Cameras, max_error_px: float, seed: int
) -> Pose | None:
    """Estimate by OpenCV's RANSAC on rays, its bound divided by the mean focal length.

    Several matrices may fit alike: the one with the most points in front counts.
    """
    if len(xy_a) < _LEAST_INLIERS:
        return None
    rays_a, rays_b = _find_rays(xy_a, xy_b, cameras)
    focal = mean(float(calibration_matrix(c)[i, i]) for c in cameras for i in (0, 1))
    cv2.setRNGSeed(seed)
    found, mask = cv2.findEssentialMat(
        rays_a,
        rays_b,
        np.eye(3),
        method=cv2.RANSAC,
        prob=_CONFIDENCE,
        threshold=max_error_px / focal,
    )
    if found is None:
        return None
    kept = np.asarray(mask, np.uint8)
    several = np.asarray(found, np.float64).reshape(-1, 3, 3)
    poses = [_decompose(one, rays_a, rays_b, kept) for one in several]
    count, pose = max(poses, key=lambda counted: counted[0])
    return pose if count > 0 else None


def _estimate_fundamental(
    xy_a: F32, xy_b: F32, cameras: Cameras, max_error_px: float, seed: int
) -> Pose | None:
    """Estimate without the calibration, which only turns the result into a pose."""
    if len(xy_a) < 8:
        return None
    cv2.setRNGSeed(seed)
    fundamental, mask = cv2.findFundamentalMat(
        xy_a, xy_b, cv2.FM_RANSAC, max_error_px, _CONFIDENCE, _ROUNDS
    )
    if fundamental is None or np.shape(fundamental) != (3, 3):
        return None
    kept = np.asarray(mask, np.uint8)
    if kept.sum() < _LEAST_INLIERS:
        return None
    k_a, k_b = (calibration_matrix(camera) for camera in cameras)
    essential = k_b.T @ np.asarray(fundamental, np.float64) @ k_a
    count, pose = _decompose(essential, *_find_rays(xy_a, xy_b, cameras), kept)
    return pose if count > 0 else None


def _find_rays(xy_a: F32, xy_b: F32, cameras: Cameras) -> tuple[F64, F64]:
    """Return where both cameras' rays meet depth one (N, 2)."""
    a, b = (
        unproject(camera, xy.astype(np.float64))[:, :2]
        for camera, xy in zip(cameras, (xy_a, xy_b), strict=True)
    )
    return a, b


def _decompose(
    essential: F64, rays_a: F64, rays_b: F64, kept: np.ndarray
) -> tuple[int, Pose]:
    """Return the pose that puts the most points before both cameras, and how many."""
    count, rotation, translation, *_ = cv2.recoverPose(
        essential, rays_a, rays_b, np.eye(3), 1e9, mask=kept.copy()
    )
    turn, shift = (np.asarray(x, np.float64) for x in (rotation, translation))
    return int(count), Pose(turn, shift.ravel())


ESTIMATORS: Mapping[str, Estimate] = {
    "colmap": _estimate_with_colmap,
    "opencv": _estimate_essential,
    "fundamental": _estimate_fundamental,
}
"""Ways to a pose, by name: COLMAP's, OpenCV's as LoFTR and others use it, and by a
fundamental matrix as the Image Matching Challenge does it."""
