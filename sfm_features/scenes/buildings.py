"""Houses in three dimensions: painted walls, roofs and what stands out from them."""

from __future__ import annotations

import numpy as np

from sfm_features.scenes.facades import Front, House, Plan
from sfm_features.scenes.mesh import UP, Builder, add_box
from sfm_features.scenes.relief import add_dormer, add_relief

EAVES = 0.35


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
    builder.keep_out(frame, (-0.3, -d - 0.3), (w + 0.3, 0.9))


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
    if house.roof == "ridge" and builder.rng.random() < 0.6:
        for k in range(max(int(w / 3.2), 1)):
            middle = (k + 0.5) * w / max(int(w / 3.2), 1)
            add_dormer(builder, house, middle, rise)
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
        if rise > 2.2:
            way = across / d
            out = 0.03 * np.array([way[1], -way[0], 0.0])
            start = corner + across / 2 - 0.5 * way + out + (0.45 - rise / 2) * UP
            paint = f"dormer{int(builder.rng.integers(4))}"
            builder.add(start, way, -1.05 * UP, paint)


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
