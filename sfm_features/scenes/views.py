"""A visitor's walk through the town: cameras with known poses."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from sfm_features.errors import OptionError
from sfm_features.geometry import look_at
from sfm_features.scenes.layout import FOUNTAIN, SQUARE, list_obstacles
from sfm_features.types import F64, Camera, Pose

STEPS = 30
"""Views of one round; a walk of fewer views is the first part of it."""
DETOURS = sorted(
    itertools.product(np.linspace(-0.4, 0.4, 21), np.linspace(-0.3, 0.3, 11)),
    key=lambda detour: float(np.hypot(*detour)),
)
"""How to go around what is in the way, nearest first: further out, to the side."""

_LEAST_SIDE = 16


@dataclass(frozen=True)
class View:
    """A photograph to take: its name, its camera and where that stands."""

    name: str
    camera: Camera
    cam_from_world: Pose


def town_views(
    count: int, seed: int = 0, size: tuple[int, int] = (1024, 768)
) -> list[View]:
    """Walk once around the square at human height and return `count` views.

    Distance, heading and tilt change all the time, but neighbours always overlap; seeds
    walk other paths with other cameras. With fewer than 30 views the round stays open.
    """
    if count < 1:
        raise OptionError(f"count is {count}; a walk needs at least one view")
    if min(size) < _LEAST_SIDE:
        raise OptionError(
            f"size is {size[0]} x {size[1]}; a photograph needs at least {_LEAST_SIDE} "
            "px on each side"
        )
    rng = np.random.default_rng([seed, 11])
    camera = _make_camera(rng, size)
    waves = rng.uniform(0, 2 * np.pi, 6)
    start = rng.uniform(0, 2 * np.pi)
    views = []
    for i in range(count):
        turn = 2 * np.pi * i / max(count, STEPS)
        centre = _stand(start + turn, turn, waves, rng)
        pose = _look(centre, turn, waves, rng)
        views.append(View(f"view{i:04d}.jpg", camera, pose))
    return views


def _make_camera(rng: np.random.Generator, size: tuple[int, int]) -> Camera:
    """Make a camera whose pictures are visibly bent, with an exact middle."""
    width, height = size
    focal = float(rng.uniform(0.76, 0.84)) * width
    bend = (float(rng.uniform(-0.095, -0.07)), float(rng.uniform(0.006, 0.014)))
    params = (focal, width / 2, height / 2, *bend)
    return Camera("RADIAL", width, height, params)


def _stand(heading: float, turn: float, waves: F64, rng: np.random.Generator) -> F64:
    """Find free ground near the path."""
    swing = (
        0.78 + 0.2 * np.sin(3 * turn + waves[0]) + 0.06 * np.sin(8 * turn + waves[1])
    )
    height = 1.65 + 0.12 * np.sin(5 * turn + waves[2]) + rng.normal(0, 0.03)
    jitter = rng.normal(0, 0.15, 2)
    for further, aside in DETOURS:
        around = np.array([np.cos(heading + aside), np.sin(heading + aside)])
        place = FOUNTAIN + around * (13.0, 10.2) * (swing + further) + jitter
        if is_free(place):
            return np.array([*place, height])
    raise AssertionError("the path is blocked everywhere")


def is_free(place: F64) -> bool:
    """Tell whether a visitor can stand at x, y of the square."""
    if np.any(np.abs(place) > np.array(SQUARE) - 0.8):
        return False
    return all(
        np.hypot(place[0] - x, place[1] - y) > radius
        for x, y, radius in list_obstacles()
    )


def _look(centre: F64, turn: float, waves: F64, rng: np.random.Generator) -> Pose:
    """Look across the square, to the left and right by turns."""
    across = FOUNTAIN - centre[:2]
    swing = 0.42 * np.sin(2 * turn + waves[3]) + 0.16 * np.sin(7 * turn + waves[4])
    cos, sin = np.cos(swing), np.sin(swing)
    ahead = np.array(
        [cos * across[0] - sin * across[1], sin * across[0] + cos * across[1]]
    )
    ahead /= np.linalg.norm(ahead)
    rise = 0.12 + 0.1 * np.sin(4 * turn + waves[5]) + rng.normal(0, 0.01)
    target = centre + np.array([*ahead, rise])
    lean = rng.normal(0, 0.025)
    side = np.array([-ahead[1], ahead[0], 0.0])
    return look_at(centre, target, np.array([0.0, 0.0, 1.0]) + lean * side)
