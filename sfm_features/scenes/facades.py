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
    to_f32,
    to_rgba,
)
from sfm_features.scenes.signs import paint_poster, paint_sign
from sfm_features.types import F32, U8

Rect = tuple[float, float, float, float]
"""Left, top, right, bottom, in metres from the top left corner of the wall."""

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


@dataclass
class Front:
    """A painted front (H, W, 4), and where things stand out from it."""

    picture: U8
    windows: list[Rect] = field(default_factory=list)
    doors: list[Rect] = field(default_factory=list)
    shops: list[Rect] = field(default_factory=list)
    paint: Colour = (90, 90, 90)


class Canvas:
    """A wall in work: colours (H, W, 3) f32 and glow (H, W), addressed in metres."""

    def __init__(self, rgb: F32, ppm: float) -> None:
        self.rgb = np.ascontiguousarray(rgb)
        self.glow = np.zeros(rgb.shape[:2], np.float32)
        self.ppm = ppm

    def cut(self, rect: Rect) -> tuple[slice, slice]:
        """Return rows and columns of a rectangle."""
        x0, y0, x1, y1 = (max(round(a * self.ppm), 0) for a in rect)
        return slice(y0, y1), slice(x0, x1)

    def fill(self, rect: Rect, colour: Colour, shade: float = 1.0) -> None:
        """Fill a rectangle with a colour."""
        self.rgb[self.cut(rect)] = to_f32(colour) * shade

    def size(self, rect: Rect) -> tuple[int, int]:
        """Return width and height in pixels of what a rectangle covers."""
        piece = self.rgb[self.cut(rect)]
        return piece.shape[1], piece.shape[0]

    def frame(self, rect: Rect, colour: Colour, width: float) -> None:
        """Draw a raised border inside a rectangle: light above, dark below."""
        x0, y0, x1, y1 = rect
        self.fill((x0, y0, x1, y0 + width), colour, 1.08)
        self.fill((x0, y1 - width, x1, y1), colour, 0.82)
        self.fill((x0, y0, x0 + width, y1), colour, 0.95)
        self.fill((x1 - width, y0, x1, y1), colour, 0.88)


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


def paint_window(rng: Rng, canvas: Canvas, rect: Rect, paint: Colour) -> None:
    """Paint one window: stone surround, frame, panes with what is behind and before."""
    x0, y0, x1, y1 = rect
    stone: Colour = (198, 188, 170)
    canvas.fill((x0 - 0.13, y0 - 0.18, x1 + 0.13, y1 + 0.08), stone, 0.55)
    canvas.frame((x0 - 0.12, y0 - 0.17, x1 + 0.12, y1 + 0.07), stone, 0.12)
    _paint_panes(rng, canvas, rect)
    light: Colour = (232, 228, 216) if rng.random() < 0.7 else paint
    canvas.frame(rect, light, 0.06)
    middle = (x0 + x1) / 2
    canvas.fill((middle - 0.03, y0, middle + 0.03, y1), light, 0.92)
    for k in range(1, int(rng.integers(2, 4))):
        y = y0 + (y1 - y0) * k / 3
        canvas.fill((x0, y - 0.02, x1, y + 0.02), light, 0.9)
    canvas.rgb[canvas.cut((x0 + 0.06, y0 + 0.06, x1 - 0.06, y0 + 0.13))] *= 0.55
    canvas.glow[canvas.cut((middle - 0.03, y0, middle + 0.03, y1))] = 0


def _paint_panes(rng: Rng, canvas: Canvas, rect: Rect) -> None:
    """Paint what a window shows: a dark room, the sky in the glass, curtains."""
    width, height = canvas.size(rect)
    x = np.linspace(0, 1, width, dtype=np.float32)
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    room = make_noise(rng, (width, height), max(width / 3, 2), 4)
    picture = tint((46, 52, 60), 1 + 0.5 * room)
    skyline = 0.45 + 0.2 * make_noise(rng, (width, 1), max(width / 4, 2), 3)
    mirror = np.clip((skyline - y) * 14, 0, 1) * rng.uniform(0.15, 0.6)
    picture += mirror[..., None] * (to_f32((150, 176, 204)) - picture)
    glow = 150 * np.clip(0.75 + 0.4 * room, 0.2, 1.3)
    if rng.random() < 0.75:
        cloth = ((224, 216, 200), (190, 120, 104), (128, 148, 130), (210, 186, 130))
        colour = cloth[rng.integers(4)]
        folds = 0.85 + 0.15 * np.sin(x * rng.uniform(40, 80) + 3 * y)
        left, right = rng.uniform(0.12, 0.5, 2)
        drawn = (x < left + 0.1 * y) | (x > 1 - right + 0.06 * np.sin(3 * y))
        picture = np.where(drawn[..., None], tint(colour, folds), picture)
        glow = np.where(drawn, 120 * folds, glow)
    if rng.random() < 0.5:
        _set_on_sill(rng, picture)
    lit = rng.random() < 0.45
    rows, cols = canvas.cut(rect)
    canvas.rgb[rows, cols] = picture
    canvas.glow[rows, cols] = glow * rng.uniform(0.7, 1.5) if lit else 4


