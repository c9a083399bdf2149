"""Painted house fronts: wall, windows, doors, shops, signs, weather."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from sfm_features.scenes.materials import (
    Colour,
    Rng,
    make_noise,
    paint_ashlar,
    paint_brick,
    paint_cells,
    paint_plaster,
    tint,
    to_rgba,
)
from sfm_features.scenes.mesh import Frame
from sfm_features.scenes.openings import (
    Canvas,
    Rect,
    hang_poster,
    paint_door,
    paint_shop,
    paint_window,
)
from sfm_features.types import F32, U8

WALLS: dict[str, list[Colour]] = {
    "brick": [(168, 84, 62), (146, 96, 74), (186, 122, 86), (128, 72, 64)],
    "plaster": [
        (226, 206, 166),
        (214, 168, 122),
        (206, 184, 178),
        (178, 190, 186),
        (226, 220, 204),
        (202, 148, 110),
        (168, 184, 152),
    ],
    "ashlar": [(196, 182, 156), (182, 174, 160)],
    "rubble": [(158, 146, 126), (170, 150, 128)],
    "timber": [(228, 218, 196), (220, 200, 158)],
}
PAINTS: list[Colour] = [
    (62, 92, 74),
    (120, 44, 40),
    (52, 74, 110),
    (228, 222, 208),
    (92, 66, 46),
    (60, 60, 64),
]


@dataclass(frozen=True)
class Plan:
    """What a front looks like: metres, storeys, wall and whether it has a shop."""

    width: float
    height: float
    storeys: int
    wall: str
    colour: Colour
    ppm: float
    shop: bool = False
    front: bool = True


@dataclass(frozen=True)
class House:
    """Where a house stands (front left corner, to the right), its size and its roof."""

    frame: Frame
    width: float
    depth: float
    height: float
    roof: str
    """One of ridge (along the street), gable (towards it), hip, flat."""


@dataclass
class Front:
    """A painted front (H, W, 4), and where things stand out from it."""

    picture: U8
    windows: list[Rect] = field(default_factory=list)
    doors: list[Rect] = field(default_factory=list)
    shops: list[Rect] = field(default_factory=list)
    paint: Colour = (90, 90, 90)


def paint_wall(rng: Rng, plan: Plan) -> F32:
    """Paint the bare wall (H, W, 3)."""
    size = (round(plan.width * plan.ppm), round(plan.height * plan.ppm))
    if plan.wall == "brick":
        return paint_brick(rng, size, plan.ppm, plan.colour)
    if plan.wall == "ashlar":
        return paint_ashlar(rng, size, plan.ppm, plan.colour)
    if plan.wall == "rubble":
        return paint_cells(rng, size, 0.2 * plan.ppm, plan.colour, 0.16)
    picture = paint_plaster(rng, size, plan.ppm, plan.colour)
    if plan.wall == "timber":
        _lay_beams(rng, picture, plan)
    return picture


def _lay_beams(rng: Rng, picture: F32, plan: Plan) -> None:
    """Lay a half-timbered frame over plaster."""
    height, width = picture.shape[:2]
    grain = 1 + 0.25 * make_noise(rng, (width, height), 0.05 * plan.ppm, 3)
    wood = tint((84, 58, 40), grain)
    mask = np.zeros((height, width), np.uint8)
    thick = max(int(0.15 * plan.ppm), 2)
    storey = height / plan.storeys
    bays = max(round(plan.width / 1.1), 2)
    for level in range(plan.storeys):
        top, bottom = int(level * storey), int((level + 1) * storey)
        cv2.line(mask, (0, top + thick // 2), (width, top + thick // 2), 255, thick)
        for bay in range(bays + 1):
            x = int(bay * (width - 1) / bays)
            cv2.line(mask, (x, top), (x, bottom), 255, thick)
            if bay < bays and rng.random() < 0.45:
                far = int((bay + 1) * (width - 1) / bays)
                ends = (x, far) if rng.random() < 0.5 else (far, x)
                cv2.line(mask, (ends[0], bottom), (ends[1], top), 255, thick)
    rim = cv2.dilate(mask, np.ones((5, 5), np.uint8)) > mask
    picture[rim] *= np.float32(0.6)
    picture[mask > 0] = wood[mask > 0]


def paint_front(rng: Rng, plan: Plan) -> Front:
    """Paint a front with everything on it."""
    canvas = Canvas(paint_wall(rng, plan), plan.ppm)
    front = Front(np.zeros((1, 1, 4), np.uint8))
    front.paint = PAINTS[rng.integers(len(PAINTS))]
    _weather(rng, canvas)
    storey = plan.height / plan.storeys
    for level in range(plan.storeys):
        bottom = plan.height - level * storey
        if level == 0 and plan.front:
            _paint_ground_floor(rng, canvas, plan, front, bottom)
        else:
            _paint_row(rng, canvas, plan, front, bottom - storey)
    if plan.front and plan.wall != "timber":
        _trim(rng, canvas, plan, storey)
    _stain(rng, canvas, front)
    glow = np.clip(canvas.glow, 0, 255).astype(np.uint8)
    front.picture = to_rgba(canvas.rgb, glow)
    return front


def _weather(rng: Rng, canvas: Canvas) -> None:
    """Darken a wall in patches, at its foot and under its top."""
    height, width = canvas.rgb.shape[:2]
    shade = 1 + 0.13 * make_noise(rng, (width, height), 2.4 * canvas.ppm, 5)
    streaks = make_noise(rng, (width, max(height // 24, 4)), 0.08 * canvas.ppm, 4)
    shade += 0.07 * cv2.resize(streaks, (width, height))
    up = np.arange(height, 0, -1, dtype=np.float32)[:, None] / canvas.ppm
    damp = 0.5 + 0.4 * make_noise(rng, (width, 1), 0.5 * canvas.ppm, 3)
    shade -= 0.32 * np.clip(1 - up / (0.8 + damp), 0, 1)
    shade -= 0.14 * np.clip(1 - (height / canvas.ppm - up) / 0.5, 0, 1)
    canvas.rgb *= np.clip(shade, 0.3, 1.4)[..., None]


def _trim(rng: Rng, canvas: Canvas, plan: Plan, storey: float) -> None:
    """Lay a stone foot, corner stones and bands between the storeys."""
    stone = (188, 178, 160)
    foot: Rect = (0, plan.height - 0.45, plan.width, plan.height)
    canvas.rgb[canvas.cut(foot)] = paint_ashlar(
        rng, canvas.size(foot), canvas.ppm, (142, 134, 122)
    )
    for level in range(1, plan.storeys):
        y = plan.height - level * storey
        canvas.fill((0, y - 0.1, plan.width, y + 0.04), stone)
        canvas.fill((0, y + 0.04, plan.width, y + 0.07), stone, 0.5)
    if rng.random() < 0.6:
        y, wide = 0.0, True
        while y < plan.height - 0.5:
            reach = 0.42 if wide else 0.26
            for x0, x1 in ((0, reach), (plan.width - reach, plan.width)):
                shade = float(rng.normal(1, 0.07))
                canvas.fill((x0, y, x1, y + 0.3), stone, shade)
                canvas.fill((x0, y + 0.28, x1, y + 0.3), stone, 0.55)
            y, wide = y + 0.3, not wide


def _paint_row(rng: Rng, canvas: Canvas, plan: Plan, front: Front, top: float) -> None:
    """Paint one storey's windows, each a little different."""
    spacing = rng.uniform(1.7, 2.3) if plan.front else rng.uniform(2.6, 4.0)
    count = max(int(plan.width / spacing), 1)
    storey = plan.height / plan.storeys
    wide, tall = rng.uniform(0.85, 1.1), min(rng.uniform(1.3, 1.65), storey - 1.0)
    for i in range(count):
        if not plan.front and rng.random() < 0.35:
            continue
        middle = (i + 0.5) * plan.width / count
        y = top + 0.55
        rect = (middle - wide / 2, y, middle + wide / 2, y + tall)
        paint_window(rng, canvas, rect, front.paint)
        front.windows.append(rect)


