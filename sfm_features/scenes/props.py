"""Small things of a square: fountain, trees, lamps, benches, carts, crates."""

from __future__ import annotations

import numpy as np

from sfm_features.scenes.mesh import ROUND, UP, Builder, Frame, Lamp, add_box
from sfm_features.types import F64


def stand(x: float, y: float, degrees: float = 0.0) -> Frame:
    """Return a frame at a place of the ground, turned."""
    a = np.deg2rad(degrees)
    return Frame(np.array([x, y, 0.0]), np.array([np.cos(a), np.sin(a), 0.0]))


def add_ring(
    builder: Builder,
    centre: F64,
    low: tuple[float, float],
    high: tuple[float, float],
    texture: str,
    sides: int = 10,
    ppm: float = 64.0,
) -> None:
    """Add the side of a round body: (radius, height) at its foot and at its top."""
    angles = np.arange(sides + 1) * 2 * np.pi / sides
    around = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    for a, b in zip(around[:-1], around[1:], strict=True):
        foot_a, foot_b = low[0] * a + low[1] * UP, low[0] * b + low[1] * UP
        top_a, top_b = high[0] * a + high[1] * UP, high[0] * b + high[1] * UP
        wide = max(low[0], high[0], 1e-6)
        taper = 1 - high[0] / wide
        if high[0] <= low[0]:
            edge = foot_b - foot_a
            down = (foot_a + foot_b - top_a - top_b) / 2
            origin = centre + (top_a + top_b) / 2 - edge / 2
            builder.add(origin, edge, down, texture, ppm=ppm, taper=taper)
        else:
            down = (foot_a + foot_b - top_a - top_b) / 2
            builder.add(centre + top_a, top_b - top_a, down, texture, ppm=ppm)


def add_disc(builder: Builder, centre: F64, radius: float, texture: str) -> None:
    """Add a round flat top."""
    corner = centre + np.array([-radius, radius, 0])
    across, down = np.array([2 * radius, 0, 0]), np.array([0, -2 * radius, 0])
    builder.add(corner, across, down, texture, ppm=64, taper=ROUND)


def add_fountain(builder: Builder, x: float, y: float) -> None:
    """Add a fountain with a basin, a column, a bowl and a figure."""
    centre = np.array([x, y, 0.0])
    add_ring(builder, centre, (2.9, 0), (2.9, 0.16), "ashlar", 12)
    add_disc(builder, centre + 0.16 * UP, 2.9, "stone")
    add_ring(builder, centre, (2.3, 0.16), (2.2, 0.75), "carved", 12)
    add_ring(builder, centre, (2.3, 0.75), (2.3, 0.86), "stone", 12)
    add_disc(builder, centre + 0.86 * UP, 2.28, "stone")
    add_disc(builder, centre + 0.87 * UP, 1.95, "water")
    add_ring(builder, centre, (0.5, 0.8), (0.34, 2.1), "carved", 8)
    add_ring(builder, centre, (0.9, 2.1), (1.0, 2.3), "carved", 10)
    add_disc(builder, centre + 2.3 * UP, 1.0, "stone")
    add_ring(builder, centre, (0.34, 2.3), (0.28, 2.9), "ashlar", 8)
    add_ring(builder, centre, (0.3, 2.9), (0.2, 3.7), "bronze", 7)
    add_ring(builder, centre, (0.24, 3.7), (0.34, 4.15), "bronze", 7)
    add_ring(builder, centre, (0.34, 4.15), (0.1, 4.35), "bronze", 7)
    add_ring(builder, centre, (0.16, 4.3), (0.17, 4.5), "bronze", 7)
    add_ring(builder, centre, (0.17, 4.5), (0.0, 4.68), "bronze", 7)
    arm = stand(x, y, 30)
    add_box(builder, arm, (-0.75, -0.06, 4.0), (0.3, 0.06, 4.13), "bronze")
    add_box(builder, arm, (-0.78, -0.06, 4.0), (-0.66, 0.06, 4.7), "bronze")
    builder.keep_out(stand(x, y), (-2.6, -2.6), (2.6, 2.6))


