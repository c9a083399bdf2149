"""Poses of wrong matches are told from those of right ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sfm_features import chance
from sfm_features.chance import expect_by_chance
from sfm_features.colmap import estimate_absolute_pose, project_points
from sfm_features.geometry import look_at
from sfm_features.types import Camera

CAMERA = Camera("PINHOLE", 1024, 768, (820.0, 820.0, 512.0, 384.0))
POSE = look_at(np.array([4.0, -3.0, 2.0]), np.array([0.1, 0.2, 0.3]))


def _weigh(seed: int, right: int, breadth: float = 1.0, count: int = 600) -> float:
    """Weigh the best pose for matches; keypoints may lie close to each other."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (count, 3))
    size = np.array([CAMERA.width, CAMERA.height])
    xy = (size / 2 + breadth * size * rng.uniform(-0.5, 0.5, (count, 2))).astype(
        np.float32
    )
    xy[:right] = project_points(points[:right], POSE, CAMERA)
    found = estimate_absolute_pose(xy, points, CAMERA, 8.0)
    assert found is not None
    seen = project_points(points, found.cam_from_world, found.camera)
    return expect_by_chance(seen, xy, 8.0, float(size.prod()), 3)


@pytest.mark.parametrize("breadth", [1.0, 0.2, 0.05])
def test_the_best_of_wrong_poses_is_expected(breadth: float) -> None:
    """Whether keypoints are everywhere or all at one place, where any of them fits."""
    assert min(_weigh(seed, 0, breadth) for seed in range(8)) > 0


def test_the_number_of_expected_poses_is_that_of_the_formula() -> None:
    """(N - m) C(N, k) C(k, m) p ^ (k - m), p of the area if no shuffled match fits."""
    x, y = np.meshgrid(np.arange(10), np.arange(10))
    xy = 100 * np.stack([x.ravel(), y.ravel()], 1).astype(np.float32)
    seen = xy.astype(np.float64)
    seen[30:] = np.nan
    share = math.pi * 8.0**2 / 1e5
    for needed in (3, 4):
        ways = (100 - needed) * math.comb(100, 30) * math.comb(30, needed)
        expected = math.log10(ways) + (30 - needed) * math.log10(share)
        found = expect_by_chance(seen, xy, 8.0, 1e5, needed)
        assert found == pytest.approx(expected, abs=1e-6)


def test_a_right_pose_is_not() -> None:
    assert _weigh(0, 30) < -10 > _weigh(0, 60) + 10


@pytest.mark.parametrize("count", [8, 12, 30, 64])
def test_a_few_matches_suffice_if_all_are_right(count: int) -> None:
    """Shuffling so few must not leave any as it was, which would count as chance."""
    assert _weigh(0, count, count=count) < -5
    assert min(_weigh(seed, 0, count=count) for seed in range(8)) > 0


def test_a_shuffled_match_is_no_match() -> None:
    for count in (2, 8, 64, 65, 300):
        xy = np.stack([100.0 * np.arange(count), np.zeros(count)], 1)
        share = chance._share_by_chance(xy, xy.astype(np.float32), 8.0, 1e9)
        assert share <= 1 / count


@pytest.mark.parametrize("count", [20, 40, 64])
def test_few_matches_are_shuffled_too(count: int) -> None:
    """None is left where it is, which would make chance of what fits."""
    assert _weigh(0, 10, count=count) < -4
    assert _weigh(0, count, count=count) < _weigh(0, 10, count=count) - 10
    assert min(_weigh(seed, 0, count=count) for seed in range(8)) > 0


def test_what_fits_at_one_spot_counts_once() -> None:
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 768, (300, 2)).astype(np.float32)
    seen = rng.uniform(0, 768, (300, 2))
    seen[:40] = xy[:40] = xy[0] + rng.uniform(0, 1, (40, 2)).astype(np.float32)
    assert expect_by_chance(seen, xy, 8.0, 1024 * 768.0, 3) > 0
    assert expect_by_chance(seen * np.nan, xy, 8.0, 1024 * 768.0, 3) == np.inf
