"""Lettering: shop signs, posters and street names."""

from __future__ import annotations

import cv2
import numpy as np

from sfm_features.scenes.materials import Colour, Rng, make_noise, tint
from sfm_features.types import F32

FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
    cv2.FONT_HERSHEY_COMPLEX_SMALL,
)
SHOPS = (
    "BAKERY",
    "Old Books",
    "CAFE LUNA",
    "Pharmacy",
    "FISH & CO",
    "Clock Maker",
    "WINE CELLAR",
    "Tailor Moss",
    "CHEESE",
    "Flower Hall",
    "HOTEL STAR",
    "Toys 1904",
    "MUSIC",
    "The Blue Pot",
    "TEA ROOM",
    "Hat & Glove",
    "PRINT SHOP",
    "Violin Hall",
)
WORDS = (
    "CIRCUS",
    "Concert",
    "May 12",
    "LOST CAT",
    "Market Day",
    "VOTE",
    "Opera",
    "SALE",
    "Theatre",
    "Lantern Fair",
    "TONIGHT",
    "Chess Club",
)


def write(
    picture: F32, text: str, box: tuple[int, int, int, int], colour: Colour, font: int
) -> None:
    """Write a line as large as fits into a box (x, y, width, height)."""
    x, y, width, height = box
    (wide, tall), base = cv2.getTextSize(text, font, 1.0, 2)
    scale = min(width / wide, height / (tall + base))
    thick = max(int(scale * 2.2), 1)
    left = int(x + (width - wide * scale) / 2)
    foot = int(y + (height + (tall - base * 0.4) * scale) / 2)
    # OpenCV letters bytes only.
    board = np.clip(picture, 0, 255).astype(np.uint8)
    cv2.putText(board, text, (left, foot), font, scale, colour, thick, cv2.LINE_AA)
    picture[:] = board


def paint_sign(
    rng: Rng, size: tuple[int, int], text: str, ground: Colour, ink: Colour
) -> F32:
    """Paint a board (H, W, 3) with a line of text and a rim."""
    width, height = size
    picture = tint(ground, 1 + 0.1 * make_noise(rng, size, max(height / 2, 2), 4))
    rim = max(height // 16, 1)
    cv2.rectangle(picture, (rim, rim), (width - 1 - rim, height - 1 - rim), ink, rim)
    font = FONTS[rng.integers(len(FONTS))]
    pad = height // 7
    write(picture, text, (2 * pad, pad, width - 4 * pad, height - 2 * pad), ink, font)
    return picture


def paint_poster(rng: Rng, size: tuple[int, int]) -> F32:
    """Paint a poster (H, W, 3): shapes, words and wrinkles."""
    width, height = size
    ground = rng.uniform(120, 240, 3)
    picture = np.ones((height, width, 3), np.float32) * ground.astype(np.float32)
    for _ in range(int(rng.integers(3, 8))):
        colour = [float(c) for c in rng.uniform(20, 240, 3)]
        spot = (int(rng.integers(width)), int(rng.integers(height)))
        radius = int(rng.uniform(0.06, 0.3) * width) + 1
        if rng.random() < 0.5:
            cv2.circle(picture, spot, radius, colour, -1, cv2.LINE_AA)
        else:
            end = (spot[0] + radius, spot[1] + int(radius * rng.uniform(0.3, 2)))
            cv2.rectangle(picture, spot, end, colour, -1)
    lines = int(rng.integers(2, 5))
    for i in range(lines):
        ink = [float(c) for c in (ground * 0.15 if rng.random() < 0.7 else ground)]
        box = (width // 12, i * height // lines, width * 5 // 6, height // lines)
        word = WORDS[rng.integers(len(WORDS))]
        write(picture, word, box, (ink[0], ink[1], ink[2]), FONTS[rng.integers(6)])
    picture *= (1 + 0.1 * make_noise(rng, size, max(width / 4, 2), 4))[..., None]
    return picture
