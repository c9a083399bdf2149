"""The ground of the town, and the hills around it."""

from __future__ import annotations

import cv2
import numpy as np

from sfm_features.scenes.materials import (
    Colour,
    Rng,
    make_noise,
    paint_cells,
    tint,
    to_f32,
    to_rgba,
)
from sfm_features.scenes.mesh import UP, Builder
from sfm_features.types import F32, U8

PAVED = (36.0, 44.0)
"""Half the size of the paved ground, along x and y."""


def add_land(builder: Builder, square: tuple[float, float], detail: float) -> None:
    """Add the paving of the square and streets, and the meadows around."""
    ppm = 56.0 * detail
    half_x, half_y = 17.0, 15.0
    picture = paint_square(builder.rng, (half_x, half_y), square, ppm)
    number = builder.add_texture(to_rgba(picture))
    corner = np.array([-half_x, half_y, 0.0])
    across, down = np.array([2 * half_x, 0, 0]), np.array([0, -2 * half_y, 0])
    builder.add(corner, across, down, number)
    size = (int(2 * PAVED[0] * 22), int(2 * PAVED[1] * 22))
    street = paint_streets(builder.rng, size, 22)
    number = builder.add_texture(to_rgba(street))
    x, y = PAVED
    builder.add((-x, y, -0.03), (2 * x, 0, 0), (0, -2 * y, 0), number)
    builder.add((-150, 150, -0.4), (300, 0, 0), (0, -300, 0), "grass", ppm=4)


def paint_square(
    rng: Rng, half: tuple[float, float], square: tuple[float, float], ppm: float
) -> F32:
    """Paint the square (H, W, 3): cobbles, slabs in rings, drains, stains."""
    size = (int(2 * half[0] * ppm), int(2 * half[1] * ppm))
    picture = paint_cells(rng, size, 0.135 * ppm, (146, 138, 126), 0.15)
    middle = (int((half[0] + 0.5) * ppm), int((half[1] - 0.8) * ppm))
    slabs = paint_cells(rng, size, 0.42 * ppm, (170, 160, 142), 0.1)
    mask = np.zeros(size[::-1], np.uint8)
    for radius in (4.4, 8.2):
        cv2.circle(mask, middle, int(radius * ppm), 255, int(0.6 * ppm))
    for turn in np.arange(8) * np.pi / 4 + 0.2:
        way = np.array([np.cos(turn), np.sin(turn)])
        a, b = (np.array(middle) + way * r * ppm for r in (4.6, 18))
        ends = (int(a[0]), int(a[1])), (int(b[0]), int(b[1]))
        cv2.line(mask, *ends, 255, int(0.45 * ppm))
    rim_x, rim_y = (int((half[k] - square[k] + 1.2) * ppm) for k in (0, 1))
    rim = np.full(size[::-1], 255, np.uint8)
    rim[rim_y:-rim_y, rim_x:-rim_x] = 0
    mask |= rim
    picture[mask > 0] = slabs[mask > 0]
    edge = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    picture[edge > 0] *= np.float32(0.5)
    _mark(rng, picture, ppm)
    return _soil(rng, picture, ppm)


def _mark(rng: Rng, picture: F32, ppm: float) -> None:
    """Add drains, manholes, chalk and fallen leaves."""
    height, width = picture.shape[:2]
    for _ in range(9):
        x, y = (int(v) for v in rng.random(2) * (width, height))
        radius = int(0.34 * ppm)
        cv2.circle(picture, (x, y), radius, (70, 68, 66), -1)
        for k in range(-3, 4):
            reach = int(np.sqrt(max(radius**2 - (k * radius / 4) ** 2, 0)) * 0.85)
            at = y + k * radius // 4
            cv2.line(picture, (x - reach, at), (x + reach, at), (116, 112, 106), 2)
        cv2.circle(picture, (x, y), radius, (40, 40, 40), 2)
    for _ in range(2600):
        x, y = (int(v) for v in rng.random(2) * (width, height))
        colour = [float(c) for c in rng.uniform((90, 70, 30), (190, 150, 70))]
        axes = (int(rng.uniform(1, 4)), 1)
        cv2.ellipse(picture, (x, y), axes, rng.uniform(0, 180), 0, 360, colour, -1)
    for _ in range(14):
        start = rng.random(2) * (width, height)
        path = start + np.cumsum(rng.normal(0, 0.22 * ppm, (14, 2)), axis=0)
        line = path.astype(np.int32).reshape(-1, 1, 2)
        cv2.polylines(picture, [line], False, (206, 198, 190), 2, cv2.LINE_AA)


