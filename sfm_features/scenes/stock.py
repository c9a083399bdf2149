"""The stock of textures that many surfaces share, each taking its own part."""

from __future__ import annotations

import cv2
import numpy as np

from sfm_features.scenes.materials import (
    Colour,
    Rng,
    make_noise,
    paint_ashlar,
    paint_brick,
    paint_grass,
    paint_leaves,
    paint_planks,
    paint_plaster,
    paint_tiles,
    tint,
    to_f32,
    to_rgba,
)
from sfm_features.scenes.mesh import Builder
from sfm_features.scenes.openings import Canvas, paint_window
from sfm_features.scenes.signs import FONTS, SHOPS, WORDS, write
from sfm_features.types import F32, U8


def fill_stock(builder: Builder) -> None:
    """Paint all shared textures into a builder."""
    rng = builder.rng
    _add_walls(builder, rng)
    _add_small(builder, rng)
    _add_green(builder, rng)
    _add_props(builder, rng)


def _put(builder: Builder, name: str, rgb: F32) -> None:
    builder.add_texture(to_rgba(rgb), name=name)


def _speckle(
    rng: Rng, size: tuple[int, int], colour: Colour, coarse: float, fine: float
) -> F32:
    shade = 1 + coarse * make_noise(rng, size, 60, 4)
    return tint(colour, shade + fine * make_noise(rng, size, 6, 3))


def _add_walls(builder: Builder, rng: Rng) -> None:
    colours: list[Colour] = [(170, 84, 60), (142, 88, 70), (104, 100, 102)]
    for k, colour in enumerate(colours):
        _put(builder, f"tiles{k}", paint_tiles(rng, (900, 560), 48, colour))
        wall: Colour = ((206, 190, 160), (186, 150, 120), (176, 120, 92))[k]
        _put(builder, f"gable{k}", paint_plaster(rng, (720, 420), 64, wall))
    _put(builder, "brickwork", paint_brick(rng, (512, 512), 64, (150, 86, 66)))
    _put(builder, "ashlar", paint_ashlar(rng, (512, 512), 64, (184, 174, 154)))
    _put(builder, "gravel", _speckle(rng, (512, 512), (134, 130, 122), 0.15, 0.3))
    _put(builder, "stone", _speckle(rng, (1024, 512), (190, 180, 160), 0.22, 0.12))
    _put(builder, "metal", _speckle(rng, (512, 512), (112, 112, 112), 0.2, 0.1))
    _put(builder, "iron", _speckle(rng, (256, 512), (50, 56, 54), 0.25, 0.2))
    _put(builder, "wood", paint_planks(rng, (640, 512), 64, (128, 92, 62)))
    _put(builder, "ridge", _speckle(rng, (900, 64), (142, 84, 66), 0.2, 0.15))


def _add_small(builder: Builder, rng: Rng) -> None:
    """Paint shutters, awnings, railings and glass."""
    paints: list[Colour] = [(62, 98, 80), (138, 60, 52), (66, 88, 122), (120, 90, 60)]
    for k, paint in enumerate(paints):
        slats = _speckle(rng, (52, 150), paint, 0.12, 0.1)
        for y in range(10, 140, 6):
            slats[y : y + 2, 6:-6] *= 0.55
        cv2.rectangle(slats, (0, 0), (51, 149), [c * 1.15 for c in paint], 4)
        _put(builder, f"shutter{k}", slats)
    for k, colour in enumerate([(176, 52, 44), (48, 96, 84), (206, 150, 60)]):
        cloth = _speckle(rng, (420, 160), (232, 224, 206), 0.12, 0.05)
        for x in range(0, 420, 60):
            cloth[:, x : x + 30] *= to_f32(colour) / 235
        cloth[-12:] *= 0.7
        _put(builder, f"awning{k}", cloth)
    alpha = np.zeros((100, 400), np.uint8)
    alpha[:7] = alpha[-7:] = 255
    for x in range(0, 400, 13):
        alpha[:, x : x + 4] = 255
        if x % 39 == 0:
            cv2.circle(alpha, (x + 8, 50), 11, 255, 4)
    iron = _speckle(rng, (400, 100), (44, 46, 48), 0.2, 0.2)
    builder.add_texture(to_rgba(iron, alpha), cutout=True, name="railing")
    glass = _speckle(rng, (64, 64), (210, 206, 190), 0.1, 0.05)
    glow = np.full((64, 64), 255, np.uint8)
    builder.add_texture(to_rgba(glass, glow), name="glass")


