"""Rounded and boxy things, where rays meet them, and the skins painted on them.

The town is made of flat pieces; a figure or a thing on a turntable is not. Here a ray
meets capsules and boxes in closed form, all rays of a thing's block of pixels at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfm_features.scenes.shade import LINEAR, remap
from sfm_features.types import F32, F64, U8

NEAR = 0.05
"""Metres before the camera at which things are cut."""
_TINY = 1e-9


@dataclass(frozen=True)
class Skin:
    """A picture (H, W, 3) around a thing, texels per metre, and where it begins.

    Beyond its rims the picture is mirrored.
    """

    picture: U8
    ppm: float = 80.0
    start: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Capsule:
    """All points within `radius` of the line from `start` to `end`, in metres.

    `front` is the side of it that has the seam of its skin.
    """

    start: F64
    end: F64
    radius: float
    skin: Skin
    tag: int = 0
    front: tuple[float, float, float] = (0.0, 1.0, 0.0)


@dataclass(frozen=True)
class Box:
    """A box around `centre`; the rows of `axes` (3, 3) are its own directions."""

    centre: F64
    axes: F64
    half: F64
    skin: Skin
    tag: int = 0


def meet_capsule(thing: Capsule, origin: F64, rays: F32) -> F32:
    """Return the depths (H, W) at which rays first meet a capsule; inf: never."""
    axis = thing.end - thing.start
    length = float(np.linalg.norm(axis))
    best = np.full(rays.shape[:2], np.inf, np.float32)
    for centre in (thing.start, thing.end):
        np.minimum(best, _meet_ball(centre, thing.radius, origin, rays), out=best)
    if length < _TINY:
        return best
    unit = (axis / length).astype(np.float32)
    along = rays @ unit
    offset = (origin - thing.start).astype(np.float32)
    start = float(offset @ unit)
    flat, side = rays - along[..., None] * unit, offset - start * unit
    a = np.maximum(np.einsum("hwc,hwc->hw", flat, flat), _TINY)
    half_b, c = flat @ side, float(side @ side) - thing.radius**2
    under = half_b * half_b - a * c
    depth = (-half_b - np.sqrt(np.maximum(under, 0))) / a
    height = start + depth * along
    hit = (under > 0) & (height > 0) & (height < length) & (depth > NEAR)
    np.minimum(best, np.where(hit, depth, np.inf), out=best, casting="unsafe")
    return best


def _meet_ball(centre: F64, radius: float, origin: F64, rays: F32) -> F32:
    offset = (origin - centre).astype(np.float32)
    a = np.einsum("hwc,hwc->hw", rays, rays)
    half_b = rays @ offset
    under = half_b * half_b - a * (float(offset @ offset) - radius**2)
    depth = (-half_b - np.sqrt(np.maximum(under, 0))) / a
    hit = (under > 0) & (depth > NEAR)
    return np.asarray(np.where(hit, depth, np.inf), np.float32)


def meet_box(thing: Box, origin: F64, rays: F32) -> F32:
    """Return the depths (H, W) at which rays enter a box; inf: never."""
    own = rays @ thing.axes.T.astype(np.float32)
    own = np.where(np.abs(own) < _TINY, np.float32(_TINY), own)
    start = ((origin - thing.centre) @ thing.axes.T).astype(np.float32)
    half = thing.half.astype(np.float32)
    one, other = (-half - start) / own, (half - start) / own
    enters = np.minimum(one, other).max(2)
    leaves = np.maximum(one, other).min(2)
    hit = (enters < leaves) & (enters > NEAR)
    return np.asarray(np.where(hit, enters, np.inf), np.float32)


def wrap_capsule(thing: Capsule, points: F64) -> tuple[F64, F64, F64]:
    """Return metres around and along a capsule (K,), and normals (K, 3)."""
    axis = thing.end - thing.start
    length = float(np.linalg.norm(axis))
    unit = axis / length if length > _TINY else np.array([0.0, 0, 1])
    height = (points - thing.start) @ unit
    middle = thing.start + np.clip(height, 0, length)[:, None] * unit
    normals = (points - middle) / thing.radius
    right = np.cross(unit, thing.front)
    if np.linalg.norm(right) < 0.1:
        right = np.cross(unit, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    ahead = np.cross(right, unit)
    around = np.arctan2(-normals @ right, -normals @ ahead) + np.pi
    return around * thing.radius, height + thing.radius, normals


def wrap_box(thing: Box, points: F64) -> tuple[F64, F64, F64]:
    """Return metres on the face of a box that each point is on, and normals (K, 3)."""
    own = (points - thing.centre) @ thing.axes.T
    face = (np.abs(own) / thing.half).argmax(1)
    rows = np.arange(len(own))
    sign = np.sign(own[rows, face])
    normals = sign[:, None] * thing.axes[face]
    # The faces lie side by side on the picture, so that no two look alike.
    shift = (2 * face + (sign > 0)) * 2 * thing.half.max()
    u = own[rows, (face + 1) % 3] + thing.half[(face + 1) % 3] + shift
    v = own[rows, (face + 2) % 3] + thing.half[(face + 2) % 3]
    return u, v, normals


def look_up(skin: Skin, u: F64, v: F64) -> F32:
    """Read linear colours (K, 3) of a skin at metres u, v."""
    height, width = skin.picture.shape[:2]
    x = _mirror((u + skin.start[0]) * skin.ppm, width)
    y = _mirror((v + skin.start[1]) * skin.ppm, height)
    return LINEAR[np.asarray(remap(skin.picture, x, y), np.uint8)]


def _mirror(texels: F64, size: int) -> F32:
    """Fold texels back into a picture at its rims."""
    last = size - 1
    folded = last - np.abs(np.mod(texels, 2 * last) - last)
    return np.asarray(folded, np.float32)