def _paint_ground_floor(
    rng: Rng, canvas: Canvas, plan: Plan, front: Front, bottom: float
) -> None:
    """Paint a door and either windows or a shop."""
    storey = plan.height / plan.storeys
    door_x = rng.uniform(0.5, 0.9) if rng.random() < 0.5 else plan.width - 1.6
    door: Rect = (door_x, bottom - 2.25, door_x + 1.05, bottom)
    left = (
        (0.35, door_x - 0.45)
        if door_x > plan.width / 2
        else (
            door_x + 1.5,
            plan.width - 0.35,
        )
    )
    if plan.shop and left[1] - left[0] > 1.8:
        shop: Rect = (left[0], bottom - 2.45, left[1], bottom - 0.45)
        paint_shop(rng, canvas, shop, front.paint, storey)
        front.shops.append(shop)
    else:
        count = max(int((left[1] - left[0]) / 1.8), 1)
        for i in range(count):
            middle = left[0] + (i + 0.5) * (left[1] - left[0]) / count
            rect = (middle - 0.5, bottom - 2.3, middle + 0.5, bottom - 0.85)
            paint_window(rng, canvas, rect, front.paint)
            front.windows.append(rect)
            if rng.random() < 0.35:
                hang_poster(rng, canvas, middle + 0.72, bottom - 1.5)
    paint_door(rng, canvas, door, front.paint)
    front.doors.append(door)


def _stain(rng: Rng, canvas: Canvas, front: Front) -> None:
    """Run dirt down from the sills and crack the wall."""
    height, width = canvas.rgb.shape[:2]
    ppm = canvas.ppm
    for x0, _, x1, y1 in front.windows:
        rect: Rect = (x0 - 0.15, y1 + 0.1, x1 + 0.15, y1 + rng.uniform(0.4, 1.1))
        piece = canvas.rgb[canvas.cut(rect)]
        rows, cols = piece.shape[:2]
        if rows < 2 or cols < 2:
            continue
        run = np.clip(make_noise(rng, (cols, 1), 0.07 * ppm, 2), 0, 1)
        fade = np.linspace(1, 0, rows, dtype=np.float32)[:, None]
        piece *= (1 - 0.4 * run * fade)[..., None]
    for _ in range(int(rng.integers(1, 5))):
        steps = rng.normal(0, 0.09 * ppm, (24, 2)) + (0, 0.05 * ppm)
        path = rng.random(2) * (width, height) + np.cumsum(steps, axis=0)
        shade = float(canvas.rgb.mean()) * 0.45
        line = path.astype(np.int32).reshape(-1, 1, 2)
        cv2.polylines(canvas.rgb, [line], False, (shade, shade * 0.95, shade * 0.9), 1)
