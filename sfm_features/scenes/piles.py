"""Piles of things of many shapes: boxes, slabs, bottles, balls, stacked and leaning.

Each part stands on the floor or on a flat part below it, or leans on a box, by the way
it is placed: nothing floats, and nothing is sunk into what carries it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sfm_features.scenes.materials import Rng
from sfm_features.scenes.solids import Box, Capsule, Skin
from sfm_features.scenes.wraps import (
    label_box,
    paint_plain,
    pick_common,
    wrap_round,
)
from sfm_features.types import F64

PILE_RADIUS_M = 0.22
"""How far from the axis anything may be."""
_HEIGHT_M = 0.34
_MOST_SPOTS, _MOST_STOREYS = 6, 3
_LEAST_RADIUS_M = 0.025
_LEANING_RADIUS_M = 0.08
"""A spot that something can lean in is at least so wide."""
_PLAIN_SHARE, _COMMON_SHARE = 0.25, 0.25
"""Spots but the first with parts of one colour; parts of what rooms are made of."""
_TRIES = 30

Part = Box | Capsule


@dataclass(frozen=True)
class _Spot:
    """A disc, at a height, that parts are to stand in, and what height is left.

    What stands in a plain one is of one colour.
    """

    x: float
    y: float
    z: float
    radius: float
    room: float
    plain: bool = False

    def at(self, along: F64, up: float) -> F64:
        """Return a point (3,) by an offset (2,) from the middle, and a height."""
        return np.array([self.x + along[0], self.y + along[1], self.z + up])


def build_pile(rng: Rng, floor: float, tag: int) -> list[Part]:
    """Build parts that stand around the origin on a floor at that height."""
    parts: list[Part] = []
    for spot in _choose_spots(rng, floor):
        if spot.radius > _LEANING_RADIUS_M and rng.random() < 0.3:
            parts += _lean(rng, spot, tag)
        else:
            parts += _stack(rng, spot, tag)
    return parts


def measure_pile(parts: Sequence[Part], floor: float) -> tuple[float, float]:
    """Return how far from the axis a pile reaches, and how high above the floor."""
    radius = height = 0.0
    for part in parts:
        low, high = bound_part(part)
        radius = max(radius, float(np.hypot(*np.maximum(-low, high)[:2])))
        height = max(height, float(high[2]) - floor)
    return radius, height


def bound_part(part: Part) -> tuple[F64, F64]:
    """Return the least and the largest x, y and z (3,) of a part."""
    if isinstance(part, Capsule):
        ends = np.stack([part.start, part.end])
        return ends.min(0) - part.radius, ends.max(0) + part.radius
    reach = part.half @ np.abs(part.axes)
    return part.centre - reach, part.centre + reach


def _choose_spots(rng: Rng, floor: float) -> list[_Spot]:
    """Choose discs that do not overlap, the first of them wide and near the axis."""
    radius = float(rng.uniform(0.07, 0.14))
    x, y = rng.uniform(-0.04, 0.04, 2).tolist()
    spots = [_Spot(x, y, floor, radius, _HEIGHT_M)]
    wanted = int(rng.integers(2, _MOST_SPOTS + 1))
    for _ in range(_TRIES):
        if len(spots) >= wanted:
            break
        radius = float(rng.uniform(_LEAST_RADIUS_M, 0.1))
        away, angle = rng.uniform(0, PILE_RADIUS_M - radius), rng.uniform(0, 2 * np.pi)
        x, y = float(away * np.cos(angle)), float(away * np.sin(angle))
        if all(np.hypot(x - s.x, y - s.y) > radius + s.radius for s in spots):
            room, plain = float(rng.uniform(0.05, 0.25)), rng.random() < _PLAIN_SHARE
            spots.append(_Spot(x, y, floor, radius, room, plain))
    return spots


def _stack(rng: Rng, spot: _Spot, tag: int) -> list[Part]:
    """Stand boxes on one another, and perhaps something round on top."""
    parts: list[Part] = []
    for _ in range(int(rng.integers(1, _MOST_STOREYS + 1))):
        if min(spot.radius, spot.room / 2) < _LEAST_RADIUS_M:
            break
        kind = _KINDS[int(rng.integers(len(_KINDS)))]
        part = kind(rng, spot, tag)
        parts.append(part)
        if isinstance(part, Capsule):  # nothing stands on what is round
            break
        top = part.centre[2] + part.half[2]
        inside = float(part.half[:2].min())  # of the widest disc on its top
        radius = inside * float(rng.uniform(0.6, 1))
        shift = rng.uniform(-0.5, 0.5, 2) * (inside - radius)
        room = spot.room - 2 * float(part.half[2])
        x, y = (part.centre[:2] + shift).tolist()
        spot = _Spot(x, y, float(top), radius, room, spot.plain)
    return parts


def _make_box(rng: Rng, spot: _Spot, tag: int) -> Box:
    height = float(rng.uniform(0.6, 2)) * spot.radius
    return _stand_box(rng, spot, tag, height)


def _make_slab(rng: Rng, spot: _Spot, tag: int) -> Box:
    return _stand_box(rng, spot, tag, float(rng.uniform(0.01, 0.03)))


def _stand_box(rng: Rng, spot: _Spot, tag: int, height: float) -> Box:
    angle = float(rng.uniform(0.35, 1.2))  # of the diagonal: how oblong it is
    flat = spot.radius * np.array([np.cos(angle), np.sin(angle)])
    half = np.array([*flat, min(height, spot.room) / 2])
    axes = _axes(float(rng.uniform(0, 2 * np.pi)))
    return Box(spot.at(np.zeros(2), half[2]), axes, half, _dress(rng, spot, half), tag)


def _make_ball(rng: Rng, spot: _Spot, tag: int) -> Capsule:
    radius = float(rng.uniform(0.5, 1)) * min(spot.radius, spot.room / 2)
    middle = spot.at(np.zeros(2), radius)
    return Capsule(middle, middle, radius, _dress_round(rng, spot, radius, 0), tag)


def _make_bottle(rng: Rng, spot: _Spot, tag: int) -> Capsule:
    radius = float(rng.uniform(0.4, 0.8)) * min(spot.radius, spot.room / 3)
    length = float(rng.uniform(1, 5)) * radius
    length = min(length, spot.room - 2 * radius)
    foot = spot.at(np.zeros(2), radius)
    skin = _dress_round(rng, spot, radius, length)
    return Capsule(foot, foot + (0, 0, length), radius, skin, tag)


def _make_roll(rng: Rng, spot: _Spot, tag: int) -> Capsule:
    """Lay a roll down, all of it inside the spot."""
    radius = float(rng.uniform(0.3, 0.6)) * min(spot.radius, spot.room / 2)
    reach = spot.radius - radius
    angle = rng.uniform(0, np.pi)
    along = reach * np.array([np.cos(angle), np.sin(angle)])
    skin = _dress_round(rng, spot, radius, 2 * reach)
    return Capsule(spot.at(-along, radius), spot.at(along, radius), radius, skin, tag)


_KINDS: Sequence[Callable[[Rng, _Spot, int], Part]] = (
    *(_make_box, _make_box, _make_slab),
    *(_make_ball, _make_bottle, _make_roll),
)


def _lean(rng: Rng, spot: _Spot, tag: int) -> list[Part]:
    """Lean a board or a rod on the upper edge of a box."""
    axes = _axes(float(rng.uniform(0, 2 * np.pi)))
    ahead, aside = axes[0, :2], axes[1]
    slope = float(rng.uniform(0.9, 1.2))  # radians between it and the floor
    foot = float(rng.uniform(0.25, 0.55)) * spot.radius  # its distance from the box
    deep, wide = np.array([0.35, 0.55]) * spot.radius
    along = np.array([*(-np.cos(slope) * ahead), np.sin(slope)])
    out = np.array([*(np.sin(slope) * ahead), np.cos(slope)])  # away from the box
    if rng.random() < 0.5:
        height = foot * np.tan(slope)
        half = np.array([0.5 * np.hypot(foot, height), 0.8 * wide, 0.006])
        half[0] *= float(rng.uniform(1.05, 1.4))
        lower = spot.at(foot * ahead, 0)
        centre = lower + half[0] * along + half[2] * out
        leaning: Part = Box(
            centre, np.stack([along, aside, out]), half, _dress(rng, spot, half), tag
        )
    else:
        radius = float(rng.uniform(0.12, 0.3)) * foot
        height = radius + (foot * np.sin(slope) - radius) / np.cos(slope)
        touch = foot * np.cos(slope) + (height - radius) * np.sin(slope)
        length = float(rng.uniform(1.05, 1.4) * touch)
        start = spot.at(foot * ahead, radius)
        skin = _dress_round(rng, spot, radius, length)
        leaning = Capsule(start, start + length * along, radius, skin, tag)
    half = np.array([deep, wide, height / 2])
    box = Box(spot.at(-deep * ahead, half[2]), axes, half, _dress(rng, spot, half), tag)
    return [box, leaning]


def _dress(rng: Rng, spot: _Spot, half: F64) -> Skin:
    return _paint_simply(rng, spot) or label_box(rng, half)


def _dress_round(rng: Rng, spot: _Spot, radius: float, length: float) -> Skin:
    return _paint_simply(rng, spot) or wrap_round(rng, radius, length)


def _paint_simply(rng: Rng, spot: _Spot) -> Skin | None:
    """Paint one colour, or what rooms are made of; None: something of its own."""
    if spot.plain:
        return paint_plain(rng)
    return pick_common(rng, (400, 900)) if rng.random() < _COMMON_SHARE else None


def _axes(radians: float) -> F64:
    """Return the directions (3, 3) of a box turned about the vertical."""
    cos, sin = np.cos(radians), np.sin(radians)
    return np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