def _add_green(builder: Builder, rng: Rng) -> None:
    greens: list[Colour] = [(98, 128, 58), (112, 132, 62), (84, 118, 66)]
    for k in range(6):
        leaves = paint_leaves(rng, (224, 224), greens[k % 3], 1.1)
        builder.add_texture(leaves, cutout=True, name=f"leaves{k}")
    blooms: list[Colour] = [(206, 60, 70), (230, 130, 160), (236, 190, 80)]
    for k, bloom in enumerate(blooms):
        flowers = paint_leaves(rng, (160, 72), (86, 122, 60), 0.5)
        for _ in range(46):
            x, y = int(rng.integers(8, 152)), int(rng.integers(6, 50))
            own = [float(np.clip(c * rng.normal(1, 0.12), 0, 255)) for c in bloom]
            cv2.circle(flowers, (x, y), int(rng.integers(2, 5)), [*own, 255], -1)
        builder.add_texture(flowers, cutout=True, name=f"flowers{k}")
    _put(builder, "bark", _speckle(rng, (256, 512), (98, 82, 64), 0.3, 0.3))
    _put(builder, "soil", _speckle(rng, (64, 64), (72, 56, 42), 0.3, 0.4))
    _put(builder, "grass", paint_grass(rng, (1024, 1024), 32))


def _add_props(builder: Builder, rng: Rng) -> None:
    carved = paint_ashlar(rng, (640, 300), 64, (186, 176, 156))
    for x in range(14, 640, 30):
        for y in range(14, 300, 60):
            cv2.circle(carved, (x, y), 9, (136, 126, 110), 2)
            cv2.circle(carved, (x + 1, y + 1), 5, (206, 196, 176), 1)
    carved *= (1 + 0.18 * make_noise(rng, (640, 300), 40, 4))[..., None]
    _put(builder, "carved", carved)
    _put(builder, "bronze", _speckle(rng, (256, 256), (92, 116, 96), 0.4, 0.2))
    _put(builder, "water", _speckle(rng, (300, 300), (78, 104, 112), 0.25, 0.1))
    _put(builder, "barrel", paint_planks(rng, (128, 128), 64, (132, 94, 60)))
    _put(builder, "painted", paint_planks(rng, (512, 256), 64, (92, 120, 118)))
    for k in range(4):
        crate = paint_planks(rng, (96, 96), 90, (168, 132, 88))
        cv2.rectangle(crate, (0, 0), (95, 95), (128, 96, 62), 9)
        cv2.line(crate, (8, 88), (88, 8), (140, 106, 70), 9)
        word = WORDS[rng.integers(len(WORDS))]
        write(crate, word, (14, 36, 68, 24), (48, 34, 28), FONTS[k % 6])
        _put(builder, f"crate{k}", crate)
    _put(builder, "fruit", _paint_fruit(rng))
    builder.add_texture(_paint_wheel(rng), cutout=True, name="wheel")
    tyre = _speckle(rng, (72, 72), (38, 38, 40), 0.2, 0.2)
    cv2.circle(tyre, (36, 36), 20, (150, 150, 146), -1)
    cv2.circle(tyre, (36, 36), 9, (80, 80, 80), -1)
    _put(builder, "tyre", tyre)
    _add_vans(builder, rng)
    _add_cloth(builder, rng)


