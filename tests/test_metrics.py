"""Metrics on hand-made cases whose answers are known in closed form."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from sfm_features.geometry import Similarity, look_at, rotation_from_quaternion
from sfm_features.metrics import (
    KnownMapping,
    auc,
    homography_corner_error,
    matching_accuracy,
    matching_score,
    model_errors,
    relative_pose_error_deg,
    repeatability,
)
from sfm_features.types import Pose

IDENTITY = np.eye(3)


def turn_about_z(angle_deg: float) -> np.ndarray:
    half = np.radians(angle_deg) / 2
    return rotation_from_quaternion([np.cos(half), 0, 0, np.sin(half)])


def shift_by(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


# --- auc ---


def test_auc_of_perfect_and_failed_poses() -> None:
    assert auc([0, 0, 0], [5, 10]) == [1, 1]
    assert auc([np.inf, np.nan], [5, 10]) == [0, 0]
    # The curve jumps to 1/2 at 0 and stays there.
    assert auc([0, np.inf], [5, 10]) == [0.5, 0.5]


def test_auc_is_the_area_under_straight_lines() -> None:
    # From (0, 0) straight to (2, 1), then flat until 10: 1 + 8 over 10.
    assert auc([2], [10]) == pytest.approx([0.9])
    # (0, 0), (2, 1/2), (4, 1) are on one line; cut at 3, the last recall, 1/2, holds.
    assert auc([4, 2], [3, 4, 8]) == pytest.approx([1 / 3, 0.375, 0.75])


def test_auc_counts_no_error_beyond_the_threshold() -> None:
    assert auc([6, 7], [5]) == [0]
    assert all(np.isnan(auc([], [5, 10])))


# --- relative pose ---


def test_relative_pose_error_has_two_angles() -> None:
    true = Pose(IDENTITY, np.array([1.0, 0, 0]))
    found = Pose(turn_about_z(12), np.array([-np.cos(0.1), -np.sin(0.1), 0]) * 7)
    rotation_deg, translation_deg = relative_pose_error_deg(found, true)
    assert rotation_deg == pytest.approx(12)
    assert translation_deg == pytest.approx(np.degrees(0.1))


def test_relative_pose_error_without_a_baseline() -> None:
    still, moved = Pose(IDENTITY, np.zeros(3)), Pose(IDENTITY, np.array([0, 0, 1.0]))
    assert relative_pose_error_deg(moved, still) == (0, 0)
    assert relative_pose_error_deg(still, moved) == (0, 90)


# --- models ---

WORLD_FROM_MODEL = Similarity(
    2.5, rotation_from_quaternion([1, 2, -3, 4]), np.array([10.0, -20, 5])
)


def circle_of_cameras(count: int) -> dict[str, Pose]:
    """Cameras on a circle of radius 10 that look at its middle, from varied heights."""
    angles = np.arange(count) * 2 * np.pi / count
    return {
        f"{i:03}.jpg": look_at(
            np.array([10 * np.cos(a), 10 * np.sin(a), np.sin(3 * a)]), np.zeros(3)
        )
        for i, a in enumerate(angles)
    }


def into_model_frame(truth: Mapping[str, Pose]) -> dict[str, Pose]:
    """Express the same cameras in a frame that WORLD_FROM_MODEL maps to the world."""
    s = WORLD_FROM_MODEL
    poses = {}
    for name, pose in truth.items():
        centre = s.rotation.T @ (pose.centre - s.translation) / s.scale
        rotation = pose.rotation @ s.rotation
        poses[name] = Pose(rotation, -rotation @ centre)
    return poses


def displace(pose: Pose, offset: np.ndarray) -> Pose:
    return Pose(pose.rotation, -pose.rotation @ (pose.centre + offset))


@pytest.mark.parametrize("count", [3, 4, 5, 40])
def test_a_perfect_model_in_another_frame_has_no_error(count: int) -> None:
    truth = circle_of_cameras(count)
    errors = model_errors(into_model_frame(truth), truth)
    assert (errors.registered, errors.expected) == (count, count)
    assert max(errors.centre_errors.values()) < 1e-9
    assert max(errors.rotation_errors_deg.values()) < 1e-6
    assert errors.median_centre_share < 1e-9


def test_the_diameter_is_that_of_the_true_centres() -> None:
    truth = {
        str(i): Pose(IDENTITY, np.array(t, dtype=np.float64))
        for i, t in enumerate([[0, 0, 0], [3, 0, 0], [0, 4, 0]])
    }
    assert model_errors({}, truth).diameter == 5


def test_grossly_wrong_cameras_do_not_bend_the_alignment() -> None:
    truth = circle_of_cameras(20)
    poses = into_model_frame(truth)
    rng = np.random.default_rng(4)
    wrong = sorted(rng.choice(sorted(poses), 8, replace=False).tolist())
    for name in wrong:
        poses[name] = displace(poses[name], rng.normal(size=3) * 1000)
    errors = model_errors(poses, truth)
    good = [error for name, error in errors.centre_errors.items() if name not in wrong]
    assert max(good) < 1e-8
    assert min(errors.centre_errors[name] for name in wrong) > 100
    assert errors.median_centre_error < 1e-8


def test_known_displacements_are_measured_in_the_unit_of_the_truth() -> None:
    truth = circle_of_cameras(21)
    poses = into_model_frame(truth)
    names = sorted(poses)
    # 1 unit of the model is 2.5 of the truth; the other cameras hold the frame.
    poses[names[3]] = displace(poses[names[3]], np.array([0, 0.6, 0.8]))
    tilted = poses[names[5]]
    tilt = turn_about_z(20)
    poses[names[5]] = Pose(tilt @ tilted.rotation, tilt @ tilted.translation)
    errors = model_errors(poses, truth)
    assert errors.centre_errors[names[3]] == pytest.approx(2.5)
    assert errors.rotation_errors_deg[names[5]] == pytest.approx(20)
    assert errors.centre_errors[names[5]] == pytest.approx(0, abs=1e-8)


def test_noise_gives_a_median_of_its_size() -> None:
    truth = circle_of_cameras(60)
    rng = np.random.default_rng(2)
    poses = {
        name: displace(pose, rng.normal(size=3) * 0.01)
        for name, pose in into_model_frame(truth).items()
    }
    errors = model_errors(poses, truth)
    # The median length of a normal vector in space is 1.538 standard deviations.
    assert errors.median_centre_error == pytest.approx(1.538 * 0.025, rel=0.25)
    assert errors.median_centre_share == errors.median_centre_error / errors.diameter
    assert errors.median_rotation_error_deg < 0.1
    again = model_errors(poses, truth)
    assert again == errors


def test_cameras_on_a_line_are_aligned_by_their_rotations() -> None:
    truth = {
        str(i): look_at(np.array([float(i), 0, 0]), np.array([i + 1.0, 3, 0.5]))
        for i in range(6)
    }
    poses = into_model_frame(truth)
    poses["4"] = displace(poses["4"], np.array([50.0, 9, 3]))
    errors = model_errors(poses, truth)
    assert max(errors.rotation_errors_deg.values()) < 1e-5
    assert errors.centre_errors["2"] < 1e-9
    assert errors.centre_errors["4"] > 50


@pytest.mark.parametrize("common", [0, 1, 2])
def test_too_few_common_cameras_are_nan(common: int) -> None:
    truth = circle_of_cameras(6)
    poses = dict(list(truth.items())[:common]) | {"stranger.jpg": truth["000.jpg"]}
    errors = model_errors(poses, truth)
    assert (errors.registered, errors.expected) == (common, 6)
    assert np.isnan(errors.median_centre_error)
    assert np.isnan(errors.median_rotation_error_deg)
    assert np.isnan(errors.median_centre_share)
    assert np.isnan(model_errors({}, {}).diameter)


def test_coinciding_cameras_do_not_raise() -> None:
    same = {str(i): Pose(IDENTITY, np.zeros(3)) for i in range(5)}
    errors = model_errors(same, same)
    assert errors.median_centre_error == 0
    assert errors.diameter == 0
    assert np.isnan(errors.median_centre_share)
    assert model_errors(same, circle_of_cameras(5)).registered == 0
    collapsed = dict.fromkeys(circle_of_cameras(5), same["0"])
    assert model_errors(collapsed, circle_of_cameras(5)).median_centre_error > 5


# --- homographies ---


def test_corner_error_of_a_shift_is_its_length() -> None:
    assert homography_corner_error(shift_by(3, 4), IDENTITY, (640, 480)) == 5
    assert homography_corner_error(IDENTITY * -2, IDENTITY, (640, 480)) == 0
    # Twice as large about the top-left corner: corners move 0, 6, 8 and 10 px.
    doubled = np.diag([2.0, 2, 1])
    assert homography_corner_error(doubled, IDENTITY, (7, 9)) == 6
    assert homography_corner_error(None, IDENTITY, (7, 9)) == np.inf


def test_corners_are_of_width_by_height() -> None:
    # Only x is doubled: corners move 0, 6, 6 and 0 px.
    assert homography_corner_error(np.diag([2.0, 1, 1]), IDENTITY, (7, 9)) == 3


def test_corner_on_the_horizon_is_infinitely_wrong() -> None:
    through_corner = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0.0]])
    assert homography_corner_error(through_corner, IDENTITY, (7, 9)) == np.inf


# --- keypoints ---


def test_repeatability_counts_only_what_both_images_see() -> None:
    # Image b shows what lies 10 px further right in a: x_b = x_a - 10.
    mapping = KnownMapping.from_homography(shift_by(-10, 0), (20, 20), (20, 20))
    a = np.array([[12, 5], [15, 5], [18, 5], [3, 5]], np.float32)
    b = np.array([[2, 5], [5, 9], [15, 5]], np.float32)
    # Co-visible: three of a, two of b; (12, 5) is (2, 5) again and (5, 9) is 4 px off.
    assert repeatability(a, b, mapping, 3.0) == 0.5
    assert repeatability(a, b, mapping, 4.0) == 1.0


def test_repeatability_is_one_to_one_and_symmetric() -> None:
    mapping = KnownMapping.from_homography(IDENTITY, (50, 50), (50, 50))
    crowd = np.array([[10, 10], [10, 11], [11, 10], [30, 30]], np.float32)
    lone = np.array([[10, 10], [40, 40]], np.float32)
    assert repeatability(crowd, lone, mapping) == 0.5
    assert repeatability(lone, crowd, mapping) == 0.5


def test_repeatability_measures_in_both_images() -> None:
    # 2 px in a are 6 px in b.
    mapping = KnownMapping.from_homography(np.diag([3.0, 3, 1]), (50, 50), (150, 150))
    a, b = np.array([[10.0, 10]]), np.array([[36.0, 30]])
    assert repeatability(a, b, mapping, 5) == 0
    assert repeatability(a, b, mapping, 6) == 1


def test_repeatability_of_many_keypoints_is_the_share_that_was_kept() -> None:
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(0, 480, 8), np.arange(0, 480, 8)), axis=-1)
    a = rng.permutation(grid.reshape(-1, 2)).astype(np.float32)
    b = a[:2700] + rng.uniform(-1, 1, (2700, 2)).astype(np.float32)
    b = np.concatenate([b, a[2700:] + 4])
    mapping = KnownMapping.from_homography(IDENTITY, (480, 480), (480, 480))
    inside = (a[2700:] + 4 <= 479.5).all(axis=1).sum() + (
        (b[:2700] >= -0.5) & (b[:2700] <= 479.5)
    ).all(axis=1).sum()
    kept = ((b[:2700] >= -0.5) & (b[:2700] <= 479.5)).all(axis=1).sum()
    assert repeatability(a, b, mapping, 1.5) == pytest.approx(kept / inside)


def test_nothing_co_visible_is_nan() -> None:
    apart = KnownMapping.from_homography(shift_by(100, 0), (20, 20), (20, 20))
    a = np.array([[1.0, 1]])
    matches = np.array([[0, 0]], np.int32)
    assert np.isnan(repeatability(a, a, apart))
    assert np.isnan(matching_score(a, a, matches, apart))
    assert matching_accuracy(a, a, matches, apart) == 0
    nobody = np.empty((0, 2), np.float32)
    here = KnownMapping.from_homography(IDENTITY, (20, 20), (20, 20))
    assert np.isnan(repeatability(nobody, a, here))
    assert repeatability(a, a + 10, here) == 0


def test_matches_are_judged_by_the_mapping() -> None:
    mapping = KnownMapping.from_homography(shift_by(-10, 0), (20, 20), (20, 20))
    a = np.array([[12, 5], [15, 5], [18, 5], [3, 5]], np.float32)
    b = np.array([[2, 5], [5, 7], [15, 5]], np.float32)
    matches = np.array([[0, 0], [1, 1], [3, 2]], np.int32)
    # Errors are 0, 2 and 22 px; two keypoints of b can be seen in a.
    assert matching_accuracy(a, b, matches, mapping, 3) == pytest.approx(2 / 3)
    assert matching_accuracy(a, b, matches, mapping, 1) == pytest.approx(1 / 3)
    assert matching_score(a, b, matches, mapping, 3) == 1
    assert matching_score(a, b, matches, mapping, 1) == 0.5
    repeated = np.array([[0, 0], [0, 0], [0, 0]], np.int32)
    assert matching_score(a, b, repeated, mapping) == 0.5
    none = np.empty((0, 2), np.int32)
    assert matching_score(a, b, none, mapping) == 0
    assert np.isnan(matching_accuracy(a, b, none, mapping))


def test_matches_without_a_truth_are_left_out() -> None:
    def only_left_half(xy: np.ndarray) -> np.ndarray:
        return np.where(xy[:, :1] < 10, xy, np.nan)

    mapping = KnownMapping(only_left_half, only_left_half, (20, 20), (20, 20))
    a = np.array([[2, 2], [5, 5], [15, 5]], np.float32)
    b = np.array([[2, 2], [9, 9], [15, 5]], np.float32)
    matches = np.array([[0, 0], [1, 1], [2, 2]], np.int32)
    assert matching_accuracy(a, b, matches, mapping) == 0.5
    assert matching_score(a, b, matches, mapping) == 0.5
    assert repeatability(a, b, mapping) == 0.5


def test_matches_of_what_only_one_image_sees_are_not_right() -> None:
    mapping = KnownMapping.from_homography(shift_by(-10, 0), (20, 20), (20, 20))
    a = np.array([[12, 5], [9, 5]], np.float32)  # the second lands at x = -1
    b = np.array([[2, 5], [0, 5]], np.float32)
    matches = np.array([[0, 0], [1, 1]], np.int32)
    assert matching_score(a, b, matches, mapping, 3) == 1
