"""Similarities of positions, some of which are wrong."""

from __future__ import annotations

import numpy as np
import pytest

from sfm_features.geometry import Similarity, rotation_from_quaternion
from sfm_features.similarity import align_robustly, measure, spread

TRUTH = Similarity(
    37.5, rotation_from_quaternion([0.5, -0.1, 0.7, 0.3]), np.array([400.0, -20.0, 8.0])
)


def _scatter(count: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    source = rng.uniform(-1, 1, (count, 3)) * [1, 1, 0.2]
    return source, TRUTH.apply(source) + rng.normal(size=(count, 3)) * noise


def _assert_near(found: Similarity, share: float) -> None:
    assert found.scale == pytest.approx(TRUTH.scale, rel=share)
    assert np.allclose(found.rotation, TRUTH.rotation, atol=share)
    middle = np.zeros((1, 3))
    assert np.abs(found.apply(middle) - TRUTH.apply(middle)).max() < 40 * share


@pytest.mark.parametrize("count", [3, 4, 5, 12, 60, 400])
def test_exact_positions_are_all_used(count: int) -> None:
    source, target = _scatter(count, 0.0, seed=count)
    found, used = align_robustly(source, target)
    assert used.all()
    _assert_near(found, 1e-9)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("count", "wrong"), [(7, 2), (20, 8), (60, 27), (400, 180)])
def test_wrong_positions_are_rejected(count: int, wrong: int, seed: int) -> None:
    noise = 0.3
    source, target = _scatter(count, noise, seed)
    rng = np.random.default_rng(seed + 99)
    far = rng.normal(size=(wrong, 3))
    far *= rng.uniform(30, 3000, (wrong, 1)) / np.linalg.norm(far, axis=1)[:, None]
    target[:wrong] += far
    found, used = align_robustly(source, target)
    assert not used[:wrong].any()
    assert used[wrong:].mean() > 0.95
    assert measure(found, source, TRUTH.apply(source)).max() < 4 * noise
    again, same = align_robustly(source, target)
    assert np.array_equal(used, same) and again.scale == found.scale


def test_wrong_positions_that_agree_do_not_win() -> None:
    """As of a receiver that stood still: twelve photographs at one place."""
    source, target = _scatter(30, 0.2, seed=1)
    target[:12] = TRUTH.apply(np.zeros((1, 3))) + 80
    found, used = align_robustly(source, target)
    assert not used[:12].any() and used[12:].all()
    _assert_near(found, 0.02)


def test_noise_alone_rejects_next_to_nothing() -> None:
    shares = []
    for seed in range(20):
        source, target = _scatter(10, 3.0, seed)
        found, used = align_robustly(source, target)
        shares.append(used.mean())
        _assert_near(found, 0.3)
    assert np.mean(shares) > 0.97
    for seed in range(5):
        assert align_robustly(*_scatter(4, 3.0, seed))[1].all()


def test_spread_is_along_the_axes() -> None:
    line = np.outer(np.arange(5.0), [1, 2, 3])
    wide = spread(line)
    assert wide[0] == pytest.approx(np.sqrt(14 * 2)) and wide[1] < 1e-12
    assert not spread(np.ones((4, 3))).any()
    assert spread(np.array([[0.0, 0, 0], [2, 0, 0]])) == pytest.approx([1, 0, 0])
