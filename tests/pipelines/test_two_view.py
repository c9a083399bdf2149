"""Poses from exact matches, by every way to them; how errors are summed up."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from pipelines.protocols.two_view import (
    ESTIMATORS,
    PoseTask,
    make_pinhole,
    mean_accuracy,
    measure_task,
    relate,
)
from sfm_features.geometry import compose, invert, look_at, project
from sfm_features.types import Camera

K = np.array([[500.0, 0, 310], [0, 520, 250], [0, 0, 1]])


def _make_task() -> tuple[PoseTask, np.ndarray, np.ndarray]:
    """Two unlike cameras look at a cloud of points; a quarter of matches is wrong."""
    rng = np.random.default_rng(3)
    target = np.array([40.0, -7, 3])
    a = look_at(np.array([31.0, -9, 2]), target)
    b = look_at(np.array([33.0, -3, 5]), target + [0, 1, 0])
    other = Camera("PINHOLE", 800, 600, (700, 690, 410, 290))
    cameras = make_pinhole(K, (640, 480)), other
    points = target + rng.uniform(-2.5, 2.5, (400, 3))
    xy_a, xy_b = (
        project(camera, points @ pose.rotation.T + pose.translation)
        for camera, pose in zip(cameras, (a, b), strict=True)
    )
    xy_b[::4] = rng.uniform(0, 500, xy_b[::4].shape)
    task = PoseTask(("a", "b"), cameras, relate(a, b))
    return task, xy_a.astype(np.float32), xy_b.astype(np.float32)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_exact_matches_lead_to_the_pose(estimator: str) -> None:
    task, xy_a, xy_b = _make_task()
    found = measure_task(task, xy_a, xy_b, estimator, 0.5, seed=0)
    assert found == measure_task(task, xy_a, xy_b, estimator, 0.5, seed=0)
    # Single precision is what the pixels have: a hundredth of a degree is plenty.
    assert max(found.values()) < 0.05
    # Half a pixel in the convention, or the pose turned around, would show.
    shifted = measure_task(task, xy_a + 0.5, xy_b - 0.5, estimator, 0.5, seed=0)
    assert max(shifted.values()) > 2 * max(found.values())
    back = PoseTask(task.names, task.cameras, invert(task.b_from_a))
    assert max(measure_task(back, xy_a, xy_b, estimator, 0.5, seed=0).values()) > 5
    none = measure_task(task, xy_a[:4], xy_b[:4], estimator, 0.5, seed=0)
    assert set(none.values()) == {inf}


def test_relations_compose() -> None:
    rng = np.random.default_rng(0)
    a, b = (look_at(rng.normal(size=3), rng.normal(size=3) + 5) for _ in range(2))
    again = compose(relate(a, b), a)
    np.testing.assert_allclose(again.rotation, b.rotation, atol=1e-12)
    np.testing.assert_allclose(again.translation, b.translation, atol=1e-12)


def test_mean_accuracy_counts_by_degrees() -> None:
    errors = [0.5, 1.0, 2.0, inf]
    assert mean_accuracy(errors) == pytest.approx((0.25 + 0.5 + 8 * 0.75) / 10)
    assert mean_accuracy(errors, 5) == pytest.approx((0.25 + 0.5 + 3 * 0.75) / 5)
    assert mean_accuracy([10.0]) == pytest.approx(0.1)  # the last bin is closed
    assert mean_accuracy([180.0]) == 0
