"""Photographs of capsules and boxes, with exact depth: small and fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sfm_features.geometry import look_at
from sfm_features.scenes.render import make_rays
from sfm_features.scenes.solids import (
    NEAR,
    Box,
    Capsule,
    look_up,
    meet_box,
    meet_capsule,
    wrap_box,
    wrap_capsule,
)
from sfm_features.types import F32, F64, U8, Bool, Camera, Pose


@dataclass(frozen=True)
class Light:
    """Where the sun is, how strong it is, and what light comes from everywhere."""

    towards: F64
    sun: float = 0.9
    sky: float = 0.45


@dataclass(frozen=True)
class Picture:
    """What is seen: rgb (H, W, 3) u8, depth (H, W) f32 (inf: nothing), tags (H, W) i16.

    Tags are those of the things, -1 where there is none.
    """

    rgb: U8
    depth: F32
    tags: NDArray[np.int16]


@dataclass
class _Seen:
    """Buffers (H, W) of one rendering."""

    depth: F32
    tags: NDArray[np.int16]
    colours: F32

    def copy(self) -> _Seen:
        """Return buffers to draw into, with the same content."""
        return _Seen(self.depth.copy(), self.tags.copy(), self.colours.copy())


@dataclass(frozen=True)
class _Rays:
    """Rays (H, W, 3) f32 of depth one in the world, from one point."""

    origin: F64
    directions: F32


@dataclass(frozen=True)
class Shot:
    """A camera, its place, the light, and how many rays a pixel has along each side."""

    camera: Camera
    cam_from_world: Pose
    light: Light
    samples: int = 2


@dataclass(frozen=True)
class Still:
    """What stands still before a camera, so that it need not be drawn for each view."""

    fine: _Seen
    exact: _Seen


def draw_still(things: Sequence[Capsule | Box], shot: Shot) -> Still:
    """Draw things that other ones will be drawn before."""
    fine = _cast(things, shot, shot.samples, lit=True)
    return Still(fine, _cast(things, shot, 1, lit=False))


def render_solids(
    things: Sequence[Capsule | Box], shot: Shot, still: Still | None = None
) -> Picture:
    """Render things; colours are averaged over the rays of a pixel."""
    camera = shot.camera
    fine = _cast(
        things, shot, shot.samples, lit=True, behind=still.fine if still else None
    )
    exact = _cast(things, shot, 1, lit=False, behind=still.exact if still else None)
    size = (camera.width, camera.height)
    colours = cv2.resize(fine.colours, size, interpolation=cv2.INTER_AREA)
    toned = np.clip(colours, 0, 1) ** np.float32(1 / 2.2)
    rgb = np.asarray(np.rint(toned * 255), np.uint8)
    return Picture(rgb, exact.depth, exact.tags)


def add_noise(rgb: U8, rng: np.random.Generator, sigma: float = 2.5) -> U8:
    """Add a camera's noise, and its small errors of exposure and balance."""
    gain = np.exp(rng.normal(0, 0.08) + rng.normal(0, 0.02, 3)).astype(np.float32)
    noise = sigma * rng.standard_normal(rgb.shape, dtype=np.float32)
    return np.asarray((rgb * gain + noise).clip(0, 255), np.uint8)


def aim_camera(
    size: tuple[int, int], focal: float, centre: F64, target: F64
) -> tuple[Camera, Pose]:
    """Make a pinhole camera (focal length in px) and point it at a target."""
    width, height = size
    params = (focal, width / 2, height / 2)
    return Camera("SIMPLE_PINHOLE", width, height, params), look_at(centre, target)


def _cast(
    things: Sequence[Capsule | Box],
    shot: Shot,
    samples: int,
    lit: bool,
    behind: _Seen | None = None,
) -> _Seen:
    camera, pose = shot.camera, shot.cam_from_world
    x, y = make_rays(camera, samples)
    rows = pose.rotation.astype(np.float32)
    right, down = (side.astype(np.float32)[..., None] for side in (x, y))
    rays = _Rays(pose.centre, right * rows[0] + down * rows[1] + rows[2])
    shape = rays.directions.shape[:2]
    seen = (
        behind.copy()
        if behind is not None
        else _Seen(
            np.full(shape, np.inf, np.float32),
            np.full(shape, -1, np.int16),
            np.zeros((*shape, 3), np.float32),
        )
    )
    for thing in things:
        block = _bound(thing, camera, pose, samples)
        if block is not None:
            _draw(thing, rays, block, shot.light if lit else None, seen)
    return seen


def _draw(
    thing: Capsule | Box,
    rays: _Rays,
    block: tuple[slice, slice],
    light: Light | None,
    seen: _Seen,
) -> None:
    directions = rays.directions[block]
    meet = meet_capsule if isinstance(thing, Capsule) else meet_box
    depth = meet(thing, rays.origin, directions)  # type: ignore[arg-type]  # by its kind
    nearer: Bool = (depth > NEAR) & (depth < seen.depth[block])
    if not nearer.any():
        return
    seen.depth[block][nearer] = depth[nearer]
    seen.tags[block][nearer] = thing.tag
    if light is None:
        return
    points = rays.origin + depth[nearer, None] * directions[nearer]
    place = wrap_capsule if isinstance(thing, Capsule) else wrap_box
    u, v, normals = place(thing, points)  # type: ignore[arg-type]  # as above
    shine = light.sky * (0.75 + 0.25 * normals[:, 2])
    shine += light.sun * np.maximum(normals @ light.towards, 0)
    albedo = look_up(thing.skin, u, v)
    seen.colours[block][nearer] = albedo * shine[:, None].astype(np.float32)


def _bound(
    thing: Capsule | Box, camera: Camera, pose: Pose, samples: int
) -> tuple[slice, slice] | None:
    """Bound what a thing covers by a block of rays; None if it is out of sight."""
    if isinstance(thing, Capsule):
        corners, margin = np.stack([thing.start, thing.end]), thing.radius
    else:
        signs = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)])
        corners, margin = thing.centre + (signs * thing.half) @ thing.axes, 0.0
    seen = corners @ pose.rotation.T + pose.translation
    if (seen[:, 2] + margin < NEAR).all():
        return None
    full = (camera.width * samples, camera.height * samples)
    if (seen[:, 2] - margin < 2 * NEAR).any():
        return slice(0, full[1]), slice(0, full[0])
    focal, x0, y0 = camera.params[:3]
    depths = np.stack([seen[:, 2] - margin, seen[:, 2] + margin])
    low = ((seen[:, :2] - margin)[None] / depths[..., None]).min((0, 1))
    high = ((seen[:, :2] + margin)[None] / depths[..., None]).max((0, 1))
    middle = np.array([x0, y0])
    first = np.floor((focal * low + middle - 1) * samples).astype(int)
    last = np.ceil((focal * high + middle + 1) * samples).astype(int)
    first, last = np.maximum(first, 0), np.minimum(last, full)
    if (first >= last).any():
        return None
    return slice(first[1], last[1]), slice(first[0], last[0])
