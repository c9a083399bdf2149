"""Near things in front of a photo, which move otherwise than what is behind them.

A homography relates all of two crops of one photo, so that everything around a point
helps to recognise it. In the world, what is around a point changes with the view. Here
pieces of other photos hang in front, each with a motion of its own that is known
exactly: parallax and occlusion without any scan of the world.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfm_features.geometry import warp_points
from sfm_features.training.crops import Surface
from sfm_features.training.photos import Photo
from sfm_features.training.warps import WarpRanges, sample_homography, shift
from sfm_features.types import F64

_LEAST_CORNERS, _MOST_CORNERS = 3, 9
_THINNEST = 0.2
"""Least share of its length that a piece is wide."""
_LEAST_DEPTH = 0.1


@dataclass(frozen=True)
class LayerRanges:
    """How many pieces hang in front, and how far they move."""

    share: float = 0.4
    """Share of pairs of crops of one photo that get any."""
    most: int = 3
    """Most pieces in a crop."""
    reach: tuple[float, float] = (0.12, 0.45)
    """Least and largest radius of a piece, as a share of the crop's side."""
    parallax_sigma: float = 0.1
    """Spread of the motion relative to what is behind, in the same unit."""
    first: WarpRanges = WarpRanges((0.6, 1.4))
    """How a piece lies in the first crop."""
    second: WarpRanges = WarpRanges((0.85, 1.18), 8.0, 0.0, 0.1, 0.1)
    """How it differs in the second from what moves with what is behind."""


def sample_layer(
    rng: np.random.Generator,
    number: int,
    photo: Photo,
    b_from_a: F64,
    size_px: int,
    ranges: LayerRanges,
) -> tuple[Surface, Surface] | None:
    """Return a piece of a photo as both crops show it; None if its motion is absurd."""
    middle = np.full(2, (size_px - 1) / 2)
    centre = rng.uniform(0.2, 0.8, 2) * photo.size
    place = rng.uniform(0, size_px - 1, 2)
    lying = sample_homography(rng, centre, size_px, ranges.first)
    a = shift(place - middle) @ lying
    elsewhere = warp_points(b_from_a, place[None])[0]
    elsewhere = elsewhere + rng.normal(0, ranges.parallax_sigma, 2) * size_px
    change = sample_homography(rng, middle, size_px, ranges.second)
    moved = _linearise(b_from_a, place)
    b = shift(elsewhere - middle) @ change @ shift(middle) @ moved
    b = b @ shift(-middle) @ lying
    scale = np.sqrt(abs(np.linalg.det(_linearise(a, centre)[:2, :2])))
    reach = rng.uniform(*ranges.reach) * size_px / scale
    outline = _sample_outline(rng, reach) + centre
    outline = outline.clip(0, np.array(photo.size) - 1)
    if not (_is_in_front(a, outline) and _is_in_front(b, outline)):
        return None
    return Surface(number, a, outline), Surface(number, b, outline)


def _sample_outline(rng: np.random.Generator, reach: float) -> F64:
    """Return the corners (N, 2) of a ragged shape around the origin."""
    count = rng.integers(_LEAST_CORNERS, _MOST_CORNERS, endpoint=True)
    around = np.sort(rng.uniform(0, 2 * np.pi, count))
    radius = reach * rng.uniform(0.4, 1, count)
    corners = radius[:, None] * np.stack([np.cos(around), np.sin(around)], 1)
    corners[:, 0] *= rng.uniform(_THINNEST, 1)
    turn = rng.uniform(0, 2 * np.pi)
    cosine, sine = np.cos(turn), np.sin(turn)
    turned: F64 = corners @ np.array([[cosine, sine], [-sine, cosine]])
    return turned


def _linearise(warp: F64, place: F64) -> F64:
    """Return what a homography does to steps away from a place, as (3, 3)."""
    x = warp @ np.array([*place, 1.0])
    affine = np.eye(3)
    affine[:2, :2] = (warp[:2, :2] - np.outer(x[:2] / x[2], warp[2, :2])) / x[2]
    return affine


def _is_in_front(warp: F64, xy: F64) -> bool:
    """Tell whether a homography keeps all points (N, 2) off its horizon."""
    depth = xy @ warp[2, :2] + warp[2, 2]
    return bool((depth > _LEAST_DEPTH * depth.max()).all() and depth.max() > 0)
