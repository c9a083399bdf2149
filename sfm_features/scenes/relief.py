"""What stands out from a house: sills, shutters, balconies, awnings, dormers."""

from __future__ import annotations

import numpy as np

from sfm_features.scenes.facades import Front, House, Plan
from sfm_features.scenes.mesh import UP, Builder, Frame, Lamp, add_box
from sfm_features.scenes.openings import Rect
from sfm_features.scenes.signs import SHOPS, paint_sign
from sfm_features.types import F64


def add_relief(builder: Builder, house: House, plan: Plan, front: Front) -> None:
    """Add sills, lintels, shutters, cornices, balconies, awnings and signs."""
    rng, frame, h = builder.rng, house.frame, house.height
    shutters = rng.random() < 0.5
    shutter = f"shutter{int(rng.integers(4))}"
    flowers = rng.random() < 0.5
    for rect in front.windows:
        _add_window_relief(builder, frame, h, rect, shutter if shutters else "")
        if flowers and rng.random() < 0.6:
            _add_flowers(builder, frame, h, rect)
    for level in range(1, plan.storeys):
        if plan.wall == "timber" or rng.random() < 0.4:
            z = level * h / plan.storeys
            low, high = (0.0, 0.0, z - 0.08), (house.width, 0.09, z + 0.06)
            add_box(builder, frame, low, high, "stone", faces="frltu")
    if house.roof in ("flat", "hip") or rng.random() < 0.5:
        low, high = (-0.05, 0.0, h - 0.3), (house.width + 0.05, 0.22, h - 0.06)
        add_box(builder, frame, low, high, "stone", faces="frltu")
    for x0, _, x1, _ in front.doors:
        low, high = (x0 - 0.25, 0.0, 0.0), (x1 + 0.25, 0.42, 0.16)
        add_box(builder, frame, low, high, "stone", faces="frlt")
        if rng.random() < 0.5:
            low, high = (x0 - 0.3, 0.0, 2.5), (x1 + 0.3, 0.7, 2.62)
            add_box(builder, frame, low, high, "wood", faces="frltu")
        if rng.random() < 0.6:
            _add_lantern(builder, frame, x0 - 0.45 if x0 > 0.6 else x1 + 0.45)
    pipe = 0.12 if rng.random() < 0.5 else house.width - 0.22
    low, high = (pipe, 0.02, 0.0), (pipe + 0.1, 0.13, h - 0.1)
    add_box(builder, frame, low, high, "metal", faces="frl")
    for rect in front.shops:
        _add_shop_relief(builder, frame, h, rect)
    upper = [r for r in front.windows if h - r[3] > 2.8]
    if upper and rng.random() < 0.45:
        _add_balcony(builder, frame, h, upper[int(rng.integers(len(upper)))])


def _add_window_relief(
    builder: Builder, frame: Frame, h: float, rect: Rect, shutter: str
) -> None:
    x0, y0, x1, y1 = rect
    low, high = (x0 - 0.17, 0.0, h - y1 - 0.1), (x1 + 0.17, 0.16, h - y1 - 0.01)
    add_box(builder, frame, low, high, "stone", faces="frltu")
    low, high = (x0 - 0.15, 0.0, h - y0 + 0.06), (x1 + 0.15, 0.1, h - y0 + 0.2)
    add_box(builder, frame, low, high, "stone", faces="frltu")
    if not shutter:
        return
    wide = (x1 - x0) / 2
    for left in (x0 - 0.1 - wide, x1 + 0.1):
        open_ = float(builder.rng.uniform(0.03, 0.1))
        corner = frame.at(left, open_, h - y0)
        builder.add(corner, wide * frame.right, (y0 - y1) * UP, shutter)
        for x, way in ((left, 1.0), (left + wide, -1.0)):
            depth = open_ * way * frame.out
            start = frame.at(x, 0.0 if way > 0 else open_, h - y0)
            builder.add(start, depth, (y0 - y1) * UP, "wood", ppm=64)


def _add_flowers(builder: Builder, frame: Frame, h: float, rect: Rect) -> None:
    """Hang a box of flowers under a window."""
    x0, _, x1, y1 = rect
    low, high = (x0, 0.16, h - y1 - 0.16), (x1, 0.36, h - y1 + 0.02)
    add_box(builder, frame, low, high, "wood", faces="frltu")
    bush = f"flowers{int(builder.rng.integers(3))}"
    for out, shift in ((0.3, 0.0), (0.2, 0.05)):
        corner = frame.at(x0 - 0.08 + shift, out, h - y1 + 0.34)
        builder.add(corner, (x1 - x0 + 0.16) * frame.right, -0.42 * UP, bush,
                    two_sided=True)  # fmt: skip