def add_tree(builder: Builder, x: float, y: float, height: float) -> None:
    """Add a tree: trunk, and clumps of leaves on crossed planes."""
    rng = builder.rng
    centre = np.array([x, y, 0.0])
    add_ring(builder, centre, (0.2, 0), (0.13, 0.5 * height), "bark", 7)
    crown, radius = 0.64 * height, 0.34 * height
    for _ in range(15):
        turn = rng.uniform(0, 2 * np.pi)
        lean = rng.uniform(-0.5, 0.5)
        shift = rng.normal(0, 0.36, 3) * radius * (1, 1, 0.9)
        size = radius * rng.uniform(0.7, 1.2)
        across = np.array([np.cos(turn), np.sin(turn), 0.0]) * size * 1.3
        up = np.array([-np.sin(turn) * lean, np.cos(turn) * lean, 1.0])
        up = up / np.linalg.norm(up) * size * 1.15
        middle = centre + crown * UP + shift
        leaves = f"leaves{int(rng.integers(6))}"
        origin = middle - across / 2 + up / 2
        builder.add(origin, across, -up, leaves, two_sided=True)
    builder.keep_out(stand(x, y), (-1.0, -1.0), (1.0, 1.0))


def add_bush(builder: Builder, x: float, y: float, size: float) -> None:
    """Add a bush in a stone tub."""
    rng = builder.rng
    centre = np.array([x, y, 0.0])
    add_ring(builder, centre, (0.42, 0), (0.5, 0.5), "carved", 8)
    add_disc(builder, centre + 0.48 * UP, 0.48, "soil")
    for k in range(5):
        turn = k * np.pi / 5 + rng.uniform(-0.2, 0.2)
        across = np.array([np.cos(turn), np.sin(turn), 0.0]) * size
        origin = centre - across / 2 + (0.4 + size) * UP
        leaves = f"leaves{int(rng.integers(6))}"
        builder.add(origin, across, -size * UP, leaves, two_sided=True)
    builder.keep_out(stand(x, y), (-1.0, -1.0), (1.0, 1.0))


def add_lamp(builder: Builder, x: float, y: float) -> None:
    """Add a lamp post that burns at night."""
    centre = np.array([x, y, 0.0])
    add_ring(builder, centre, (0.2, 0), (0.12, 0.5), "iron", 8)
    add_ring(builder, centre, (0.075, 0.5), (0.05, 3.3), "iron", 6)
    frame = stand(x, y)
    add_box(builder, frame, (-0.3, -0.03, 3.0), (0.3, 0.03, 3.06), "iron")
    add_ring(builder, centre, (0.12, 3.3), (0.2, 3.75), "glass", 6)
    add_ring(builder, centre, (0.26, 3.75), (0.0, 4.0), "iron", 6)
    builder.lamps.append(Lamp((x, y, 3.55), (1.0, 0.74, 0.44), 9.0))
    builder.keep_out(frame, (-0.7, -0.7), (0.7, 0.7))


def add_bench(builder: Builder, x: float, y: float, degrees: float) -> None:
    """Add a bench of planks."""
    f = stand(x, y, degrees)
    for y0 in (0.0, 0.16, 0.32):
        low, high = (-0.85, -y0 - 0.13, 0.42), (0.85, -y0, 0.47)
        add_box(builder, f, low, high, "wood", faces="frltbu")
    for z in (0.6, 0.78):
        add_box(builder, f, (-0.85, -0.5, z), (0.85, -0.46, z + 0.13), "wood")
    for side in (-0.75, 0.65):
        add_box(builder, f, (side, -0.5, 0), (side + 0.1, 0.0, 0.42), "iron")
        add_box(builder, f, (side, -0.55, 0.42), (side + 0.1, -0.5, 0.9), "iron")
    builder.keep_out(f, (-1.4, -1.2), (1.4, 0.8))


