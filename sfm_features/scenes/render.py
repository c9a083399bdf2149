"""Photographs of the town with exact depth: `render_view`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from sfm_features.errors import OptionError
from sfm_features.geometry import project, unproject
from sfm_features.scenes.raster import (
    NEAR_PLANE,
    Job,
    clip_corners,
    get_corners,
    rasterise,
    see_planes,
)
from sfm_features.scenes.shade import Scene, shade
from sfm_features.scenes.sky import look_up
from sfm_features.scenes.town import Town
from sfm_features.types import F32, F64, I32, I64, PIXEL_CENTRE, U8, Camera, Pose

LIGHTINGS = ("day", "night")
SUPERSAMPLING = 2


@dataclass(frozen=True)
class Rendering:
    """A photograph: rgb (H, W, 3) u8, depth and surface ids (H, W).

    `depth` f32 is z in the camera's frame through each pixel's centre, inf for the sky;
    `ids` i16 counts the town's surfaces, -1 for the sky.
    """

    rgb: U8
    depth: F32
    ids: NDArray[np.int16]


def render_view(
    town: Town, camera: Camera, cam_from_world: Pose, lighting: str, seed: int = 0
) -> Rendering:
    """Photograph the town; `seed` moves only exposure, white balance and noise."""
    if lighting not in LIGHTINGS:
        raise OptionError(f"lighting {lighting!r} is unknown; use day or night")
    depth, ids = render_depth(town, camera, cam_from_world)
    colours = _render_colours(town, camera, cam_from_world, lighting)
    return Rendering(_develop(colours, lighting, seed), depth, ids)


def render_depth(
    town: Town, camera: Camera, cam_from_world: Pose
) -> tuple[F32, NDArray[np.int16]]:
    """Return depth f32 and surface ids i16 (H, W) at the pixels' centres."""
    x, y = make_rays(camera, 1)
    job = _aim(town, camera, cam_from_world, x, y, 1)
    ids = rasterise(job, town.surfaces, town.textures).ids
    rows = job.planes.nearness[ids]
    # Once more in double precision: the buffer is only as good as needed to sort.
    nearness = rows[..., 0] * x + rows[..., 1] * y + rows[..., 2]
    depth = np.where(ids >= 0, 1 / np.where(ids >= 0, nearness, 1), np.inf)
    return depth.astype(np.float32), ids


@lru_cache(maxsize=4)
def make_rays(camera: Camera, samples: int) -> tuple[F64, F64]:
    """Return x, y (H * samples, W * samples) at depth one, exact under distortion.

    Kept for the next call, since the views of a walk share one camera: do not write.
    """
    centres = [
        (np.arange(n * samples) + PIXEL_CENTRE) / samples - PIXEL_CENTRE
        for n in (camera.width, camera.height)
    ]
    x, y = np.meshgrid(*centres)
    rays = unproject(camera, np.stack([x.ravel(), y.ravel()], axis=1))
    x, y = (np.ascontiguousarray(rays[:, k]).reshape(x.shape) for k in (0, 1))
    x.flags.writeable = y.flags.writeable = False
    return x, y


def _aim(town: Town, camera: Camera, pose: Pose, x: F64, y: F64, samples: int) -> Job:
    """Prepare the surfaces that may be in view, nearest first."""
    surfaces = town.surfaces
    planes = see_planes(surfaces, pose.rotation, pose.translation)
    corners = get_corners(surfaces, pose.rotation, pose.translation)
    blocks, nearest = _bound(camera, corners, x, y, samples)
    sight = pose.centre - surfaces.origin
    front = (sight * surfaces.normal).sum(1) > 1e-6
    covers = (blocks[:, 2:] > blocks[:, :2]).all(1)
    seen = np.flatnonzero((front | surfaces.two_sided) & covers)
    order: I64 = seen[np.argsort(nearest[seen], kind="stable")]
    return Job(x.astype(np.float32), y.astype(np.float32), planes, order, blocks)


