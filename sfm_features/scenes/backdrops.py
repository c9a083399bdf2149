"""What stands behind an object: nothing much, or a room full of painted things."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np

from sfm_features.scenes.materials import (
    Colour,
    Rng,
    make_noise,
    paint_ashlar,
    paint_brick,
    paint_cells,
    paint_grass,
    paint_planks,
    paint_plaster,
    paint_tiles,
    tint,
)
from sfm_features.scenes.signs import paint_poster
from sfm_features.scenes.solids import Box, Capsule, Skin
from sfm_features.types import F32, F64, U8

Backdrop: TypeAlias = Literal["plain", "busy"]
"""A wall and floor of one colour each, or a room with pictures and things."""

_SIZE = (360, 280)
_ROOM_M = 12.0
_THINGS = (5, 11)


def list_backdrop(
    rng: Rng,
    backdrop: Backdrop,
    distance: float = 2.2,
    detail: float = 1.0,
    spread: float = 1.0,
) -> list[Box | Capsule]:
    """Build floor (z = 0), back wall at y = `distance`, and what stands before it.

    The camera is meant to look along y; nothing comes nearer than y = 0.55 * distance.
    With more `detail` bricks and boards are smaller, for larger pictures; with less
    `spread` things stand closer together.
    """
    if backdrop == "plain":
        colours = rng.uniform(70, 220, (2, 3))
        wall, floor = (Skin(_paint_plain(c)) for c in colours)
        return _build_shell(wall, floor, distance)
    skins = paint_skins()
    wall, floor = (_pick(rng, skins, detail) for _ in range(2))
    things = _build_shell(wall, floor, distance)
    for _ in range(int(rng.integers(*_THINGS))):
        things.append(_place_thing(rng, skins, distance, detail, spread))
    for _ in range(int(rng.integers(1, 4))):
        things.append(_hang_picture(rng, distance, detail, spread))
    return things


@lru_cache(maxsize=1)
def paint_skins() -> tuple[U8, ...]:
    """Paint what walls, floors and furniture are made of, once."""
    rng = np.random.default_rng(17)
    painted: list[F32] = []
    for _ in range(3):
        red, grey, wood = (_vary(rng, c) for c in (_BRICK, _STONE, _WOOD))
        painted += [
            paint_brick(rng, _SIZE, 90, red),
            paint_ashlar(rng, _SIZE, 110, grey),
            paint_planks(rng, _SIZE, 150, wood),
            paint_plaster(rng, _SIZE, 60, _vary(rng, (190, 170, 140))),
            paint_cells(rng, _SIZE, 18, grey, 0.2),
            paint_tiles(rng, _SIZE, 120, red),
            paint_grass(rng, _SIZE, 60),
            paint_cloth(rng, _SIZE),
            paint_cloth(rng, _SIZE),
        ]
    return tuple(to_u8(picture) for picture in painted)


_BRICK: Colour = (160, 84, 62)
_STONE: Colour = (160, 152, 138)
_WOOD: Colour = (150, 112, 70)


def paint_cloth(rng: Rng, size: tuple[int, int]) -> F32:
    """Paint cloth (H, W, 3): stripes, checks or blots of two or three colours."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    colours = rng.uniform(20, 245, (3, 3)).astype(np.float32)
    pitch = float(rng.uniform(6, 18))
    kind = int(rng.integers(4))
    rows, columns = (np.floor(v / pitch) % 2 for v in (y, x))
    blots = make_noise(rng, size, 2.5 * pitch, 2) > 0.1
    chosen = (rows, columns, (rows + columns) % 2, blots)[kind].astype(int)
    chosen = np.where(make_noise(rng, size, 40, 2) > 0.9, 2, chosen)
    shade = 1 + 0.12 * make_noise(rng, size, 12, 3)
    return np.asarray(colours[chosen] * shade[..., None], np.float32)


def to_u8(picture: F32) -> U8:
    """Round a picture to bytes."""
    return np.asarray(np.clip(picture, 0, 255), np.uint8)


def _paint_plain(colour: F64) -> U8:
    red, green, blue = colour.tolist()
    return to_u8(tint((red, green, blue), np.ones((8, 8), np.float32)))


def _vary(rng: Rng, colour: Colour) -> Colour:
    red, green, blue = (np.array(colour) * rng.uniform(0.7, 1.25, 3)).tolist()
    return red, green, blue


def _pick(rng: Rng, skins: Sequence[U8], detail: float) -> Skin:
    """Take a skin at a random place, and at a size that a thing may have it."""
    x, y = rng.uniform(0, 4, 2).tolist()
    picture = skins[int(rng.integers(len(skins)))]
    return Skin(picture, detail * float(rng.uniform(50, 110)), (x, y))


def _build_shell(wall: Skin, floor: Skin, distance: float) -> list[Box | Capsule]:
    upright = np.eye(3)
    half = np.array([_ROOM_M, 0.1, _ROOM_M])
    return [
        Box(np.array([0, distance + 0.1, 0]), upright, half, wall),
        Box(np.array([0, 0, -0.1]), upright, half[[0, 2, 1]], floor),
    ]


def _place_thing(
    rng: Rng, skins: Sequence[U8], distance: float, detail: float, spread: float
) -> Box | Capsule:
    """Stand furniture on the floor: boxes, poles and balls."""
    x = spread * float(rng.uniform(-2.4, 2.4))
    y = float(rng.uniform(0.7, 0.95)) * distance
    skin = _pick(rng, skins, detail)
    kind = int(rng.integers(3))
    if kind == 0:
        half = rng.uniform(0.1, 0.32, 3) * (1, 0.45, float(rng.uniform(0.6, 3)))
        spot = np.array([x, y, half[2]])
        return Box(spot, _turn(float(rng.uniform(-0.7, 0.7))), half, skin)
    radius = float(rng.uniform(0.05, 0.14))
    if kind == 1:
        foot = np.array([x, y, radius])
        lean = np.array([rng.normal(0, 0.15), 0, rng.uniform(0.5, 2.2)])
        return Capsule(foot, foot + lean, radius, skin)
    spot = np.array([x, y, float(rng.uniform(0.1, 1.9))])
    return Capsule(spot, spot, 1.8 * radius, skin)


def _hang_picture(rng: Rng, distance: float, detail: float, spread: float) -> Box:
    width, height = rng.uniform(0.3, 0.7, 2).tolist()
    size = (round(96 * detail), round(128 * detail))
    picture = to_u8(paint_poster(rng, size))
    x, z = spread * rng.uniform(-1.8, 1.8), rng.uniform(0.7, 2.0)
    spot = np.array([x, distance - 0.02, z])
    half = np.array([width / 2, 0.03, height / 2])
    return Box(spot, np.eye(3), half, Skin(picture, size[1] / height))


def _turn(radians: float) -> F64:
    """Return the axes of a box turned about the vertical."""
    cos, sin = np.cos(radians), np.sin(radians)
    return np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
