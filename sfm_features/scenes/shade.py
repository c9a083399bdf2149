"""Colour of the seen surfaces: texture filtered over each ray's footprint, then lit."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from sfm_features.scenes.light import OFFSET, ShadowMap
from sfm_features.scenes.mesh import Surfaces, Texture
from sfm_features.scenes.raster import Buffers, Planes
from sfm_features.types import F32, F64, I32, I64, U8

ROW, LONGEST = 1024, 32000
"""Many pixels are remapped in rows: OpenCV takes no row longer than 32767."""
LINEAR = ((np.arange(256) / 255.0) ** 2.2).astype(np.float32)


@dataclass(frozen=True)
class Look:
    """Lights of one moment: colours are linear RGB (3,), pictures one per surface."""

    sky: F32
    sun: F32
    sun_towards: F64
    sky_share: list[F32]
    lamps: list[F32] | None
    glow: F32
    shadows: ShadowMap | None


@dataclass(frozen=True)
class Scene:
    """What does not depend on the view: surfaces, textures and lights."""

    surfaces: Surfaces
    textures: list[Texture]
    look: Look


def shade(
    scene: Scene, buffers: Buffers, planes: Planes, x: F32, y: F32, pitch: float
) -> F32:
    """Colour all rays (H, W): linear RGB (H, W, 3), black where nothing was seen.

    `pitch` is the distance between neighbouring rays at depth one.
    """
    ids = buffers.ids.ravel()
    order = np.argsort(ids, kind="stable")
    sorted_ids = ids[order]
    first = int(np.searchsorted(sorted_ids, 0))
    cuts = np.flatnonzero(np.diff(sorted_ids[first:])) + first + 1
    starts = np.concatenate([[first], cuts])
    ends = np.concatenate([cuts, [len(ids)]])
    colours = np.zeros((len(ids), 3), np.float32)
    flat_x, flat_y = x.ravel(), y.ravel()
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if start == end:
            continue
        pixels = order[start:end]
        index = int(sorted_ids[start])
        place = _locate(planes, index, flat_x, flat_y, pixels, pitch)
        colours[pixels] = _light(scene, index, place)
    return colours.reshape(*x.shape, 3)


@dataclass(frozen=True)
class Place:
    """Where K rays meet a surface: u, v and how they change (4: ux, uy, vx, vy)."""

    u: F32
    v: F32
    change: tuple[F32, F32, F32, F32]


def _locate(
    planes: Planes, index: int, x: F32, y: F32, pixels: I64, pitch: float
) -> Place:
    w, ru, rv = (
        row[index].astype(np.float32) for row in (planes.nearness, planes.u, planes.v)
    )
    x, y = x[pixels], y[pixels]
    depth = 1 / (w[0] * x + w[1] * y + w[2])
    u = (ru[0] * x + ru[1] * y + ru[2]) * depth
    v = (rv[0] * x + rv[1] * y + rv[2]) * depth
    step = depth * np.float32(pitch)
    change = (
        (ru[0] - u * w[0]) * step,
        (ru[1] - u * w[1]) * step,
        (rv[0] - v * w[0]) * step,
        (rv[1] - v * w[1]) * step,
    )
    return Place(u, v, change)


def _light(scene: Scene, index: int, place: Place) -> F32:
    look, surfaces = scene.look, scene.surfaces
    texture = scene.textures[surfaces.texture[index]]
    rgba = sample_texture(texture, surfaces.region[index], place)
    albedo = LINEAR[np.rint(rgba[:, :3]).astype(np.uint8)]
    sky = _sample_grid(look.sky_share[index], place)
    light = sky[:, None] * look.sky
    # Light that bounces off the sunny ground and walls, where the sky is open.
    light += (0.25 + 0.75 * sky[:, None]) * look.sun * np.float32(0.06)
    if look.shadows is not None:
        direct = _sun(scene, index, place, look.shadows)
        if direct is not None:
            light += direct[:, None] * look.sun
    if look.lamps is not None:
        light += _sample_grid(look.lamps[index], place)
    colour = albedo * light
    if texture.solid is None and look.glow.any():
        glow = LINEAR[np.rint(rgba[:, 3]).astype(np.uint8)][:, None]
        colour += glow * look.glow * (0.12 + albedo)
    return np.asarray(colour, np.float32)


def _sun(scene: Scene, index: int, place: Place, shadows: ShadowMap) -> F32 | None:
    """Return how strongly the sun shines (K,), or None on the dark side."""
    surfaces = scene.surfaces
    normal = surfaces.normal_at(index)
    facing = float(normal @ scene.look.sun_towards)
    if surfaces.two_sided[index]:
        facing = 0.45 + 0.3 * abs(facing)
    if facing <= 0:
        return None
    start = surfaces.origin[index] + OFFSET * normal
    if surfaces.two_sided[index]:
        start = surfaces.origin[index] + 0.25 * scene.look.sun_towards
    spots = np.stack(
        [start, start + surfaces.edge_u[index], start + surfaces.edge_v[index]]
    )
    cells, depths = shadows.place(spots)
    table = np.concatenate([cells, depths[:, None]], axis=1)
    base, du, dv = table[0], table[1] - table[0], table[2] - table[0]
    x, y, near = (
        (place.u * du[k] + place.v * dv[k] + base[k]).astype(np.float32)
        for k in range(3)
    )
    lit = _compare(shadows.nearness, x, y, near + 0.03)
    return np.asarray(np.float32(facing) * lit, np.float32)


def _compare(nearness: F32, x: F32, y: F32, near: F32) -> F32:
    """Return the share (K,) of the four cells around that the light reaches."""
    most = nearness.shape[1] - 2
    np.clip(x, 0, most, out=x)
    np.clip(y, 0, most, out=y)
    j, i = x.astype(np.int32), y.astype(np.int32)
    fx, fy = x - j, y - i
    flat = nearness.ravel()
    first = i * nearness.shape[1] + j
    below = first + nearness.shape[1]
    top = (1 - fx) * (flat[first] <= near) + fx * (flat[first + 1] <= near)
    bottom = (1 - fx) * (flat[below] <= near) + fx * (flat[below + 1] <= near)
    return np.asarray((1 - fy) * top + fy * bottom, np.float32)


def _sample_grid(grid: F32, place: Place) -> F32:
    """Read a light picture whose first and last cells lie on the rims."""
    rows, cols = grid.shape[:2]
    x, y = place.u * (cols - 1), place.v * (rows - 1)
    return np.asarray(remap(grid, x, y), np.float32)


def remap(picture: F32 | U8, x: F32, y: F32) -> F32 | U8:
    """Read a picture (H, W[, C]) bilinearly at K places -> (K[, C]), type kept."""
    count = len(x)
    row = ROW if count > LONGEST else max(count, 1)
    padding = -count % row
    if padding:
        x, y = np.pad(x, (0, padding)), np.pad(y, (0, padding))
    out = cv2.remap(
        picture,
        x.reshape(-1, row).astype(np.float32, copy=False),
        y.reshape(-1, row).astype(np.float32, copy=False),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    out = np.asarray(out).reshape(-1, *picture.shape[2:])[:count]
    if picture.dtype == np.uint8:
        return np.asarray(out, np.uint8)
    return np.asarray(out, np.float32)


def sample_texture(texture: Texture, region: F64, place: Place) -> F32:
    """Filter a texture over the footprints of K rays -> (K, 4) f32 of 0..255.

    Several taps along the long axis of the footprint, each from the two copies that
    fit its short axis: neither blurred nor shimmering where a surface is seen askew.
    """
    width, height = region[2:].astype(np.float32)
    x = np.float32(region[0]) + place.u * width
    y = np.float32(region[1]) + place.v * height
    ux, uy = place.change[0] * width, place.change[1] * width
    vx, vy = place.change[2] * height, place.change[3] * height
    a, b, c = ux * ux + uy * uy, ux * vx + uy * vy, vx * vx + vy * vy
    mean, spread = (a + c) / 2, np.sqrt(((a - c) / 2) ** 2 + b * b)
    major = np.sqrt(mean + spread)
    minor = np.sqrt(np.maximum(mean - spread, 1e-12))
    ratio = float(np.median(major / minor))
    taps = 1 if ratio < 1.6 else 2 if ratio < 4 else 4
    size = np.maximum(np.maximum(minor, major / taps), 1e-6)
    levels = np.clip(np.log2(size), 0, len(texture.scale) - 1.001).astype(np.float32)
    if taps == 1:
        return _sample_levels(texture, x, y, levels)
    turn = 0.5 * np.arctan2(2 * b, a - c)
    along_x, along_y = major * np.cos(turn), major * np.sin(turn)
    total = np.zeros((len(x), 4), np.float32)
    for tap in range(taps):
        at = np.float32((tap + 0.5) / taps - 0.5)
        total += _sample_levels(texture, x + at * along_x, y + at * along_y, levels)
    return np.asarray(total / np.float32(taps), np.float32)


def _sample_levels(texture: Texture, x: F32, y: F32, levels: F32) -> F32:
    """Blend the two copies of a texture around each level."""
    x = np.clip(x, 0, texture.size[0])
    y = np.clip(y, 0, texture.size[1])
    lower = levels.astype(np.int32)
    share = (levels - lower)[:, None]
    fine = _sample_level(texture, x, y, lower)
    if not levels.any():
        return fine
    coarse = _sample_level(texture, x, y, lower + 1)
    coarse -= fine
    coarse *= share
    coarse += fine
    return coarse


def _sample_level(texture: Texture, x: F32, y: F32, level: I32) -> F32:
    last = len(texture.scale) - 1
    low, high = min(int(level.min()), last), min(int(level.max()), last)
    offsets = texture.offset - np.float32(0.5)
    if low == high:
        (sx, sy), (ox, oy) = texture.scale[low], offsets[low]
        at_x, at_y = x * sx + ox, y * sy + oy
    else:
        level = np.minimum(level, last)
        at_x = x * texture.scale[:, 0][level] + offsets[:, 0][level]
        at_y = y * texture.scale[:, 1][level] + offsets[:, 1][level]
    return remap(texture.atlas, at_x, at_y).astype(np.float32)
