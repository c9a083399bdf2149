"""Light that stays with the surfaces: the sun's shadows, open sky, lamps at night."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sfm_features.scenes.mesh import Lamp, Surfaces, Texture
from sfm_features.scenes.raster import (
    Job,
    clip_corners,
    get_corners,
    rasterise,
    see_planes,
)
from sfm_features.types import F32, F64, I32, I64

SKY_DIRECTIONS = 24
SKY_CELLS = 448
SUN_CELLS = 3072
LAMP_CELLS = 160
LAMP_REACH = 24.0
FAR = 60.0
OFFSET = 0.05
"""Metres off a surface where light is gathered, so that it does not shade itself."""


@dataclass(frozen=True)
class ShadowMap:
    """Nearness (S, S) f32 along parallel rays, over a square of half width `reach`."""

    rotation: F64
    nearness: F32
    reach: float

    def place(self, points: F64) -> tuple[F64, F64]:
        """Return the cells (..., 2) and the nearness (...) of world points (..., 3)."""
        local = turn(self.rotation, points)
        size = len(self.nearness)
        cells = (local[..., :2] / self.reach + 1) * (size / 2) - 0.5
        return cells, -local[..., 2]


@dataclass(frozen=True)
class Samples:
    """Where light is gathered: points, normals (M, 3) and the grids they belong to.

    starts (N + 1,) and shapes (N, 2: rows, columns) say which are of which surface.
    """

    points: F64
    normals: F64
    starts: I32
    shapes: I32

    def split(self, values: F32) -> list[F32]:
        """Cut values (M, ...) into a small picture for each surface."""
        return [
            np.ascontiguousarray(values[a:b].reshape(*shape, *values.shape[1:]))
            for a, b, shape in zip(
                self.starts[:-1], self.starts[1:], self.shapes.tolist(), strict=True
            )
        ]


def turn(rotation: F64, points: F64) -> F64:
    """Rotate points (..., 3) without BLAS, whose threads get in each other's way."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    return np.stack([r[0] * x + r[1] * y + r[2] * z for r in rotation], axis=-1)


def place_samples(surfaces: Surfaces, cell: float = 0.25, most: int = 224) -> Samples:
    """Spread points over every surface, about `cell` metres apart; few on far ones."""
    lengths = [np.linalg.norm(e, axis=1) for e in (surfaces.edge_v, surfaces.edge_u)]
    middle = surfaces.origin + (surfaces.edge_u + surfaces.edge_v) / 2
    cells = np.where(np.linalg.norm(middle, axis=1) > FAR, 8 * cell, cell)
    counts = [np.clip(np.ceil(x / cells) + 1, 2, most).astype("i4") for x in lengths]
    shapes = np.stack(counts, axis=1)
    starts = np.concatenate([[0], np.cumsum(shapes.prod(1))]).astype(np.int32)
    points = np.empty((int(starts[-1]), 3))
    normals = np.repeat(surfaces.normal, shapes.prod(1), axis=0)
    for i, (rows, cols) in enumerate(shapes.tolist()):
        # Just inside the rim: the rim itself often touches a neighbour.
        v, u = (np.linspace(0.01, 0.99, n) for n in (rows, cols))
        grid = (
            u[None, :, None] * surfaces.edge_u[i]
            + v[:, None, None] * (surfaces.edge_v[i])
        )
        points[starts[i] : starts[i + 1]] = (surfaces.origin[i] + grid).reshape(-1, 3)
    return Samples(points + OFFSET * normals, normals, starts, shapes)


def look_along(direction: F64) -> F64:
    """Return a rotation whose third axis runs along a direction."""
    z = direction / np.linalg.norm(direction)
    side = np.cross(z, [0.0, 0.0, 1.0] if abs(z[2]) < 0.99 else [1.0, 0.0, 0.0])
    x = side / np.linalg.norm(side)
    return np.stack([x, np.cross(z, x), z])


def cast_parallel(
    surfaces: Surfaces,
    textures: Sequence[Texture],
    direction: F64,
    size: int,
    reach: float,
    smallest: float = 0.0,
) -> ShadowMap:
    """See the scene along a direction (where the light travels to).

    Surfaces of less than `smallest` square metres cast no shadow.
    """
    rotation = look_along(direction)
    centres = ((np.arange(size) + 0.5) / size * 2 - 1) * reach
    y, x = np.meshgrid(centres, centres, indexing="ij")
    corners = get_corners(surfaces, rotation, np.zeros(3))
    cells = (corners[..., :2] / reach + 1) * (size / 2)
    low, high = np.floor(cells.min(1)) - 1, np.ceil(cells.max(1)) + 1
    blocks = np.clip(np.concatenate([low, high], axis=1), 0, size).astype(np.int32)
    seen = np.flatnonzero((blocks[:, 2:] > blocks[:, :2]).all(1))
    seen = seen[surfaces.area[seen] >= smallest]
    order = seen[np.argsort(corners[seen, :, 2].min(1), kind="stable")]
    planes = see_planes(surfaces, rotation, np.zeros(3), perspective=False)
    job = Job(x.astype(np.float32), y.astype(np.float32), planes, order, blocks)
    buffers = rasterise(job, surfaces, textures)
    return ShadowMap(rotation, buffers.nearness, reach)