def _soil(rng: Rng, picture: F32, ppm: float) -> F32:
    """Wear the ground: large stains, moss in the joints, patches."""
    size = (picture.shape[1], picture.shape[0])
    half = (size[0] // 2, size[1] // 2)
    stains = cv2.resize(make_noise(rng, half, 1.5 * ppm, 6), size)
    picture *= (1 + 0.2 * stains)[..., None]
    moss = cv2.resize(make_noise(rng, half, 2.2 * ppm, 5), size)
    moss = np.clip(moss - 0.4, 0, 0.4)[..., None]
    picture += moss * (to_f32((92, 98, 62)) - picture)
    return np.asarray(picture, np.float32)


def paint_streets(rng: Rng, size: tuple[int, int], ppm: float) -> F32:
    """Paint the ground of the streets (H, W, 3): setts with worn wheel tracks."""
    picture = paint_cells(rng, size, 0.3 * ppm, (132, 126, 116), 0.16)
    tracks = make_noise(rng, size, 3 * ppm, 5)
    picture *= (1 + 0.2 * tracks)[..., None]
    asphalt = tint((92, 92, 94), 1 + 0.2 * make_noise(rng, size, 4, 2))
    mask = make_noise(rng, size, 6 * ppm, 3) > 0.35
    picture[mask] = asphalt[mask]
    return picture


def add_hills(builder: Builder) -> None:
    """Stand two rings of painted hills around the town."""
    rng = builder.rng
    colours: list[tuple[Colour, Colour]] = [
        ((92, 110, 62), (120, 128, 84)),
        ((112, 128, 122), (136, 148, 146)),
    ]
    for (near, far), radius, tall, lift in (
        (colours[0], 92.0, 17.0, -2.0),
        (colours[1], 140.0, 38.0, -4.0),
    ):
        sides = 10
        turns = np.arange(sides + 1) * 2 * np.pi / sides
        ridge = _ridge(rng, sides * 512)
        for k in range(sides):
            part = ridge[k * 512 : (k + 1) * 512]
            number = builder.add_texture(_paint_hill(rng, part, near, far), cutout=True)
            a, b = (
                np.array([radius * np.cos(t), radius * np.sin(t), 0.0])
                for t in turns[k : k + 2]
            )
            # Seen from the inside, the next corner lies to the left.
            builder.add(b + (tall + lift) * UP, a - b, -tall * UP, number)


def _ridge(rng: Rng, count: int) -> F32:
    """Make a closed outline of hills (count,), 0..1."""
    x = np.linspace(0, 2 * np.pi, count, endpoint=False)
    total = np.zeros(count)
    for wave in (3, 5, 8, 13, 21, 34, 55, 90):
        total += np.sin(wave * x + rng.uniform(0, 7)) / wave**0.9
    total += 0.02 * rng.normal(0, 1, count)
    return np.asarray(0.55 + 0.3 * total / np.abs(total).max(), np.float32)


def _paint_hill(rng: Rng, ridge: F32, near: Colour, far: Colour) -> U8:
    """Paint woods and fields under an outline, to be cut out along it."""
    size = (len(ridge), 192)
    y = np.linspace(1, 0, size[1], dtype=np.float32)[:, None]
    ridge = ridge[::-1]
    shade = 1 + 0.25 * make_noise(rng, size, 60, 6)
    shade += 0.2 * make_noise(rng, size, 5, 2)
    fields = np.clip(make_noise(rng, size, 90, 3) * 6, 0, 1)[..., None]
    picture = tint(near, shade)
    picture += fields * (tint(far, shade) - picture)
    return to_rgba(picture, np.where(y < ridge, 255, 0).astype(np.uint8))
