"""Houses in three dimensions: painted walls, roofs and what stands out from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfm_features.scenes.facades import Front, Plan, Rect
from sfm_features.scenes.mesh import UP, Builder, Frame, Lamp, add_box
from sfm_features.scenes.signs import SHOPS, paint_sign
from sfm_features.types import F64

EAVES = 0.35


@dataclass(frozen=True)
class House:
    """Where a house stands (front left corner, to the right), its size and its roof."""

    frame: Frame
    width: float
    depth: float
    height: float
    roof: str
    """One of ridge (along the street), gable (towards it), hip, flat."""


def add_house(
    builder: Builder, house: House, plan: Plan, front: Front, walls: list[Front]
) -> None:
    """Add a house: its front, three plainer walls, its roof and its relief."""
    frame, w, d, h = house.frame, house.width, house.depth, house.height
    right, out = frame.right, frame.out
    number = builder.add_texture(front.picture)
    builder.add(frame.at(0, 0, h), w * right, -h * UP, number)
    spots = (
        (frame.at(w, 0, h), -d * out),
        (frame.at(0, -d, h), d * out),
        (frame.at(w, -d, h), -w * right),
    )
    for (corner, across), wall in zip(spots, walls, strict=True):
        builder.add(corner, across, -h * UP, builder.add_texture(wall.picture))
    add_roof(builder, house)
    add_relief(builder, house, plan, front)
    block(builder, frame, (-0.3, -d - 0.3), (w + 0.3, 0.9))


def block(
    builder: Builder, frame: Frame, low: tuple[float, float], high: tuple[float, float]
) -> None:
    """Keep cameras out of a rectangle (right, out) of a frame."""
    corners = np.array(
        [frame.at(x, y, 0)[:2] for x in (low[0], high[0]) for y in (low[1], high[1])]
    )
    (x0, y0), (x1, y1) = corners.min(0).tolist(), corners.max(0).tolist()
    builder.blocks.append((x0, y0, x1, y1))


def add_roof(builder: Builder, house: House) -> None:
    """Add the roof of a house with its eaves, and chimneys."""
    frame, w, d, h = house.frame, house.width, house.depth, house.height
    tiles = f"tiles{int(builder.rng.integers(3))}"
    if house.roof == "flat":
        _add_flat(builder, house)
        return
    turned = house if house.roof != "gable" else _turn(house)
    rise = float(builder.rng.uniform(0.38, 0.6)) * turned.depth
    _add_slopes(builder, turned, rise, tiles, taper=0.5 if house.roof == "hip" else 0)
    if house.roof != "hip":
        _add_gables(builder, turned, rise)
    for _ in range(int(builder.rng.integers(1, 3))):
        x = float(builder.rng.uniform(0.1, 0.8)) * w
        y = -float(builder.rng.uniform(0.3, 0.7)) * d
        top = h + rise + 0.5
        size = (0.5, 0.7)
        add_box(builder, frame, (x, y, h), (x + size[0], y + size[1], top), "brickwork")
        add_box(
            builder,
            frame,
            (x - 0.06, y - 0.06, top),
            (x + size[0] + 0.06, y + size[1] + 0.06, top + 0.12),
            "stone",
            faces="frltbu",
        )


def _turn(house: House) -> House:
    """See a house from its right side, so that the ridge runs the other way."""
    frame = house.frame.turned(house.frame.at(house.width, 0, 0), 90)
    return House(frame, house.depth, house.width, house.height, house.roof)


def _add_slopes(
    builder: Builder, house: House, rise: float, tiles: str, taper: float
) -> None:
    frame, w, d, h = house.frame, house.width, house.depth, house.height
    side = EAVES * 0.8
    drop = rise * EAVES / (d / 2)
    across = (w + 2 * side) * frame.right
    run = d / 2 + EAVES
    down = -(rise + drop) * UP
    back = frame.turned(frame.at(w, -d, 0), 180)
    for f in (frame, back):
        ridge = f.at(-side, -d / 2, h + rise)
        builder.add(ridge, across if f is frame else -across, run * f.out + down,
                    tiles, ppm=48, taper=taper, two_sided=True)  # fmt: skip
        eave = f.at(-side, EAVES - 0.02, h - drop + 0.14)
        builder.add(eave, across if f is frame else -across, -0.16 * UP, "wood", ppm=64)
    if taper:
        length = w + 2 * side
        for f in (frame, back):
            # The triangles at the ends lean in by as much as the slopes taper.
            lean = length * taper / 2
            top = f.at(w + side - lean, -d - EAVES, h + rise)
            slope = lean * f.right + down
            builder.add(
                top + (d + 2 * EAVES) * f.out,
                -(d + 2 * EAVES) * f.out,
                slope,
                tiles,
                ppm=48,
                taper=1.0,
                two_sided=True,
            )
    else:
        add_box(
            builder,
            frame,
            (-side, -d / 2 - 0.12, h + rise - 0.06),
            (w + side, -d / 2 + 0.12, h + rise + 0.07),
            "ridge",
        )


def _add_gables(builder: Builder, house: House, rise: float) -> None:
    """Close the two triangles under a ridge."""
    frame, w, d, h = house.frame, house.width, house.depth, house.height
    wall = f"gable{int(builder.rng.integers(3))}"
    for corner, across in (
        (frame.at(w, 0, h + rise), -d * frame.out),
        (frame.at(0, -d, h + rise), d * frame.out),
    ):
        builder.add(corner, across, -rise * UP, wall, ppm=64, taper=1.0)


def _add_flat(builder: Builder, house: House) -> None:
    """Add a flat roof with a parapet and something on it."""
    frame, w, d, h = house.frame, house.width, house.depth, house.height
    builder.add(frame.at(0, -d, h), w * frame.right, d * frame.out, "gravel", ppm=32)
    for low, high in (
        ((-0.1, -0.2, h), (w + 0.1, 0.12, h + 0.7)),
        ((-0.1, -d - 0.1, h), (w + 0.1, -d + 0.2, h + 0.7)),
        ((-0.1, -d, h), (0.2, 0, h + 0.7)),
        ((w - 0.2, -d, h), (w + 0.1, 0, h + 0.7)),
    ):
        add_box(builder, frame, low, high, "stone", top="stone", faces="frltbu")
    x = float(builder.rng.uniform(1, w - 2.5))
    add_box(builder, frame, (x, -d / 2, h), (x + 1.6, -d / 2 + 1.4, h + 1.3), "metal")


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
    for rect in front.shops:
        _add_shop_relief(builder, frame, h, rect)
    pipe = 0.12 if rng.random() < 0.5 else house.width - 0.22
    low, high = (pipe, 0.02, 0.0), (pipe + 0.1, 0.13, h - 0.1)
    add_box(builder, frame, low, high, "metal", faces="frl")
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
