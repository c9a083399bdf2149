"""Which surface is seen by each ray: exact planes against a depth buffer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfm_features.scenes.mesh import ROUND, Surfaces, Texture
from sfm_features.types import F32, F64, I32, I64, Bool

NEAR_PLANE = 0.05
"""Metres before the camera at which surfaces are cut."""


@dataclass(frozen=True)
class Planes:
    """Surfaces seen from a camera or along a direction, as rows for a ray (x, y, 1).

    nearness (N, 3): 1 / depth in perspective, minus depth along parallel rays. u, v
    (N, 3): times the ray (and divided by nearness in perspective) the place on it.
    """

    nearness: F64
    u: F64
    v: F64
    perspective: bool


def see_planes(
    surfaces: Surfaces, rotation: F64, translation: F64, perspective: bool = True
) -> Planes:
    """Prepare surfaces for rays of a frame x' = rotation @ x + translation."""
    o = surfaces.origin @ rotation.T + translation
    a, b = surfaces.edge_u @ rotation.T, surfaces.edge_v @ rotation.T
    n = np.cross(a, b)
    # The dual basis gives u and v of a point, also where the edges are not square.
    square = (n * n).sum(1, keepdims=True)
    du, dv = np.cross(b, n) / square, np.cross(n, a) / square
    ou, ov = (du * o).sum(1, keepdims=True), (dv * o).sum(1, keepdims=True)
    distance = (n * o).sum(1, keepdims=True)
    if perspective:
        w = n / np.where(np.abs(distance) < 1e-9, 1e-9, distance)
        return Planes(w, du - ou * w, dv - ov * w, True)
    nz = np.where(np.abs(n[:, 2:]) < 1e-9, 1e-9, n[:, 2:])
    w = np.concatenate([n[:, :2] / nz, -distance / nz], axis=1)
    u, v = (_along(d, w, start) for d, start in ((du, ou), (dv, ov)))
    return Planes(w, u, v, False)


def _along(dual: F64, nearness: F64, start: F64) -> F64:
    """Write dual . (x, y, depth) - start as a row for (x, y, 1)."""
    row = np.concatenate([dual[:, :2], -start], axis=1)
    return np.asarray(row - dual[:, 2:] * nearness, np.float64)


@dataclass
class Buffers:
    """What is seen by (H, W) rays: ids i16 (-1 for nothing) and nearness f32."""

    ids: NDArray[np.int16]
    nearness: F32


@dataclass(frozen=True)
class Job:
    """Rays x, y (H, W) f32, surfaces in them, and the block of pixels each may cover.

    order (K,): surfaces to draw, nearest first; blocks (N, 4): x0, y0, x1, y1.
    """

    x: F32
    y: F32
    planes: Planes
    order: I64
    blocks: I32


def rasterise(job: Job, surfaces: Surfaces, textures: Sequence[Texture]) -> Buffers:
    """Find the nearest surface for every ray."""
    floor = 0.0 if job.planes.perspective else -np.inf
    buffers = Buffers(
        np.full(job.x.shape, -1, np.int16), np.full(job.x.shape, floor, np.float32)
    )
    for index in job.order:
        _draw(job, surfaces, textures, int(index), buffers)
    return buffers


def _draw(
    job: Job,
    surfaces: Surfaces,
    textures: Sequence[Texture],
    index: int,
    buffers: Buffers,
) -> None:
    x0, y0, x1, y1 = job.blocks[index].tolist()
    block = (slice(y0, y1), slice(x0, x1))
    x, y = job.x[block], job.y[block]
    near = buffers.nearness[block]
    w = _evaluate(job.planes.nearness[index], x, y)
    hit = w > near
    if not hit.any():
        return
    u = _evaluate(job.planes.u[index], x, y)
    v = _evaluate(job.planes.v[index], x, y)
    if job.planes.perspective:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            u /= w
            v /= w
    with np.errstate(invalid="ignore"):
        hit &= _covers(u, v, float(surfaces.taper[index]))
    texture = textures[surfaces.texture[index]]
    if texture.solid is not None:
        _cut_out(hit, u, v, texture.solid, surfaces.region[index])
    np.copyto(near, w, where=hit)
    np.copyto(buffers.ids[block], np.int16(index), where=hit)


def _evaluate(row: F64, x: F32, y: F32) -> F32:
    a, b, c = row.astype(np.float32)
    out = np.multiply(x, a)
    out += y * b
    out += c
    return np.asarray(out, np.float32)


def _covers(u: F32, v: F32, taper: float) -> Bool:
    """Tell which places lie on the piece."""
    if taper == ROUND:
        return np.asarray((u - 0.5) ** 2 + (v - 0.5) ** 2 <= 0.25)
    hit = (v >= 0) & (v <= 1)
    if taper:
        return np.asarray(hit & (np.abs(2 * u - 1) <= 1 - taper * (1 - v)))
    return np.asarray(hit & (u >= 0) & (u <= 1))


def _cut_out(hit: Bool, u: F32, v: F32, solid: Bool, region: F64) -> None:
    """Let rays through the holes of a cutout, always at full detail: one depth."""
    rows, cols = np.nonzero(hit)
    x = (region[0] + u[rows, cols] * region[2]).astype(np.int32)
    y = (region[1] + v[rows, cols] * region[3]).astype(np.int32)
    np.minimum(x, solid.shape[1] - 1, out=x)
    np.minimum(y, solid.shape[0] - 1, out=y)
    hit[rows, cols] = solid[y, x]


def clip_corners(corners: F64) -> tuple[F64, Bool]:
    """Cut quads (N, 4, 3) at the near plane: points (N, 8, 3), and which count."""
    following = np.roll(corners, -1, axis=1)
    z0, z1 = corners[..., 2], following[..., 2]
    crosses = (z0 > NEAR_PLANE) != (z1 > NEAR_PLANE)
    step = np.where(crosses, z1 - z0, 1.0)
    share = ((NEAR_PLANE - z0) / step)[..., None]
    cut = corners + share * (following - corners)
    cut[..., 2] = NEAR_PLANE
    points = np.concatenate([corners, cut], axis=1)
    counts = np.concatenate([z0 > NEAR_PLANE, crosses], axis=1)
    return points, counts


def get_corners(surfaces: Surfaces, rotation: F64, translation: F64) -> F64:
    """Return the corners (N, 4, 3) in a frame x' = rotation @ x + translation."""
    o, u, v = surfaces.origin, surfaces.edge_u, surfaces.edge_v
    corners = np.stack([o, o + u, o + u + v, o + v], axis=1)
    turned = np.einsum("nck,jk->ncj", corners, rotation)
    return np.asarray(turned + translation, np.float64)
