"""Geometry against closed forms, its own inverses and pycolmap's cameras."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pycolmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sfm_features.errors import OptionError
from sfm_features.geometry import (
    Similarity,
    align_similarity,
    calibration_matrix,
    compose,
    essential_from_poses,
    fundamental_from_poses,
    invert,
    look_at,
    project,
    quaternion_wxyz,
    rotation_angle_deg,
    rotation_from_quaternion,
    skew,
    unproject,
    warp_points,
)
from sfm_features.types import PIXEL_CENTRE, Camera, Pose

CAMERAS = [
    Camera("SIMPLE_PINHOLE", 640, 480, (500.0, 320.0, 240.0)),
    Camera("PINHOLE", 640, 480, (500.0, 510.0, 321.0, 237.0)),
    Camera("SIMPLE_RADIAL", 640, 480, (500.0, 320.0, 240.0, -0.15)),
    Camera("RADIAL", 640, 480, (500.0, 320.0, 240.0, -0.2, 0.07)),
    Camera("OPENCV", 640, 480, (500.0, 510.0, 321.0, 237.0, 0.1, -0.02, 0.003, -0.004)),
]
by_model = pytest.mark.parametrize("camera", CAMERAS, ids=lambda c: c.model)

finite = st.floats(-10, 10, allow_nan=False, width=32)
vectors = hnp.arrays(np.float64, 3, elements=finite)
quaternions = hnp.arrays(np.float64, 4, elements=finite).filter(
    lambda q: np.linalg.norm(q) > 1e-3
)
poses = st.builds(
    lambda q, t: Pose(rotation_from_quaternion(q), t), quaternions, vectors
)
point_clouds = st.integers(4, 20).flatmap(
    lambda count: st.integers(0, 2**32 - 1).map(
        lambda seed: np.random.default_rng(seed).normal(size=(count, 3))
    )
)


def grid_xy(camera: Camera, step: int = 20) -> np.ndarray:
    x, y = np.meshgrid(
        np.arange(0, camera.width, step), np.arange(0, camera.height, 20)
    )
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float64)


@by_model
def test_project_agrees_with_colmap(camera: Camera) -> None:
    rng = np.random.default_rng(1)
    points = np.column_stack([rng.uniform(-2, 2, (200, 2)), rng.uniform(4, 9, 200)])
    reference = pycolmap.Camera(
        model=camera.model,
        width=camera.width,
        height=camera.height,
        params=list(camera.params),
    )
    expected = np.asarray(reference.img_from_cam(points)) - PIXEL_CENTRE
    np.testing.assert_allclose(project(camera, points), expected, atol=1e-9)


@by_model
def test_unproject_inverts_project(camera: Camera) -> None:
    xy = grid_xy(camera)
    rays = unproject(camera, xy)
    assert (rays[:, 2] == 1).all()
    np.testing.assert_allclose(project(camera, 3.5 * rays), xy, atol=1e-9)


@by_model
def test_no_points_are_no_pixels(camera: Camera) -> None:
    assert project(camera, np.empty((0, 3))).shape == (0, 2)
    assert unproject(camera, np.empty((0, 2))).shape == (0, 3)


def test_the_optical_axis_meets_the_middle_of_the_pixel_grid() -> None:
    camera = Camera("SIMPLE_PINHOLE", 3, 5, (10.0, 1.5, 2.5))
    np.testing.assert_array_equal(project(camera, np.array([[0, 0, 2.0]])), [[1, 2]])


def test_points_behind_the_camera_have_no_pixel() -> None:
    points = np.array([[0, 0, 1.0], [0, 0, -1.0], [1, 1, 0.0]])
    for camera in CAMERAS:
        assert np.isnan(project(camera, points)).any(axis=1).tolist() == [
            False,
            True,
            True,
        ]


def test_unproject_refuses_pixels_past_the_fold() -> None:
    # r (1 - r^2 / 2) peaks at r = sqrt(2/3), where it is 0.5443: 54.43 px.
    camera = Camera("SIMPLE_RADIAL", 200, 200, (100.0, 100.0, 100.0, -0.5))
    centre = 100 - PIXEL_CENTRE
    radii = np.array([0, 30, 54.4, 54.5, 90, 500])
    xy = np.column_stack([centre + radii, np.full(6, centre)])
    rays = unproject(camera, xy)
    assert np.isnan(rays[:, 0]).tolist() == [False] * 3 + [True] * 3
    assert rays[2, 0] < np.sqrt(2 / 3)
    np.testing.assert_allclose(project(camera, rays[:3]), xy[:3], atol=1e-9)


def test_unproject_takes_a_million_points_in_seconds() -> None:
    camera = CAMERAS[-1]
    xy = np.random.default_rng(0).uniform(0, 480, (1_000_000, 2))
    started = time.perf_counter()
    rays = unproject(camera, xy)
    assert time.perf_counter() - started < 5
    assert np.isfinite(rays).all()


def test_unknown_models_and_wrong_counts_are_named() -> None:
    with pytest.raises(OptionError, match="FISHEYE.*SIMPLE_RADIAL"):
        project(Camera("FISHEYE", 4, 4, (1.0, 2.0, 2.0)), np.ones((1, 3)))
    with pytest.raises(OptionError, match="PINHOLE has 4 parameters, got 3"):
        unproject(Camera("PINHOLE", 4, 4, (1.0, 2.0, 2.0)), np.ones((1, 2)))


def test_look_at_points_x_right_and_y_down() -> None:
    cam_from_world = look_at(np.array([0, -5.0, 1]), np.array([0, 0, 1.0]))
    seen = np.array([[0, 0, 1.0], [1, 0, 1], [0, 0, 2]])
    seen_in_camera = seen @ cam_from_world.rotation.T + cam_from_world.translation
    expected = [[0, 0, 5], [1, 0, 5], [0, -1, 5]]
    np.testing.assert_allclose(seen_in_camera, expected, atol=1e-12)
    np.testing.assert_allclose(cam_from_world.centre, [0, -5, 1], atol=1e-12)


def test_look_at_survives_looking_along_up() -> None:
    rotation = look_at(np.zeros(3), np.array([0, 0, -3.0])).rotation
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    np.testing.assert_allclose(rotation[2], [0, 0, -1], atol=1e-12)


@given(poses, poses, vectors)
def test_compose_and_invert_act_like_the_motions(
    a: Pose, b: Pose, x: np.ndarray
) -> None:
    def move(pose: Pose, point: np.ndarray) -> np.ndarray:
        return pose.rotation @ point + pose.translation

    np.testing.assert_allclose(move(compose(a, b), x), move(a, move(b, x)), atol=1e-9)
    np.testing.assert_allclose(move(invert(a), move(a, x)), x, atol=1e-9)


@pytest.mark.parametrize("angle", [0, 1e-12, 1e-7, 1e-3, 30, 90, 179.9999, 180])
def test_rotation_angle_is_exact_at_both_ends(angle: float) -> None:
    half = np.radians(angle) / 2
    axis = np.array([2, -3, 6]) / 7
    rotation = rotation_from_quaternion([np.cos(half), *(np.sin(half) * axis)])
    assert rotation_angle_deg(rotation) == pytest.approx(angle, rel=1e-6, abs=1e-14)


def test_quaternions_turn_the_right_way() -> None:
    half = np.sqrt(0.5)
    quarter_turn_about_z = rotation_from_quaternion([half, 0, 0, half])
    np.testing.assert_allclose(quarter_turn_about_z @ [1, 0, 0], [0, 1, 0], atol=1e-12)


@given(quaternions)
def test_quaternions_come_back(q: np.ndarray) -> None:
    rotation = rotation_from_quaternion(q)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    back = quaternion_wxyz(rotation)
    assert back[0] >= 0
    np.testing.assert_allclose(rotation_from_quaternion(back), rotation, atol=1e-12)


@given(quaternions)
def test_quaternions_agree_with_colmap(q: np.ndarray) -> None:
    xyzw = np.roll(q / np.linalg.norm(q), -1)
    reference = pycolmap.Rotation3d(xyzw).matrix()
    np.testing.assert_allclose(rotation_from_quaternion(q), reference, atol=1e-12)


@given(vectors, vectors)
def test_skew_is_the_cross_product(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(skew(a) @ b, np.cross(a, b), atol=1e-9)


def two_views() -> tuple[np.ndarray, Pose, Pose]:
    points = np.random.default_rng(3).uniform(-1, 1, (30, 3))
    a = look_at(np.array([4, 0.5, 1]), np.zeros(3))
    b = look_at(np.array([3, 3, 0.2]), np.array([0.1, 0, 0]))
    return points, a, b


def move_points(pose: Pose, points: np.ndarray) -> np.ndarray:
    return points @ pose.rotation.T + pose.translation


def test_epipolar_constraints_hold() -> None:
    points, a, b = two_views()
    in_a, in_b = move_points(a, points), move_points(b, points)
    essential = essential_from_poses(a, b)
    residual = np.einsum("ni,ij,nj->n", in_b, essential, in_a)
    np.testing.assert_allclose(residual, 0, atol=1e-9)

    camera_a, camera_b = CAMERAS[:2]
    fundamental = fundamental_from_poses(camera_a, a, camera_b, b)
    xy_a = np.column_stack([project(camera_a, in_a), np.ones(30)])
    xy_b = np.column_stack([project(camera_b, in_b), np.ones(30)])
    lines = xy_a @ fundamental.T
    distance_px = (xy_b * lines).sum(axis=1) / np.linalg.norm(lines[:, :2], axis=1)
    np.testing.assert_allclose(distance_px, 0, atol=1e-9)


def test_fundamental_refuses_distortion() -> None:
    _, a, b = two_views()
    with pytest.raises(OptionError, match="SIMPLE_RADIAL.*without distortion"):
        fundamental_from_poses(CAMERAS[2], a, CAMERAS[0], b)


def test_calibration_matrix_is_the_pinhole_projection() -> None:
    camera, points = CAMERAS[1], np.array([[0.3, -0.2, 2.0], [1, 1, 4]])
    by_matrix = points @ calibration_matrix(camera).T
    expected = by_matrix[:, :2] / by_matrix[:, 2:]
    np.testing.assert_allclose(project(camera, points), expected, atol=1e-12)


@settings(max_examples=50)
@given(point_clouds, quaternions, vectors, st.floats(0.01, 100))
def test_similarity_is_recovered(
    source: np.ndarray, q: np.ndarray, translation: np.ndarray, scale: float
) -> None:
    true = Similarity(scale, rotation_from_quaternion(q), translation)
    found = align_similarity(source, true.apply(source))
    assert found.scale == pytest.approx(scale)
    np.testing.assert_allclose(found.rotation, true.rotation, atol=1e-6)
    np.testing.assert_allclose(
        found.apply(source), true.apply(source), atol=1e-8 * max(1, scale)
    )


def test_similarity_of_a_mirrored_or_flat_cloud_is_no_reflection() -> None:
    source = np.random.default_rng(5).normal(size=(12, 3))
    for target in (source * [1, 1, -1], source * [1, 1, 0]):
        found = align_similarity(source, target)
        assert np.linalg.det(found.rotation) == pytest.approx(1)
    flat = source * [1, 1, 0]
    turned = flat @ rotation_from_quaternion([1, 2, 3, 4]).T
    found = align_similarity(flat, turned)
    assert np.linalg.det(found.rotation) == pytest.approx(1)
    np.testing.assert_allclose(found.apply(flat), turned, atol=1e-12)


def test_the_scale_of_a_mirrored_or_flat_cloud_leaves_the_least_squares() -> None:
    source = np.random.default_rng(5).normal(size=(12, 3))
    middle = source.mean(axis=0)
    for target in (source * [1, 1, -1], source * [1, 1, 0]):
        found = align_similarity(source, target)
        least = np.square(found.apply(source) - target).sum()
        for scale in (0.98 * found.scale, 1.02 * found.scale):
            translation = target.mean(axis=0) - scale * found.rotation @ middle
            other = replace(found, scale=scale, translation=translation)
            assert least < np.square(other.apply(source) - target).sum()


def test_similarity_of_coinciding_points_only_moves() -> None:
    found = align_similarity(np.ones((3, 3)), np.full((3, 3), 4.0))
    assert found.scale == 1
    np.testing.assert_array_equal(found.rotation, np.eye(3))
    np.testing.assert_array_equal(found.translation, [3, 3, 3])


def test_warp_points_divides_by_the_third_coordinate() -> None:
    homography = np.array([[2, 0, 1], [0, 2, -1], [0.5, 0, 1.0]])
    warped = warp_points(homography, np.array([[2, 3.0], [-2, 1]]))
    np.testing.assert_allclose(warped[0], [2.5, 2.5])
    assert np.isnan(warped[1]).all()