def _paint_fruit(rng: Rng) -> F32:
    """Paint boxes of fruit and vegetables seen from above."""
    picture = paint_planks(rng, (264, 144), 120, (150, 116, 78))
    colours = [(204, 50, 40), (226, 150, 40), (110, 150, 50), (236, 206, 80)]
    for col in range(6):
        for row in range(3):
            colour = colours[rng.integers(4)]
            for _ in range(60):
                x = int(col * 44 + rng.uniform(6, 38))
                y = int(row * 48 + rng.uniform(6, 42))
                own = [float(np.clip(c * rng.normal(1, 0.15), 0, 255)) for c in colour]
                cv2.circle(picture, (x, y), 4, own, -1, cv2.LINE_AA)
    return picture


def _paint_wheel(rng: Rng) -> U8:
    alpha = np.zeros((96, 96), np.uint8)
    cv2.circle(alpha, (48, 48), 43, 255, 8)
    cv2.circle(alpha, (48, 48), 9, 255, -1)
    for turn in np.arange(8) * np.pi / 4:
        end = (int(48 + 42 * np.cos(turn)), int(48 + 42 * np.sin(turn)))
        cv2.line(alpha, (48, 48), end, 255, 5)
    return to_rgba(_speckle(rng, (96, 96), (104, 70, 46), 0.3, 0.2), alpha)


def _add_cloth(builder: Builder, rng: Rng) -> None:
    """Paint flags, and windows for roofs."""
    red, blue = (196.0, 52.0, 46.0), (44.0, 92.0, 140.0)
    colours: list[Colour] = [red, (236, 226, 200), blue, (230, 176, 60)]
    for k, colour in enumerate(colours):
        _put(builder, f"flag{k}", _speckle(rng, (48, 48), colour, 0.12, 0.06))
    for k in range(4):
        canvas = Canvas(paint_planks(rng, (96, 100), 80, (150, 132, 104)), 80)
        paint_window(rng, canvas, (0.2, 0.25, 1.0, 1.12), colours[k])
        glow = np.clip(canvas.glow, 0, 255).astype(np.uint8)
        builder.add_texture(to_rgba(canvas.rgb, glow), name=f"dormer{k}")


def _add_vans(builder: Builder, rng: Rng) -> None:
    paints: list[Colour] = [(62, 108, 128), (190, 176, 136), (140, 52, 48)]
    for k, paint in enumerate(paints):
        body = _speckle(rng, (320, 68), paint, 0.1, 0.04)
        body[44:] *= np.float32(0.75)
        cv2.line(body, (0, 22), (320, 22), (226, 222, 210), 3)
        cv2.rectangle(body, (6, 26), (26, 40), (240, 236, 210), -1)
        cv2.rectangle(body, (292, 26), (314, 40), (220, 90, 60), -1)
        cv2.rectangle(body, (120, 48), (196, 64), (236, 232, 220), -1)
        plate = f"TW {int(rng.integers(100, 999))}"
        write(body, plate, (122, 49, 72, 14), (20, 20, 30), FONTS[1])
        _put(builder, f"van{k}", body)
        cabin = _speckle(rng, (240, 86), paint, 0.1, 0.04)
        for x0, x1 in ((10, 76), (86, 150), (160, 230)):
            cv2.rectangle(cabin, (x0, 10), (x1, 48), (74, 88, 100), -1)
            cv2.line(cabin, (x0 + 4, 44), (x1 - 20, 12), (146, 166, 180), 5)
            cv2.rectangle(cabin, (x0, 10), (x1, 48), (30, 30, 30), 2)
        name = SHOPS[rng.integers(len(SHOPS))]
        write(cabin, name, (20, 54, 200, 26), (244, 236, 210), FONTS[k % 6])
        _put(builder, f"cabin{k}", cabin)
    screen = _speckle(rng, (140, 100), (84, 100, 112), 0.3, 0.05)
    cv2.rectangle(screen, (0, 0), (139, 99), (40, 40, 40), 6)
    _put(builder, "screen", screen)
