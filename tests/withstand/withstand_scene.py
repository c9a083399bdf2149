"""Photographs of a room's corner: real parallax from three textured planes."""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np

SIZE = (256, 192)
_FOCAL_PX = 240.0
# Normal n and offset d of each plane n . x = d, and the two axes of its texture.
_PLANES = (
    ((0, 0, 1), 6.0, (0, 1)),  # the wall behind
    ((-1, 0, 0), 2.5, (2, 1)),  # the wall on the left
    ((0, 1, 0), 1.4, (0, 2)),  # the floor; y points down
)


def write_photos(folder: Path, count: int = 8, size: tuple[int, int] = SIZE) -> Path:
    """Write photographs of the corner, taken along an arc, and return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        where = -0.5 + index / max(count - 1, 1)
        rgb = photograph(where, size)
        assert cv2.imwrite(str(folder / f"view{index:02}.png"), rgb[..., ::-1])
    return folder


def photograph(where: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Photograph the corner from a place on the arc, -0.5 to 0.5: (H, W, 3) u8."""
    centre = np.array([2.4 * where, -0.5 * abs(where), 1.2 * where**2])
    rotation = _look_at(centre, np.array([-0.5, 0.3, 5.0]))
    width, height = size
    focal = _FOCAL_PX * width / SIZE[0]
    x, y = np.meshgrid(np.arange(width) - width / 2, np.arange(height) - height / 2)
    rays = np.stack([x / focal, y / focal, np.ones_like(x)], -1) @ rotation
    nearest = np.full((height, width), np.inf)
    picture = np.zeros((height, width, 3), np.uint8)
    for seed, (normal, offset, axes) in enumerate(_PLANES):
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = (offset - centre @ normal) / (rays @ np.array(normal, float))
            hits = centre + depth[..., None] * rays
        uv = (hits[..., axes] * 60 + 512).astype(np.float32)
        painted = cv2.remap(
            *(_paint(seed), uv[..., 0], uv[..., 1], cv2.INTER_LINEAR),
            borderMode=cv2.BORDER_WRAP,
        )
        front = (depth > 0) & (depth < nearest)
        nearest[front] = depth[front]
        picture[front] = painted[front]
    return picture


def _look_at(centre: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the rotation camera_from_world whose z axis points at the target."""
    z = (target - centre) / np.linalg.norm(target - centre)
    x = np.cross([0.0, 1.0, 0.0], z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z])


@functools.cache
def _paint(seed: int) -> np.ndarray:
    """Paint a texture (1024, 1024, 3) with detail of several sizes."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((1024, 1024, 3))
    for cell in (6, 12, 24, 48):
        side = 1024 // cell + 2
        noise = rng.normal(size=(side, side, 3)) * cell**0.5
        picture += cv2.resize(noise, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    low, high = np.quantile(picture, [0.01, 0.99])
    return (255 * ((picture - low) / (high - low)).clip(0, 1)).astype(np.uint8)
