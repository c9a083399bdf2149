"""The sky, painted once around the horizon and read by direction."""

from __future__ import annotations

import cv2
import numpy as np

from sfm_features.scenes.materials import Rng, make_noise, to_f32
from sfm_features.scenes.shade import LINEAR, remap
from sfm_features.types import F32, F64, U8

WIDTH, HEIGHT = 4096, 1024
LOWEST, HIGHEST = -0.1, 1.5
"""Radians of elevation at the bottom and the top of the picture."""


def paint_sky(rng: Rng) -> tuple[U8, U8]:
    """Paint the sky by day and by night (HEIGHT, WIDTH, 3), closed all around."""
    elevation = np.linspace(HIGHEST, LOWEST, HEIGHT, dtype=np.float32)[:, None, None]
    rise = np.clip(elevation / 1.2, 0, 1) ** 0.6
    cover = _paint_clouds(rng)
    clouds = np.clip((cover - 0.1) * 2.6, 0, 1)[..., None]
    under = np.clip(1.16 - 0.42 * cover[..., None], 0.72, 1)
    blue = to_f32((196, 214, 232)) * (1 - rise) + to_f32((84, 132, 196)) * rise
    white = under * to_f32((255, 252, 246))
    day = blue + clouds * (white - blue)
    dark = to_f32((40, 40, 60)) * (1 - rise) + to_f32((10, 13, 30)) * rise
    night = dark + 0.5 * clouds * (to_f32((58, 54, 66)) - dark)
    for _ in range(700):
        spot = (int(rng.integers(WIDTH)), int(rng.integers(HEIGHT)))
        shine = float(rng.uniform(60, 200)) * (1 - float(clouds[spot[1], spot[0], 0]))
        cv2.circle(night, spot, 1, (shine, shine, shine * 1.05), -1)
    return day.clip(0, 255).astype(np.uint8), night.clip(0, 255).astype(np.uint8)


def _paint_clouds(rng: Rng) -> F32:
    """Paint clouds that shrink towards the horizon and meet themselves all around."""
    flat = make_noise(rng, (2048, 2048), 230, 8)
    up = np.linspace(HIGHEST, LOWEST, HEIGHT)[:, None]
    around = np.linspace(0, 2 * np.pi, WIDTH, endpoint=False)[None]
    distance = 1 / (np.sin(np.clip(up, 0, None)) + 0.18)
    x = (1024 + 180 * distance * np.cos(around)).astype(np.float32)
    y = (1024 + 180 * distance * np.sin(around)).astype(np.float32)
    return np.asarray(cv2.remap(flat, x, y, cv2.INTER_LINEAR), np.float32)


def look_up(picture: U8, world_from_cam: F64, x: F32, y: F32) -> F32:
    """Return the linear colours (K, 3) of the sky behind rays x, y (K,)."""
    r = world_from_cam.astype(np.float32)
    dx, dy, dz = (r[i, 0] * x + r[i, 1] * y + r[i, 2] for i in range(3))
    column = (np.arctan2(dy, dx) / np.float32(2 * np.pi) % 1) * WIDTH
    elevation = np.arctan2(dz, np.hypot(dx, dy))
    row = (HIGHEST - elevation) / (HIGHEST - LOWEST) * (HEIGHT - 1)
    wrapped = np.concatenate([picture, picture[:, :1]], axis=1)
    return LINEAR[np.asarray(remap(wrapped, column, row), np.uint8)]