def spread_directions(count: int) -> F64:
    """Spread directions (count, 3) over the sky, denser towards the zenith (cosine)."""
    i = np.arange(count) + 0.5
    radius = np.sqrt(i / count) * 0.985
    angle = i * np.pi * (3 - np.sqrt(5))
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    return np.stack([x, y, np.sqrt(1 - radius**2)], axis=1)


def gather_sky(
    surfaces: Surfaces, textures: Sequence[Texture], samples: Samples, reach: float
) -> F32:
    """Return the share of sky light (M,) that reaches every sample."""
    total = np.zeros(len(samples.points))
    for to_sky in spread_directions(SKY_DIRECTIONS):
        shadows = cast_parallel(
            surfaces, textures, -to_sky, SKY_CELLS, reach, smallest=0.3
        )
        cells, nearness = shadows.place(samples.points)
        x, y = np.clip(np.rint(cells), 0, SKY_CELLS - 1).astype(np.int32).T
        bias = 0.8 * reach / SKY_CELLS
        open_ = nearness > shadows.nearness[y, x] - bias
        # The directions already crowd at the zenith, as its cosine asks for; a share
        # of 0.35 whatever the slope stands for light that comes off the ground.
        cosine = (samples.normals * to_sky).sum(1)
        facing = np.clip(cosine, 0, None) / max(to_sky[2], 0.3)
        total += open_ * (0.35 * (cosine > -0.3) + 0.65 * facing)
    return np.asarray(total / SKY_DIRECTIONS, np.float32)


def gather_lamps(
    surfaces: Surfaces,
    textures: Sequence[Texture],
    samples: Samples,
    lamps: Sequence[Lamp],
) -> F32:
    """Return the light of all lamps (M, 3) at every sample, with shadows."""
    total = np.zeros((len(samples.points), 3), np.float32)
    for lamp in lamps:
        away = np.asarray(lamp.centre) - samples.points
        square = (away**2).sum(1)
        reached = np.flatnonzero(square < LAMP_REACH**2)
        away, square = away[reached], square[reached]
        facing = (samples.normals[reached] * away).sum(1) / np.sqrt(square)
        strength = np.clip(0.12 + 0.88 * facing, 0, None) * lamp.power
        strength = strength * _fade(square)
        shading = surfaces.take(_find_near(surfaces, lamp))
        strength *= _see_lamp(shading, textures, lamp, -away)
        total[reached] += (strength[:, None] * np.asarray(lamp.colour)).astype("f4")
    return total


def _find_near(surfaces: Surfaces, lamp: Lamp) -> I64:
    """Return the surfaces that may keep a lamp's light from something."""
    half = (surfaces.edge_u + surfaces.edge_v) / 2
    middle = surfaces.origin + half
    spread = np.linalg.norm(surfaces.edge_u, axis=1)
    spread += np.linalg.norm(surfaces.edge_v, axis=1)
    gap = np.linalg.norm(middle - np.asarray(lamp.centre), axis=1) - spread / 2
    return np.flatnonzero((gap < LAMP_REACH) & (surfaces.area > 0.04))


def _fade(square: F64) -> F64:
    """Fall off with the squared distance, to nothing at the reach of a lamp."""
    return np.asarray(np.clip(1 - square / LAMP_REACH**2, 0, 1) / (0.6 + square))


FACES = np.concatenate([np.eye(3), -np.eye(3)])


def _see_lamp(
    surfaces: Surfaces, textures: Sequence[Texture], lamp: Lamp, rays: F64
) -> F64:
    """Tell which rays (M, 3) from a lamp arrive: six views of a cube around it."""
    arrives = np.zeros(len(rays))
    face = np.argmax(np.concatenate([rays, -rays], axis=1), axis=1)
    centres = ((np.arange(LAMP_CELLS) + 0.5) / LAMP_CELLS * 2 - 1).astype(np.float32)
    y, x = np.meshgrid(centres, centres, indexing="ij")
    for number, axis in enumerate(FACES):
        chosen = np.flatnonzero(face == number)
        if not len(chosen):
            continue
        rotation = look_along(axis)
        shift = -rotation @ np.asarray(lamp.centre)
        points, counts = clip_corners(get_corners(surfaces, rotation, shift))
        flat = points[..., :2] / np.maximum(points[..., 2:], 1e-6)
        low = np.where(counts[..., None], flat, np.inf).min(1)
        high = np.where(counts[..., None], flat, -np.inf).max(1)
        edges = (np.concatenate([low, high], 1) + 1) * (LAMP_CELLS / 2) + [-1, -1, 1, 1]
        blocks = np.clip(edges, 0, LAMP_CELLS).astype(np.int32)
        nearest = np.where(counts, points[..., 2], np.inf).min(1)
        # Nothing within 0.35 m casts a shadow: that is the lamp's own glass.
        blocks[nearest < 0.35] = 0
        seen = np.flatnonzero(
            (blocks[:, 2:] > blocks[:, :2]).all(1) & (nearest < LAMP_REACH)
        )
        order = seen[np.argsort(nearest[seen], kind="stable")]
        job = Job(x, y, see_planes(surfaces, rotation, shift), order, blocks)
        nearness = rasterise(job, surfaces, textures).nearness
        local = turn(rotation, rays[chosen])
        cells = (local[:, :2] / local[:, 2:] + 1) * (LAMP_CELLS / 2)
        i, j = np.clip(cells, 0, LAMP_CELLS - 1).astype(np.int32).T
        arrives[chosen] = 1 / local[:, 2] > nearness[j, i] * 0.94
    return arrives