def _bound(
    camera: Camera, corners: F64, x: F64, y: F64, samples: int
) -> tuple[I32, F64]:
    """Bound surfaces (N, 4, 3) by pixels: blocks (N, 4) and their nearest depths."""
    points, counts = clip_corners(corners)
    flat = points[..., :2] / np.maximum(points[..., 2:], NEAR_PLANE)
    low = np.where(counts[..., None], flat, np.inf).min(1)
    high = np.where(counts[..., None], flat, -np.inf).max(1)
    view_low, view_high = [x.min(), y.min()], [x.max(), y.max()]
    outside = ((low > view_high) | (high < view_low)).any(1) | ~counts.any(1)
    low, high = np.clip(low, view_low, view_high), np.clip(high, view_low, view_high)
    low[outside], high[outside] = 0, 0
    # Distortion bends the sides of the box, so follow them instead of the corners.
    s = np.linspace(0, 1, 7)
    ring = np.concatenate(
        [
            np.stack([s, np.zeros(7)], 1),
            np.stack([s, np.ones(7)], 1),
            np.stack([np.zeros(7), s], 1),
            np.stack([np.ones(7), s], 1),
        ]
    )
    box = low[:, None] + ring * (high - low)[:, None]
    rays = np.concatenate([box, np.ones((*box.shape[:2], 1))], axis=2)
    pixels = project(camera, rays.reshape(-1, 3)).reshape(box.shape) * samples
    edges = np.concatenate([pixels.min(1) - 3, pixels.max(1) + 4 + samples], axis=1)
    size = [camera.width * samples, camera.height * samples]
    blocks = np.clip(edges, 0, size + size).astype(np.int32)
    blocks[outside] = 0
    return blocks, np.where(counts, points[..., 2], np.inf).min(1)


def _render_colours(town: Town, camera: Camera, pose: Pose, lighting: str) -> F32:
    """Return linear RGB (H, W, 3) f32, averaged over several rays a pixel."""
    x, y = make_rays(camera, SUPERSAMPLING)
    job = _aim(town, camera, pose, x, y, SUPERSAMPLING)
    buffers = rasterise(job, town.surfaces, town.textures)
    scene = Scene(town.surfaces, town.textures, town.get_look(lighting))
    pitch = float(x[0, -1] - x[0, 0]) / (x.shape[1] - 1)
    colours = shade(scene, buffers, job.planes, job.x, job.y, pitch)
    sky = buffers.ids < 0
    picture = town.sky_day if lighting == "day" else town.sky_night
    colours[sky] = look_up(picture, pose.rotation.T, job.x[sky], job.y[sky])
    small = cv2.resize(
        colours, (camera.width, camera.height), interpolation=cv2.INTER_AREA
    )
    return np.asarray(small, np.float32)


def _develop(colours: F32, lighting: str, seed: int) -> U8:
    """Turn light into bytes as a camera does: exposure, balance, noise, tone curve."""
    rng = np.random.default_rng([seed, LIGHTINGS.index(lighting)])
    day = lighting == "day"
    exposure = np.exp(rng.normal(0, 0.06 if day else 0.1)) * (1.0 if day else 1.5)
    balance = np.exp(rng.normal(0, 0.015 if day else 0.03, 3))
    light = colours * (exposure * balance).astype(np.float32)
    # Photons are few in the dark: noise grows with the root of the light, over a floor.
    shot, floor = (0.006, 0.002) if day else (0.022, 0.006)
    spread = np.sqrt(shot**2 * np.maximum(light, 0) + floor**2)
    light += spread * rng.standard_normal(light.shape, dtype=np.float32)
    np.maximum(light, 0, out=light)
    # Straight in the shadows, bent towards white in the lights.
    curved = light * (1 + light / 6.0) / (1 + 0.62 * light)
    toned = np.clip(curved, 0, 1) ** np.float32(1 / 2.2)
    return np.asarray(np.rint(toned * 255), np.uint8)


__all__ = ["LIGHTINGS", "Rendering", "make_rays", "render_depth", "render_view"]