def _add_balcony(builder: Builder, frame: Frame, h: float, rect: Rect) -> None:
    x0, _, x1, y1 = rect
    left, right, floor = x0 - 0.45, x1 + 0.45, h - y1 - 0.28
    low, high = (left, 0.0, floor), (right, 0.95, floor + 0.14)
    add_box(builder, frame, low, high, "stone", faces="frltu")
    top = floor + 1.0
    rail = "railing"
    across, deep, down = (right - left) * frame.right, 0.92 * frame.out, -0.86 * UP
    builder.add(frame.at(left, 0.92, top), across, down, rail, ppm=100, two_sided=True)
    for x in (left, right):
        builder.add(frame.at(x, 0, top), deep, down, rail, ppm=100, two_sided=True)
    for x in (left + 0.2, right - 0.3):
        low, high = (x, 0.0, floor - 0.4), (x + 0.12, 0.5, floor)
        add_box(builder, frame, low, high, "stone", faces="frlu")


def _add_shop_relief(builder: Builder, frame: Frame, h: float, rect: Rect) -> None:
    """Add an awning and boards with the shop's name."""
    rng = builder.rng
    x0, y0, x1, _ = rect
    top = h - y0 + 0.12
    name = SHOPS[int(rng.integers(len(SHOPS)))]
    ground, ink = [
        ((34, 60, 48), (236, 214, 150)),
        ((110, 30, 34), (244, 230, 200)),
        ((232, 224, 204), (60, 40, 34)),
        ((30, 44, 84), (240, 236, 220)),
        ((214, 170, 60), (50, 30, 26)),
    ][int(rng.integers(5))]
    wide, tall = x1 - x0, 0.52
    board = paint_sign(rng, (int(wide * 110), int(tall * 110)), name, ground, ink)
    glow = np.full(board.shape[:2], 45, np.uint8)
    number = builder.add_texture(np.dstack([board.astype(np.uint8), glow]))
    builder.add(frame.at(x0, 0.1, top + tall), wide * frame.right, -tall * UP, number)
    low, high = (x0, 0.0, top), (x1, 0.1, top + tall)
    add_box(builder, frame, low, high, "wood", faces="rltu")
    if rng.random() < 0.6:
        slope = 1.15 * frame.out - 0.5 * UP
        cloth = f"awning{int(rng.integers(3))}"
        builder.add(frame.at(x0 - 0.1, 0.1, top + 0.02), (wide + 0.2) * frame.right,
                    slope, cloth, two_sided=True)  # fmt: skip
    else:
        plate = builder.add_texture(
            np.dstack(
                [
                    paint_sign(rng, (110, 80), name[:6], ground, ink),
                    glow[:1, :1].repeat(80, 0).repeat(110, 1),
                ]
            ).astype(np.uint8)  # fmt: skip
        )
        start = frame.at(x1 + 0.1, 0.1, top + 0.5)
        builder.add(start, 0.8 * frame.out, -0.58 * UP, plate, two_sided=True)
    centre: F64 = frame.at((x0 + x1) / 2, 1.1, top - 0.5)
    x, y, z = centre.tolist()
    builder.lamps.append(Lamp((x, y, z), (1.0, 0.78, 0.5), 1.6))


def _add_lantern(builder: Builder, frame: Frame, x: float) -> None:
    """Hang a lantern beside a door."""
    add_box(builder, frame, (x - 0.03, 0.0, 2.95), (x + 0.03, 0.5, 3.0), "iron")
    low, high = (x - 0.1, 0.36, 2.55), (x + 0.1, 0.56, 2.88)
    add_box(builder, frame, low, high, "glass", top="iron", faces="frltbu")
    low, high = (x - 0.14, 0.32, 2.88), (x + 0.14, 0.6, 2.95)
    add_box(builder, frame, low, high, "iron", faces="frltbu")
    a, b, c = frame.at(x, 0.62, 2.6).tolist()
    builder.lamps.append(Lamp((a, b, c), (1.0, 0.74, 0.42), 2.2))


def add_dormer(builder: Builder, house: House, x: float, rise: float) -> None:
    """Add a window that stands out of the front slope of a roof."""
    steep = rise / (house.depth / 2)
    half, tall, out = 0.6, 1.25, -0.6
    foot = house.height - out * steep
    back = out - tall / steep
    if back < -house.depth / 2 - 0.1:
        return
    f = house.frame
    low, high = (x - half, back, foot), (x + half, out, foot + tall)
    add_box(builder, f, low, high, "wood", faces="rl")
    window = f"dormer{int(builder.rng.integers(4))}"
    builder.add(f.at(x - half, out, foot + tall), 2 * half * f.right, -tall * UP,
                window)  # fmt: skip
    peak, eave = foot + tall + 0.5, foot + tall - 0.05
    builder.add(f.at(x - half, out, peak - 0.02), 2 * half * f.right, -0.48 * UP,
                "wood", ppm=64, taper=1.0)  # fmt: skip
    deep = out - back + 0.7
    for way in (1.0, -1.0):
        slope = (half + 0.15) * way * f.right + (eave - peak) * UP
        front, rear = f.at(x, out + 0.2, peak), f.at(x, out + 0.2 - deep, peak)
        start, along = (front, rear - front) if way > 0 else (rear, front - rear)
        builder.add(start, along, slope, "tiles2", ppm=48, two_sided=True)
