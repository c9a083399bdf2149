"""The pose of one image."""

from __future__ import annotations

import numpy as np
import pytest

from sfm_features.colmap import (
    check_camera,
    estimate_absolute_pose,
    estimate_relative_pose,
    project_points,
)
from sfm_features.errors import OptionError
from sfm_features.geometry import look_at, project, rotation_angle_deg
from sfm_features.types import F32, F64, PIXEL_CENTRE, Camera, Pose

CAMERA = Camera("SIMPLE_RADIAL", 640, 480, (500.0, 320.0, 240.0, 0.05))
POSE = look_at(np.array([4.0, -3.0, 2.0]), np.array([0.1, 0.2, 0.3]))


def _observe(outliers: float = 0.0, noise_px: float = 0.0) -> tuple[F32, F64, Pose]:
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (200, 3))
    in_camera = points @ POSE.rotation.T + POSE.translation
    xy = project(CAMERA, in_camera) + rng.normal(0, noise_px, (200, 2))
    wrong = rng.random(200) < outliers
    xy[wrong] = rng.uniform(0, 480, (wrong.sum(), 2))
    return xy.astype(np.float32), points, POSE


def test_the_pose_is_found_among_outliers() -> None:
    xy, points, truth = _observe(outliers=0.5, noise_px=0.5)
    found = estimate_absolute_pose(xy, points, CAMERA, max_error_px=3)
    assert found is not None
    assert np.linalg.norm(found.cam_from_world.centre - truth.centre) < 0.02
    assert 80 <= found.num_inliers <= 120
    assert found.inliers.shape == (200,) and found.inliers.dtype == np.bool_
    assert found.camera == CAMERA
    assert found.covariance.shape == (6, 6)
    spread = np.sqrt(np.diag(found.covariance))
    assert (spread > 1e-5).all() and (spread < 0.05).all()


def test_half_a_pixel_would_show() -> None:
    xy, points, truth = _observe()
    found = estimate_absolute_pose(xy, points, CAMERA)
    assert found is not None
    assert np.allclose(found.cam_from_world.rotation, truth.rotation, atol=1e-6)
    shifted = estimate_absolute_pose(xy + np.float32(PIXEL_CENTRE), points, CAMERA)
    assert shifted is not None
    turned = shifted.cam_from_world.rotation @ truth.rotation.T
    assert rotation_angle_deg(turned) > 0.05


def test_a_guessed_focal_length_is_corrected_in_a_copy() -> None:
    xy, points, truth = _observe()
    guess = Camera("SIMPLE_RADIAL", 640, 480, (768.0, 320.0, 240.0, 0.0))
    found = estimate_absolute_pose(
        xy, points, guess, estimate_focal=True, refine_extra_params=True
    )
    assert found is not None
    assert guess.params == (768.0, 320.0, 240.0, 0.0)
    assert found.camera.params == pytest.approx(CAMERA.params, rel=1e-3)
    assert np.linalg.norm(found.cam_from_world.centre - truth.centre) < 1e-3


def test_two_views_are_related_in_our_pixels() -> None:
    """Half a pixel more in both images is another pair of cameras, and shows."""
    rng = np.random.default_rng(1)
    points = rng.uniform(-1, 1, (300, 3))
    other = look_at(np.array([3.0, -4.0, 1.0]), np.array([0.1, 0.2, 0.3]))
    rotation = other.rotation @ POSE.rotation.T
    shift = other.translation - rotation @ POSE.translation
    xy = [
        project(CAMERA, points @ pose.rotation.T + pose.translation).astype(np.float32)
        for pose in (POSE, other)
    ]
    xy[1][:90] = rng.uniform(0, 480, (90, 2))
    found = estimate_relative_pose(*xy, CAMERA, CAMERA)
    assert found is not None
    assert found.inliers[90:].all() and found.inliers[:90].mean() < 0.2
    assert rotation_angle_deg(found.pose.rotation @ rotation.T) < 0.02
    unit = shift / np.linalg.norm(shift)
    assert found.pose.translation @ unit > np.cos(np.radians(0.05))
    assert estimate_relative_pose(xy[0][:3], xy[1][:3], CAMERA, CAMERA) is None


def test_the_seed_decides() -> None:
    xy, points, _ = _observe(outliers=0.6, noise_px=1)
    one, same = (estimate_absolute_pose(xy, points, CAMERA, seed=4) for _ in "ab")
    assert one is not None and same is not None
    pose, same_pose = one.cam_from_world, same.cam_from_world
    assert np.array_equal(pose.rotation, same_pose.rotation)
    assert np.array_equal(pose.translation, same_pose.translation)


@pytest.mark.parametrize("count", [0, 2])
def test_too_few_matches_give_no_pose(count: int) -> None:
    xy, points, _ = _observe()
    assert estimate_absolute_pose(xy[:count], points[:count], CAMERA) is None


def test_a_few_matches_find_the_pose_and_all_of_them_count() -> None:
    xy, points, truth = _observe(outliers=0.3, noise_px=0.5)
    tried = np.arange(20, 60)
    found = estimate_absolute_pose(xy, points, CAMERA, 3, tried=tried)
    assert found is not None
    seen = project_points(points, found.cam_from_world, CAMERA)
    np.testing.assert_array_equal(found.inliers, np.linalg.norm(seen - xy, axis=1) <= 3)
    assert found.num_inliers > 110
    whole = estimate_absolute_pose(xy, points, CAMERA, 3)
    assert whole is not None
    centres = found.cam_from_world.centre, whole.cam_from_world.centre
    np.testing.assert_allclose(*centres, atol=2e-3)


def test_points_are_projected_by_any_camera() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (50, 3))
    in_camera = points @ POSE.rotation.T + POSE.translation
    expected = project(CAMERA, in_camera)
    np.testing.assert_allclose(project_points(points, POSE, CAMERA), expected)
    fisheye = Camera("SIMPLE_FISHEYE", 640, 480, (500.0, 320.0, 240.0))
    assert np.isfinite(project_points(points, POSE, fisheye)).all()
    behind = POSE.centre + 2 * (POSE.centre - points)
    assert np.isnan(project_points(behind, POSE, CAMERA)).all()


@pytest.mark.parametrize(
    "params",
    [(), (500.0,), (0.0, 320, 240, 0), (-5.0, 320, 240, 0), (np.nan, 320, 240, 0),
     (np.inf, 320, 240, 0), (500.0, 320, np.nan, 0), (500.0, 320, 240, 1e9)],
)  # fmt: skip
def test_cameras_that_cannot_be_are_refused(params: tuple[float, ...]) -> None:
    """COLMAP crashes on some of them."""
    check_camera(CAMERA)
    with pytest.raises(OptionError, match="wants f, cx, cy, k"):
        check_camera(Camera("SIMPLE_RADIAL", 640, 480, params))
    with pytest.raises(OptionError, match="is not one of"):
        check_camera(Camera("NOTHING", 640, 480, params))
