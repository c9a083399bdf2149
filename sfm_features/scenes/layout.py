"""Where things stand in the town: what both its builder and its visitors must know."""

from __future__ import annotations

from typing import TypeAlias

Spot: TypeAlias = tuple[float, float]
Place: TypeAlias = tuple[float, float, float]

SQUARE = (15.0, 12.0)
"""Half the size of the square, along x and y, in metres."""
FOUNTAIN = (0.5, 0.8)
LAMPS: tuple[Spot, ...] = (
    *((-9, -8), (9, 8), (-9, 8), (9, -8)),
    *((5, 20), (-6, -20), (5, 34), (-6, -34)),
)
TREES: tuple[Place, ...] = (
    *((-12, 4.5, 6.5), (12, -3.5, 6.0), (-12, -5, 5.4), (1, -9.6, 5.2)),
)
"""x, y and height."""
FAR_TREES: tuple[Place, ...] = (
    *((-29, 26, 9), (29, 27, 8.5), (-27, -27, 9.5), (28, -27, 8), (17, 32, 8)),
    *((-16, 34, 9), (-20, -34, 8), (10, -33, 9), (-29, 10, 7), (-30, -12, 7.5)),
)
BUSHES: tuple[Spot, ...] = (
    *((12.8, 6.5), (-13.5, 9.8), (7.2, -11), (-10.4, -11), (2.0, 11), (8, 11)),
)
BENCHES: tuple[Place, ...] = ((-4.6, 4.0, 40), (5.2, -3.6, 215), (-10.6, 0.2, 90))
"""x, y and degrees."""
CRATES: tuple[Place, ...] = ((11.5, 9.8, 20), (-13.6, -9.0, 75))
CARTS: tuple[Place, ...] = ((-5.5, 8.0, 12), (7.5, 4.4, -60), (6.2, -8.3, 35))
CARS: tuple[Place, ...] = ((-4.0, -10.2, 4), (13.4, 2.4, 86), (-31.0, 3.0, 88))


def list_obstacles() -> list[tuple[float, float, float]]:
    """Return circles (x, y, radius) that a visitor walks around."""
    circles: list[tuple[float, float, float]] = [(*FOUNTAIN, 3.7)]
    circles += [(x, y, 1.1) for x, y in LAMPS]
    circles += [(x, y, 2.0) for x, y, _ in TREES]
    circles += [(x, y, 1.6) for x, y in BUSHES]
    circles += [(x, y, 2.0) for x, y, _ in BENCHES]
    circles += [(x, y, 2.6) for x, y, _ in CRATES]
    circles += [(x, y, 3.0) for x, y, _ in CARTS]
    circles += [(x, y, 3.1) for x, y, _ in CARS]
    return circles
