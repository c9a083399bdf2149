"""Linear regression from keypoints to joints, by the three published protocols."""

from __future__ import annotations

import numpy as np
import pytest

from sfm_features.regression import (
    HUMAN36M_MIRRORED,
    Sample,
    share_correct,
    share_on_background,
    summed_error,
    swapped_error,
)

MIRRORED = ((1, 2), (3, 4))


def make_samples(
    count: int = 400, joints: int = 5, keypoints: int = 8, noise: float = 0.0
) -> tuple[Sample, Sample, np.ndarray]:
    """Joints that are a linear function of keypoints, in two halves."""
    rng = np.random.default_rng(0)
    x = rng.random((count, keypoints, 2))
    linear = rng.normal(size=(keypoints * 2, joints * 2)) / keypoints
    y = (x.reshape(count, -1) @ linear).reshape(count, joints, 2)
    y += noise * rng.normal(size=y.shape)
    half = count // 2
    return Sample(x[:half], y[:half]), Sample(x[half:], y[half:]), linear


def test_a_linear_truth_is_found_and_noise_is_measured() -> None:
    fitted, tested, _ = make_samples()
    assert swapped_error(fitted, tested, MIRRORED) < 1e-9
    fitted, tested, _ = make_samples(4000, noise=0.01)
    # The mean length of a normal vector of the plane.
    expected = 0.01 * np.sqrt(np.pi / 2)
    assert swapped_error(fitted, tested, ()) == pytest.approx(expected, rel=0.03)


def test_sides_may_be_exchanged_in_single_images() -> None:
    fitted, tested, _ = make_samples()
    rng = np.random.default_rng(1)
    order = [0, 2, 1, 4, 3]
    for sample in (fitted, tested):
        chosen = rng.random(len(sample.joints)) < 0.3
        sample.joints[chosen] = sample.joints[chosen][:, order]
    with_sides = swapped_error(fitted, tested, ())
    assert swapped_error(fitted, tested, MIRRORED) < 1e-9 < 0.05 < with_sides


def test_there_is_no_constant_but_for_taichi() -> None:
    fitted, tested, _ = make_samples()
    moved = [Sample(s.keypoints, 100 + 50 * s.joints) for s in (fitted, tested)]
    assert summed_error(*moved) < 1e-6
    # Without a constant, 100 must be made of keypoints that sum up to 8 on average.
    assert swapped_error(*moved, MIRRORED) > 1
    assert share_correct(*moved, limit_px=0.5) < 0.5


def test_taichi_sums_over_coordinates_and_skips_what_is_unknown() -> None:
    fitted, tested, _ = make_samples()
    tested.joints[:, 0, 0] += 2.0
    tested.joints[:, 3, 1] -= 1.0
    assert summed_error(fitted, tested) == pytest.approx(3.0)
    for sample in (fitted, tested):
        sample.joints[::3, 1] = -1.0
    assert summed_error(fitted, tested) == pytest.approx(3.0)


def test_deepfashion_counts_joints_within_six_pixels() -> None:
    fitted, tested, _ = make_samples()
    pixels = [Sample(s.keypoints, 255 * s.joints) for s in (fitted, tested)]
    assert share_correct(*pixels) == 1
    pixels[1].joints[:, 0, 1] += 5.9
    pixels[1].joints[:, 1, 1] += 6.1
    assert share_correct(*pixels) == pytest.approx(0.8)


def test_keypoints_that_never_move_do_not_stop_it() -> None:
    """As many as coincide, or lie still: the fit is not unique, but there is one."""
    fitted, tested, _ = make_samples()
    for sample in (fitted, tested):
        sample.keypoints[:, 1] = sample.keypoints[:, 0]
        sample.keypoints[:, 2] = 0.5
    assert np.isfinite(swapped_error(fitted, tested, MIRRORED))
    assert np.isfinite(summed_error(fitted, tested))


def test_human36m_exchanges_what_autolink_does() -> None:
    """Its table names 28 twice; with it corrected, figures could not be compared."""
    assert len(HUMAN36M_MIRRORED) == 12
    assert (20, 28) in HUMAN36M_MIRRORED and (21, 28) in HUMAN36M_MIRRORED


def test_keypoints_on_the_background_are_counted() -> None:
    mask = np.zeros((2, 10, 20), np.bool_)
    mask[:, 2:5, 10:15] = True
    x, y = np.array([10, 14, 15, 9]) + 0.5, np.array([2, 4, 4, 3]) + 0.5
    keypoints = np.stack([x / 20, y / 10], 1)[None].repeat(2, axis=0)
    assert share_on_background(keypoints, mask) == 0.5
    assert share_on_background(keypoints, mask, slack_px=1) == 0.0
