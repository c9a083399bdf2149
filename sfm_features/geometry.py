"""Cameras, rigid motions, similarities and homographies, in numpy alone.

`Camera.params` live in COLMAP's pixel frame and everything else in ours, so the shift
by `PIXEL_CENTRE` happens in `project`, `unproject`, `calibration_matrix` and
`opencv_parameters` only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfm_features.errors import OptionError
from sfm_features.types import F64, PIXEL_CENTRE, Camera, Pose

# Where each model keeps fx, fy, cx, cy and, from there on, k1, k2, p1, p2.
_LAYOUTS: dict[str, tuple[tuple[int, int, int, int], int]] = {
    "SIMPLE_PINHOLE": ((0, 0, 1, 2), 3),
    "PINHOLE": ((0, 1, 2, 3), 4),
    "SIMPLE_RADIAL": ((0, 0, 1, 2), 4),
    "RADIAL": ((0, 0, 1, 2), 5),
    "OPENCV": ((0, 1, 2, 3), 8),
}
_NEWTON_STEPS = 50
_NEWTON_TOLERANCE = 1e-13


@dataclass(frozen=True)
class _Intrinsics:
    """A camera's parameters by meaning; the principal point is in our pixel frame."""

    focal: F64
    principal: F64
    distortion: F64


def project(camera: Camera, points_in_camera: F64) -> F64:
    """Project points (N, 3) of the camera's frame to pixels (N, 2).

    A point that is not in front of the camera gets nan.
    """
    intrinsics = _read_intrinsics(camera)
    points = np.asarray(points_in_camera, dtype=np.float64)
    depth = np.where(points[:, 2] > 0, points[:, 2], np.nan)
    uv = points[:, :2] / depth[:, None]
    if intrinsics.distortion.any():
        uv = np.stack(_distort(uv[:, 0], uv[:, 1], intrinsics.distortion)[:2], axis=1)
    return uv * intrinsics.focal + intrinsics.principal


def unproject(camera: Camera, xy: F64) -> F64:
    """Turn pixels (N, 2) into rays (N, 3) with z = 1 in the camera's frame.

    A pixel that no ray reaches, past the fold of a strong barrel distortion, gets nan.
    """
    intrinsics = _read_intrinsics(camera)
    rays = np.ones((len(xy), 3))
    uv = (np.asarray(xy, dtype=np.float64) - intrinsics.principal) / intrinsics.focal
    if intrinsics.distortion.any():
        with np.errstate(over="ignore", invalid="ignore"):
            uv = _undistort(uv, intrinsics.distortion)
    rays[:, :2] = uv
    return rays


def calibration_matrix(camera: Camera) -> F64:
    """Return (3, 3) pixel-from-ray, in our pixel frame, distortion left out."""
    intrinsics = _read_intrinsics(camera)
    matrix = np.diag([*intrinsics.focal, 1.0])
    matrix[:2, 2] = intrinsics.principal
    return matrix


def opencv_parameters(camera: Camera) -> dict[str, float]:
    """Return fx, fy, cx, cy, in COLMAP's pixel frame, and OpenCV's k1, k2, p1, p2."""
    intrinsics = _read_intrinsics(camera)
    principal = intrinsics.principal + PIXEL_CENTRE
    values = (*intrinsics.focal, *principal, *intrinsics.distortion)
    names = ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2")
    return dict(zip(names, map(float, values), strict=True))


def look_at(centre: F64, target: F64, up: Sequence[float] | F64 = (0, 0, 1)) -> Pose:
    """Return cam_from_world of a camera at `centre` that looks at `target`.

    The camera's x points right, y down and z forward. Looking along `up`, where "right"
    has no meaning, another axis takes its place.
    """
    centre = np.asarray(centre, dtype=np.float64)
    forward = np.asarray(target, dtype=np.float64) - centre
    distance = np.linalg.norm(forward)
    assert distance > 0, "the camera stands on its target"
    forward /= distance
    unit_up = np.asarray(up, dtype=np.float64) / np.linalg.norm(up)
    right = np.cross(forward, unit_up)
    if np.linalg.norm(right) < 1e-9:
        right = np.cross(forward, np.eye(3)[np.argmin(np.abs(forward))])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return Pose(rotation, -rotation @ centre)