def _set_on_sill(rng: Rng, picture: F32) -> None:
    """Put a pot, a vase or books behind the glass."""
    height, width = picture.shape[:2]
    for _ in range(int(rng.integers(1, 4))):
        x = int(rng.uniform(0.15, 0.85) * width)
        colour = [float(c) for c in rng.uniform(60, 220, 3)]
        tall = int(rng.uniform(0.08, 0.2) * height)
        cv2.rectangle(picture, (x - tall // 3, height - tall), (x, height), colour, -1)
        if rng.random() < 0.6:
            leaf = (50.0, float(rng.uniform(90, 140)), 50.0)
            cv2.circle(picture, (x - tall // 6, height - tall), tall // 2, leaf, -1)


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
        _paint_shop(rng, canvas, shop, front.paint, storey)
        front.shops.append(shop)
    else:
        count = max(int((left[1] - left[0]) / 1.8), 1)
        for i in range(count):
            middle = left[0] + (i + 0.5) * (left[1] - left[0]) / count
            rect = (middle - 0.5, bottom - 2.3, middle + 0.5, bottom - 0.85)
            paint_window(rng, canvas, rect, front.paint)
            front.windows.append(rect)
            if rng.random() < 0.35:
                _hang_poster(rng, canvas, middle + 0.72, bottom - 1.5)
    _paint_door(rng, canvas, door, front.paint)
    front.doors.append(door)


def _hang_poster(rng: Rng, canvas: Canvas, x: float, y: float) -> None:
    wide = rng.uniform(0.22, 0.3)
    rect: Rect = (x - wide / 2, y - 0.7 * wide, x + wide / 2, y + 0.7 * wide)
    if x + wide / 2 < canvas.rgb.shape[1] / canvas.ppm:
        canvas.rgb[canvas.cut(rect)] = paint_poster(rng, canvas.size(rect))


def _paint_door(rng: Rng, canvas: Canvas, rect: Rect, paint: Colour) -> None:
    """Paint a panelled door with a fan light, a handle and a number."""
    x0, y0, x1, y1 = rect
    stone: Colour = (190, 180, 162)
    canvas.frame((x0 - 0.18, y0 - 0.2, x1 + 0.18, y1 + 0.18), stone, 0.18)
    width, height = canvas.size(rect)
    grain = 1 + 0.1 * make_noise(rng, (width, height), 0.1 * canvas.ppm, 4)
    canvas.rgb[canvas.cut(rect)] = tint(paint, grain)
    fan: Rect = (x0 + 0.08, y0 + 0.06, x1 - 0.08, y0 + 0.36)
    canvas.fill(fan, (70, 80, 92))
    canvas.glow[canvas.cut(fan)] = rng.choice([0, 170])
    for row in range(3):
        for col in range(2):
            px = x0 + 0.1 + col * 0.45
            py = y0 + 0.45 + row * 0.58
            canvas.fill((px, py, px + 0.38, py + 0.5), paint, 0.6)
            canvas.fill((px + 0.03, py + 0.04, px + 0.38, py + 0.5), paint, 1.12)
    canvas.fill((x1 - 0.12, y0 + 1.15, x1 - 0.06, y0 + 1.32), (214, 184, 96))
    plate: Rect = (x1 + 0.22, y0 + 0.5, x1 + 0.44, y0 + 0.66)
    if plate[2] * canvas.ppm < canvas.rgb.shape[1]:
        number = str(int(rng.integers(1, 99)))
        canvas.rgb[canvas.cut(plate)] = paint_sign(
            rng, canvas.size(plate), number, (30, 54, 120), (240, 240, 236)
        )


def _paint_shop(
    rng: Rng, canvas: Canvas, rect: Rect, paint: Colour, storey: float
) -> None:
    """Paint a shop window full of goods, with its name above."""
    x0, y0, x1, y1 = rect
    canvas.fill((x0 - 0.12, y0 - 0.12, x1 + 0.12, y1 + 0.45), paint)
    canvas.frame((x0 - 0.12, y0 - 0.12, x1 + 0.12, y1 + 0.45), paint, 0.06)
    width, height = canvas.size(rect)
    goods = tint((64, 58, 52), 1 + 0.4 * make_noise(rng, (width, height), 40, 4))
    for shelf in range(3):
        y = int((shelf + 1) * height / 3) - 1
        x = 0
        while x < width - 4:
            wide = int(rng.uniform(0.06, 0.26) * canvas.ppm)
            tall = int(rng.uniform(0.3, 0.85) * height / 3)
            colour = [float(c) for c in rng.uniform(40, 235, 3)]
            if rng.random() < 0.5:
                cv2.rectangle(goods, (x, y - tall), (x + wide, y), colour, -1)
                inner = [c * 0.6 for c in colour]
                spot = (x + wide // 3, y - tall // 2)
                cv2.rectangle(goods, spot, (x + wide // 2, y - tall // 4), inner, -1)
            else:
                cv2.circle(goods, (x + wide // 2, y - wide // 2), wide // 2, colour, -1)
            x += wide + int(rng.uniform(0.01, 0.1) * canvas.ppm)
        cv2.line(goods, (0, y), (width, y), (120, 100, 80), 2)
    sheen = np.linspace(0.25, 0, height, dtype=np.float32)[:, None, None]
    canvas.rgb[canvas.cut(rect)] = goods + sheen * (190 - goods)
    canvas.glow[canvas.cut(rect)] = rng.uniform(110, 210)
    panes = max(round((x1 - x0) / 1.2), 1)
    for k in range(1, panes):
        bar = x0 + (x1 - x0) * k / panes
        canvas.fill((bar - 0.03, y0, bar + 0.03, y1), paint, 1.1)


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