def add_crates(builder: Builder, x: float, y: float, degrees: float) -> None:
    """Add a heap of crates and a barrel."""
    rng = builder.rng
    f = stand(x, y, degrees)
    spots = ((0, 0, 0), (0.75, 0.1, 0), (0.3, 0.05, 0.62), (-0.1, 0.8, 0))
    for k, (cx, cy, cz) in enumerate(spots):
        size = 0.6 if k < 3 else 0.5
        turned = f.turned(f.at(cx, cy, cz), float(rng.uniform(-12, 12)))
        crate = f"crate{int(rng.integers(4))}"
        sides = {"f": crate, "rlb": f"crate{int(rng.integers(4))}", "t": crate}
        for faces, paint in sides.items():
            low, high = (-size / 2, -size / 2, 0.0), (size / 2, size / 2, size)
            add_box(builder, turned, low, high, paint, ppm=0, faces=faces)
    centre = f.at(1.3, 0.6, 0)
    add_ring(builder, centre, (0.3, 0), (0.36, 0.4), "barrel", 10)
    add_ring(builder, centre, (0.36, 0.4), (0.3, 0.85), "barrel", 10)
    add_disc(builder, centre + 0.85 * UP, 0.3, "wood")
    builder.keep_out(f, (-1.2, -1.2), (2.3, 1.9))


def add_cart(builder: Builder, x: float, y: float, degrees: float, cloth: str) -> None:
    """Add a market stall on wheels with a striped roof and fruit."""
    f = stand(x, y, degrees)
    add_box(builder, f, (-1.1, -0.6, 0.5), (1.1, 0.6, 0.95), "painted")
    deck = f.at(-1.1, -0.6, 0.96)
    builder.add(deck, 2.2 * f.right, 1.2 * f.out, "fruit")
    for px in (-1.05, 0.98):
        for py in (-0.57, 0.5):
            add_box(builder, f, (px, py, 0.95), (px + 0.07, py + 0.07, 2.2), "wood")
    for way in (1.0, -1.0):
        slope = 0.85 * way * f.out - 0.35 * UP
        ridge = f.at(-1.3 * way, 0, 2.5)
        builder.add(ridge, 2.6 * way * f.right, slope, cloth, two_sided=True)
    for px in (-0.75, 0.75):
        for py in (-0.66, 0.66):
            corner = f.at(px - 0.42, py, 0.84)
            builder.add(corner, 0.84 * f.right, -0.84 * UP, "wheel", two_sided=True)
    builder.keep_out(f, (-2.0, -1.7), (2.0, 1.7))


def add_car(builder: Builder, x: float, y: float, degrees: float, kind: int) -> None:
    """Add a small old van of boxes."""
    f = stand(x, y, degrees)
    paint = f"van{kind}"
    add_box(builder, f, (-1.6, -0.75, 0.32), (1.6, 0.75, 1.0), paint, ppm=0)
    add_box(builder, f, (-1.6, -0.7, 1.0), (0.75, 0.7, 1.85), f"cabin{kind}", ppm=0)
    screen = f.at(0.75, 0.7, 1.85)
    builder.add(screen, -1.4 * f.out, 0.55 * f.right - 0.85 * UP, "screen")
    for px in (-1.0, 1.0):
        for py, way in ((0.77, 1.0), (-0.77, -1.0)):
            corner = f.at(px - 0.36 * way, py, 0.72)
            builder.add(corner, 0.72 * way * f.right, -0.72 * UP, "tyre", taper=ROUND)
    builder.keep_out(f, (-2.4, -1.6), (2.4, 1.6))


def add_bunting(
    builder: Builder, start: tuple[float, float], end: tuple[float, float]
) -> None:
    """Hang a string of little flags between two lamp posts."""
    a, b = np.array([*start, 3.95]), np.array([*end, 3.95])
    count = int(np.linalg.norm(b - a) / 0.42)
    share = np.linspace(0, 1, count + 1)[:, None]
    points = a + share * (b - a) - 4 * 0.7 * share * (1 - share) * UP
    for k, (p, q) in enumerate(zip(points[:-1], points[1:], strict=True)):
        builder.add(p, q - p, -0.02 * UP, "wood", ppm=64, two_sided=True)
        across, tall = 0.75 * (q - p), 0.36
        tip = p + 0.125 * (q - p) - tall * UP
        builder.add(tip, across, tall * UP, f"flag{k % 4}", taper=1.0, two_sided=True)
