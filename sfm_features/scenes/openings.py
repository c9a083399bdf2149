"""What opens in a wall: windows, doors and shops, painted."""

from __future__ import annotations

import cv2
import numpy as np

from sfm_features.scenes.materials import Colour, Rng, make_noise, tint, to_f32
from sfm_features.scenes.signs import paint_poster, paint_sign
from sfm_features.types import F32

Rect = tuple[float, float, float, float]
"""Left, top, right, bottom, in metres from the top left corner of the wall."""


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


def hang_poster(rng: Rng, canvas: Canvas, x: float, y: float) -> None:
    wide = rng.uniform(0.22, 0.3)
    rect: Rect = (x - wide / 2, y - 0.7 * wide, x + wide / 2, y + 0.7 * wide)
    if x + wide / 2 < canvas.rgb.shape[1] / canvas.ppm:
        canvas.rgb[canvas.cut(rect)] = paint_poster(rng, canvas.size(rect))


def paint_door(rng: Rng, canvas: Canvas, rect: Rect, paint: Colour) -> None:
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


def paint_shop(
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
            colour = [float(c) for c in rng.uniform((90, 60, 40), (235, 205, 170))]
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
    dusk = np.linspace(1, 0.55, height, dtype=np.float32)[:, None]
    spots = 1 + 0.3 * make_noise(rng, (width, height), 0.5 * canvas.ppm, 2)
    canvas.glow[canvas.cut(rect)] = rng.uniform(130, 200) * dusk * spots
    panes = max(round((x1 - x0) / 1.2), 1)
    for k in range(1, panes):
        bar = x0 + (x1 - x0) * k / panes
        canvas.fill((bar - 0.03, y0, bar + 0.03, y1), paint, 1.1)