def compose(a_from_b: Pose, b_from_c: Pose) -> Pose:
    """Return a_from_c."""
    return Pose(
        a_from_b.rotation @ b_from_c.rotation,
        a_from_b.rotation @ b_from_c.translation + a_from_b.translation,
    )


def invert(a_from_b: Pose) -> Pose:
    """Return b_from_a."""
    rotation = a_from_b.rotation.T
    return Pose(rotation, -rotation @ a_from_b.translation)


def rotation_angle_deg(rotation: F64) -> float:
    """Return the angle of a rotation (3, 3), from 0 to 180, exact for tiny ones too."""
    # The arc cosine of the trace alone would lose everything under 1e-6 degrees.
    twice_sine = np.linalg.norm(_vee(rotation))
    return float(np.degrees(np.arctan2(twice_sine, np.trace(rotation) - 1)))


def quaternion_wxyz(rotation: F64) -> F64:
    """Return the unit quaternion (4,) of a rotation (3, 3), with w >= 0."""
    r = np.asarray(rotation, dtype=np.float64)
    trace = np.trace(r)
    # Each row is 4 q q_i; the row with the largest diagonal is the most precise.
    outer = np.empty((4, 4))
    outer[0, 0] = 1 + trace
    outer[0, 1:] = outer[1:, 0] = _vee(r)
    outer[1:, 1:] = r + r.T + (1 - trace) * np.eye(3)
    row: F64 = outer[np.argmax(np.diag(outer))]
    row = row / np.linalg.norm(row)
    return -row if row[0] < 0 else row


def rotation_from_quaternion(wxyz: Sequence[float] | F64) -> F64:
    """Return the rotation (3, 3) of a quaternion (4,) of any length but zero."""
    q = np.asarray(wxyz, dtype=np.float64)
    length = np.linalg.norm(q)
    assert length > 0, "a zero quaternion is no rotation"
    q = q / length
    cross = skew(q[1:])
    rotation: F64 = np.eye(3) + 2 * q[0] * cross + 2 * cross @ cross
    return rotation


def skew(vector: F64) -> F64:
    """Return the matrix (3, 3) that multiplies as the cross product with `vector`."""
    x, y, z = vector
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=np.float64)


def essential_from_poses(a_from_world: Pose, b_from_world: Pose) -> F64:
    """Return E (3, 3) with ray_b^T E ray_a = 0."""
    b_from_a = compose(b_from_world, invert(a_from_world))
    essential: F64 = skew(b_from_a.translation) @ b_from_a.rotation
    return essential


def fundamental_from_poses(
    camera_a: Camera, a_from_world: Pose, camera_b: Camera, b_from_world: Pose
) -> F64:
    """Return F (3, 3) with xy_b^T F xy_a = 0 for homogeneous pixels of our frame."""
    for camera in (camera_a, camera_b):
        if _read_intrinsics(camera).distortion.any():
            raise OptionError(
                f"camera model {camera.model}: a fundamental matrix needs a camera "
                "without distortion; unproject the points and use the essential matrix"
            )
    essential = essential_from_poses(a_from_world, b_from_world)
    ray_from_a = np.linalg.inv(calibration_matrix(camera_a))
    ray_from_b = np.linalg.inv(calibration_matrix(camera_b))
    fundamental: F64 = ray_from_b.T @ essential @ ray_from_a
    return fundamental


@dataclass(frozen=True)
class Similarity:
    """A transform target_from_source: scale * rotation @ source + translation."""

    scale: float
    rotation: F64
    translation: F64

    def apply(self, points: F64) -> F64:
        """Transform points (N, 3)."""
        moved: F64 = self.scale * points @ self.rotation.T + self.translation
        return moved


def align_similarity(source: F64, target: F64) -> Similarity:
    """Return the similarity that maps source (N, 3) onto target with least squares.

    Never a reflection. Points that all coincide leave scale and rotation open: they
    are then 1 and the identity.
    """
    assert source.shape == target.shape and len(source) > 0, (
        source.shape,
        target.shape,
    )
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    source_rest, target_rest = source - source_mean, target - target_mean
    u, singular, vt = np.linalg.svd(target_rest.T @ source_rest)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    spread = (source_rest**2).sum()
    scale, rotation = 1.0, np.eye(3)
    if spread > 0 and singular[0] > 0:
        rotation = (u * signs) @ vt
        scale = float(singular @ signs / spread)
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)


