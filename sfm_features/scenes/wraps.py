"""What things are wrapped in: labels over cloth, stones or bricks, or one colour."""

from __future__ import annotations

import numpy as np

from sfm_features.scenes.backdrops import paint_cloth, paint_skins, to_u8
from sfm_features.scenes.materials import Rng, paint_brick, paint_cells
from sfm_features.scenes.signs import paint_poster
from sfm_features.scenes.solids import Skin
from sfm_features.types import F32, F64

_PPM = 1100.0


def label_box(rng: Rng, half: F64) -> Skin:
    """Paint the six faces of a box, side by side, as its skin is read."""
    side = 2 * float(half.max())
    face = (round(side * _PPM), round(side * _PPM))
    faces = [_blend(rng, face) for _ in range(6)]
    return Skin(to_u8(np.concatenate(faces, axis=1)), _PPM)


def wrap_round(rng: Rng, radius: float, length: float) -> Skin:
    """Paint what goes around a capsule once."""
    around, along = 2 * np.pi * radius, length + 2 * radius
    size = (round(around * _PPM) + 2, round(along * _PPM) + 2)
    return Skin(to_u8(_blend(rng, size)), _PPM)


def paint_plain(rng: Rng) -> Skin:
    """Paint one colour, which nothing can be matched on."""
    colour = rng.uniform(40, 230, 3).astype(np.float32)
    return Skin(to_u8(np.broadcast_to(colour, (8, 8, 3))))


def pick_common(rng: Rng, ppm: tuple[float, float]) -> Skin:
    """Take what walls and floors are made of, smaller."""
    skins = paint_skins()
    picture = skins[int(rng.integers(len(skins)))]
    x, y = rng.uniform(0, 2, 2).tolist()
    return Skin(picture, float(rng.uniform(*ppm)), (x, y))


def _blend(rng: Rng, size: tuple[int, int]) -> F32:
    """Paint a label over cloth, stones or bricks."""
    kind = int(rng.integers(3))
    if kind == 0:
        under = paint_cells(rng, size, 14, (170, 140, 110), 0.3)
    elif kind == 1:
        under = paint_brick(rng, size, 200, (170, 110, 80))
    else:
        under = paint_cloth(rng, size)
    share = np.float32(rng.uniform(0.5, 0.8))
    poster = paint_poster(rng, size)
    return np.asarray(share * poster + (1 - share) * under, np.float32)
