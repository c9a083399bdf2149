"""Materials: pictures of brick, plaster, stone, tiles, ground, leaves, from noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np

from sfm_features.types import F32, I32, U8

Rng: TypeAlias = np.random.Generator
Colour: TypeAlias = tuple[float, float, float]
Size: TypeAlias = tuple[int, int]


def make_noise(rng: Rng, size: Size, cell: float, octaves: int = 4) -> F32:
    """Sum smooth noise of halving cells, (H, W) of about -1..1; size is (W, H)."""
    width, height = size
    total = np.zeros((height, width), np.float32)
    gain = 1.0
    for _ in range(octaves):
        grid = (int(height / cell) + 3, int(width / cell) + 3)
        coarse = rng.uniform(-1, 1, grid).astype(np.float32)
        full = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        total += gain * full
        gain *= 0.6
        cell = max(cell / 2, 1.0)
    return np.asarray(total / np.float32(1.6), np.float32)


def to_f32(values: Sequence[float]) -> F32:
    """Turn a few numbers into an array."""
    return np.array(values, np.float32)


def tint(colour: Colour, shade: F32) -> F32:
    """Multiply a colour 0..255 by shades (H, W) -> (H, W, 3)."""
    return np.asarray(shade[..., None] * to_f32(colour), np.float32)


def to_rgba(rgb: F32, alpha: U8 | None = None) -> U8:
    """Round a picture (H, W, 3) to bytes and append alpha, else 0."""
    out = np.zeros((*rgb.shape[:2], 4), np.uint8)
    np.clip(rgb, 0, 255, out=rgb)
    out[..., :3] = rgb
    if alpha is not None:
        out[..., 3] = alpha
    return out


def make_cells(rng: Rng, size: Size, pitch: float) -> tuple[I32, F32]:
    """Cut a picture into irregular stones: labels (H, W) and 0..1 from joint to middle.

    The stones are the Voronoi cells of jittered seeds.
    """
    width, height = size
    rows, cols = int(height / pitch) + 1, int(width / pitch) + 1
    ys, xs = np.mgrid[0:rows, 0:cols].astype(np.float64)
    xs += 0.5 * (ys % 2)
    xs = (xs + rng.uniform(0.15, 0.85, xs.shape)) * pitch
    ys = (ys + rng.uniform(0.15, 0.85, ys.shape)) * pitch
    keep = (xs < width) & (ys < height)
    free = np.full((height, width), 255, np.uint8)
    free[ys[keep].astype(int), xs[keep].astype(int)] = 0
    _, labels = cv2.distanceTransformWithLabels(
        free, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    joint = np.zeros((height, width), np.uint8)
    joint[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    joint[1:] |= labels[1:] != labels[:-1]
    inside = cv2.distanceTransform(1 - joint, cv2.DIST_L2, 3)
    joints = np.minimum(inside / np.float32(0.18 * pitch), 1).astype(np.float32)
    return np.asarray(labels, np.int32), joints


def paint_cells(rng: Rng, size: Size, pitch: float, colour: Colour, vary: float) -> F32:
    """Paint rubble or cobbles (H, W, 3) with a colour of their own and dark joints."""
    labels, inside = make_cells(rng, size, pitch)
    count = int(labels.max()) + 1
    own = 1 + vary * rng.normal(0, 1, (count, 1)) + 0.022 * rng.normal(0, 1, (count, 3))
    colours = (np.clip(own, 0.45, 1.6) * colour).astype(np.float32)
    shade = 1 + 0.12 * make_noise(rng, size, pitch / 2, 3)
    shade *= 0.45 + 0.55 * inside
    return np.asarray(colours[labels] * shade[..., None], np.float32)


def paint_brick(rng: Rng, size: Size, ppm: float, colour: Colour) -> F32:
    """Paint courses of bricks (H, W, 3) with mortar between them."""
    width, height = size
    long, tall = 0.24 * ppm, 0.078 * ppm
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    row = np.floor(y / tall)
    shifted = x + (row % 2) * np.float32(long / 2)
    shifted += 0.12 * ppm * np.sin(row * 12.9)
    col = np.floor(shifted / long) + 2
    fx, fy = shifted - (col - 2) * long, y - row * tall
    edge = np.minimum(np.minimum(fx, long - fx), np.minimum(fy, tall - fy))
    table = rng.normal(1, 0.16, (int(row.max()) + 1, int(col.max()) + 3, 1))
    table = table + rng.normal(0, 0.04, (*table.shape[:2], 3))
    bricks = (np.clip(table, 0.5, 1.5) * colour).astype(np.float32)
    picture = bricks[row.astype(np.int32), col.astype(np.int32)]
    mortar = np.clip((0.014 * ppm - edge) / (0.008 * ppm) + 0.5, 0, 1)[..., None]
    picture += mortar * (to_f32((176, 168, 152)) - picture)
    picture *= (1 + 0.1 * make_noise(rng, size, 0.05 * ppm, 2))[..., None]
    return np.asarray(picture, np.float32)


def paint_plaster(rng: Rng, size: Size, ppm: float, colour: Colour) -> F32:
    """Paint rough plaster (H, W, 3) with patches where older coats show."""
    shade = 1 + 0.07 * make_noise(rng, size, 0.9 * ppm, 4)
    shade += 0.06 * make_noise(rng, size, 0.06 * ppm, 3)
    picture = tint(colour, shade)
    older = make_noise(rng, size, 1.4 * ppm, 6)
    bare = np.clip((older - 0.75) * 9, 0, 1)[..., None]
    coat = paint_brick(rng, size, ppm, (150, 92, 70)) if rng.random() < 0.5 else None
    under = tint((166, 152, 130), shade) if coat is None else coat
    rim = np.clip(1 - np.abs(older - 0.75) * 30, 0, 1)[..., None]
    worn = (picture + bare * (under - picture)) * (1 - 0.3 * rim)
    return np.asarray(worn, np.float32)


def paint_ashlar(rng: Rng, size: Size, ppm: float, colour: Colour) -> F32:
    """Paint cut stone blocks (H, W, 3) in courses of different heights."""
    width, height = size
    picture = tint(colour, 1 + 0.09 * make_noise(rng, size, 0.12 * ppm, 4))
    y = 0
    while y < height:
        tall = int(rng.uniform(0.22, 0.42) * ppm)
        x = -int(rng.uniform(0, 0.5) * ppm)
        while x < width:
            long = int(rng.uniform(0.35, 0.8) * ppm)
            block = picture[y : y + tall, max(x, 0) : max(x + long, 0)]
            block *= np.float32(rng.normal(1, 0.1) + rng.normal(0, 0.02, 3))
            cv2.rectangle(picture, (x, y), (x + long, y + tall), (96, 88, 78), 2)
            cv2.line(picture, (x + 2, y + 2), (x + long, y + 2), (216, 206, 190), 1)
            x += long
        y += tall
    return picture


def paint_tiles(rng: Rng, size: Size, ppm: float, colour: Colour) -> F32:
    """Paint a tiled roof (H, W, 3): rounded, each with its shade, mossy in places."""
    width, height = size
    wide, tall = 0.2 * ppm, 0.27 * ppm
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    row = np.floor(y / tall)
    shifted = x + (row % 2) * np.float32(wide / 2)
    col = np.floor(shifted / wide)
    fx, fy = shifted / wide - col - 0.5, y / tall - row
    table = rng.normal(1, 0.15, (int(row.max()) + 1, int(col.max()) + 2, 1))
    table = table + rng.normal(0, 0.03, (*table.shape[:2], 3))
    tiles = (np.clip(table, 0.5, 1.5) * colour).astype(np.float32)
    picture = tiles[row.astype(np.int32), col.astype(np.int32)]
    curve = 1.12 - 1.6 * fx**2 - 0.5 * np.clip(0.16 - fy + 0.5 * fx**2, 0, 1) / 0.16
    moss = np.clip(make_noise(rng, size, 1.1 * ppm, 5) - 0.45, 0, 0.6)[..., None]
    picture = picture * np.clip(curve, 0.35, 1.2)[..., None]
    return np.asarray(picture + moss * (to_f32((84, 92, 52)) - picture), np.float32)


def paint_planks(rng: Rng, size: Size, ppm: float, colour: Colour) -> F32:
    """Paint upright boards (H, W, 3) with grain, knots of shade and nails."""
    width, height = size
    grain = make_noise(rng, (width, max(height // 12, 4)), 0.02 * ppm, 3)
    shade = 1 + 0.16 * cv2.resize(grain, size, interpolation=cv2.INTER_LINEAR)
    picture = tint(colour, shade + 0.08 * make_noise(rng, size, 0.3 * ppm, 3))
    x = 0
    while x < width:
        wide = int(rng.uniform(0.09, 0.17) * ppm) + 2
        picture[:, x : x + wide] *= np.float32(rng.normal(1, 0.12))
        picture[:, x : x + 2] *= np.float32(0.45)
        for y in (0.06 * height, 0.94 * height):
            cv2.circle(picture, (x + wide // 2, int(y)), 2, (40, 36, 34), -1)
        x += wide
    return picture


def paint_grass(rng: Rng, size: Size, ppm: float) -> F32:
    """Paint a meadow (H, W, 3) with dry patches and flowers."""
    width, height = size
    shade = 1 + 0.22 * make_noise(rng, size, 1.6 * ppm, 5)
    shade += 0.22 * make_noise(rng, size, 2.0, 2)
    picture = tint((92, 112, 52), shade)
    dry = np.clip(make_noise(rng, size, 4 * ppm, 5), 0, 1)[..., None]
    picture += dry * (tint((142, 130, 84), shade) - picture)
    for _ in range(width * height // 900):
        colour = ((236, 228, 210), (228, 196, 60), (190, 70, 90))[rng.integers(3)]
        spot = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(picture, spot, 1, colour, -1)
    return picture


def paint_leaves(rng: Rng, size: Size, colour: Colour, fill: float) -> U8:
    """Paint a ragged round clump of leaves (H, W, 4) to be cut out by its alpha."""
    width, height = size
    picture = tint((34, 44, 20), np.ones((height, width), np.float32))
    alpha = np.zeros((height, width), np.uint8)
    count = int(fill * 900)
    radius = np.sqrt(rng.random(count)) * 0.46
    angle = rng.uniform(0, 2 * np.pi, count)
    bumps = 1 + 0.14 * np.sin(3 * angle + rng.uniform(0, 6))
    bumps += 0.1 * np.sin(7 * angle + rng.uniform(0, 6))
    xs = (0.5 + radius * bumps * np.cos(angle) * 0.86) * width
    ys = (0.5 + radius * bumps * np.sin(angle) * 0.86) * height
    for x, y in zip(xs, ys, strict=True):
        lit = rng.uniform(0.65, 1.25) * (1.25 - 0.6 * y / height)
        own = [float(np.clip(c * lit * rng.normal(1, 0.06), 0, 255)) for c in colour]
        axes = (int(width * rng.uniform(0.018, 0.04)), int(width * 0.014))
        spot, turn = (int(x), int(y)), float(rng.uniform(0, 180))
        cv2.ellipse(picture, spot, axes, turn, 0, 360, own, -1)
        cv2.ellipse(alpha, spot, axes, turn, 0, 360, 255, -1)
    return to_rgba(picture, alpha)