def warp_points(homography: F64, xy: NDArray[np.floating[Any]]) -> F64:
    """Map pixels (N, 2) through a homography (3, 3); the horizon itself goes to nan."""
    mapped = xy @ homography[:, :2].T + homography[:, 2]
    weight = np.where(mapped[:, 2:] == 0, np.nan, mapped[:, 2:])
    return np.asarray(mapped[:, :2] / weight, dtype=np.float64)


def _read_intrinsics(camera: Camera) -> _Intrinsics:
    if camera.model not in _LAYOUTS:
        raise OptionError(
            f"camera model {camera.model!r} is not supported; "
            f"choose one of {', '.join(_LAYOUTS)}"
        )
    pinhole, count = _LAYOUTS[camera.model]
    if len(camera.params) != count:
        raise OptionError(
            f"camera model {camera.model} has {count} parameters, "
            f"got {len(camera.params)}; check the camera's line"
        )
    fx, fy, cx, cy = (camera.params[i] for i in pinhole)
    distortion = np.zeros(4)
    extra = camera.params[max(pinhole) + 1 :]
    distortion[: len(extra)] = extra
    principal = np.array([cx, cy], dtype=np.float64) - PIXEL_CENTRE
    return _Intrinsics(np.array([fx, fy], dtype=np.float64), principal, distortion)


def _distort(u: F64, v: F64, distortion: F64) -> tuple[F64, F64, F64, F64, F64]:
    """Return distorted u, v (N,) and the symmetric Jacobian's uu, uv, vv (N,)."""
    k1, k2, p1, p2 = distortion
    uu, uv, vv = u * u, u * v, v * v
    r2 = uu + vv
    radial = 1 + r2 * (k1 + r2 * k2)
    slope = 2 * (k1 + 2 * k2 * r2)
    distorted_u = u * radial + 2 * p1 * uv + p2 * (r2 + 2 * uu)
    distorted_v = v * radial + 2 * p2 * uv + p1 * (r2 + 2 * vv)
    jacobian_uu = radial + slope * uu + 2 * p1 * v + 6 * p2 * u
    jacobian_uv = slope * uv + 2 * (p1 * u + p2 * v)
    jacobian_vv = radial + slope * vv + 2 * p2 * u + 6 * p1 * v
    return distorted_u, distorted_v, jacobian_uu, jacobian_uv, jacobian_vv


def _undistort(uv: F64, distortion: F64) -> F64:
    """Invert `_distort` for (N, 2) by Newton's method; nan where no inverse exists."""
    result = np.full_like(uv, np.nan)
    open_rows = np.arange(len(uv))
    u, v = uv.T.copy()
    goal_u, goal_v = u, v
    for _ in range(_NEWTON_STEPS):
        du, dv, a, b, c = _distort(u, v, distortion)
        du, dv = du - goal_u, dv - goal_v
        determinant = a * c - b * b
        # Past the fold the image turns inside out: a root found there is not the ray.
        upright = (determinant > 0) & (a + c > 0)
        done = abs(du) + abs(dv) <= _NEWTON_TOLERANCE * (1 + abs(u) + abs(v))
        result[open_rows[done & upright]] = np.stack([u, v], axis=1)[done & upright]
        keep = ~done & (determinant != 0)
        if not keep.any():
            break
        u, v, goal_u, goal_v, du, dv, a, b, c, determinant = (
            x[keep] for x in (u, v, goal_u, goal_v, du, dv, a, b, c, determinant)
        )
        open_rows = open_rows[keep]
        u = u - (c * du - b * dv) / determinant
        v = v - (a * dv - b * du) / determinant
    return result


def _vee(rotation: F64) -> F64:
    """Return (3,) the axis of a rotation times twice the sine of its angle."""
    skewed = rotation - rotation.T
    return np.array([skewed[2, 1], skewed[0, 2], skewed[1, 0]])
