"""The pose of one image from 2D-3D matches, and of two from 2D-2D matches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pycolmap

from sfm_features.colmap.convert import (
    from_colmap_camera,
    from_colmap_pose,
    to_colmap_camera,
)
from sfm_features.colmap.logs import silence
from sfm_features.types import F32, F64, I64, PIXEL_CENTRE, Bool, Camera, Pose

_MOST_ROUNDS = 3


@dataclass(frozen=True)
class PoseEstimate:
    """A pose, the camera as refined, inliers (N,) bool of the matches it fits.

    covariance (6, 6): of the pose's rotation (3, radians) and translation (3).
    """

    cam_from_world: Pose
    camera: Camera
    inliers: Bool
    covariance: F64

    @property
    def num_inliers(self) -> int:
        """Matches that fit the pose."""
        return int(self.inliers.sum())


def estimate_absolute_pose(
    xy: F32,
    points: F64,
    camera: Camera,
    max_error_px: float = 12.0,
    seed: int = 0,
    estimate_focal: bool = False,
    refine_focal: bool = False,
    refine_extra_params: bool = False,
    tried: I64 | None = None,
) -> PoseEstimate | None:
    """Estimate where a camera stood from pixels (N, 2) and points (N, 3); None if not.

    `estimate_focal`: the focal length is a guess; it is found along with the pose.
    `refine_focal`: it is about right; it is refined once the pose is found.
    `tried`: rows among which the pose is searched for, as few good ones are searched
    faster than many bad ones; once it is found, all that fit it refine it and count.
    """
    silence()
    pixels = np.asarray(xy, np.float64).reshape(-1, 2) + PIXEL_CENTRE
    points = np.asarray(points, np.float64).reshape(-1, 3)
    tried = np.arange(len(points)) if tried is None else tried
    estimation = pycolmap.AbsolutePoseEstimationOptions()
    estimation.estimate_focal_length = estimate_focal
    estimation.ransac.max_error = max_error_px
    estimation.ransac.random_seed = seed
    refined = to_colmap_camera(camera)
    found = pycolmap.estimate_absolute_pose(
        pixels[tried], points[tried], refined, estimation
    )
    if found is None:
        return None
    refinement = pycolmap.AbsolutePoseRefinementOptions()
    refinement.refine_focal_length = estimate_focal or refine_focal
    refinement.refine_extra_params = refine_extra_params
    return _refine(
        found["cam_from_world"], refined, pixels, points, max_error_px, refinement
    )


def _refine(
    pose: pycolmap.Rigid3d,
    camera: pycolmap.Camera,
    pixels: F64,
    points: F64,
    max_error_px: float,
    options: pycolmap.AbsolutePoseRefinementOptions,
) -> PoseEstimate | None:
    """Refine a pose, and its camera in place, for as long as more and more fits it."""

    def find_fitting() -> Bool:
        seen = camera.img_from_cam(points @ pose.matrix()[:, :3].T + pose.translation)
        errors = np.linalg.norm(seen - pixels, axis=1)
        return np.asarray(errors <= max_error_px)  # nan, of what lies behind, is not

    fitting, rounds = find_fitting(), 0
    while True:
        found = pycolmap.refine_absolute_pose(
            *(pose, pixels, points, fitting, camera, options), return_covariance=True
        )
        if found is None:
            return None
        pose = found["cam_from_world"]
        before, fitting, rounds = fitting, find_fitting(), rounds + 1
        if fitting.sum() <= before.sum() or rounds == _MOST_ROUNDS:
            return PoseEstimate(
                cam_from_world=from_colmap_pose(pose),
                camera=from_colmap_camera(camera),
                inliers=fitting,
                covariance=np.asarray(found["covariance"], np.float64),
            )


def project_points(points: F64, pose: Pose, camera: Camera) -> F64:
    """Project points (N, 3) of the world by any camera to pixels (N, 2).

    A point that is not in front of the camera gets nan.
    """
    in_camera = points @ pose.rotation.T + pose.translation
    seen = to_colmap_camera(camera).img_from_cam(in_camera)
    return np.asarray(seen, np.float64) - PIXEL_CENTRE


@dataclass(frozen=True)
class RelativePose:
    """How a second camera stands to the first, and the matches (N,) bool that fit.

    The translation has length 1, as nothing tells how far apart they are.
    """

    pose: Pose
    inliers: Bool


def estimate_relative_pose(
    xy_a: F32,
    xy_b: F32,
    camera_a: Camera,
    camera_b: Camera,
    max_error_px: float = 1.0,
    seed: int = 0,
    max_trials: int = 100_000,
) -> RelativePose | None:
    """Estimate b_from_a of two calibrated cameras from matches (N, 2); None if not."""
    silence()
    options = pycolmap.RANSACOptions()
    options.max_num_trials = max_trials
    options.max_error = max_error_px
    options.random_seed = seed
    found = pycolmap.estimate_essential_matrix(
        np.asarray(xy_a, np.float64).reshape(-1, 2) + PIXEL_CENTRE,
        np.asarray(xy_b, np.float64).reshape(-1, 2) + PIXEL_CENTRE,
        to_colmap_camera(camera_a),
        to_colmap_camera(camera_b),
        options,
    )
    if found is None:
        return None
    return RelativePose(
        from_colmap_pose(found["cam2_from_cam1"]),
        np.asarray(found["inlier_mask"], np.bool_),
    )
