"""The church: a tower with a clock that is seen over the roofs, and a nave."""

from __future__ import annotations

import cv2
import numpy as np

from sfm_features.scenes.materials import Rng, make_noise, paint_ashlar, to_rgba
from sfm_features.scenes.mesh import UP, Builder, Frame, add_box
from sfm_features.types import U8

PPM = 36.0
WIDE, TALL, SPIRE = 4.8, 19.0, 9.0


def add_church(builder: Builder, frame: Frame) -> None:
    """Add a church whose tower has its front left corner at a frame's origin."""
    for corner, across in (
        (frame.at(0, 0, TALL), frame.right),
        (frame.at(WIDE, 0, TALL), -frame.out),
        (frame.at(WIDE, -WIDE, TALL), -frame.right),
        (frame.at(0, -WIDE, TALL), frame.out),
    ):
        number = builder.add_texture(_paint_tower(builder.rng))
        builder.add(corner, WIDE * across, -TALL * UP, number)
    for z in (5.0, 11.0, 14.6):
        low, high = (-0.15, -WIDE - 0.15, z), (WIDE + 0.15, 0.15, z + 0.25)
        add_box(builder, frame, low, high, "stone", faces="frltbu")
    low, high = (-0.3, -WIDE - 0.3, TALL), (WIDE + 0.3, 0.3, TALL + 0.4)
    add_box(builder, frame, low, high, "stone", faces="frltbu")
    _add_spire(builder, frame)
    low, high = (-2.0, -WIDE - 14, 0.0), (WIDE + 2.0, -WIDE, 7.5)
    add_box(builder, frame, low, high, "ashlar", faces="frlb", ppm=40)
    for way, x in ((1.0, WIDE + 2.3), (-1.0, -2.3)):
        ridge = frame.at(WIDE / 2, -WIDE, 12.0)
        far = frame.at(WIDE / 2, -WIDE - 14.3, 12.0)
        slope = frame.at(x, -WIDE, 7.3) - ridge
        start, along = (ridge, far - ridge) if way > 0 else (far, ridge - far)
        builder.add(start, along, slope, "tiles2", ppm=40, two_sided=True)
    builder.keep_out(frame, (-2.5, -WIDE - 15), (WIDE + 2.5, 1.0))


def _add_spire(builder: Builder, frame: Frame) -> None:
    reach = WIDE / 2 + 0.3
    middle = frame.at(WIDE / 2, -WIDE / 2, TALL + 0.4)
    for across in (frame.right, -frame.out, -frame.right, frame.out):
        out = np.array([across[1], -across[0], 0.0])
        top = middle + SPIRE * UP
        builder.add(top - reach * across, 2 * reach * across,
                    reach * out - SPIRE * UP, "tiles2", ppm=48, taper=1.0)  # fmt: skip
    x, z = WIDE / 2, TALL + SPIRE
    for half, low, high in ((0.06, 0.0, 1.8), (0.5, 1.1, 1.2)):
        near, far = (x - half, -x - 0.06, z + low), (x + half, -x + 0.06, z + high)
        add_box(builder, frame, near, far, "bronze")


def _paint_tower(rng: Rng) -> U8:
    """Paint one side of the tower (H, W, 4): masonry, slits, belfry and clock."""
    size = (int(WIDE * PPM), int(TALL * PPM))
    picture = paint_ashlar(rng, size, PPM * 1.6, (196, 184, 158))
    picture *= (1 + 0.16 * make_noise(rng, size, 3 * PPM, 5))[..., None]
    glow = np.zeros(size[::-1], np.uint8)
    x = size[0] // 2
    stone, dark = (150, 140, 120), (40, 38, 40)
    top, foot = int(1.6 * PPM), int(3.7 * PPM)
    for shift in (-0.9, 0.9):
        left, right = (int(x + (shift + s) * PPM) for s in (-0.5, 0.5))
        cv2.rectangle(picture, (left - 4, top), (right + 4, foot + 4), stone, 4)
        cv2.circle(picture, ((left + right) // 2, top), (right - left) // 2, dark, -1)
        cv2.rectangle(picture, (left, top), (right, foot), dark, -1)
        for y in range(top, foot, 7):
            cv2.line(picture, (left, y), (right, y + 2), (112, 96, 78), 2)
    y, radius = int(6.2 * PPM), int(1.25 * PPM)
    cv2.circle(picture, (x, y), radius + 5, (120, 100, 60), -1)
    cv2.circle(picture, (x, y), radius, (232, 226, 206), -1)
    cv2.circle(glow, (x, y), radius, 140, -1)
    for hour in range(12):
        way = np.array([np.sin(hour * np.pi / 6), -np.cos(hour * np.pi / 6)])
        a, b = (np.array([x, y]) + way * radius * r for r in (0.76, 0.93))
        ends = (int(a[0]), int(a[1])), (int(b[0]), int(b[1]))
        cv2.line(picture, *ends, (40, 36, 40), 3)
    cv2.line(picture, (x, y), (x - 14, y - 18), (30, 30, 40), 4)
    cv2.line(picture, (x, y), (x + 24, y - 26), (30, 30, 40), 3)
    for z in (9.5, 13.0):
        top, foot = int(z * PPM), int((z + 1.4) * PPM)
        cv2.rectangle(
            picture, (x - 12, top - 4), (x + 12, foot + 4), (150, 140, 120), -1
        )
        cv2.rectangle(picture, (x - 7, top), (x + 7, foot), dark, -1)
    return to_rgba(picture, glow)
